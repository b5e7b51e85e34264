"""The open inference protocol in its details: which outputs, in binary or as JSON, and errors of one form."""

from __future__ import annotations

import json

import numpy as np
import pytest
import testing_server
from testing_served import CANVAS, NUM_STEPS, random_images, write_version

INFER = "/v2/models/asr/infer"
JSON = {"Content-Type": "application/json"}
IMAGES = random_images(2)
TENSOR = {"name": "images", "shape": [2, *CANVAS, 1], "datatype": "FP32", "data": IMAGES.ravel().tolist()}
DTYPES = {"FP32": np.float32, "INT32": np.int32, "BOOL": np.bool_}


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    folder = tmp_path_factory.mktemp("export")
    write_version(folder, 7)
    with testing_server.serving(folder, max_body_bytes=200_000) as running:
        yield running


@pytest.fixture(scope="module")
def direct(server):
    with server.predictor.repository.lease(None, "") as version:
        return version.signatures


def _ask(server, body, headers=JSON, path=INFER):
    """Status, document and arrays by name of an answer, and which of them came in binary."""
    body = body if isinstance(body, bytes) else json.dumps(body).encode()
    server._connection.request("POST", path, body, headers)
    response = server._connection.getresponse()
    text = response.read()
    if response.status != 200:
        assert response.getheader("Content-Type") == "application/json"
        answer = json.loads(text)
        assert set(answer) == {"error"} and answer["error"].strip() and "\n" not in answer["error"]
        return response.status, answer["error"], {}, []
    assert int(response.getheader("Content-Length")) == len(text)
    size = response.getheader("Inference-Header-Content-Length")
    assert response.getheader("Content-Type") == ("application/octet-stream" if size else "application/json")
    document = json.loads(text[: int(size or len(text))])
    arrays, binary, start = {}, [], int(size or len(text))
    for output in document["outputs"]:
        dtype = DTYPES[output["datatype"]]
        if "data" in output:
            values = np.array(output["data"], dtype)
        else:
            end = start + output["parameters"]["binary_data_size"]
            values, start = np.frombuffer(text[start:end], dtype), end
            binary.append(output["name"])
        arrays[output["name"]] = values.reshape(output["shape"])
    assert start == len(text)
    return 200, document, arrays, binary


def _binary_request(document, *arrays):
    text = json.dumps(document).encode()
    headers = {"Content-Type": "application/octet-stream", "Inference-Header-Content-Length": str(len(text))}
    return text + b"".join(array.tobytes() for array in arrays), headers


def test_all_outputs_as_json(server, direct):
    wanted = direct["infer"]({"images": IMAGES})
    _, document, found, binary = _ask(server, {"inputs": [TENSOR], "id": "x-1"})
    assert (document["id"], document["model_name"], document["model_version"]) == ("x-1", "asr", "7")
    assert set(document) == {"id", "model_name", "model_version", "outputs"} and not binary
    assert list(found) == list(wanted)
    for name, array in wanted.items():
        np.testing.assert_allclose(found[name], array, atol=1e-5)
    assert "id" not in _ask(server, {"inputs": [TENSOR]})[1]


def test_the_outputs_that_are_asked_for(server, direct):
    wanted = direct["infer"]({"images": IMAGES})
    for names in (["count"], ["reconstruction", "boxes"], ["boxes", "reconstruction"]):
        _, _, found, binary = _ask(server, {"inputs": [TENSOR], "outputs": [{"name": name} for name in names]})
        assert list(found) == names and not binary
        for name in names:
            np.testing.assert_allclose(found[name], wanted[name], atol=1e-5)
    assert list(_ask(server, {"inputs": [TENSOR], "outputs": []})[2]) == list(wanted)


def test_binary_outputs(server, direct):
    """The request's parameter is for all outputs, and an output's own goes before it; also where outputs are named."""
    wanted = direct["infer"]({"images": IMAGES})
    body = {"inputs": [TENSOR], "parameters": {"binary_data_output": True}}
    _, _, found, binary = _ask(server, body)
    assert binary == list(wanted)
    for name, array in wanted.items():
        np.testing.assert_allclose(found[name], array, atol=1e-6)
    body["outputs"] = [{"name": "boxes"}, {"name": "count", "parameters": {"binary_data": False}}]
    _, _, found, binary = _ask(server, body)
    assert (list(found), binary) == (["boxes", "count"], ["boxes"])
    np.testing.assert_allclose(found["boxes"], wanted["boxes"], atol=1e-6)
    np.testing.assert_array_equal(found["count"], wanted["count"])
    body["parameters"] = {"binary_data_output": False}
    body["outputs"][1]["parameters"] = {"binary_data": True}
    assert _ask(server, body)[3] == ["count"]
    del body["parameters"]
    assert _ask(server, body)[3] == ["count"]


