"""The server over HTTP: TensorFlow Serving's paths and errors, health, metrics, limits, versions under load."""

from __future__ import annotations

import dataclasses
import gzip
import http.client
import json
import socket

import numpy as np
import pytest
import testing_served
import testing_server
from testing_served import CANVAS, NUM_STEPS, SIGNATURES, random_images, write_version
from testing_server import PREDICT

from asr_tf.serving.client import DrawnScenes, FoundScenes


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    folder = tmp_path_factory.mktemp("export")
    write_version(folder, 7)
    options = {"max_batch_size": 8, "max_body_bytes": 200_000, "version_labels": {"stable": 7}}
    with testing_server.serving(folder, **options) as running:
        yield running


@pytest.fixture(scope="module")
def direct(server):
    """The served version, called without HTTP and batches."""
    with server.predictor.repository.lease(None, "") as version:
        return version.signatures


def _close(answer, outputs):
    assert set(answer) == set(outputs)
    for name, array in outputs.items():
        np.testing.assert_allclose(np.asarray(answer[name], array.dtype), array, atol=1e-5)


def test_status_as_tensorflow_serving_gives_it(server):
    described = {
        "model_version_status": [
            {"version": "7", "state": "AVAILABLE", "status": {"error_code": "OK", "error_message": ""}}
        ]
    }
    for path in ("", "/versions/7", "/labels/stable"):
        status, text = server.ask("GET", f"/v1/models/asr{path}")
        assert (status, json.loads(text)) == (200, described)


def test_metadata_describes_every_signature(server):
    for path in ("", "/versions/7", "/labels/stable"):
        status, text = server.ask("GET", f"/v1/models/asr{path}/metadata")
        metadata = json.loads(text)
        assert status == 200
        assert metadata["model_spec"] == {"name": "asr", "signature_name": "", "version": "7"}
    signatures = metadata["metadata"]["signature_def"]["signature_def"]
    assert {"serving_default", *SIGNATURES} <= set(signatures)
    images = signatures["infer"]["inputs"]["images"]
    assert images["dtype"] == "DT_FLOAT"
    assert [size["size"] for size in images["tensor_shape"]["dim"]] == ["-1", "6", "8", "1"]
    assert signatures["infer"]["method_name"] == "tensorflow/serving/predict"


@pytest.mark.parametrize("name", [None, "serving_default", "infer"])
@pytest.mark.parametrize("path", [PREDICT, "/v1/models/asr/versions/7:predict", "/v1/models/asr/labels/stable:predict"])
def test_images_by_row_and_by_column(server, direct, name, path):
    images = random_images(3)
    outputs = direct["infer"]({"images": images})
    assert len(set(outputs["count"])) > 1
    named = {} if name is None else {"signature_name": name}
    status, answer = server.predict({**named, "inputs": {"images": images.tolist()}}, path)
    assert status == 200
    _close(answer["outputs"], outputs)
    status, answer = server.predict({**named, "instances": images.tolist()}, path)
    assert status == 200
    _close({key: [row[key] for row in answer["predictions"]] for key in outputs}, outputs)


def test_the_other_signatures_by_column(server, direct):
    seed, images = [3, 4], random_images(2, 5)
    inputs = {"num_samples": 5, "seed": seed, "num_objects": 2}
    arrays = {"num_samples": np.int32(5), "seed": np.int32(seed), "num_objects": np.int32(2)}
    status, answer = server.predict({"signature_name": "sample", "inputs": inputs})
    assert status == 200
    _close(answer["outputs"], direct["sample"]({name: np.asarray(value) for name, value in arrays.items()}))

    status, answer = server.predict({"signature_name": "refine", "inputs": {"images": images.tolist(), "steps": 3}})
    assert status == 200
    _close(answer["outputs"], direct["refine"]({"images": images, "steps": np.asarray(3, np.int32)}))

    inputs = {"images": images.tolist(), "num_particles": 4, "seed": seed}
    arrays = {"images": images, "num_particles": np.asarray(4, np.int32), "seed": np.int32(seed)}
    status, answer = server.predict({"signature_name": "log_likelihood", "inputs": inputs})
    assert status == 200  # a single output has no name
    np.testing.assert_allclose(answer["outputs"], direct["log_likelihood"](arrays)["log_likelihood"], atol=1e-5)

    found = direct["infer"]({"images": images})
    objects = {name: found[name].tolist() for name in ("z_what", "boxes", "presence")}
    status, answer = server.predict({"signature_name": "render", "inputs": objects})
    assert status == 200
    drawn = direct["render"]({name: found[name] for name in objects})["images"]
    np.testing.assert_allclose(answer["outputs"], drawn, atol=1e-5)
    rows = [dict(zip(objects, values, strict=True)) for values in zip(*objects.values(), strict=True)]
    status, answer = server.predict({"signature_name": "render", "instances": rows})
    np.testing.assert_allclose(answer["predictions"], drawn, atol=1e-5)


