"""Reliability against scikit-learn and by hand, coverage of simulated truths, and the latents that windows have."""

import numpy as np
import pytest
import tensorflow as tf

from asr_tf.evaluation import calibration
from asr_tf.scene import window_boxes


def test_reliability_is_scikit_learns_calibration_curve():
    sklearn_calibration = pytest.importorskip("sklearn.calibration")
    rng = np.random.default_rng(0)
    confidence = rng.uniform(size=1000)
    correct = rng.uniform(size=1000) < confidence**2
    bins = calibration.reliability(confidence, correct, num_bins=10)
    accuracy, mean = sklearn_calibration.calibration_curve(correct, confidence, n_bins=10)
    np.testing.assert_allclose([entry["accuracy"] for entry in bins], accuracy)
    np.testing.assert_allclose([entry["confidence"] for entry in bins], mean)
    assert sum(entry["number"] for entry in bins) == 1000


def test_error_by_hand():
    bins = calibration.reliability([0.9, 1.0, 0.8, 0.0], [True, True, False, False], num_bins=5)
    # Right 1 of 1 at 0.0 wrong answers, 0 of 1 at 0.8, and 2 of 2 at 0.95.
    assert [entry["number"] for entry in bins] == [1, 1, 2]
    np.testing.assert_allclose([entry["confidence"] for entry in bins], [0.0, 0.8, 0.95])
    np.testing.assert_allclose([entry["accuracy"] for entry in bins], [0.0, 0.0, 1.0])
    np.testing.assert_allclose(calibration.expected_calibration_error(bins), (0.0 + 0.8 + 2 * 0.05) / 4)


def test_a_model_that_is_as_sure_as_it_should_be_has_no_error():
    rng = np.random.default_rng(1)
    confidence = rng.uniform(0.5, 1.0, size=200_000)
    bins = calibration.reliability(confidence, rng.uniform(size=confidence.size) < confidence)
    assert calibration.expected_calibration_error(bins) < 0.005


def test_coverage_of_standard_normals_is_the_level():
    rng = np.random.default_rng(2)
    found = calibration.coverage(rng.normal(size=100_000), (0.5, 0.9))
    np.testing.assert_allclose(found, [0.5, 0.9], atol=5 * np.sqrt(0.25 / 100_000))
    # Half as wide as it should be: P(|z| < 1.96 / 2).
    np.testing.assert_allclose(calibration.coverage(2.0 * rng.normal(size=100_000), (0.95,)), [0.6729], atol=0.01)
    assert np.isnan(calibration.coverage([], (0.5,))).all()


@pytest.mark.parametrize("canvas_size", [(50, 50), (30, 60)])
def test_latents_of_windows(canvas_size):
    rng = np.random.default_rng(3)
    shift, scale = rng.normal(size=(20, 2)), rng.normal(size=(20, 1))
    boxes = window_boxes(tf.tanh(shift), tf.sigmoid(scale), canvas_size)
    found = calibration.window_latents(boxes, canvas_size)
    np.testing.assert_allclose(found[0], shift, atol=1e-6)
    np.testing.assert_allclose(found[1], scale, atol=1e-6)


def test_the_longer_side_counts_and_edges_are_finite():
    _, scale = calibration.window_latents([[0.0, 0.0, 0.2, 0.4]], (50, 50))
    np.testing.assert_allclose(scale, [[np.log(0.4 / 0.6)]])
    edge = calibration.window_latents([[0.0, 0.5, 0.0, 1.5], [0.0, 0.0, 1.0, 1.0]], (50, 50))
    assert all(np.isfinite(part).all() for part in edge)
