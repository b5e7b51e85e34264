"""The mixture on a grid against SciPy, its samples against its density, and what it makes of a normal."""

import numpy as np
import pytest
import tensorflow as tf
from scipy import special, stats
from tensorflow_probability import distributions as tfd

from asr_tf.distributions import GridPlacement, cell_centres, normal_cell_logits


def slow_density(value, logits):
    """At one place (x, y), cell by cell."""
    weights, total = special.softmax(logits), 0.0
    centres = -1.0 + (2.0 * np.arange(len(logits)) + 1.0) / len(logits)
    for row, y in enumerate(centres):
        for column, x in enumerate(centres):
            total += weights[row, column] * np.prod([
                stats.norm.pdf(place, np.arctanh(centre), 0.5 * (2.0 / len(logits)) / (1.0 - centre**2))
                for place, centre in zip(value, (x, y), strict=True)
            ])
    return total


@pytest.mark.parametrize("dtype", [tf.float32, tf.float64])
def test_log_prob_is_a_sum_over_cells(dtype):
    rng = np.random.default_rng(0)
    value, logits = rng.normal(size=(3, 2)), 3.0 * rng.normal(size=(3, 5, 5))
    np.testing.assert_allclose(cell_centres(5), [-0.8, -0.4, 0.0, 0.4, 0.8], rtol=1e-6, atol=1e-7)
    expected = np.log([slow_density(*args) for args in zip(value, logits, strict=True)])
    placement = GridPlacement(tf.constant(logits, dtype))
    np.testing.assert_allclose(placement.log_prob(tf.constant(value, dtype)), expected, rtol=1e-5)


def test_shapes_and_copies():
    placement = GridPlacement(tf.zeros([4, 3, 6, 6]))
    assert (placement.batch_shape, placement.event_shape, placement.dtype) == ([4, 3], [2], tf.float32)
    assert placement.reparameterization_type == tfd.NOT_REPARAMETERIZED
    drawn = placement.sample([2, 5], seed=[0, 1])
    assert drawn.shape == [2, 5, 4, 3, 2]
    assert placement.log_prob(drawn).shape == [2, 5, 4, 3]
    assert placement.log_prob(tf.zeros([2])).shape == [4, 3]
    assert placement.sample(seed=[0, 1]).shape == [4, 3, 2]
    assert placement[1].batch_shape == [3]
    assert placement.copy(logits=tf.zeros([5, 5])).batch_shape == []
    np.testing.assert_array_equal(placement.sample([2, 5], seed=[0, 1]), drawn)


def test_even_weights_are_an_even_density_on_the_canvas():
    """As the density over latents is that over the canvas times the slope of tanh."""
    latents = np.arctanh(np.random.default_rng(1).uniform(-0.7, 0.7, (50, 2))).astype(np.float32)
    slopes = np.log1p(-np.square(np.tanh(latents))).sum(-1)
    log_prob = GridPlacement(tf.zeros([25, 25])).log_prob(latents)
    np.testing.assert_allclose(log_prob - slopes, np.full(50, np.log(0.25)), atol=0.1)


@pytest.mark.parametrize("grid_size", [1, 2, 6])
def test_integrates_to_one(grid_size):
    logits = np.random.default_rng(1).normal(size=(grid_size, grid_size)).astype(np.float32)
    axis = np.linspace(-6.0, 6.0, 601, dtype=np.float32)
    points = np.stack(np.meshgrid(axis, axis), -1).reshape(-1, 2)
    density = np.exp(GridPlacement(logits).log_prob(points), dtype=np.float64)
    assert density.sum() * (axis[1] - axis[0]) ** 2 == pytest.approx(1.0, abs=1e-3)