def test_an_input_with_a_default_may_be_left_out(server):
    """Requests that were written before there was an input `obey` get what they got then."""
    inputs = {"num_samples": 40, "seed": [1, 2], "num_objects": -1}
    counts = {}
    for obey in (None, False, True):
        asked = inputs if obey is None else {**inputs, "obey": obey}
        status, answer = server.predict({"signature_name": "sample", "inputs": asked})
        assert status == 200
        counts[obey] = answer["outputs"]["count"]
        assert answer["outputs"]["obeys"] == [count > 0 for count in counts[obey]]
    assert counts[None] == counts[False] and min(counts[None]) == 0
    assert counts[True] == [max(count, 1) for count in counts[False]]
    status, text = server.ask("GET", "/v1/models/asr/metadata")
    sample = json.loads(text)["metadata"]["signature_def"]["signature_def"]["sample"]
    assert (status, sample["defaults"]["obey"]["bool_val"]) == (200, [False])

    def ask_open(**more):
        tensors = {name: (list(np.shape(value)), "INT32", np.ravel(value).tolist()) for name, value in inputs.items()}
        tensors |= more
        keys = ("shape", "datatype", "data")
        request = [{"name": name, **dict(zip(keys, tensor, strict=True))} for name, tensor in tensors.items()]
        body = {"parameters": {"signature_name": "sample"}, "inputs": request}
        status, text = server.ask("POST", "/v2/models/asr/infer", body, {"Content-Type": "application/json"})
        assert status == 200, text
        return next(output["data"] for output in json.loads(text)["outputs"] if output["name"] == "count")

    assert ask_open() == counts[False]
    assert ask_open(obey=([], "BOOL", [True])) == counts[True]


PATHS = [
    ("GET", "/v1/models/other", 404, "Could not find any versions of model other"),
    ("GET", "/v1/models/asr/versions/8", 404, "Could not find version 8 of model asr"),
    ("GET", "/v1/models/other/labels/canary", 404, "Could not find any versions of model other"),
    ("GET", "/v1/models/asr/labels/canary", 400, "Unrecognized servable version label: canary"),
    ("GET", "/v1/models/other/metadata", 404, "Servable not found for request: Latest(other)"),
    ("GET", "/v1/models/asr/versions/8/metadata", 404, "Servable not found for request: Specific(asr, 8)"),
    ("GET", "/v1/models", 400, "Missing model name in request."),
    ("GET", PREDICT, 400, "Malformed request: GET /v1/models/asr:predict"),
    ("POST", "/v1/models/asr", 400, "Malformed request: POST /v1/models/asr"),
    ("DELETE", "/v1/models/asr", 400, "Malformed request: DELETE /v1/models/asr"),
    ("POST", "/v1/models/asr:explain", 400, "Malformed request: POST /v1/models/asr:explain"),
    ("POST", "/v1/models/:predict", 400, "Malformed request"),
    ("POST", "/v1/models/asr:classify", 400, "The signatures of this model are for predict, not classify"),
    ("POST", "/v1/models/other:predict", 404, "Servable not found for request: Latest(other)"),
    ("POST", "/v1/models/asr/versions/8:predict", 404, "Servable not found for request: Specific(asr, 8)"),
    ("POST", "/v1/models/asr/versions/" + "9" * 30 + ":predict", 400, "to numeric."),
    ("POST", "/v1/models/asr/labels/canary:predict", 400, "Unrecognized servable version label: canary"),
]


@pytest.mark.parametrize(("verb", "path", "wanted", "message"), PATHS)
def test_paths_that_lead_nowhere(server, verb, path, wanted, message):
    body = {"instances": random_images(1).tolist()} if verb == "POST" else None
    status, text = server.ask(verb, path, body)
    assert status == wanted
    answer = json.loads(text)
    assert set(answer) == {"error"}
    assert message in answer["error"]


