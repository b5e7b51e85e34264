"""What is measured on a model, held against a stand-in whose answers are known, and on a real one."""

from __future__ import annotations

import types

import keras
import numpy as np
import pytest
import tensorflow as tf

from asr_tf.constraints import AggregateCount, CountInSet, SceneStatistics
from asr_tf.data import Scenes
from asr_tf.evaluation import calibration, measurement
from asr_tf.models.asr_model import ASRModel
from asr_tf.networks.decoder import MLPDecoder
from asr_tf.networks.prior import AutoregressivePrior
from asr_tf.networks.recognition import LSTMRecognition
from asr_tf.scene import ObjectiveTerms, PosteriorStatistics

_HALF = [0.0, 0.0, 1.0, 0.5]


def _too_far(images):
    """Windows one standard deviation too far to the right, and as far below; half a one too large."""
    shift, scale = calibration.window_latents([_HALF, [0.5, 0.5, 1.0, 1.0]], (4, 4))
    parts = shift + 2.0, 0.0 * shift + np.log(2.0), scale + 0.5, 0.0 * scale
    windows = (tf.tile(tf.constant(part[np.newaxis], tf.float32), [len(images), 1, 1]) for part in parts)
    return PosteriorStatistics(None, *windows, None, None), None


class _KnownModel:
    """Takes an image's first pixel for its count, and knows nothing else of it."""

    finds_objects = True
    canvas_size = (4, 4)
    num_steps = 2
    nll_of_dark = 0.0

    def __init__(self):
        self.recognition = types.SimpleNamespace(locate=_too_far)
        self.metrics = [keras.metrics.Mean("penalty_mean")]
        self.batch_sizes = set()
        self.traces = 0
        self.seeds = []

    def infer(self, images, with_objects=False):
        images = np.asarray(images)
        self.batch_sizes.add(len(images))
        count = np.round(images[:, 0, 0, 0] * 255).astype(np.int32)
        present = np.arange(2) < count[:, None]
        objects = np.zeros((len(images), 2, 4, 4, images.shape[-1]), np.float32)
        objects[:, 0, :, :2, 0] = 1.0
        objects[:, 1, 2:, 3:, -1] = 1.0
        return {
            "count": count,
            "count_probs": np.eye(3, dtype=np.float32)[count] * 0.7 + 0.1,
            "boxes": np.array([_HALF, [0.5, 0.5, 1.0, 1.0]], np.float32) * present[..., None],
            "scores": np.tile(np.float32([0.9, 0.4]), (len(images), 1)),
            "masks": objects.max(axis=-1, keepdims=True) * present[..., None, None, None],
            "objects": objects,
            "reconstruction": np.zeros_like(images),
        }

    def draw_noise(self, batch_size, seed):
        return tf.zeros([batch_size])

    def score(self, images, noise, seed, training):
        count = tf.cast(tf.round(images[:, 0, 0, 0] * 255.0), tf.int32)
        return None, SceneStatistics.of_finished(count, tf.zeros([tf.shape(images)[0], 2, 4]), self.canvas_size)

    def rules_held(self):
        return {}

    def objective(self, images, seed):
        self.traces += 1
        brightness = tf.reduce_sum(images, axis=[1, 2, 3])
        nll = tf.where(brightness > 0.0, brightness, self.nll_of_dark)
        one = tf.ones_like(nll)
        return ObjectiveTerms(nll, one, 2.0 * one, 3.0 * one, 4.0 * one)

    def test_step(self, data):
        self.metrics[0].update_state(tf.reduce_max(data["image"]))
        return {"loss": 0.0, "penalty_mean": self.metrics[0].result()}

    def sample(self, num_samples, seed, num_objects=-1):
        self.seeds.append(tuple(seed))
        return {
            "images": np.zeros((num_samples, 4, 4, 1), np.float32),
            "count": (np.arange(num_samples) % 3).astype(np.int32),
            "boxes": np.zeros((num_samples, 2, 4), np.float32),
        }

    def log_likelihood(self, images, num_particles, seed):
        return -tf.reduce_sum(images, axis=[1, 2, 3]) - num_particles


