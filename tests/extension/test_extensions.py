"""Parts written outside of the package, each in one file and named by one gin line, do all that its own parts do."""

from __future__ import annotations

import ast
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any, NamedTuple

import keras
import numpy as np
import pytest
import source_tree
import tensorflow as tf
import testing_export
import testing_server

from asr_tf.data import load_scenes
from asr_tf.export import exporter
from asr_tf.networks.contracts import Drawn, ObjectDecoder
from asr_tf.runs import configuration
from asr_tf.runs.evaluate import validation_metrics
from asr_tf.runs.run_folder import restore_model
from asr_tf.training.fit import train

HERE = Path(__file__).resolve().parent
ROLES = {
    "attention_recognition": "recognition",
    "constant_background": "background",
    "conv_decoder": "decoder",
    "poisson_prior": "prior",
}
SMALL = """
COUNTS = (1, 2)
SIDES_PX = (4, 6)
ASRModel.glimpse_size = 6
ASRModel.what_size = 4
ConvRecognition.filters = 8
ConvRecognition.look_units = 8
ConvRecognition.encoder_units = (16,)
MLPDecoder.units = (16,)
AutoregressivePrior.rnn_units = 8
AutoregressivePrior.head_units = 8
AutoregressivePrior.placement_grid = 6
train.batch_size = 16
train.num_steps = 200
train.steps_per_report = 40
train.warmup_steps = 10
train.peak_learning_rate = 5e-3
train.images_every_reports = 0
"""


def pictures(number: int, seed: int) -> np.ndarray:
    """uint8 [number, 16, 16, 3]: one or two white squares on a dark colour."""
    rng = np.random.default_rng(seed)
    images = np.zeros((number, 16, 16, 3), np.uint8)
    for image in images:
        image[:] = rng.integers(0, 60, 3)
        for _ in range(rng.integers(1, 3)):
            y, x = rng.integers(0, 11, 2)
            image[y : y + 5, x : x + 5] = 255
    return images


def configure(folder: Path, *more: str) -> None:
    """Parses the package's files, and what comes behind them: gin files, and lines in place of them."""
    np.save(folder / "images.npy", pictures(200, seed=0))
    bindings = [f"data.path = {str(folder)!r}", *SMALL.split("\n")[1:-1]]
    files = [name for name in more if name.endswith(".gin")]
    lines = [name for name in more if not name.endswith(".gin")]
    configuration.parse(["models/asr.gin", "scenes/image_folder.gin", *files], [*bindings, *lines])


class Run(NamedTuple):
    name: str
    workdir: Path
    model: Any  # as `restore_model` gives it back

    @property
    def part(self) -> Any:
        return getattr(self.model, ROLES[self.name])


@pytest.fixture(scope="module", params=list(ROLES))
def run(request, tmp_path_factory) -> Run:
    folder = tmp_path_factory.mktemp(request.param)
    configure(folder, str(HERE / f"{request.param}.gin"))
    train(folder / "run", seed=1)
    return Run(request.param, folder / "run", restore_model(folder / "run")[0])


