"""The report and the figures of a run."""

from __future__ import annotations

import dataclasses
import json
import os
import types

import keras
import numpy as np
import pytest
import tensorflow as tf

from asr_tf.constraints import CountInSet, SceneStatistics
from asr_tf.data import Scenes, training_fingerprint
from asr_tf.evaluation import sheets
from asr_tf.models.image_vae import ImageVAE
from asr_tf.runs import configuration, files
from asr_tf.runs import evaluate as evaluation
from asr_tf.runs.run_folder import FORMAT
from asr_tf.scene import ObjectiveTerms, PosteriorStatistics


def _locate(images):
    return PosteriorStatistics(None, *(tf.ones([len(images), 2, size]) for size in (2, 2, 1, 1)), None, None), None


class _Model:
    """Finds one object in every image."""

    canvas_size = (8, 8)
    num_steps = 2
    finds_objects = True
    metrics: tuple[keras.metrics.Metric, ...] = ()
    kl = 1.0
    step = np.int64(300)
    masks = np.zeros((1, 2, 8, 8), np.float32)
    recognition = types.SimpleNamespace(locate=_locate)

    def infer(self, images, with_objects=False):
        number = len(images)
        return {
            "count": np.ones(number, np.int32),
            "count_probs": np.tile(np.array([[0.0, 1.0, 0.0]], np.float32), (number, 1)),
            "boxes": np.tile(
                np.array([[[0.0, 0.0, 0.5, 0.5], [0.0] * 4]], np.float32), (number, 1, 1)
            ),
            "scores": np.tile(np.array([1.0, 0.0], np.float32), (number, 1)),
            "masks": np.tile(self.masks[..., None], (number, 1, 1, 1, 1)),
            "objects": np.zeros((number, 2, 8, 8, 1), np.float32),
            "reconstruction": np.zeros((number, 8, 8, 1), np.float32),
        }

    def description(self):
        return {"kind": "toy"}

    def objective(self, images, seed):
        one = tf.ones(tf.shape(images)[0])
        return ObjectiveTerms(one, self.kl * one, one, one, one)

    def draw_noise(self, batch_size, seed):
        return tf.zeros([batch_size])

    def score(self, images, noise, seed, training):
        number = tf.shape(images)[0]
        return None, SceneStatistics.of_finished(tf.ones([number], tf.int32), tf.zeros([number, 2, 4]), (8, 8))

    def rules_held(self):
        return {}

    def test_step(self, data):
        return {"loss": tf.constant(0.0)}

    def sample(self, num_samples, seed, num_objects=-1):
        return {
            "images": np.zeros((num_samples, 8, 8, 1), np.float32),
            "count": np.full(num_samples, 1, np.int32),
            "boxes": np.zeros((num_samples, 2, 4), np.float32),
        }

    def log_likelihood(self, images, num_particles, seed):
        return tf.fill([len(images)], -3.0)


@pytest.fixture
def run(tmp_path, monkeypatch):
    """A run's folder, its model and its scenes, the same for every split, to be changed by the test."""
    rng = np.random.default_rng(0)
    run = types.SimpleNamespace(
        folder=tmp_path / "x*[2]",
        model=_Model(),
        scenes=Scenes(
            images=rng.integers(0, 256, (20, 8, 8, 1), dtype=np.uint8),
            counts=(np.arange(20) % 2 + 1).astype(np.int32),
            boxes=np.tile(np.array([[[0, 0, 0.5, 0.5], [0] * 4]], np.float32), (20, 1, 1)),
        ),
    )
    run.folder.mkdir()
    info = {"seed": 7, "train_seconds": 12.5, "steps": 300, "format": FORMAT}
    (run.folder / "run.json").write_text(json.dumps(info))
    (run.folder / "config.gin").write_text("evaluate.num_samples = 10\n")

    def restore_model(workdir):
        evaluation.RunFolder(workdir).parse_config()
        return run.model, json.loads((workdir / "run.json").read_text())

    monkeypatch.setattr(evaluation, "restore_model", restore_model)
    run.loaded = []
    run.source = types.SimpleNamespace(
        name="toy/one",
        load=lambda *arguments, **options: run.loaded.append((*arguments, options)) or run.scenes,
        depends_on_training_images=lambda split: split == "validation",
    )
    monkeypatch.setattr(evaluation, "DataSource", lambda: run.source)
    run.evaluate = lambda **settings: evaluation.evaluate(
        run.folder, rules=[CountInSet((1,))], batch_size=8, **settings
    )
    return run