def _scenes():
    """Five scenes: counts 1, 1, 2, 2, 1, taken for 1, 1, 2, 1, 0."""
    images = np.zeros((5, 4, 4, 1), np.uint8)
    images[:, 0, 0, 0] = [1, 1, 2, 1, 0]
    images[:, 3, 3, 0] = [51, 102, 153, 204, 0]
    boxes = np.zeros((5, 3, 4), np.float32)
    boxes[:, 0] = _HALF
    boxes[2:4, 1] = [0.5, 0.5, 1.0, 1.0]
    ink_boxes = boxes.copy()
    ink_boxes[2, 1] = [0.5, 0.75, 1.0, 1.0]
    masks = np.zeros((5, 3, 4, 4), np.uint8)
    masks[:, 0, :, :2] = 255
    masks[2:4, 1, 2:, 2:] = 255
    counts = np.array([1, 1, 2, 2, 1], np.int32)
    return Scenes(images=images, counts=counts, boxes=boxes, ink_boxes=ink_boxes, masks=masks)


def _measure(model=None, scenes=None, **settings):
    settings = {"batch_size": 2, "num_samples": 7, "num_particles": 3, **settings}
    return measurement.measure(model or _KnownModel(), scenes or _scenes(), **settings)


def test_numbers_by_hand():
    report, _ = _measure(num_likelihood_images=3)
    brightness = np.array([52, 103, 155, 205, 0]) / 255
    pixels = np.array([1, 1, 2, 1, 0]) / 255, np.array([51, 102, 153, 204, 0]) / 255
    assert report["num_test_images"] == 5
    assert report["nll_nats"] == pytest.approx(brightness.mean(), rel=1e-6)
    assert [report[f"kl_{name}_nats"] for name in ("count", "shift", "scale", "what")] == [1, 2, 3, 4]
    assert report["negative_elbo_nats"] == pytest.approx(brightness.mean() + 10.0, rel=1e-6)
    assert report["squared_error"] == pytest.approx(np.mean(pixels[0] ** 2 + pixels[1] ** 2))
    assert report["count_accuracy"] == 0.6
    assert report["count_mae"] == pytest.approx(0.4)
    assert report["count_relative_error"] == pytest.approx((0.5 + 1.0) / 5)
    assert report["count_ece"] == pytest.approx(0.8 - 0.6)
    assert report["count_reliability"] == [{"confidence": pytest.approx(0.8), "accuracy": 0.6, "number": 5}]
    assert report["box_coverage"] == {
        "level": [0.5, 0.8, 0.9, 0.95], "shift": [0.0, 1.0, 1.0, 1.0], "scale": [1.0, 1.0, 1.0, 1.0]
    }  # fmt: skip
    assert report["f1_50"] == pytest.approx(2 * 5 / (5 + 7)) and report["ap_stardist_50"] == pytest.approx(5 / 7)
    assert report["ap50"] == pytest.approx(72 / 101)  # recalls 0, 0.01, ..., 0.71 at precision 1
    # The second object's mask is half as large as the true one, and half of the images have a miss.
    assert report["msc"] == pytest.approx((1 + 1 + (1 + 0.5) / 2 + 0.5 + 0) / 5)
    assert report["sc"] == pytest.approx((1 + 1 + (8 + 0.5 * 4) / 12 + 8 / 12 + 0) / 5)
    assert report["mask_miou"] == pytest.approx((1 + 1 + 0.75 + 0.5 + 0) / 5)
    assert report["mask_f1_50"] == pytest.approx(10 / 12) and report["ari_fg_single"] == 0.6
    assert report["sampled_count_accuracy"] == pytest.approx((0.8 * 3 + 0.1 * 2) / 5)
    assert report["count_confusion"] == [[0, 0, 0], [1, 2, 0], [0, 1, 1], [0, 0, 0]]
    assert report["mean_iou"] == pytest.approx((1 + 1 + 1 + 0.5 + 0) / 5)
    assert report["mean_ink_iou"] == pytest.approx((1 + 1 + 1 + 0.5 + 0) / 5)
    assert report["box_precision_recall"]["precision"] == [1.0] * 11
    assert report["box_precision_recall"]["recall"] == [5 / 7] * 11
    assert report["log_likelihood_nats"] == pytest.approx(-brightness[:3].mean() - 3, rel=1e-6)
    assert report["log_likelihood_standard_error_nats"] == pytest.approx(
        brightness[:3].std() / np.sqrt(3), rel=1e-4
    )
    assert report["log_likelihood_images"] == 3 and report["log_likelihood_particles"] == 3


