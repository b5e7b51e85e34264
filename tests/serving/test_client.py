"""The client against a real server: typed answers, errors in the server's words, connections that are kept."""

from __future__ import annotations

import http.server
import json
import subprocess
import sys
import threading
from typing import ClassVar

import numpy as np
import pytest
import source_tree
import testing_server
from testing_served import CANVAS, NUM_STEPS, WHAT_SIZE, random_images, write_version

from asr_tf.serving import client as client_module
from asr_tf.serving.client import Client, ServingError


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    folder = tmp_path_factory.mktemp("export")
    write_version(folder, 3)
    with testing_server.serving(folder, version_labels={"stable": 3}) as running:
        yield running


@pytest.fixture(scope="module")
def direct(server):
    with server.predictor.repository.lease(None, "") as version:
        return version.signatures


@pytest.fixture
def client(server):
    with Client(server.url) as client:
        yield client


def test_infer(client, direct):
    images = random_images(5)
    result = client.infer(images)
    outputs = direct["infer"]({"images": images})
    assert set(outputs) == set(vars(result))
    for name, array in outputs.items():
        found = getattr(result, name)
        assert (found.dtype, found.shape) == (array.dtype, array.shape), name
        np.testing.assert_allclose(found, array, atol=1e-6)


def test_many_images_go_in_parts(client, monkeypatch):
    asked = []
    plain = Client.predict
    monkeypatch.setattr(client_module, "_MOST_NUMBERS", 2 * CANVAS[0] * CANVAS[1])
    monkeypatch.setattr(
        Client, "predict", lambda self, name, inputs: asked.append(len(inputs["images"])) or plain(self, name, inputs)
    )
    images = random_images(5)
    result = client.infer(images)
    assert asked == [2, 2, 1]
    monkeypatch.setattr(client_module, "_MOST_IMAGES", 1)
    client.infer(images[:2])
    assert asked == [2, 2, 1, 1, 1]
    np.testing.assert_allclose(result.reconstruction, 0.5 * images, atol=1e-6)


def test_grey_levels_as_bytes(client):
    images = np.full((1, *CANVAS, 1), 51, np.uint8)
    np.testing.assert_allclose(client.infer(images).reconstruction, np.full((1, *CANVAS, 1), 0.1), atol=1e-6)


def test_sample_is_a_function_of_its_seed(client):
    scenes = client.sample(4, seed=(1, 2), num_objects=2)
    assert scenes.images.shape == (4, *CANVAS, 1)
    assert scenes.count.dtype == np.int32
    assert scenes.count.tolist() == [2, 2, 2, 2]
    np.testing.assert_array_equal(client.sample(4, seed=(1, 2), num_objects=2).images, scenes.images)
    assert not np.array_equal(client.sample(4, seed=(1, 3), num_objects=2).images, scenes.images)


def test_refine_in_parts(client, direct, monkeypatch):
    images = random_images(5)
    monkeypatch.setattr(client_module, "_MOST_REFINED", 2)
    refined = client.refine(images, steps=3)
    outputs = direct["refine"]({"images": images, "steps": np.asarray(3, np.int32)})
    assert set(outputs) == set(vars(refined))
    for name, array in outputs.items():
        found = getattr(refined, name)
        assert (found.dtype, found.shape) == (array.dtype, array.shape), name
        np.testing.assert_allclose(found, array, atol=1e-6, err_msg=name)


def test_sample_obeys_if_asked(client):
    plain, obeying = (client.sample(40, seed=(1, 2), obey=obey) for obey in (False, True))
    np.testing.assert_array_equal(obeying.count, np.maximum(plain.count, 1))
    assert plain.obeys.dtype == bool and not plain.obeys.all() and obeying.obeys.all()
    np.testing.assert_allclose(obeying.acceptance_rate, plain.obeys.mean(), rtol=1e-6)
    with pytest.raises(ServingError, match="4 of 4 scenes still break a rule after the last try; of all drawn, "):
        client.sample(4, seed=(1, 2), num_objects=0, obey=True)


def test_obey_is_not_sent_to_a_server_that_may_not_know_it(client, monkeypatch):
    asked = []
    plain = Client.predict
    monkeypatch.setattr(
        Client, "predict", lambda self, name, inputs: asked.append(set(inputs)) or plain(self, name, inputs)
    )
    client.sample(1, seed=(0, 0), num_objects=1)
    client.sample(1, seed=(0, 0), num_objects=1, obey=True)
    assert [more - {"num_samples", "seed", "num_objects"} for more in asked] == [set(), {"obey"}]


def test_render_and_log_likelihood(client, direct):
    images = random_images(2)
    found = client.infer(images)
    drawn = client.render(found.z_what, found.boxes, found.presence)
    objects = {name: getattr(found, name) for name in ("z_what", "boxes", "presence")}
    np.testing.assert_allclose(drawn, direct["render"](objects)["images"], atol=1e-6)
    nats = client.log_likelihood(images, num_particles=2, seed=(0, 5))
    assert (nats.shape, nats.dtype) == ((2,), np.float32)
    arrays = {"images": images, "num_particles": np.int32(2), "seed": np.int32([0, 5])}
    wanted = direct["log_likelihood"]({name: np.asarray(value) for name, value in arrays.items()})
    np.testing.assert_allclose(nats, wanted["log_likelihood"], atol=1e-4)


