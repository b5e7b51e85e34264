"""Every gin file parses, says what it stands for, and runs two tiny steps of the real model."""

from __future__ import annotations

import math
import re

import gin
import numpy as np
import pytest

from asr_tf.data import Scenes
from asr_tf.runs import configuration, run_folder
from asr_tf.training import fit

MODELS = [name for name in configuration.available_files() if name.startswith("models/") and name != "models/known.gin"]
SCENES = [name for name in configuration.available_files() if name.startswith("scenes/")]
PRIORS = {
    "models/air.gin": "AIRPrior",
    "models/air_pprior.gin": "AutoregressivePrior",
    "models/asr.gin": "AutoregressivePrior",
}
TINY = (
    "ASRModel.canvas_size = (32, 36)",
    "ASRModel.glimpse_size = 6",
    "ASRModel.what_size = 3",
    "LSTMRecognition.rnn_units = 5",
    "LSTMRecognition.head_units = 4",
    "LSTMRecognition.encoder_units = (6,)",
    "MLPDecoder.units = (6,)",
    "AutoregressivePrior.rnn_units = 5",
    "AutoregressivePrior.head_units = 4",
    "ConvRecognition.filters = 4",
    "ConvRecognition.look_size = 4",
    "ConvRecognition.look_units = 4",
    "ConvRecognition.encoder_units = (6,)",
    "ImageVAE.encoder_units = (6,)",
    "ImageVAE.decoder_units = (6,)",
    "train.batch_size = 2",
    "train.num_steps = 2",
    "train.validation_size = 2",
    "train.jit_compile = False",
)


@pytest.fixture(autouse=True)
def few_scenes(monkeypatch):
    """Eight images instead of the data set; what is loaded by which name is the business of tests/data."""

    def load(self, split, data_dir=None, manual_dir=None):
        rng = np.random.default_rng(0)
        images = np.zeros((8, 32, 36, 1), np.uint8)
        images[:, 4:10, 5:11] = rng.integers(0, 256, (8, 6, 6, 1))
        boxes = np.tile(np.array([[[0.25, 0.25, 0.625, 0.55]]], np.float32), (8, 1, 1))
        return Scenes(images, counts=np.ones(8, np.int32), boxes=boxes)

    monkeypatch.setattr(fit.DataSource, "load", load)


def train(workdir, *files):
    own = ["COUNTS = (1, 3)"] if "scenes/image_folder.gin" in files else []  # which users state
    configuration.parse(files, [*TINY, *own])
    return fit.train(str(workdir))


def test_there_are_the_three_models_and_scenes_for_each_data_set():
    assert MODELS == ["models/air.gin", "models/air_pprior.gin", "models/asr.gin", "models/vae.gin"]
    assert {"scenes/mnist_count13.gin", "scenes/sprites_count13.gin"} <= set(SCENES)


@pytest.mark.parametrize("name", configuration.available_files())
def test_files_open_with_what_they_stand_for(name):
    assert configuration.find_file(name).read_text(encoding="utf-8").startswith("# ")


@pytest.mark.parametrize("model", MODELS)
def test_every_model_runs_two_steps(model, tmp_path):
    info = train(tmp_path, model, "scenes/mnist_count13.gin")
    assert info["steps"] == 2
    assert math.isfinite(info["last_report"]["loss"])
    penalties = [name for name in info["last_report"] if name.startswith("penalty_")]
    assert bool(penalties) == (model == "models/asr.gin")
    restored, _ = run_folder.restore_model(tmp_path)
    assert restored.canvas_size == (32, 36)
    inferred = restored.infer(np.zeros((1, 32, 36, 1), np.float32))
    assert inferred["reconstruction"].shape == (1, 32, 36, 1)
    assert ("boxes" in inferred) == (model != "models/vae.gin")
    assert restored.description().get("prior") == PRIORS.get(model)


@pytest.mark.slow  # continuous integration runs it as the demo
def test_the_quickstart_runs_two_steps(tmp_path):
    assert train(tmp_path, "quickstart.gin")["steps"] == 2


@pytest.mark.parametrize("scenes", SCENES)
def test_every_file_of_scenes_names_its_data_and_runs_two_steps(scenes, tmp_path):
    info = train(tmp_path, "models/asr.gin", scenes)
    assert gin.query_parameter("data.name")
    assert info["steps"] == 2
    assert math.isfinite(info["last_report"]["loss"])
    model, _ = run_folder.restore_model(tmp_path)
    assert model.constraints
    assert max(max(rule.counts) for rule in model.constraints if hasattr(rule, "counts")) == model.num_steps
    assert model.spec.exact_count == (model.num_steps if "overlap" in scenes else None)


# What a user knows of scenes; all else is one default for all of them.
FACTS = re.compile(
    r"data\.(name|path)$|ASRModel\.canvas_size$|COUNTS$|SIDES_PX$|RULES$"
    r"|\w+\.(tolerance|broken_share|applies_to|\w+_px|counts|probabilities|first|second|axis|path|function)$"
)


@pytest.mark.parametrize("scenes", SCENES)
def test_files_of_scenes_state_facts_only(scenes):
    """No strength, ramp, rate, bound, look, grid or location of a prior."""
    text = configuration.find_file(scenes).read_text(encoding="utf-8")
    settings = configuration.parse_settings(text)
    assert {"data.name", "RULES"} <= set(settings)
    for name in settings:
        assert FACTS.match(name), f"{scenes} sets {name}, which isn't a fact"
    assert "include" not in re.sub(r"#.*", "", text)


def test_a_rule_that_cannot_hold_is_refused(tmp_path):
    configuration.parse(["models/asr.gin", "scenes/mnist_count13.gin"], [*TINY, "CountInSet.counts = (1, 7)"])
    with pytest.raises(ValueError, match="7"):
        fit.train(str(tmp_path))


def test_a_real_run_resumes_to_the_same_weights(tmp_path, monkeypatch):
    """Interrupted half way and resumed, against a run that never stopped; both also against what was trained."""
    trained = []

    def build_model(**arguments):
        trained.append(run_folder.build_model(**arguments))
        return trained[-1]

    monkeypatch.setattr(fit, "build_model", build_model)
    files = ("models/asr.gin", "scenes/mnist_count13.gin")
    bindings = [*TINY, "train.steps_per_execution = 1", "train.images_every_reports = 0"]
    monkeypatch.setattr(fit, "validation_metrics", lambda *_: {})
    configuration.parse(files, bindings)
    fit.train(str(tmp_path / "whole"))
    with monkeypatch.context() as interrupted:
        plain = fit.callbacks.Clock.on_train_batch_end

        def stop(self, batch, logs=None):
            plain(self, batch, logs)
            raise KeyboardInterrupt

        interrupted.setattr(fit.callbacks.Clock, "on_train_batch_end", stop)
        configuration.parse(files, bindings)
        with pytest.raises(KeyboardInterrupt, match="at step 1, which is saved"):
            fit.train(str(tmp_path / "parts"))
    configuration.parse(files, bindings)
    fit.train(str(tmp_path / "parts"))
    whole, _ = run_folder.restore_model(tmp_path / "whole")
    parts, _ = run_folder.restore_model(tmp_path / "parts")
    never_stopped, _, resumed = trained
    for model in (resumed, whole, parts):
        for a, b in zip(never_stopped.trainable_variables, model.trainable_variables, strict=True):
            # Threads may add up in another order, to a unit of the last place; a lost moment of Adam is 1e-6 and more.
            np.testing.assert_allclose(a.numpy(), b.numpy(), rtol=1e-6, atol=1e-9, err_msg=a.path)