def _sample(**changed):
    inputs = {"num_samples": 2, "seed": [0, 1], "num_objects": -1, **changed}
    return {"signature_name": "sample", "inputs": inputs}


FAULTS = [
    (b"{", "JSON Parse error"),
    ({"signature_name": "class", "instances": [1]}, '"class" not found in signature def; this version has infer,'),
    ({"instances": [[[0.5]]]}, "images must have shape [?, 6, 8, 1], got [1, 1, 1]"),
    ({"instances": np.full((1, *CANVAS, 1), 0.99).tolist()}, "images are too bright: 47.5"),  # the model's own words
    (_sample(seed=[1, 2, 3]), "seed must have shape [2], got [3]"),
    (_sample(num_objects=NUM_STEPS + 1), "num_objects is out of range: 4"),
    (_sample(num_samples=0), "num_samples must be 1 or more, got 0"),
    (_sample(num_samples=10**6), "num_samples (1000000) must be at most 4096 in one request"),
    (
        {
            "signature_name": "log_likelihood",
            "inputs": {"images": random_images(2).tolist(), "num_particles": 10**6, "seed": [0, 0]},
        },
        "images (2) times num_particles (1000000) must be at most 65536 in one request",
    ),
    (
        {"signature_name": "render", "inputs": {"z_what": [], "boxes": [], "presence": []}},
        "got an empty list: shape [0]",
    ),
]


@pytest.mark.parametrize(("body", "message"), FAULTS)
def test_faults_are_named_and_the_server_goes_on(server, body, message):
    status, answer = server.predict(body)
    assert status == 400
    assert set(answer) == {"error"}
    assert message in answer["error"]
    assert "\n" not in answer["error"]
    assert server.predict({"instances": random_images(1).tolist()})[0] == 200


def test_the_limit_of_rows_holds_for_every_signature(tmp_path):
    write_version(tmp_path, 1)
    images = random_images(11).tolist()
    with testing_server.serving(tmp_path, max_rows=10) as server:
        for name, more in (("infer", {}), ("log_likelihood", {"num_particles": 1, "seed": [0, 0]})):
            body = {"signature_name": name, "inputs": {"images": images, **more}}
            assert server.predict(body) == (400, {"error": "images (11) must be at most 10 in one request"})
            assert server.predict({**body, "inputs": {**body["inputs"], "images": images[:10]}})[0] == 200


def test_a_body_over_the_limit_is_not_read_into_memory(server):
    """One that says its length is refused at once; one that doesn't, where it passes the limit."""
    status, text = server.ask("POST", PREDICT, b" " * 300_000)
    assert status == 413
    assert json.loads(text) == {"error": "The request body of 300000 bytes is over the limit of 200000"}

    with socket.create_connection((server.host, server.port), timeout=30) as connection:
        connection.sendall(f"POST {PREDICT} HTTP/1.1\r\nHost: x\r\nContent-Length: {2**30}\r\n\r\n".encode())
        assert connection.recv(4096).startswith(b"HTTP/1.1 413 ")

    connection = http.client.HTTPConnection(server.host, server.port, timeout=30)
    chunks = (b" " * 50_000 for _ in range(20))
    connection.request("POST", PREDICT, chunks, {"Transfer-Encoding": "chunked"}, encode_chunked=True)
    response = connection.getresponse()
    assert response.status == 413
    assert json.loads(response.read()) == {"error": "The request body is over the limit of 200000 bytes"}
    connection.close()
    assert server.predict({"instances": random_images(1).tolist()})[0] == 200


def test_a_client_that_breaks_off_is_forgotten(server):
    with socket.create_connection((server.host, server.port)) as connection:
        connection.sendall(f"POST {PREDICT} HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\n{{".encode())
    assert server.predict({"instances": random_images(1).tolist()})[0] == 200


