"""Models of RGB images beside models of grey ones: the server, its client and the check take C from the signature."""

from __future__ import annotations

import json

import numpy as np
import pytest
import testing_server
from testing_served import CANVAS, NUM_STEPS, random_images, write_version

from asr_tf.export import artifact, check_artifact
from asr_tf.serving.client import Client, ServingError

RGB = (*CANVAS, 3)


@pytest.fixture(scope="module")
def export_dir(tmp_path_factory):
    """Version 1 takes grey images, and version 2 RGB ones."""
    folder = tmp_path_factory.mktemp("export")
    write_version(folder, 1)
    write_version(folder, 2, channels=3)
    return folder


@pytest.fixture(scope="module")
def server(export_dir):
    with testing_server.serving(export_dir, num_versions=2) as running:
        yield running


@pytest.fixture(scope="module")
def direct(server):
    """The version of RGB images, called without HTTP and batches."""
    with server.predictor.repository.lease(2, "") as version:
        return version.signatures


def close(answer, outputs):
    assert set(answer) == set(outputs)
    for name, array in outputs.items():
        np.testing.assert_allclose(np.asarray(answer[name], array.dtype), array, atol=1e-5)


def bodies(images):
    """One request in each form that the server reads."""
    values = images.tolist()
    return [
        {"inputs": values},
        {"inputs": {"images": values}},
        {"instances": values},
        {"instances": [{"images": image} for image in values]},
    ]


def test_rgb_images_by_row_and_by_column(server, direct):
    images = random_images(3, channels=3)
    outputs = direct["infer"]({"images": images})
    assert outputs["reconstruction"].shape == (3, *RGB)
    for body in bodies(images):
        status, answer = server.predict(body)
        assert status == 200, answer
        if "inputs" in body:
            close(answer["outputs"], outputs)
        else:
            close({name: [row[name] for row in answer["predictions"]] for name in outputs}, outputs)


@pytest.mark.parametrize(("version", "wanted", "given"), [(1, 1, 3), (2, 3, 1), (2, 3, 4)])
def test_images_with_other_channels_are_refused(server, version, wanted, given):
    path = f"/v1/models/asr/versions/{version}:predict"
    for body in bodies(random_images(2, channels=given)):
        message = f"images must have shape [?, 6, 8, {wanted}], got [2, 6, 8, {given}]"
        assert server.predict(body, path) == (400, {"error": message})
    without_channels = random_images(2)[..., 0]
    message = f"images must have shape [?, 6, 8, {wanted}], got [2, 6, 8]"
    assert server.predict({"instances": without_channels.tolist()}, path) == (400, {"error": message})


def binary(images, shape=None):
    """Body and headers of a request of the open inference protocol, with the pixels behind the JSON."""
    data = images.astype("<f4").tobytes()
    tensor = {"name": "images", "shape": list(shape or images.shape), "datatype": "FP32"}
    text = json.dumps({"inputs": [{**tensor, "parameters": {"binary_data_size": len(data)}}]}).encode()
    headers = {"Content-Type": "application/octet-stream", "Inference-Header-Content-Length": str(len(text))}
    return text + data, headers


def test_the_open_inference_protocol_with_json_and_binary_bodies(server, direct):
    images = random_images(2, channels=3)
    tensor = {"name": "images", "shape": [2, *RGB], "datatype": "FP32", "data": images.ravel().tolist()}
    outputs = direct["infer"]({"images": images})
    for body, headers in (({"inputs": [tensor]}, {"Content-Type": "application/json"}), binary(images)):
        status, text = server.ask("POST", "/v2/models/asr/infer", body, headers)
        assert status == 200, text
        answer = {part["name"]: np.reshape(part["data"], part["shape"]) for part in json.loads(text)["outputs"]}
        close(answer, outputs)
    metadata = json.loads(server.ask("GET", "/v2/models/asr")[1])
    assert metadata["inputs"] == [{"name": "images", "datatype": "FP32", "shape": [-1, *RGB]}]
    for (body, headers), message in (
        (binary(random_images(2)), "images must have shape [?, 6, 8, 3], got [2, 6, 8, 1]"),
        (binary(random_images(2), [2, *RGB]), "cannot reshape array of size 96 into shape (2,6,8,3)"),
        (binary(np.full((1, *RGB), np.nan)), "images must be in [0, 1], got nan"),
    ):
        status, text = server.ask("POST", "/v2/models/asr/infer", body, headers)
        assert status == 400 and message in json.loads(text)["error"], text


def test_the_client(server, direct):
    images = random_images(3, channels=3)
    with Client(server.url, version=2) as client:
        found = client.infer(images)
        close(vars(found), direct["infer"]({"images": images}))
        assert client.render(found.z_what, found.boxes, found.presence).shape == (3, *RGB)
        assert client.sample(2, seed=(0, 1)).images.shape == (2, *RGB)
        assert client.log_likelihood(images, num_particles=1, seed=(0, 1)).shape == (3,)
        assert client.infer(np.rint(images * 255).astype(np.uint8)).reconstruction.shape == (3, *RGB)
        with pytest.raises(ServingError, match=r"images must have shape \[\?, 6, 8, 3\], got \[1, 6, 8, 1\]"):
            client.infer(random_images(1))
        with pytest.raises(ValueError, match=r"\[N, H, W, 1\] \(grey\) or \[N, H, W, 3\] \(RGB\), got \[1, 6, 8, 2\]"):
            client.infer(np.zeros((1, *CANVAS, 2), np.float32))
    with Client(server.url, version=1) as client, pytest.raises(ServingError, match=r"8, 1\], got \[3, 6, 8, 3\]"):
        client.infer(images)


def test_the_check_of_an_export(export_dir, direct, tmp_path):
    """A version with a card and golden values, put in place as an export is."""
    cases = {
        "infer": {"images": random_images(3, channels=3)},
        "refine": {"images": random_images(2, channels=3), "steps": np.int32(2)},
        "sample": {"num_samples": np.int32(2), "seed": np.int32([0, 1]), "num_objects": np.int32(-1), "obey": np.True_},
        "render": {
            "z_what": np.zeros((2, NUM_STEPS, 2), np.float32),
            "boxes": np.zeros((2, NUM_STEPS, 4), np.float32),
            "presence": np.ones((2, NUM_STEPS), np.float32),
        },
        "log_likelihood": {
            "images": random_images(2, channels=3),
            "num_particles": np.int32(3),
            "seed": np.int32([4, 5]),
        },
    }
    golden = {}
    for name, inputs in cases.items():
        outputs = direct[name]({key: np.asarray(value) for key, value in inputs.items()})
        golden |= {f"{name}/0/inputs/{key}": value for key, value in inputs.items()}
        golden |= {f"{name}/0/outputs/{key}": value for key, value in outputs.items()}
    with artifact.new_version(tmp_path) as (folder, _):
        for path in (export_dir / "2").rglob("*"):
            if path.is_file():
                copy = folder / path.relative_to(export_dir / "2")
                copy.parent.mkdir(parents=True, exist_ok=True)
                copy.write_bytes(path.read_bytes())
        (folder / artifact.GOLDEN).parent.mkdir(exist_ok=True)
        np.savez(folder / artifact.GOLDEN, **golden)
        card = {"files": artifact.checksums(folder), "signatures": [*cases, "serving_default"]}
        (folder / artifact.CARD).write_text(json.dumps(card))
    lines = list(check_artifact._verdicts(tmp_path / "1"))
    for name in (*cases, "serving_default"):
        assert any(line.startswith(f"{name} gives the golden values") for line in lines), lines
    assert lines[-1] == "infer refuses images with NaN"
