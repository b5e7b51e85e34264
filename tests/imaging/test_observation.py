"""Observation models against sums in NumPy."""

import numpy as np
import pytest
import tensorflow as tf
from scipy import stats

from asr_tf.imaging.observation import BernoulliPixels, GaussianPixels, Observation


def data(channels, low=0.05, high=0.95):
    rng = np.random.default_rng(0)
    images, canvases = rng.uniform(size=(3, 5, 4, channels)), rng.uniform(low, high, size=(3, 5, 4, channels))
    return images.astype(np.float32), canvases.astype(np.float32)


BOTH = pytest.mark.parametrize(
    "observation", [BernoulliPixels(), GaussianPixels()], ids=lambda observation: type(observation).__name__
)


@pytest.mark.parametrize("channels", [1, 3])
def test_bernoulli_is_scipys_on_binary_images(channels):
    images, canvases = data(channels)
    images = np.round(images)
    given = BernoulliPixels()(tf.constant(canvases))
    assert (given.batch_shape, given.event_shape) == ([3], [5, 4, channels])
    expected = stats.bernoulli.logpmf(images, canvases).sum((1, 2, 3))
    np.testing.assert_allclose(given.log_prob(tf.constant(images)), expected, rtol=1e-5)


@pytest.mark.parametrize("channels", [1, 3])
def test_bernoulli_is_linear_in_grey_values(channels):
    images, canvases = data(channels)
    expected = (images * np.log(canvases) + (1 - images) * np.log1p(-canvases)).sum((1, 2, 3))
    found = BernoulliPixels()(tf.constant(canvases)).log_prob(tf.constant(images))
    np.testing.assert_allclose(found, expected, rtol=1e-5)


@pytest.mark.parametrize("channels", [1, 3])
def test_gaussian_is_scipys(channels):
    images, canvases = data(channels)
    given = GaussianPixels(stddev=0.2)(tf.constant(canvases))
    assert (given.batch_shape, given.event_shape) == ([3], [5, 4, channels])
    expected = stats.norm(canvases, 0.2).logpdf(images).sum((1, 2, 3))
    np.testing.assert_allclose(given.log_prob(tf.constant(images)), expected, rtol=1e-5)


@BOTH
def test_more_canvases_than_images(observation):
    """Canvases [B, K, H, W, C] and images [B, 1, H, W, C], as in the expectation over counts."""
    images, canvases = data(3)
    many = np.stack([canvases, canvases**2], 1)
    expected = [observation(tf.constant(many[:, k])).log_prob(tf.constant(images)) for k in range(2)]
    found = observation(tf.constant(many)).log_prob(tf.constant(images[:, None]))
    np.testing.assert_allclose(found, np.stack(expected, 1), rtol=1e-6)


@BOTH
def test_grey_values_of_an_array_are_not_rounded(observation):
    images, canvases = data(3)
    given = observation(tf.constant(canvases))
    np.testing.assert_array_equal(given.log_prob(images), given.log_prob(tf.constant(images)))
    assert given.sample(seed=[0, 1]).dtype == tf.float32


@pytest.mark.parametrize("least_mean", [1e-6, 1e-3, 0.5])
def test_an_empty_pixel_has_the_least_mean(least_mean):
    empty = BernoulliPixels(least_mean)(tf.zeros([10, 10, 3]))
    np.testing.assert_allclose(empty.mean(), np.full((10, 10, 3), least_mean), rtol=1e-6)
    rounding = 300 * 2.0**-24  # of 1 - mean, in float32
    np.testing.assert_allclose(
        empty.log_prob(tf.zeros([10, 10, 3])), 300 * np.log1p(-least_mean), rtol=1e-5, atol=rounding
    )
    np.testing.assert_allclose(empty.log_prob(tf.ones([10, 10, 3])), 300 * np.log(least_mean), rtol=1e-5)


def test_a_full_pixel_is_short_of_certain():
    full = BernoulliPixels()(tf.ones([2, 2, 1]))
    np.testing.assert_allclose(full.log_prob(tf.zeros([2, 2, 1])), 4 * np.log(1e-6), rtol=0.01)  # float32
    np.testing.assert_allclose(full.log_prob(tf.ones([2, 2, 1])), -4e-6, rtol=0.1)


def gradient(observation, images, canvases):
    canvases = tf.convert_to_tensor(canvases)
    with tf.GradientTape() as tape:
        tape.watch(canvases)
        log_prob = observation(canvases).log_prob(images)
    return tape.gradient(log_prob, canvases)


@pytest.mark.parametrize("jit_compile", [False, True])
def test_gradients_are_the_closed_forms(jit_compile):
    images, canvases = data(3, low=-0.2, high=1.2)  # some are clipped
    compute = tf.function(gradient, jit_compile=jit_compile)
    of_gaussian = compute(GaussianPixels(0.5), images, canvases)
    np.testing.assert_allclose(of_gaussian, (images - canvases) / 0.25, rtol=1e-4, atol=1e-5)
    of_bernoulli = compute(BernoulliPixels(0.01), images, canvases)
    inside = (canvases > 0.01) & (canvases < 1.0 - 1e-6)
    assert 0 < inside.sum() < inside.size
    means = np.where(inside, canvases, 0.5)
    expected = np.where(inside, images / means - (1 - images) / (1 - means), 0.0)
    np.testing.assert_allclose(of_bernoulli, expected, rtol=1e-4, atol=1e-4)


@BOTH
@pytest.mark.parametrize("value", [0.0, 1e-7, 1.0 - 1e-7, 1.0, 2.5])
def test_finite_with_finite_gradients_at_the_ends(observation, value):
    images = np.float32([0.0, 1.0, 0.3, 1.0]).reshape(1, 2, 2, 1)
    canvases = np.full((1, 2, 2, 1), value, np.float32)
    assert np.isfinite(observation(tf.constant(canvases)).log_prob(tf.constant(images))).all()
    assert np.isfinite(gradient(observation, images, canvases)).all()


@pytest.mark.parametrize("least_mean", [0.0, 9e-7, 0.51, 1.0, -0.1, float("nan")])
def test_least_mean_out_of_range(least_mean):
    with pytest.raises(ValueError, match=r"^BernoulliPixels.least_mean must be between 1e-06 and 0.5, got "):
        BernoulliPixels(least_mean)


@pytest.mark.parametrize("stddev", [0.0, -0.3, float("nan"), "wide", True])
def test_stddev_out_of_range(stddev):
    with pytest.raises(ValueError, match=r"^GaussianPixels.stddev must be a number above 0, got "):
        GaussianPixels(stddev)


def test_they_can_be_made_again():
    for made, config in ((BernoulliPixels(0.01), {"least_mean": 0.01}), (GaussianPixels(), {"stddev": 0.3})):
        assert made.get_config() == config
        assert type(made)(**config).get_config() == config
    with pytest.raises(TypeError, match="abstract"):
        Observation()