def test_compressed_bodies(server):
    """gzip is unpacked, up to the limit of plain bodies; what is packed otherwise is refused."""
    images = random_images(2)
    body = json.dumps({"inputs": images.tolist()}).encode()
    status, plain = server.ask("POST", PREDICT, body)
    assert status == 200
    assert server.ask("POST", PREDICT, gzip.compress(body), {"Content-Encoding": "gzip"}) == (200, plain)
    tensor = {"name": "images", "shape": [2, *CANVAS, 1], "datatype": "FP32", "data": images.ravel().tolist()}
    headers = {"Content-Type": "application/json"}
    packed = gzip.compress(json.dumps({"inputs": [tensor]}).encode())
    found = server.ask("POST", "/v2/models/asr/infer", packed, {**headers, "Content-Encoding": "gzip"})
    assert found == server.ask("POST", "/v2/models/asr/infer", {"inputs": [tensor]}, headers)
    status, text = server.ask("POST", PREDICT, gzip.compress(b" " * 200_001), {"Content-Encoding": "gzip"})
    assert (status, json.loads(text)) == (413, {"error": "The request body is over the limit of 200000 bytes"})
    status, text = server.ask("POST", PREDICT, b"x", {"Content-Encoding": "br"})
    assert (status, json.loads(text)) == (415, {"error": "Content-Encoding must be gzip or identity, got br"})


def test_health(server):
    assert server.ask("GET", "/") == (200, b'{"status":"alive"}')
    assert server.ask("GET", "/v2/health/live") == (200, b'{"live":true}')
    assert server.ask("GET", "/v2/health/ready") == (200, b'{"ready":true}')
    status, text = server.ask("GET", "/v2/models/asr/ready")
    assert (status, json.loads(text)) == (200, {"name": "asr", "ready": True})
    assert server.ask("GET", "/v2/models/other/ready")[0] == 404
    assert server.ask("GET", "/elsewhere") == (404, b'{"error":"Not Found"}')
    assert server.ask("POST", "/") == (405, b'{"error":"Method Not Allowed"}')


def _metrics(server, path="/metrics"):
    status, text = server.ask("GET", path)
    assert status == 200
    lines = [line.rsplit(" ", 1) for line in text.decode().splitlines() if not line.startswith("#")]
    return {name: float(value) for name, value in lines}


def test_metrics_count_what_was_asked(server):
    good = 'asr_serve_requests_total{code="200",method="predict",signature="infer"}'
    bad = 'asr_serve_requests_total{code="400",method="predict",signature=""}'
    before = _metrics(server)
    for _ in range(3):
        server.predict({"signature_name": "infer", "instances": random_images(2).tolist()})
    server.predict({})
    after = _metrics(server, "/monitoring/prometheus/metrics")
    assert after[good] - before.get(good, 0.0) == 3.0
    assert after[bad] - before.get(bad, 0.0) == 1.0
    seconds = 'asr_serve_request_seconds_count{method="predict"}'
    assert after[seconds] - before.get(seconds, 0.0) == 4.0
    assert after["asr_serve_batch_size_sum"] - before["asr_serve_batch_size_sum"] == 6.0
    assert after['asr_serve_model_version{version="7"}'] == 1.0
    assert after["asr_serve_waiting_examples"] == 0.0
    assert any(name.startswith("process_resident_memory_bytes") for name in after)


def test_the_open_inference_protocol(server, direct):
    images = random_images(2)
    tensor = {"name": "images", "shape": [2, *CANVAS, 1], "datatype": "FP32", "data": images.ravel().tolist()}
    headers = {"Content-Type": "application/json"}
    status, text = server.ask("POST", "/v2/models/asr/infer", {"inputs": [tensor]}, headers)
    answer = json.loads(text)
    assert (status, answer["model_version"]) == (200, "7")
    outputs = direct["infer"]({"images": images})
    for output in answer["outputs"]:
        found = np.array(output["data"]).reshape(output["shape"])
        np.testing.assert_allclose(found, outputs[output["name"]], atol=1e-5)
    assert {output["name"] for output in answer["outputs"]} == set(outputs)
    for changed, message in (
        ({"data": [1.0]}, "images: cannot reshape"),
        ({"datatype": "INT32"}, "images must have datatype FP32, got INT32"),
        ({"name": "x"}, "inputs must be images, got x"),
        ({"data": [2.0] * images.size}, "images must be in [0, 1], got 2.0"),
    ):
        status, text = server.ask("POST", "/v2/models/asr/infer", {"inputs": [{**tensor, **changed}]}, headers)
        assert status == 400
        assert message in json.loads(text)["error"]
    for changed, message in (
        ({"data": ["0.5"] * images.size}, 'images must hold float32 values, got "0.5"'),
        ({"data": [True] * images.size}, "images must hold float32 values, got true"),
        ({"data": [[0.5, [0.5]]]}, "a list among them"),
    ):
        status, text = server.ask("POST", "/v2/models/asr/infer", {"inputs": [{**tensor, **changed}]}, headers)
        assert status == 400 and message in json.loads(text)["error"], text
    nested = {**tensor, "data": images.tolist()}
    assert server.ask("POST", "/v2/models/asr/infer", {"inputs": [nested]}, headers)[0] == 200
    assert server.ask("POST", "/v2/repository/models/asr/unload")[0] == 501
    metadata = json.loads(server.ask("GET", "/v2/models/asr")[1])
    assert metadata["inputs"] == [{"name": "images", "datatype": "FP32", "shape": [-1, *CANVAS, 1]}]