@pytest.mark.parametrize("jit_compile", [False, True])
def test_samples_have_the_moments_of_the_mixture(jit_compile):
    weights = special.softmax(2.0 * np.random.default_rng(4).normal(size=(2, 5, 5)), axis=(1, 2))
    number = 40_000

    @tf.function(jit_compile=jit_compile)
    def draw(logits):
        return GridPlacement(logits).sample(number, seed=[3, 4])

    drawn = draw(tf.constant(np.log(weights), tf.float32)).numpy()
    centres = cell_centres(5).astype(np.float64)
    means, spreads = np.arctanh(centres), 0.5 * 0.4 / (1.0 - centres**2)
    for n in range(2):
        for axis, marginal in ((0, weights[n].sum(axis=0)), (1, weights[n].sum(axis=1))):
            mean = (marginal * means).sum()
            variance = (marginal * (means**2 + spreads**2)).sum() - mean**2
            assert drawn[:, n, axis].mean() == pytest.approx(mean, abs=5.0 * np.sqrt(variance / number))
            assert drawn[:, n, axis].var() == pytest.approx(variance, rel=0.04)
        product = (weights[n] * means[:, np.newaxis] * means).sum()
        assert (drawn[:, n, 0] * drawn[:, n, 1]).mean() == pytest.approx(product, abs=0.02)


def test_samples_fall_into_cells_as_the_density_says():
    logits = 1.5 * np.random.default_rng(5).normal(size=(4, 4)).astype(np.float32)
    placement, number = GridPlacement(logits), 40_000
    edges = np.array([-20.0, -0.6, 0.1, 0.7, 20.0])
    found, _, _ = np.histogram2d(*placement.sample(number, seed=[5, 6]).numpy().T, bins=(edges, edges))
    centres = cell_centres(4).astype(np.float64)
    ends = stats.norm.cdf((edges[:, None] - np.arctanh(centres)) / (0.25 / (1.0 - centres**2)))
    masses = np.diff(ends, axis=0)  # [bin, cell], of one axis
    expected = np.einsum("xc,rc,yr->xy", masses, special.softmax(logits), masses)
    assert np.abs(found / number - expected).max() < 4.5 * np.sqrt(0.25 / number)


def test_a_cell_without_weight_is_never_drawn_from():
    logits = np.full((1, 8, 8), -1e9, np.float32)
    logits[0, 2, 5] = 0.0
    drawn = GridPlacement(logits).sample(2000, seed=[1, 2]).numpy()[:, 0]
    centres = cell_centres(8)
    middle, spread = np.arctanh(centres[[5, 2]]), 0.125 / (1.0 - centres[[5, 2]] ** 2)
    assert np.abs((drawn - middle) / spread).max() < 5.0


def test_cells_of_a_normal_are_that_normal():
    """In the middle of a fine grid, where cells are narrow beside the normal."""
    loc, log_scale = np.float32([[0.2, -0.3], [0.0, 0.5]]), np.float32([[-1.0, -1.2], [-0.8, -1.0]])
    placement = GridPlacement(normal_cell_logits(tf.constant(loc), tf.constant(log_scale), 80))
    points = np.random.default_rng(2).normal(loc, 0.8 * np.exp(log_scale), (200, 2, 2)).astype(np.float32)
    exact = stats.norm.logpdf(points, loc, np.exp(log_scale)).sum(-1)
    np.testing.assert_allclose(placement.log_prob(points), exact, atol=0.05)


def test_gradients_equal_finite_differences():
    rng = np.random.default_rng(6)
    value, logits = rng.normal(size=2), rng.normal(size=(4, 4))
    given = tf.constant(value, tf.float32), tf.constant(logits, tf.float32)
    with tf.GradientTape() as tape:
        tape.watch(given)
        log_prob = GridPlacement(given[1]).log_prob(given[0])
    step = 1e-5

    def slope(by_value, by_logits):
        ends = (slow_density(value + s * by_value, logits + s * by_logits) for s in (step, -step))
        return np.subtract(*np.log(list(ends))) / (2.0 * step)

    by_value, by_logits = tape.gradient(log_prob, given)
    np.testing.assert_allclose(by_value, [slope(unit, 0.0) for unit in np.eye(2)], rtol=1e-3, atol=1e-4)
    units = np.eye(16).reshape(16, 4, 4)
    np.testing.assert_allclose(np.ravel(by_logits), [slope(0.0, unit) for unit in units], rtol=1e-3, atol=1e-4)


def test_gradients_are_finite_at_the_edge_and_far_outside():
    value = tf.Variable([[0.0, 0.0], [9.0, -9.0], [0.1, 30.0]])
    logits = tf.Variable(tf.zeros([3, 8, 8]))
    with tf.GradientTape() as tape:
        total = tf.reduce_sum(GridPlacement(logits).log_prob(value))
    for gradient in tape.gradient(total, [value, logits]):
        assert np.isfinite(gradient).all()