def test_parts_are_answered_as_single_requests(client, monkeypatch):
    """Of `render` the same numbers; of `log_likelihood` those of a request of each part with its own seed."""
    images = random_images(5)
    found = client.infer(images)
    whole = client.render(found.z_what, found.boxes, found.presence)
    nats = [
        client.log_likelihood(part, num_particles=2, seed=seed)
        for part, seed in ((images[:3], (7, 5)), (images[3:], (7, 5 + 0x9E3779B1 - 2**32)))
    ]
    monkeypatch.setattr(client_module, "_MOST_RENDERED", 2)
    monkeypatch.setattr(client_module, "_MOST_PARTICLES", 6)
    np.testing.assert_allclose(client.render(found.z_what, found.boxes, found.presence), whole, atol=1e-6)
    np.testing.assert_allclose(client.log_likelihood(images, 2, seed=(7, 5)), np.concatenate(nats), atol=1e-5)


def test_versions_and_metadata(server, client):
    assert client.versions() == {3: "AVAILABLE"}
    assert client.metadata()["model_spec"]["version"] == "3"
    images = random_images(1)
    for which in ({"version": 3}, {"label": "stable"}):
        with Client(server.url, **which) as pinned:
            assert pinned.infer(images).count.shape == (1,)
    with Client(server.url, version=4) as pinned, pytest.raises(ServingError, match=r"Specific\(asr, 4\)"):
        pinned.infer(images)
    with Client(server.url, "other") as other, pytest.raises(ServingError, match="Latest") as caught:
        other.metadata()
    assert caught.value.status == 404


def test_what_the_server_says_against_a_request(client):
    with pytest.raises(ServingError, match="num_objects is out of range: 9") as caught:
        client.sample(1, seed=(0, 0), num_objects=NUM_STEPS + 6)
    assert caught.value.status == 400
    with pytest.raises(ServingError, match=r"images must have shape \[\?, 6, 8, 1\], got \[1, 4, 4, 1\]"):
        client.infer(np.zeros((1, 4, 4, 1), np.float32))
    with pytest.raises(ServingError, match=r"z_what must have shape"):
        client.render(np.zeros((1, NUM_STEPS, WHAT_SIZE + 1)), np.zeros((1, NUM_STEPS, 4)), np.zeros((1, NUM_STEPS)))
    assert client.infer(random_images(1)).count.shape == (1,)


@pytest.mark.parametrize("images", [np.zeros((6, 8)), np.zeros((0, 6, 8, 1)), np.full((1, 6, 8, 1), 2.0)])
def test_images_that_are_none_are_not_sent(images):
    with Client("http://127.0.0.1:9") as nobody, pytest.raises(ValueError, match="images"):
        nobody.infer(images)


def test_arguments_that_cannot_be():
    with pytest.raises(ValueError, match="url must look like http://host:port, got 'localhost:8501'"):
        Client("localhost:8501")
    with pytest.raises(ValueError, match="a version or a label, not both"):
        Client(version=1, label="stable")


def test_nobody_answers():
    with Client("http://127.0.0.1:9", timeout_s=5.0) as nobody, pytest.raises(OSError, match="http://127.0.0.1:9: "):
        nobody.versions()


class _Odd(http.server.BaseHTTPRequestHandler):
    """Closes each connection after one answer without saying so, and answers odd things."""

    protocol_version = "HTTP/1.1"
    answers: ClassVar = {
        "/v1/models/asr": (200, b'{"model_version_status": []}'),
        "/v1/models/page": (502, b"<html>Bad gateway</html>"),
        "/v1/models/cut": (200, b"{"),
        "/v1/models/list": (200, b"[]"),
        "/v1/models/other": (200, b"{}"),
    }

    def do_GET(self):
        status, body = self.answers[self.path]
        self.send_response(status)
        self.send_header("Content-Length", str(len(body) + (10 if self.path.endswith("cut") else 0)))
        self.end_headers()
        self.wfile.write(body)
        self.close_connection = True

    def log_message(self, *arguments):
        pass


@pytest.fixture
def odd_url():
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Odd) as odd:
        thread = threading.Thread(target=odd.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{odd.server_address[1]}"
        odd.shutdown()
        thread.join()


def test_a_connection_that_was_closed_meanwhile_is_renewed(odd_url):
    with Client(odd_url) as client:
        assert [client.versions() for _ in range(3)] == [{}, {}, {}]


def test_answers_that_are_none(odd_url):
    with Client(odd_url, "page") as client, pytest.raises(ServingError, match="gave no JSON: .*Bad gateway") as caught:
        client.versions()
    assert caught.value.status == 502
    for name in ("list", "other"):
        with Client(odd_url, name) as client, pytest.raises(ServingError, match="gave JSON without 'model_version_st"):
            client.versions()
    with Client(odd_url, "cut") as client, pytest.raises(ConnectionError, match="broke off its answer"):
        client.versions()


def test_one_client_serves_several_threads(client):
    images, found = random_images(8), {}

    def ask(i):
        found[i] = client.infer(images[i : i + 1]).reconstruction
        client.close()

    threads = [threading.Thread(target=ask, args=(i,)) for i in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for i in range(8):
        np.testing.assert_allclose(found[i], 0.5 * images[i : i + 1], atol=1e-6)


def test_needs_no_tensorflow():
    code = "import asr_tf.serving.client, sys, json; print(json.dumps(sorted({m.split('.')[0] for m in sys.modules})))"
    loaded = subprocess.run([sys.executable, "-c", code], cwd=source_tree.ROOT, capture_output=True, check=True).stdout
    assert not {"tensorflow", "keras", "orjson", "kserve", "absl", "gin"} & set(json.loads(loaded))
