"""Observation models against SciPy."""

import numpy as np
import pytest
import scipy.stats
import tensorflow as tf

from asr_tf.imaging.observation import negative_log_likelihood


def data():
    rng = np.random.default_rng(0)
    return rng.uniform(size=(3, 5, 4)).astype(np.float32), rng.uniform(
        0.05, 0.95, size=(3, 5, 4)
    ).astype(np.float32)


def test_bernoulli_is_scipys_on_binary_images():
    images, canvases = data()
    images = (images > 0.5).astype(np.float32)
    nll = negative_log_likelihood(tf.constant(images), tf.constant(canvases))
    expected = -scipy.stats.bernoulli.logpmf(images, canvases).sum((1, 2))
    np.testing.assert_allclose(nll, expected, rtol=1e-5)


def test_bernoulli_is_linear_in_grey_values():
    images, canvases = data()
    log_odds = np.log(canvases / (1 - canvases))
    expected = -(images * log_odds + np.log1p(-canvases)).sum((1, 2))
    nll = negative_log_likelihood(tf.constant(images), tf.constant(canvases))
    np.testing.assert_allclose(nll, expected, rtol=1e-5)


def test_gaussian_is_scipys():
    images, canvases = data()
    nll = negative_log_likelihood(
        tf.constant(images), tf.constant(canvases), "gaussian", scale=0.2
    )
    expected = -scipy.stats.norm(canvases, 0.2).logpdf(images).sum((1, 2))
    np.testing.assert_allclose(nll, expected, rtol=1e-5)


@pytest.mark.parametrize("mode", ["eager", "xla"])
def test_gradients_of_bernoulli_are_the_closed_form(mode):
    images, canvases = data()
    canvases = np.stack([canvases, canvases[::-1] ** 2, 1.5 * canvases])  # [K, B, H, W], some above 1
    weights = np.arange(9, dtype=np.float32).reshape(3, 3) - 4.0  # [K, B]

    def gradients():
        with tf.GradientTape() as tape:
            x, m = tf.constant(images), tf.constant(canvases)
            tape.watch([x, m])
            loss = tf.reduce_sum(weights * negative_log_likelihood(x, m))
        return tape.gradient(loss, [x, m])

    of_images, of_canvases = tf.function(gradients, jit_compile=True)() if mode == "xla" else gradients()
    means, weight = np.minimum(canvases.astype(np.float64), 1.0 - 1e-6), weights[..., np.newaxis, np.newaxis]
    # float32 has 1 - mean at the ceiling to a few per cent.
    expected = weight * np.log((1 - means) / means)
    np.testing.assert_allclose(of_images, expected.sum(0), rtol=2e-2, atol=1e-4)
    inside = canvases < 1.0
    expected = weight * ((1 - images) / (1 - means) - images / means)
    np.testing.assert_allclose(of_canvases.numpy()[inside], expected[inside], rtol=1e-4, atol=1e-4)
    assert (of_canvases.numpy()[~inside] == 0.0).all() and (~inside).any()


@pytest.mark.parametrize("value", [0.0, 1.0, 2.5])
def test_finite_with_finite_gradients_at_the_ends(value):
    canvas = tf.constant(value, shape=(1, 2, 2))
    with tf.GradientTape() as tape:
        tape.watch(canvas)
        nll = negative_log_likelihood(tf.constant([[[0.0, 1.0], [0.3, 1.0]]]), canvas)
    assert np.isfinite(nll.numpy()).all()
    assert np.isfinite(tape.gradient(nll, canvas).numpy()).all()


def test_background_is_what_an_empty_pixel_costs():
    nll = negative_log_likelihood(tf.zeros((1, 10, 10)), tf.zeros((1, 10, 10)), background=1e-3)
    np.testing.assert_allclose(nll, -100 * np.log(1 - 1e-3), rtol=1e-4)


def test_unknown_model():
    with pytest.raises(ValueError, match="observation='poisson' is unknown"):
        negative_log_likelihood(tf.zeros((1, 2, 2)), tf.zeros((1, 2, 2)), "poisson")