def test_binary_inputs(server, direct):
    wanted = direct["infer"]({"images": IMAGES})
    tensor = {name: value for name, value in TENSOR.items() if name != "data"}
    tensor["parameters"] = {"binary_data_size": IMAGES.nbytes}
    outputs = [{"name": "reconstruction", "parameters": {"binary_data": True}}]
    _, _, found, _ = _ask(server, *_binary_request({"inputs": [tensor], "outputs": outputs}, IMAGES))
    np.testing.assert_allclose(found["reconstruction"], wanted["reconstruction"], atol=1e-6)


def test_another_signature(server, direct):
    arrays = {"num_samples": np.int32(3), "seed": np.int32([1, 2]), "num_objects": np.int32(-1), "obey": np.bool_(True)}
    wanted = direct["sample"]({name: np.asarray(value) for name, value in arrays.items()})
    types = {"num_samples": "INT32", "seed": "INT32", "num_objects": "INT32", "obey": "BOOL"}
    inputs = [
        {"name": name, "shape": list(np.shape(value)), "datatype": types[name], "data": np.ravel(value).tolist()}
        for name, value in arrays.items()
    ]
    body = {"inputs": inputs, "parameters": {"signature_name": "sample"}}
    _, _, found, _ = _ask(server, body)
    for name, array in wanted.items():
        np.testing.assert_allclose(found[name], array, atol=1e-5)
    assert found["obeys"].dtype == np.bool_ and found["images"].shape == (3, *CANVAS, 1)
    assert _ask(server, {**body, "parameters": {"signature_name": "x"}})[:2] == (
        400,
        'Serving signature name: "x" not found in signature def; this version has '
        "infer, log_likelihood, refine, render, sample, serving_default",
    )
    bad = [{**one, "data": [NUM_STEPS + 1]} if one["name"] == "num_objects" else one for one in inputs]
    assert _ask(server, {**body, "inputs": bad})[:2] == (400, "num_objects is out of range: 4")


NAMES = "boxes, count, count_probs, masks, presence, reconstruction, scores, z_what"
NO_DATA = {name: value for name, value in TENSOR.items() if name != "data"}
JSON_FAULTS = [
    ({"outputs": [{"name": "mask"}]}, f"outputs must be of {NAMES}, got mask"),
    ({"outputs": [{"name": "count"}, {"name": "count"}]}, "outputs must name each once, got count twice"),
    ({"outputs": [{}]}, "Field required"),
    ({"outputs": 3}, "valid list"),
    ({"parameters": {"binary_data_output": "yes"}}, 'parameter binary_data_output must be true or false, got "yes"'),
    (
        {"outputs": [{"name": "count", "parameters": {"binary_data": 1}}]},
        "The parameter binary_data of output count must be true or false, got 1",
    ),
    ({"inputs": [TENSOR, TENSOR]}, "inputs must be images, got images, images"),
    ({"inputs": [{**TENSOR, "shape": [-1, *CANVAS, 1]}]}, "images must have sizes of 0 or more in its shape"),
    ({"inputs": [{**TENSOR, "shape": [3, *CANVAS, 1]}]}, "images: cannot reshape"),
    ({"inputs": [{**TENSOR, "datatype": "FP99"}]}, "images must have datatype FP32, got FP99"),
    ({"inputs": []}, "inputs must be images, got none"),
]


@pytest.mark.parametrize(("changed", "message"), JSON_FAULTS)
def test_faults_of_json_bodies(server, changed, message):
    status, text, _, _ = _ask(server, {"inputs": [TENSOR], **changed})
    assert status == 400 and message in text
    assert _ask(server, {"inputs": [TENSOR]})[0] == 200


