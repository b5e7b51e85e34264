"""Versions of a model on a server: changes under load, broken ones, labels, warm-up."""

import json
import threading

import numpy as np
import pytest
import testing_server
from asr_tf.export.server.predictor import Predictor, Settings
from testing_served import CANVAS, break_version, write_version


def test_versions_change_under_load_without_a_lost_request(tmp_path):
    """A new version takes over, a broken one is passed over, and one that is taken away gives way to the one before."""
    write_version(tmp_path, 1, factor=0.5)
    with testing_server.serving(tmp_path) as server:

        def state(number):
            text = server.ask("GET", "/v1/models/asr")[1]
            found = {int(one["version"]): one for one in json.loads(text)["model_version_status"]}
            return found.get(number, {"state": None, "status": None})

        stopped = threading.Event()
        threads, found, failed, images = testing_server.clients(server, number=4, stopped=stopped)
        testing_server.wait_until(lambda: len(found) > 20)
        write_version(tmp_path, 2, factor=0.25)
        testing_server.wait_until(lambda: state(2)["state"] == "AVAILABLE" and state(1)["state"] == "END")
        break_version(tmp_path, 3)
        testing_server.wait_until(lambda: state(3)["state"] == "END")
        assert state(3)["status"]["error_code"] == "INTERNAL"
        assert state(3)["status"]["error_message"]
        assert state(2)["state"] == "AVAILABLE"
        (tmp_path / "2").rename(tmp_path / ".2")
        testing_server.wait_until(lambda: state(1)["state"] == "AVAILABLE" and state(2)["state"] == "END")
        stopped.set()
        for thread in threads:
            thread.join()
        assert not failed
        factors = []
        for which, status, answer in found:
            assert status == 200
            image = images[which]
            redrawn = np.array(answer["predictions"][0]["reconstruction"])
            brightest = np.unravel_index(image.argmax(), image.shape)
            factor = 0.5 if redrawn[brightest] > 0.4 * image[brightest] else 0.25
            np.testing.assert_allclose(redrawn, factor * image, atol=1e-6)
            factors.append(factor)
        assert factors[0] == 0.5
        assert 0.25 in factors


def test_nothing_to_serve(tmp_path):
    with pytest.raises(ValueError, match="No version in .*: expected folders called by a number"):
        Predictor(Settings(tmp_path))
    break_version(tmp_path, 4)
    with pytest.raises(ValueError, match="No version in .* can be served; version 4: "):
        Predictor(Settings(tmp_path))


def test_a_version_that_computes_no_numbers_is_broken(tmp_path):
    write_version(tmp_path, 1)
    write_version(tmp_path, 2, factor=float("nan"))
    with testing_server.serving(tmp_path) as server:
        assert server.predictor.repository.numbers() == [1]
        message = server.predictor.repository.states()[2].error_message
        assert "reconstruction isn't finite" in message


def test_one_version_of_two(tmp_path):
    write_version(tmp_path, 1, factor=0.5)
    write_version(tmp_path, 2, factor=0.25)
    image = np.full((1, *CANVAS, 1), 0.5, np.float32)
    with testing_server.serving(tmp_path, num_versions=2, version_labels={"stable": 1, "gone": 9}) as server:
        for path, factor in (("", 0.25), ("/versions/1", 0.5), ("/versions/2", 0.25), ("/labels/stable", 0.5)):
            status, answer = server.predict({"instances": image.tolist()}, f"/v1/models/asr{path}:predict")
            assert status == 200
            np.testing.assert_allclose(answer["predictions"][0]["reconstruction"], factor * image[0], atol=1e-6)
        assert server.predict({"instances": [1]}, "/v1/models/asr/labels/gone:predict")[0] == 404
        for path, numbers in (("", {"1", "2"}), ("/versions/2", {"2"}), ("/labels/stable", {"1"})):
            status, text = server.ask("GET", f"/v1/models/asr{path}")
            states = json.loads(text)["model_version_status"]
            assert status == 200 and {state["version"] for state in states} == numbers
        assert server.ask("GET", "/v1/models/asr/labels/gone")[0] == 404


def test_warm_up_requests_beside_the_model_are_run(tmp_path, monkeypatch):
    prediction_log_pb2 = pytest.importorskip("tensorflow_serving.apis.prediction_log_pb2")
    import tensorflow as tf
    from asr_tf.export.server.loaded_version import LoadedVersion, Signature

    folder = write_version(tmp_path / "plain", 1)
    folder = folder.parent.rename(tmp_path / "x*[2]") / "1"
    log = prediction_log_pb2.PredictionLog()
    request = log.predict_log.request
    request.model_spec.signature_name = "sample"
    for name, value in (("num_samples", 3), ("seed", [0, 1]), ("num_objects", 1)):
        request.inputs[name].CopyFrom(tf.make_tensor_proto(value, tf.int32))
    (folder / "assets.extra").mkdir()
    with tf.io.TFRecordWriter(str(folder / "assets.extra" / "tf_serving_warmup_requests")) as writer:
        writer.write(log.SerializeToString())
    called = []
    plain = Signature.__call__
    monkeypatch.setattr(
        Signature,
        "__call__",
        lambda self, arrays: called.append((self.name, min(a.shape for a in arrays.values()))) or plain(self, arrays),
    )
    LoadedVersion(folder, 1).warm_up((1, 4))
    assert ("sample", ()) in called
    for size in (1, 4):
        assert ("infer", (size, *CANVAS, 1)) in called
        assert ("serving_default", (size, *CANVAS, 1)) in called
