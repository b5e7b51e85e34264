"""What an exported version holds."""

import json
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf
import testing_export
import testing_server

from asr_tf.constraints import CountInSet
from asr_tf.export import artifact, exporter
from asr_tf.runs.run_folder import RunFolder
from asr_tf.serving.client import Client, ServingError


def card_of(folder):
    return json.loads((folder / artifact.CARD).read_text())


def test_card(tiny_export, tiny_run):
    card = card_of(tiny_export / "1")
    assert (card["name"], card["version"], card["format"], card["test"]) == ("asr", 1, "savedmodel", None)
    assert "ASRModel.what_size = 4" in card["training"]["config_gin"]
    assert card["training"]["run"] == RunFolder(tiny_run).read_info()
    assert card["made_with"]["tensorflow"] == tf.__version__
    assert set(card["signatures"]) == {"infer", "serving_default", "refine", "sample", "render", "log_likelihood"}
    assert card["signatures"]["infer"]["inputs"]["images"]["shape"] == [None, *testing_export.CANVAS_SIZE, 1]
    assert card["files"] == artifact.checksums(tiny_export / "1")
    assert {"saved_model.pb", artifact.GOLDEN, artifact.WARMUP} <= set(card["files"])


def test_golden_values_are_of_every_signature_and_two_batch_sizes(tiny_export):
    names = ("infer", "refine", "sample", "render", "log_likelihood")
    with np.load(tiny_export / "1" / artifact.GOLDEN) as arrays:
        cases = {key.rsplit("/", 2)[0] for key in arrays}
        assert cases == {f"{name}/{i}" for name in names for i in (0, 1)}
        assert [arrays[f"sample/{case}/inputs/obey"].item() for case in (0, 1)] == [False, True]
        for case, size in enumerate(exporter.GOLDEN_BATCHES):
            assert arrays[f"infer/{case}/inputs/images"].shape == (size, *testing_export.CANVAS_SIZE, 1)
            assert arrays[f"sample/{case}/outputs/images"].shape == (size, *testing_export.CANVAS_SIZE, 1)


def test_warmup_requests_are_those_of_tensorflow_serving(tiny_export):
    from tensorflow_serving.apis import prediction_log_pb2

    loaded = tf.saved_model.load(str(tiny_export / "1"))
    records = [record.numpy() for record in tf.data.TFRecordDataset(str(tiny_export / "1" / artifact.WARMUP))]
    assert len(records) == 10
    signatures = []
    for record in records:
        request = prediction_log_pb2.PredictionLog.FromString(record).predict_log.request
        inputs = {name: tf.constant(tf.make_ndarray(proto)) for name, proto in request.inputs.items()}
        loaded.signatures[request.model_spec.signature_name](**inputs)
        signatures.append(request.model_spec.signature_name)
    assert sorted(set(signatures)) == ["infer", "log_likelihood", "refine", "render", "sample"]


def test_report_and_next_version(tiny_run, tmp_path):
    """A run with a report, exported a second time, for LiteRT."""
    run = testing_export.write_run(tmp_path / "run")
    report = {"count_accuracy": 0.5, "train_steps": 9, "weights_of_step": 0}
    (run / "report.json").write_text(json.dumps(report))
    export_dir = tmp_path / "x*[2]"
    (export_dir / "4").mkdir(parents=True)
    folder = exporter.export_run(run, export_dir, model_format="tflite")
    card = card_of(folder)
    assert folder == export_dir / "5" and card["version"] == 5
    assert card["test"] == report
    assert set(card["signatures"]) == {"infer"}
    assert set(card["files"]) == {artifact.TFLITE, artifact.GOLDEN}
    with pytest.raises(artifact.ExportError, match="version 5 in .* is of format tflite"):
        exporter.export_run(run, export_dir)
    model = testing_export.tiny_model()
    runner = tf.lite.Interpreter(str(folder / artifact.TFLITE)).get_signature_runner("infer")
    for number in (5, 1):
        images = testing_export.images(number)
        answers, wanted = runner(images=images), model.infer(images)
        assert set(answers) == set(wanted)
        for name, value in wanted.items():
            np.testing.assert_allclose(answers[name], value, rtol=0, atol=1e-4, err_msg=name)


@pytest.mark.parametrize("model_format", ["savedmodel", "tflite"])
def test_an_rgb_model(tmp_path, model_format):
    """Its card, its signatures and its golden values have three channels, and the SavedModel answers as it does."""
    model = testing_export.tiny_model(channels=3)
    folder = exporter.export_model(model, tmp_path, model_format=model_format)
    shape = [None, *testing_export.CANVAS_SIZE, 3]
    signatures = card_of(folder)["signatures"]
    assert signatures["infer"]["inputs"]["images"]["shape"] == shape
    assert signatures["infer"]["outputs"]["reconstruction"]["shape"] == shape
    with np.load(folder / artifact.GOLDEN) as arrays:
        assert arrays["infer/1/inputs/images"].shape == (exporter.GOLDEN_BATCHES[1], *shape[1:])
    images = testing_export.images(4, channels=3)
    if model_format == "tflite":
        infer = tf.lite.Interpreter(str(folder / artifact.TFLITE)).get_signature_runner("infer")
    else:
        loaded = tf.saved_model.load(str(folder))
        infer = loaded.signatures["infer"]
        assert {"refine", "sample", "render", "log_likelihood"} <= set(signatures)
    answers, wanted = infer(images=images), model.infer(images)
    for name, value in wanted.items():
        np.testing.assert_allclose(answers[name], value, rtol=0, atol=1e-4, err_msg=name)