def _rgb_scenes():
    """The scenes above in three channels: red holds the count, green the other pixel, blue a third one."""
    scenes = _scenes()
    images = np.zeros((5, 4, 4, 3), np.uint8)
    images[:, 0, 0, 0] = scenes.images[:, 0, 0, 0]
    images[:, 3, 3, 1] = scenes.images[:, 3, 3, 0]
    images[:, 3, 3, 2] = [10, 20, 30, 40, 0]
    return Scenes(images, scenes.counts, scenes.boxes, scenes.ink_boxes)


def test_numbers_of_rgb_scenes_by_hand():
    report, outputs = _measure(scenes=_rgb_scenes(), num_likelihood_images=3)
    values = np.array([[1, 1, 2, 1, 0], [51, 102, 153, 204, 0], [10, 20, 30, 40, 0]]) / 255
    brightness = values.sum(axis=0)
    assert report["nll_nats"] == pytest.approx(brightness.mean(), rel=1e-6)
    # Summed over channels too, as the reconstruction is black.
    assert report["squared_error"] == pytest.approx(np.square(values).sum(axis=0).mean())
    assert report["log_likelihood_nats"] == pytest.approx(-brightness[:3].mean() - 3, rel=1e-6)
    # What was found and where is what it was for grey scenes.
    grey, _ = _measure(num_likelihood_images=3)
    for name in ("count_accuracy", "count_confusion", "mean_iou", "mean_ink_iou", "box_precision_recall"):
        assert report[name] == grey[name], name
    assert outputs["inferred"]["reconstruction"].shape == (5, 4, 4, 3)
    values = measurement.validation_metrics(_KnownModel(), _rgb_scenes())
    assert values["squared_error"] == pytest.approx(report["squared_error"])


@pytest.mark.parametrize("channels", [1, 3])
def test_batches_have_one_size_and_keep_the_channels(channels):
    images = np.random.default_rng(0).integers(0, 256, (5, 4, 6, channels), dtype=np.uint8)
    batches = list(measurement._batches(images, 2))
    assert [(batch.shape, batch.dtype, wanted) for batch, wanted in batches] == [
        ((2, 4, 6, channels), np.float32, 2),
        ((2, 4, 6, channels), np.float32, 2),
        ((2, 4, 6, channels), np.float32, 1),
    ]
    whole = np.concatenate([batch[:wanted] for batch, wanted in batches])
    np.testing.assert_allclose(whole, images / np.float32(255), rtol=1e-6)


def test_penalties_are_means_over_batches():
    report, _ = _measure()
    # The last batch is filled up with the first image.
    assert report["penalty_mean"] == pytest.approx((102 + 204 + 51) / 3 / 255)


def test_filling_up_the_last_batch_changes_no_number_and_saves_a_trace():
    model = _KnownModel()
    ragged, outputs = _measure(model)
    whole, _ = _measure(batch_size=5)
    assert model.batch_sizes == {2} and model.traces == 1
    assert outputs["inferred"]["count"].tolist() == [1, 1, 2, 1, 0]
    for name in ("nll_nats", "squared_error", "sampled_count_accuracy", "mean_iou", "mean_ink_iou"):
        assert ragged[name] == pytest.approx(whole[name]), name