def _figures(run):
    return sorted(path.name for path in (run.folder / "figures").iterdir())


@pytest.mark.parametrize(("name", "kind"), [("report.json", "a folder"), ("figures", "a file")])
def test_a_name_that_is_taken_is_told_before_anything_is_computed(run, name, kind):
    place = run.folder / name
    place.mkdir() if kind == "a folder" else place.write_text("mine")
    with pytest.raises(ValueError) as caught:
        evaluation.evaluate(run.folder)
    assert str(caught.value) == f"{place} is {kind}, and the evaluation writes there: move it away."
    assert run.loaded == []


def test_report_holds_what_others_read(run):
    (run.folder / "metrics.jsonl").write_text('{"step": 5, "nll_nats": 3.0}\n{"step": 1')
    returned = run.evaluate(seed=3)
    report = json.loads((run.folder / "report.json").read_text())
    assert report == returned
    assert report["count_accuracy"] == 0.5
    assert report["mean_iou"] == pytest.approx(0.75)
    assert report["negative_elbo_nats"] == 5.0
    assert report["samples_with_allowed_count"] == 1.0
    assert (report["train_seconds"], report["train_steps"], report["weights_of_step"]) == (12.5, 300, 300)
    assert report["log_likelihood_nats"] == -3.0
    assert report["data_set"] == "toy/one" and report["split"] == "test" and report["model"] == {"kind": "toy"}
    assert report["seeds"] == {"train": 7, "evaluate": 3}
    assert {"python", "tensorflow", "keras", "tensorflow_probability", "asr_tf"} <= set(
        report["versions"]
    )
    assert 1 <= report["machine"]["cpu_count"] <= os.cpu_count()
    assert report["evaluate_seconds"] > 0.0
    assert "not_finite" not in report
    assert _figures(run) == [
        "calibration.png",
        "count_confusion.png",
        "reconstructions.png",
        "samples.png",
        "step_by_step.png",
        "training_curves.png",
        "wrong_counts.png",
    ]
    leftovers = {path.name for path in run.folder.iterdir()} - {"metrics.jsonl", "run.json", "config.gin"}
    assert leftovers == {"figures", "report.json"}


def test_figures_of_an_earlier_evaluation_do_not_stay(run):
    run.evaluate()
    assert "wrong_counts.png" in _figures(run)
    run.scenes = Scenes(images=run.scenes.images)  # neither counts nor boxes are known
    report = run.evaluate()
    assert _figures(run) == ["reconstructions.png", "samples.png", "step_by_step.png"]
    assert "count_accuracy" not in report and report["squared_error"] > 0.0


def test_a_model_without_objects_has_a_report_and_pictures(run):
    run.evaluate()  # leaves figures that must go
    run.model = ImageVAE(canvas_size=(8, 8), what_size=2, encoder_units=(4,), decoder_units=(4,))
    report = run.evaluate()
    assert report["model"] == {"kind": "vae", "what_size": 2}
    assert report["squared_error"] > 0.0 and report["num_samples"] == 10
    assert not {"count_accuracy", "mean_iou", "broken_rules"} & set(report)
    assert _figures(run) == ["reconstructions.png", "samples.png"]


def test_numbers_that_are_not_finite_become_null_and_are_named(run, caplog):
    run.model.kl = float("nan")
    report = run.evaluate(num_likelihood_images=0)
    text = (run.folder / "report.json").read_text()
    assert "NaN" not in text
    assert json.loads(text) == report
    assert report["kl_count_nats"] is None and report["nll_nats"] == 1.0
    assert report["not_finite"] == ["negative_elbo_nats", "kl_count_nats"]


def test_places_of_what_is_not_finite_are_exact():
    cleaned = files.json_ready({"a": {"b": [1.0, float("inf")]}, "c": 2})
    assert cleaned == {"a": {"b": [1.0, None]}, "c": 2, "not_finite": ["a.b[1]"]}


def test_settings_and_folders_are_those_of_the_run(run):
    """Also where the process has parsed another configuration, and where the caller gives none."""
    info = json.loads((run.folder / "run.json").read_text()) | {"manual_dir": "/originals", "data_dir": "/prepared"}
    (run.folder / "run.json").write_text(json.dumps(info))
    configuration.parse([], ["evaluate.num_samples = 3"])
    assert run.evaluate()["num_samples"] == 10
    assert run.loaded == [("test", "/prepared", "/originals", {"with_masks": True})]
    evaluation.evaluate(run.folder, manual_dir="/others")
    assert run.loaded[1:] == [("test", "/prepared", "/others", {"with_masks": True})]