def test_what_is_exported_is_served_as_the_model_answers(tmp_path):
    """From the model by way of the folder, the server and the client: refined posteriors, and scenes that obey."""
    model = testing_export.tiny_model(constraints=[CountInSet((1, 3), strength=1.0)])
    exporter.export_model(model, tmp_path / "x*[2]", warmup=False)
    images = testing_export.images(5)
    with testing_server.serving(tmp_path / "x*[2]") as server, Client(server.url) as client:
        refined, wanted = client.refine(images, steps=2), model.refine(images, 2)
        assert set(vars(refined)) == set(wanted)
        for name, value in wanted.items():
            atol = 1e-4 if name == "masks" else 1e-5  # quotients of small numbers
            np.testing.assert_allclose(getattr(refined, name), value, rtol=1e-5, atol=atol, err_msg=name)
        scenes, wanted = client.sample(30, seed=(2, 3), obey=True), model.sample(30, (2, 3), obey=True)
        assert set(scenes.count) == {1, 3} and 0.0 < scenes.acceptance_rate < 1.0
        for name, value in wanted.items():
            np.testing.assert_allclose(getattr(scenes, name), value, rtol=0, atol=1e-5, err_msg=name)
        plain, wanted = client.sample(30, seed=(2, 3)), model.sample(30, (2, 3))
        np.testing.assert_allclose(plain.images, wanted["images"], rtol=0, atol=1e-5)
        np.testing.assert_array_equal(plain.obeys, np.isin(wanted["count"], (1, 3)))
        np.testing.assert_allclose(plain.acceptance_rate, plain.obeys.mean(), rtol=1e-6)
        with pytest.raises(ServingError, match="4 of 4 scenes still break a rule after the last try; of all drawn"):
            client.sample(4, seed=(0, 0), num_objects=2, obey=True)


def test_figures_of_an_earlier_state_are_left_out(tmp_path, capsys):
    folder = RunFolder(tmp_path)
    assert exporter._report(folder, 7) is None
    folder.report.write_text('{"train_steps": 9, "weights_of_step": 5}')
    assert exporter._report(folder, 5) == {"train_steps": 9, "weights_of_step": 5}
    assert capsys.readouterr().out == ""
    assert exporter._report(folder, 7) is None
    assert "report.json is of step 5, and the model of step 7: left out." in capsys.readouterr().out


@pytest.mark.parametrize("text", ['{"weights_of_step": 5', "5"])
def test_a_damaged_report_is_named(tmp_path, text):
    folder = RunFolder(tmp_path)
    folder.report.write_text(text)
    with pytest.raises(artifact.ExportError) as caught:
        exporter._report(folder, 5)
    message = str(caught.value)
    assert message.startswith(f"{folder.report} is damaged (")
    assert message.endswith("): asr_evaluate writes it anew, or move it away.")


def test_a_crash_leaves_no_version(tmp_path, monkeypatch):
    def crash(*_):
        raise OSError("No space left on device")

    monkeypatch.setattr(exporter, "_write_golden", crash)
    with pytest.raises(OSError, match="No space left"):
        exporter.export_model(testing_export.tiny_model(), tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_models_that_are_refused(tiny_run, tmp_path, monkeypatch):
    model = testing_export.tiny_model()
    model.decoder.perceptron.dense[0].bias.assign(np.full(10, np.nan))
    with pytest.raises(artifact.ExportError, match="weight decoder/perceptron/dense_0/bias of the model holds"):
        exporter.export_model(model, tmp_path / "export")
    with pytest.raises(ValueError, match="model_format='onnx' is unknown; choose one of"):
        exporter.export_model(model, tmp_path / "export", model_format="onnx")
    monkeypatch.setattr(exporter, "restore_model", lambda _: (keras.Sequential([]), {}))
    with pytest.raises(artifact.ExportError, match="holds a Sequential, which has no objects to serve; asr_ex"):
        exporter.export_run(tiny_run, tmp_path / "export")
    assert not (tmp_path / "export").exists()


def test_warmup_without_the_protos(monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorflow_serving.apis", None)
    with pytest.raises(artifact.ExportError, match=r"pip install 'asr_tf\[export\]', or give --nowarmup"):
        exporter._warmup_requests({})
