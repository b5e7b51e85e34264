"""The mixture on a grid against SciPy, its samples against its density, and what it makes of a normal."""

import numpy as np
import pytest
import tensorflow as tf
from scipy import special, stats

from asr_tf.distributions import (
    cell_centres,
    normal_cell_logits,
    placement_log_prob,
    sample_placement,
)


def test_log_prob_is_a_sum_over_cells():
    rng = np.random.default_rng(0)
    value, logits = rng.normal(size=(3, 2)), 3.0 * rng.normal(size=(3, 5, 5))
    centres = -0.8 + 0.4 * np.arange(5)
    np.testing.assert_allclose(cell_centres(5), centres, rtol=1e-6, atol=1e-7)
    expected = np.zeros(3)
    for n in range(3):
        weights = special.softmax(logits[n])
        for row, y in enumerate(centres):
            for column, x in enumerate(centres):
                density = [
                    stats.norm.pdf(place, np.arctanh(centre), 0.5 * 0.4 / (1.0 - centre**2))
                    for place, centre in zip(value[n], (x, y), strict=True)
                ]
                expected[n] += weights[row, column] * np.prod(density)
    np.testing.assert_allclose(placement_log_prob(value, tf.constant(logits)), np.log(expected), rtol=1e-5)


def test_integrates_to_one():
    logits = tf.constant(np.random.default_rng(1).normal(size=(6, 6)))
    axis = np.linspace(-6.0, 6.0, 601)
    points = np.stack(np.meshgrid(axis, axis), -1).reshape(-1, 2)
    density = np.exp(placement_log_prob(tf.constant(points), logits))
    assert density.sum() * (axis[1] - axis[0]) ** 2 == pytest.approx(1.0, abs=1e-3)


def test_samples_have_the_moments_of_the_mixture():
    rng = np.random.default_rng(4)
    weights = special.softmax(2.0 * rng.normal(size=(5, 5)))
    number = 40_000
    logits = tf.repeat(tf.constant(np.log(weights), tf.float32)[tf.newaxis], number, 0)
    drawn = sample_placement(logits, tf.constant([3, 4])).numpy()
    centres = cell_centres(5).astype(np.float64)
    means, spreads = np.arctanh(centres), 0.5 * 0.4 / (1.0 - centres**2)
    for axis, marginal in ((0, weights.sum(axis=0)), (1, weights.sum(axis=1))):
        mean = (marginal * means).sum()
        variance = (marginal * (means**2 + spreads**2)).sum() - mean**2
        assert drawn[:, axis].mean() == pytest.approx(mean, abs=5.0 * np.sqrt(variance / number))
        assert drawn[:, axis].var() == pytest.approx(variance, rel=0.03)
    product = (weights * means[:, np.newaxis] * means).sum()
    assert (drawn[:, 0] * drawn[:, 1]).mean() == pytest.approx(product, abs=0.02)
    np.testing.assert_array_equal(drawn, sample_placement(logits, tf.constant([3, 4])))


def test_cells_of_a_normal_are_that_normal():
    """In the middle of a fine grid, where cells are narrow beside the normal."""
    loc, log_scale = tf.constant([0.2, -0.3]), tf.constant([-1.0, -1.2])
    logits = normal_cell_logits(loc, log_scale, 80)
    points = np.random.default_rng(2).normal([0.2, -0.3], np.exp([-1.0, -1.2]), (200, 2)).astype(np.float32)
    exact = stats.norm.logpdf(points, [0.2, -0.3], np.exp([-1.0, -1.2])).sum(-1)
    np.testing.assert_allclose(placement_log_prob(points, logits), exact, atol=0.05)


def test_gradients_are_finite_at_the_edge_and_far_outside():
    value = tf.Variable([[0.0, 0.0], [9.0, -9.0], [0.1, 30.0]])
    logits = tf.Variable(tf.zeros([3, 8, 8]))
    with tf.GradientTape() as tape:
        total = tf.reduce_sum(placement_log_prob(value, logits))
    for gradient in tape.gradient(total, [value, logits]):
        assert np.isfinite(gradient).all()