BINARY_TENSOR = {**NO_DATA, "parameters": {"binary_data_size": IMAGES.nbytes}}
BINARY_FAULTS = [
    ({"inputs": [NO_DATA]}, "'data' field is missing for input 'images'"),
    ({"inputs": [{**NO_DATA, "parameters": {"binary_data_size": 8}}]}, "cannot reshape"),
    ({"inputs": [{**NO_DATA, "parameters": {"binary_data_size": 7}}]}, "open inference protocol: buffer size"),
    ({"inputs": [{**NO_DATA, "parameters": {"binary_data_size": "8"}}]}, "isn't one of the open inference protocol"),
    ({"inputs": [{**NO_DATA, "parameters": {"binary_data_size": None}}]}, "'binary_data_size' is not specified"),
    ({"inputs": [{**BINARY_TENSOR, "name": {}}]}, "inputs must be images, got {}"),
    ({"inputs": [{**BINARY_TENSOR, "datatype": 3}]}, "isn't one of the open inference protocol"),
    ({"inputs": [{**BINARY_TENSOR, "shape": "2"}]}, "isn't one of the open inference protocol"),
    ({"inputs": [BINARY_TENSOR], "parameters": [1]}, "parameters must be an object, got [1]"),
    ({"inputs": [BINARY_TENSOR], "outputs": [{"name": ["x"]}]}, f"outputs must be of {NAMES}, got ['x']"),
    ({"inputs": [BINARY_TENSOR], "outputs": ["count"]}, "isn't one of the open inference protocol"),
    ({"inputs": 3}, "isn't one of the open inference protocol"),
    ({"inputs": {"images": 1}}, "isn't one of the open inference protocol"),
    (3, "isn't one of the open inference protocol"),
]


@pytest.mark.parametrize(("document", "message"), BINARY_FAULTS)
def test_faults_of_binary_bodies(server, document, message):
    status, text, _, _ = _ask(server, *_binary_request(document, IMAGES))
    assert status == 400 and message in text, text


@pytest.mark.parametrize("size", [None, "", "x", "-3", "0", "1e3", "9" * 30, "2000"])
def test_the_end_of_the_json_must_be_said(server, size):
    body, headers = _binary_request({"inputs": [BINARY_TENSOR]}, IMAGES)
    headers.pop("Inference-Header-Content-Length")
    if size is not None:
        headers["Inference-Header-Content-Length"] = size
    status, text, _, _ = _ask(server, body, headers)
    assert status == 400
    assert "needs the header Inference-Header-Content-Length, the bytes of its JSON, from 1 to the body's" in text


OTHERS = [
    ("POST", INFER, b"{", JSON, 400, "body"),
    ("POST", INFER, b"\xff", JSON, 400, ""),
    ("POST", INFER, b"[" * 5000, JSON, 400, ""),
    ("POST", INFER, b"", JSON, 400, "body"),
    ("POST", "/v2/models/other/infer", {"inputs": [TENSOR]}, JSON, 404, "Model with name other does not exist"),
    ("POST", "/v2/models/asr/versions/7/infer", {"inputs": [TENSOR]}, JSON, 501, "not supported"),
    ("GET", "/v2/models/other", None, {}, 404, "Model with name other does not exist"),
    ("GET", "/v2/models/other/ready", None, {}, 404, "Model with name other does not exist"),
    ("GET", "/v2/none", None, {}, 404, "Not Found"),
    ("PUT", INFER, b"x", {}, 405, "Method Not Allowed"),
    ("POST", "/v2/repository/models/asr/load", None, {}, 501, "Versions come and go with the folders of --export_dir"),
    ("POST", INFER, b" " * 200_001, JSON, 413, "The request body of 200001 bytes is over the limit of 200000"),
    ("POST", INFER, b"x", {**JSON, "Content-Encoding": "br"}, 415, "Content-Encoding must be gzip or identity"),
]


@pytest.mark.parametrize(("verb", "path", "body", "headers", "wanted", "message"), OTHERS)
def test_every_error_has_one_form(server, verb, path, body, headers, wanted, message):
    status, text = server.ask(verb, path, body, headers)
    answer = json.loads(text)
    assert (status, set(answer)) == (wanted, {"error"})
    assert message in answer["error"] and answer["error"].strip() and "\n" not in answer["error"]


def test_ready_until_it_drains(server, monkeypatch):
    assert server.ask("GET", "/v2/health/ready") == (200, b'{"ready":true}')
    monkeypatch.setattr(type(server.server), "is_draining", property(lambda self: True))
    status, text = server.ask("GET", "/v2/health/ready")
    assert (status, json.loads(text)) == (503, {"error": "Server is not ready."})
    assert server.ask("GET", "/v2/health/live") == (200, b'{"live":true}')
