"""RGB scenes from a folder of PNG files to counts in a table: every station has three channels and the same answers."""

from __future__ import annotations

import json
import types

import keras
import numpy as np
import PIL.Image
import pyarrow.parquet as pq
import pytest
import tensorflow as tf
import testing_server
from asr_tf.export.batch import job
from testing_colour import coloured_scenes
from testing_model import run_command

from asr_tf import evaluate_main, sample_main, train_main
from asr_tf.export import check_artifact, exporter
from asr_tf.runs.checkpoints import Checkpoints
from asr_tf.runs.run_folder import RunFolder, restore_model
from asr_tf.serving.client import Client

CANVAS = (24, 28)
RGB = (*CANVAS, 3)
BINDINGS = (
    "COUNTS = (1, 2)",
    "SIDES_PX = (6, 12)",
    "ASRModel.num_steps = 3",
    "ASRModel.glimpse_size = 6",
    "ASRModel.what_size = 4",
    "ASRModel.recognition = @LSTMRecognition()",
    "LSTMRecognition.rnn_units = 8",
    "LSTMRecognition.head_units = 6",
    "LSTMRecognition.encoder_units = (10,)",
    "MLPDecoder.units = (10,)",
    "AutoregressivePrior.rnn_units = 8",
    "AutoregressivePrior.head_units = 6",
    "train.batch_size = 8",
    "train.num_steps = 4",
    "train.jit_compile = False",
    "evaluate.num_samples = 8",
    "evaluate.num_particles = 2",
)


def numpy(outputs):
    return {name: keras.ops.convert_to_numpy(value) for name, value in outputs.items()}


def close(answers, wanted):
    """The same counts, and the same boxes and images within the last digits; an export says more of samples."""
    assert set(answers) - {"acceptance_rate", "obeys"} == set(wanted)
    np.testing.assert_array_equal(answers["count"], wanted["count"])
    for name, value in wanted.items():
        np.testing.assert_allclose(answers[name], value, atol=2e-5, err_msg=name)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A run on RGB images, its model, and what the model finds in those images: not the same count in all of them."""
    folder = tmp_path_factory.mktemp("channels")
    pictures = folder / "pictures"
    pictures.mkdir()
    images = coloured_scenes(40, seed=0, canvas_size=CANVAS).images
    for number, image in enumerate(images):
        PIL.Image.fromarray(image).save(pictures / f"{number:02d}.png")
    run = RunFolder(folder / "run")
    files = [f"--gin_files={name}" for name in ("models/asr.gin", "scenes/image_folder.gin")]
    bindings = [f"--gin_bindings={line}" for line in (f"data.path = '{pictures}'", *BINDINGS)]
    run_command(train_main, f"--workdir={run.path}", *files, *bindings)
    model, info = restore_model(run.path)
    assert (info["channels"], info["canvas_size"]) == (3, [*CANVAS])
    last = model.recognition.presence_output
    last.kernel.assign(200.0 * last.kernel)  # four steps teach nothing: counts shall differ between images all the same
    Checkpoints(run.result, 1, model=model).save(info["steps"])
    found = numpy(model.infer(images))
    assert len(set(found["count"])) > 1
    return types.SimpleNamespace(
        folder=folder, pictures=pictures, run=run, model=model, images=images, found=found
    )


@pytest.fixture(scope="module")
def export_dir(trained):
    exporter.export_run(trained.run.path, trained.folder / "export")
    return trained.folder / "export"


def test_each_channel_counts(trained):
    assert trained.found["reconstruction"].shape == (40, *RGB)
    for order in ([2, 1, 0], [0, 2, 1], [1, 1, 1]):
        others = numpy(trained.model.infer(trained.images[..., order]))
        assert np.abs(others["boxes"] - trained.found["boxes"]).max() > 1e-3
    objects = trained.model.infer(trained.images[:2], with_objects=True)["objects"]
    assert objects.shape == (2, 3, *RGB)


def test_evaluation(trained, capsys):
    run_command(evaluate_main, f"--workdir={trained.run.path}")
    report = json.loads(trained.run.report.read_text())
    assert report["num_test_images"] == 4  # a tenth of them
    assert "not_finite" not in report and np.isfinite(report["negative_elbo_nats"])
    names = {path.stem for path in trained.run.figures.iterdir()}
    assert {"reconstructions", "samples", "step_by_step", "training_curves"} <= names
    assert "-ELBO" in capsys.readouterr().out


def test_samples(trained):
    run_command(sample_main, f"--workdir={trained.run.path}", "--num_samples=5", "--num_objects=2", "--seed=3")
    drawn = numpy(trained.model.sample(5, seed=(3, 0), num_objects=2))
    with np.load(trained.run.samples / "samples.npz") as arrays:
        assert arrays["images"].shape == (5, *RGB)
        assert arrays["counts"].tolist() == [2] * 5
        np.testing.assert_allclose(arrays["images"], drawn["images"], atol=1e-6)
        np.testing.assert_allclose(arrays["boxes"], drawn["boxes"], atol=1e-6)
    colours = np.asarray(PIL.Image.open(trained.run.samples / "samples.png").convert("RGB"))
    assert len(np.unique(colours.reshape(-1, 3), axis=0)) > 10


def test_the_export_answers_as_the_model(trained, export_dir):
    lines = list(check_artifact._verdicts(export_dir / "1"))
    assert lines[-1] == "infer refuses images with NaN"
    card = json.loads((export_dir / "1" / "model_card.json").read_text())
    assert card["signatures"]["infer"]["inputs"]["images"]["shape"] == [None, *RGB]
    loaded = tf.saved_model.load(str(export_dir / "1"))
    images = trained.images.astype(np.float32) / 255.0
    close(numpy(loaded.signatures["infer"](images=tf.constant(images))), trained.found)
    objects = {name: trained.found[name] for name in ("z_what", "boxes", "presence")}
    drawn = loaded.signatures["render"](**{name: tf.constant(value) for name, value in objects.items()})["images"]
    np.testing.assert_allclose(drawn, trained.found["reconstruction"], atol=2e-5)


def test_the_server_answers_as_the_model(trained, export_dir):
    with testing_server.serving(export_dir) as running, Client(running.url) as client:
        found = client.infer(trained.images)
        close(vars(found), trained.found)
        drawn = client.render(found.z_what, found.boxes, found.presence)
        np.testing.assert_allclose(drawn, trained.found["reconstruction"], atol=2e-5)
        scenes = client.sample(3, seed=(0, 1))
        assert scenes.images.shape == (3, *RGB)
        close(vars(scenes), numpy(trained.model.sample(3, seed=(0, 1))))


def test_the_batch_job_answers_as_the_model(trained, export_dir, tmp_path):
    np.save(tmp_path / "stack.npy", trained.images[:7])
    model = job.find_model(str(export_dir))
    assert (model.image_shape, model.num_steps) == (RGB, 3)
    patterns = [f"{trained.pictures}/*.png", f"{tmp_path}/stack.npy"]
    assert job.run(model, patterns, str(tmp_path / "out"), "parquet", job.parse_options([])) == (47, 0)
    rows = [row for file in (tmp_path / "out").glob("*.parquet") for row in pq.read_table(file).to_pylist()]
    for row in rows:
        name = row["file"].rpartition("/")[2]
        number = row["record"] if name == "stack.npy" else int(name.partition(".")[0])
        assert row["count"] == trained.found["count"][number]
        np.testing.assert_allclose(row["boxes"], trained.found["boxes"][number], atol=2e-5)
    assert len({(row["file"], row["record"]) for row in rows}) == 47