def test_the_report_is_of_the_weights_that_were_read(run):
    """Where the newest checkpoint is damaged, an older one is read, and run.json is ahead of it."""
    run.model.step = np.int64(200)
    report = run.evaluate()
    assert report["weights_of_step"] == 200


def test_the_validation_split_has_a_report_of_its_own(run):
    """The test split isn't read for it, and what was measured on that stays as it is."""
    run.evaluate()
    kept = {path: path.read_bytes() for path in (run.folder / "report.json", *(run.folder / "figures").iterdir())}
    run.loaded.clear()
    report = run.evaluate(split="validation", seed=3)
    assert [arguments[0] for arguments in run.loaded] == ["train", "validation", "validation"]
    assert run.loaded[-1] == ("validation", None, None, {"with_masks": True})
    assert report["split"] == "validation" and report["count_accuracy"] == 0.5
    assert json.loads((run.folder / "report_validation.json").read_text()) == report
    assert {path.name for path in (run.folder / "figures_validation").iterdir()} == set(_figures(run))
    assert kept == {path: path.read_bytes() for path in kept}
    assert (run.folder / "report.json") in kept and any(path.parent.name == "figures" for path in kept)


def test_true_masks_are_measured_and_found_ones_drawn(run, monkeypatch):
    """The toy finds the left half of each image, which is what there is in each second one."""
    masks = np.zeros((20, 2, 8, 8), np.uint8)
    masks[:, 0, :, :4] = 255
    masks[1::2, 1, :, 4:] = 255
    run.model.masks = masks[:1] / np.float32(255.0) * [[[[1]], [[0]]]]
    run.scenes = dataclasses.replace(run.scenes, masks=masks)
    drawn = []

    def mask_tiles(shares, plain=sheets.mask_tiles):
        drawn.append(shares)
        return plain(shares)

    monkeypatch.setattr(sheets, "mask_tiles", mask_tiles)
    assert run.evaluate()["mask_miou"] == pytest.approx((1.0 + 0.5) / 2)
    np.testing.assert_array_equal(drawn[0], np.tile(run.model.masks[..., None], (16, 1, 1, 1, 1)))


@pytest.mark.parametrize("split", ["train", "validate", None])
def test_other_splits_are_refused(run, split):
    with pytest.raises(ValueError, match=rf"^split={split!r} is unknown.* choose one of .'validation', 'test'.\.$"):
        run.evaluate(split=split)
    assert run.loaded == []


@pytest.mark.parametrize("split", ["validation", "test"])
def test_other_images_than_the_run_began_with_are_refused(run, split):
    """Where other images for training would also have made another split, some may have been trained on."""
    run.source.depends_on_training_images = lambda split: True
    (run.folder / "checkpoints").mkdir()
    (run.folder / "checkpoints" / "ckpt-300.index").touch()
    info = json.loads((run.folder / "run.json").read_text())
    images = training_fingerprint(run.scenes, run.scenes)
    (run.folder / "run.json").write_text(json.dumps(info | {"images": images}))
    run.evaluate(split=split)
    run.scenes = run.scenes.select(np.arange(20)[::-1])  # the same, in another order
    with pytest.raises(ValueError, match="other images for training: 20 images .* of 8 x 8 pixels, now 20"):
        run.evaluate(split=split)
    run.source.depends_on_training_images = lambda split: False
    run.evaluate(split=split)


def test_a_validation_split_that_the_run_was_trained_on_is_refused(run):
    """As that of a run of a version that held out others; its test split can still be measured."""
    (run.folder / "checkpoints").mkdir()
    (run.folder / "checkpoints" / "ckpt-300.index").touch()
    info = json.loads((run.folder / "run.json").read_text())
    (run.folder / "run.json").write_text(json.dumps(info | {"images": run.scenes.fingerprint()}))
    with pytest.raises(ValueError, match="other images for training: 20 images .* now 20 images .*, held out 20 im"):
        run.evaluate(split="validation")
    assert run.evaluate()["split"] == "test"


def test_a_folder_without_a_run_is_refused(tmp_path):
    with pytest.raises(ValueError, match="holds no run"):
        evaluation.evaluate(tmp_path / "nothing")