def test_sampled_scenes_are_held_against_the_rules():
    model = _KnownModel()
    rules = [CountInSet((1,)), AggregateCount((1,))]
    report, outputs = _measure(model, rules=rules, seed=5)
    assert report["num_samples"] == 7 and len(outputs["sampled"]["count"]) == 7
    assert report["sample_counts"] == [4, 3, 0]  # 0 1 | 0 1 | 0 1 | 0
    assert report["broken_rules"] == {"count_in_set": {"fraction": 4 / 7, "number": 4}}
    assert report["samples_with_allowed_count"] == pytest.approx(3 / 7)
    assert model.seeds == [(5, 0), (5, 2), (5, 4), (5, 6)]
    assert "samples_with_allowed_count" not in _measure()[0]


def test_what_is_not_known_is_left_out():
    scenes = _scenes()
    unlabelled, _ = _measure(scenes=Scenes(images=scenes.images), num_likelihood_images=0)
    named = {"count_accuracy", "sampled_count_accuracy", "count_confusion", "mean_iou"}
    named |= {"mean_ink_iou", "box_precision_recall", "log_likelihood_nats"}
    assert not named & set(unlabelled)
    counted, _ = _measure(scenes=Scenes(images=scenes.images, counts=scenes.counts))
    assert counted["count_accuracy"] == 0.6 and "mean_iou" not in counted
    assert measurement.validation_metrics(_KnownModel(), Scenes(images=scenes.images)).keys() == {
        "squared_error"
    }


def test_counts_beyond_the_steps_are_never_right():
    scenes = _scenes()
    scenes.counts[0] = 3
    report, _ = _measure(scenes=scenes)
    assert report["count_accuracy"] == 0.4
    assert report["sampled_count_accuracy"] == pytest.approx((0.8 * 2 + 0.1 * 2) / 5)


def test_a_term_that_is_not_finite_is_not_hidden():
    model = _KnownModel()
    model.nll_of_dark = np.inf
    report, _ = _measure(model)
    assert np.isinf(report["nll_nats"]) and np.isnan(report["negative_elbo_nats"])
    assert report["kl_what_nats"] == 4.0


def test_validation_metrics_by_hand():
    values = measurement.validation_metrics(_KnownModel(), _scenes())
    assert values["count_accuracy"] == 0.6
    assert values["mean_iou"] == pytest.approx(0.7)


@pytest.mark.parametrize("name", ["batch_size", "num_samples", "num_particles"])
def test_arguments_out_of_range_are_named(name):
    with pytest.raises(ValueError, match=f"evaluate.{name} must be a whole number, 1 or more, got 0"):
        _measure(**{name: 0})


@pytest.mark.parametrize("channels", [1, 3])
def test_a_real_model_gives_the_same_numbers_twice(channels):
    rules = (CountInSet((1, 2)), AggregateCount((1, 2)))
    model = ASRModel(
        canvas_size=(12, 16),
        channels=channels,
        num_steps=2,
        glimpse_size=6,
        what_size=3,
        recognition=LSTMRecognition(rnn_units=8, head_units=4, encoder_units=(8,)),
        decoder=MLPDecoder(units=(8,)),
        prior=AutoregressivePrior(rnn_units=8, head_units=4, placement_grid=None),
        constraints=rules,
    )
    rng = np.random.default_rng(0)
    scenes = Scenes(
        images=rng.integers(0, 256, (5, 12, 16, channels), dtype=np.uint8),
        counts=rng.integers(1, 3, 5).astype(np.int32),
    )
    first, _ = _measure(model, scenes, rules=rules, num_samples=3)
    again, _ = _measure(model, scenes, rules=rules, num_samples=3)
    assert first == again
    names = [f"{name}_nats" for name in ObjectiveTerms._fields if name != "kl_background"]  # there is none
    assert "kl_background_nats" not in first
    assert first["negative_elbo_nats"] == pytest.approx(sum(first[name] for name in names))
    assert {"penalty_count_in_set", "penalty_aggregate_count"} <= set(first)
    # More particles than one: no less than the bound, but for chance.
    assert -first["log_likelihood_nats"] < first["negative_elbo_nats"] + 5.0
    wrong = types.SimpleNamespace(images=np.zeros((2, 16, 12, channels), np.uint8))
    with pytest.raises(ValueError, match="12 x 16 pixels"):
        measurement.validation_metrics(model, wrong)