@pytest.fixture(scope="module")
def export_dir(run, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("export")
    exporter.export_run(run.workdir, folder, warmup=False)
    return folder


def check_equal(answer: dict[str, Any], wanted: dict[str, Any]) -> None:
    assert set(answer) == set(wanted)
    for name, value in wanted.items():
        np.testing.assert_allclose(np.asarray(answer[name]), value, rtol=0, atol=1e-5, err_msg=name)


def test_the_loss_falls(run):
    lines = [json.loads(line) for line in (run.workdir / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [40, 80, 120, 160, 200]
    assert lines[-1]["loss"] < 0.7 * lines[0]["loss"]
    assert lines[-1]["skipped_steps"] == 0.0


def test_the_run_comes_back(run):
    assert type(run.part).__module__ == run.name
    lines = [json.loads(line) for line in (run.workdir / "metrics.jsonl").read_text().splitlines()]
    (report,) = [line for line in lines if line["step"] == int(run.model.step.numpy())]  # that with the best bound
    _, info = restore_model(run.workdir)
    assert info["module_folders"] == [str(HERE)]
    scenes = load_scenes("image_folder", "validation", path=run.workdir.parent)
    metrics = validation_metrics(run.model, scenes)
    assert metrics["squared_error"] == pytest.approx(report["val_squared_error"], rel=1e-4)


def test_its_gradient_reaches_its_weights(run):
    variables = run.part.trainable_variables
    assert variables
    with tf.GradientTape() as tape:
        loss = tf.reduce_mean(run.model.objective(pictures(16, seed=1), seed=(0, 1)).negative_elbo)
    for variable, gradient in zip(variables, tape.gradient(loss, variables), strict=True):
        assert np.isfinite(gradient).all() and np.any(gradient), variable.path


def test_its_export_infers_as_the_model_does(run, export_dir):
    images = pictures(7, seed=2) / np.float32(255.0)
    loaded = tf.saved_model.load(str(export_dir / "1"))
    check_equal(loaded.signatures["infer"](images=tf.constant(images)), run.model.infer(images))


def test_it_is_served(run, export_dir):
    images = pictures(3, seed=3) / np.float32(255.0)
    wanted = run.model.infer(images)
    with testing_server.serving(export_dir) as server:
        status, answer = server.predict({"instances": images.tolist()})
    assert status == 200, answer
    check_equal({name: [row[name] for row in answer["predictions"]] for name in wanted}, wanted)


def test_it_is_saved_and_loaded_by_keras(run, tmp_path):
    run.model.save(tmp_path / "m.keras")
    loaded = keras.models.load_model(tmp_path / "m.keras")
    part = getattr(loaded, ROLES[run.name])
    assert part is not run.part
    assert part.get_config() == run.part.get_config()
    check_equal(loaded.infer(pictures(5, seed=4)), run.model.infer(pictures(5, seed=4)))


def test_it_samples_and_weighs(run):
    one, same = (run.model.sample(6, (0, 3)) for _ in range(2))
    check_equal(one, same)
    assert one["images"].shape == (6, 16, 16, 3)
    assert np.min(one["images"]) >= 0.0 and np.max(one["images"]) <= 1.0
    assert (run.model.sample(6, (0, 3), num_objects=2)["count"].numpy() == 2).all()
    assert np.isfinite(run.model.log_likelihood(pictures(4, seed=5), 2, (0, 4))).all()


@pytest.mark.parametrize("run", ["constant_background"], indirect=True)
def test_another_process_finds_it(run, tmp_path):
    """A run remembers where the module lies; a file of Keras does not, and says what to import."""
    run.model.save(tmp_path / "m.keras")
    np.save(tmp_path / "images.npy", pictures(5, seed=6))
    code = (
        "import sys, keras, numpy as np, asr_tf\n"
        "from asr_tf.runs.run_folder import restore_model\n"
        "import asr_tf.models\n"
        "try:\n"
        "    keras.models.load_model('m.keras')\n"
        "except ValueError as error:\n"
        "    print(error)\n"
        "model, _ = restore_model(sys.argv[1])\n"
        "images = np.load('images.npy')\n"
        "np.save('restored.npy', model.infer(images)['reconstruction'])\n"
        "np.save('loaded.npy', keras.models.load_model('m.keras').infer(images)['reconstruction'])\n"
    )
    command = [sys.executable, "-c", code, str(run.workdir)]
    environment = os.environ | {"PYTHONPATH": str(source_tree.ROOT)}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert "constant_background.ConstantBackground: import constant_background first." in done.stdout
    wanted = run.model.infer(pictures(5, seed=6))["reconstruction"]
    for name in ("restored", "loaded"):
        np.testing.assert_allclose(np.load(tmp_path / f"{name}.npy"), wanted, rtol=0, atol=1e-5)


@pytest.mark.parametrize("name", ROLES)
def test_it_is_one_short_file_and_one_gin_line(name):
    text = (HERE / f"{name}.py").read_text()
    assert len(text.splitlines()) <= 80
    tree = ast.parse(text)
    assert ast.get_docstring(tree)
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom):
            names = [*node.module.split("."), *(alias.name for alias in node.names)]
        elif isinstance(node, ast.Import):
            names = [part for alias in node.names for part in alias.name.split(".")]
        elif isinstance(node, ast.Attribute) and ast.unparse(node.value) not in ("self", "super()"):
            names = [node.attr]
        else:
            continue
        public = [part for part in names if not part.startswith("_") or part == "_replace"]
        assert names == public, ast.unparse(node)
    lines = [line for line in (HERE / f"{name}.gin").read_text().splitlines() if line]
    assert lines[0] == f"import {name}"
    assert len(lines) == 2 and lines[1].startswith(f"ASRModel.{ROLES[name]} = @")


# What goes wrong.


def test_a_part_of_another_kind_is_refused_in_one_line(tmp_path):
    configure(tmp_path, "ASRModel.decoder = @AIRPrior()")
    with pytest.raises(TypeError) as caught:
        train(tmp_path / "run")
    line = configuration.one_line(caught.value)
    assert line.startswith("ASRModel.decoder must be a")
    assert "ObjectDecoder" in line and "AIRPrior" in line and "\n" not in line


class Grey(ObjectDecoder):
    """Draws one channel, whatever the images have."""

    def call(self, what):
        side = self.spec.glimpse_size
        return Drawn(tf.fill([tf.shape(what)[0], side, side, 1], 0.5))


class Fails(ObjectDecoder):
    def call(self, what):
        raise ValueError("my decoder needs a prime number of filters, got 4.")


def test_a_part_that_gives_another_shape_is_refused_in_one_line():
    with pytest.raises(ValueError) as caught:
        testing_export.tiny_model(decoder=Grey(), channels=3).objective(testing_export.images(2, channels=3), (0, 0))
    line = configuration.one_line(caught.value)
    assert line == "ASRModel.decoder: colour must be float32 [N, 6, 6, 3], got float32 (6, 6, 6, 1)."


def test_an_error_in_a_part_is_told_in_one_line():
    with pytest.raises(ValueError) as caught:
        testing_export.tiny_model(decoder=Fails()).objective(testing_export.images(2), (0, 0))
    assert "my decoder needs a prime number of filters, got 4." in configuration.one_line(caught.value)