BINARY = {"Content-Type": "application/octet-stream", "Inference-Header-Content-Length": "2"}
MALFORMED = [
    ({}, {"Content-Type": "application/json"}, "inputs"),
    ({"inputs": [{"name": "images"}]}, {"Content-Type": "application/json"}, "Field required"),
    (b"{}", BINARY, "The request lacks 'inputs'"),
    (b"[]", BINARY, "isn't one of the open inference protocol"),
    (b"{x", BINARY, "Unrecognized request format"),
]


@pytest.mark.parametrize(("body", "headers", "message"), MALFORMED)
def test_requests_that_are_not_of_the_open_inference_protocol(server, body, headers, message):
    counted = 'asr_serve_requests_total{code="400",method="other",signature=""}'
    before = _metrics(server)
    status, text = server.ask("POST", "/v2/models/asr/infer", body, headers)
    answer = json.loads(text)
    assert status == 400 and set(answer) == {"error"} and message in answer["error"] and "\n" not in answer["error"]
    assert _metrics(server)[counted] - before.get(counted, 0.0) == 1.0


def test_a_failure_behind_kserves_paths_is_answered_once(server, monkeypatch):
    async def fail(*_):
        raise RuntimeError("out of luck")

    monkeypatch.setattr(server.predictor, "compute", fail)
    tensor = {"name": "images", "shape": [1, *CANVAS, 1], "datatype": "FP32", "data": random_images(1).ravel().tolist()}
    headers = {"Content-Type": "application/json"}
    status, text = server.ask("POST", "/v2/models/asr/infer", {"inputs": [tensor]}, headers)
    assert (status, json.loads(text)) == (500, {"error": "out of luck"})
    monkeypatch.undo()
    assert server.ask("POST", "/v2/models/asr/infer", {"inputs": [tensor]}, headers)[0] == 200


def test_many_clients_share_batches_and_get_the_answers_of_direct_calls(server, direct):
    before = _metrics(server)
    threads, found, failed, images = testing_server.clients(server, number=16, requests=20)
    for thread in threads:
        thread.join()
    assert not failed
    outputs = direct["infer"]({"images": images})
    assert len(found) == 320
    for which, status, answer in found:
        assert status == 200
        _close(answer["predictions"][0], {name: array[which] for name, array in outputs.items()})
    after = _metrics(server)
    batches = after["asr_serve_batch_size_count"] - before["asr_serve_batch_size_count"]
    assert after["asr_serve_batch_size_sum"] - before["asr_serve_batch_size_sum"] == 320.0
    assert batches < 320.0


def test_a_bad_request_in_a_batch_harms_no_other(server):
    bright = {"instances": np.full((1, *CANVAS, 1), 0.99).tolist()}
    threads, found, failed, _ = testing_server.clients(server, number=6, requests=20)
    refused = [server.predict(bright) for _ in range(20)]
    for thread in threads:
        thread.join()
    assert not failed
    assert {status for _, status, _ in found} == {200}
    assert all(status == 400 and "too bright" in answer["error"] for status, answer in refused)


def test_the_stand_in_is_what_the_export_is():
    """The tiny model has the outputs that the client knows."""
    module = testing_served.TinyServed(0.5)
    for function, kind in ((module.infer, FoundScenes), (module.sample, DrawnScenes)):
        outputs = function.get_concrete_function().structured_outputs
        assert set(outputs) == {field.name for field in dataclasses.fields(kind)}
