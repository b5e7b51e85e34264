"""Squashed normals against adaptive quadrature, samples and the normals underneath."""

import numpy as np
import pytest
import tensorflow as tf
from scipy import integrate
from tensorflow_probability import distributions as tfd

from asr_tf.distributions import SigmoidNormal, TanhNormal

CASES = [
    pytest.param(TanhNormal, np.tanh, -1.0, id="tanh"),
    pytest.param(SigmoidNormal, lambda x: 1.0 / (1.0 + np.exp(-x)), 0.0, id="sigmoid"),
]


def reference_moment(function, loc, stddev):
    """E[function(loc + stddev e)] for standard normal e, by adaptive quadrature."""

    def integrand(noise):
        return function(loc + stddev * noise) * np.exp(-0.5 * noise**2) / np.sqrt(2.0 * np.pi)

    return integrate.quad(integrand, -12, 12, epsabs=1e-13, limit=500, points=[-loc / stddev])[0]


@pytest.mark.parametrize(("cls", "squash", "low"), CASES)
def test_density_integrates_to_one_and_equals_the_change_of_variables(cls, squash, low):
    distribution = cls(tf.constant(0.4, tf.float64), np.log(0.7))
    value = np.linspace(low, 1.0, 200001)[1:-1]
    total = integrate.simpson(np.exp(distribution.log_prob(value)), x=value)
    np.testing.assert_allclose(total, 1.0, atol=1e-6)
    latent = np.array([-1.0, 0.2, 1.5])
    slope = (squash(latent + 1e-6) - squash(latent - 1e-6)) / 2e-6
    expected = tfd.Normal(np.float64(0.4), 0.7).log_prob(latent) - np.log(slope)
    np.testing.assert_allclose(distribution.log_prob(squash(latent)), expected, rtol=1e-7)


@pytest.mark.parametrize(("cls", "squash", "low"), CASES)
@pytest.mark.parametrize(("factor", "error"), [(0.5, 1e-9), (1.0, 1e-9), (2.0, 2e-5), (4.0, 3e-3)])
def test_mean_is_as_accurate_as_documented(cls, squash, low, factor, error):
    stddev = factor * (1.0 if cls is TanhNormal else 2.0)
    loc = np.linspace(-4.0, 4.0, 14)
    mean = cls(tf.constant(loc), np.log(stddev)).mean()
    expected = [reference_moment(squash, m, stddev) for m in loc]
    np.testing.assert_allclose(mean, expected, rtol=0, atol=error)


@pytest.mark.parametrize(("cls", "squash", "low"), CASES)
def test_samples_match_moments_and_stay_inside(cls, squash, low):
    distribution = cls(tf.constant([-0.5, 1.0]), tf.constant([0.1, -1.0]))
    samples = distribution.sample(40000, seed=[1, 2]).numpy()
    assert low <= samples.min() and samples.max() <= 1.0
    np.testing.assert_allclose(samples.mean(axis=0), distribution.mean(), atol=0.015)
    np.testing.assert_allclose(samples.std(axis=0), distribution.stddev(), rtol=0.03)
    np.testing.assert_allclose(np.median(samples, axis=0), distribution.median(), atol=0.02)
    np.testing.assert_allclose(distribution.median(), squash(np.array([-0.5, 1.0])), rtol=1e-5)


@pytest.mark.parametrize(("cls", "squash", "low"), CASES)
def test_kl_is_that_of_the_normals_and_matches_monte_carlo(cls, squash, low):
    q, p = cls(tf.constant(0.3, tf.float64), -0.5), cls(tf.constant(-0.2, tf.float64), 0.2)
    kl = tfd.kl_divergence(q, p).numpy()
    normals = tfd.kl_divergence(
        tfd.Normal(np.float64(0.3), np.exp(-0.5)), tfd.Normal(np.float64(-0.2), np.exp(0.2))
    )
    np.testing.assert_allclose(kl, normals, rtol=1e-7)
    samples = q.sample(40000, seed=[3, 4])
    differences = (q.log_prob(samples) - p.log_prob(samples)).numpy()
    assert abs(differences.mean() - kl) < 4 * differences.std() / np.sqrt(len(differences))


@pytest.mark.parametrize(("cls", "squash", "low"), CASES)
def test_shapes_gradients_and_compilation(cls, squash, low):
    distribution = cls(tf.zeros([3, 1]), tf.zeros([2]))
    assert distribution.batch_shape == [3, 2]
    assert distribution.event_shape == []
    assert distribution.reparameterization_type == tfd.FULLY_REPARAMETERIZED
    assert distribution.copy(loc=tf.zeros([5, 2])).batch_shape == [5, 2]
    assert distribution[0].batch_shape == [2]
    assert cls(0.0, 0.0).name.startswith(cls.__name__)

    @tf.function(jit_compile=True)
    def step(loc, log_scale):
        with tf.GradientTape() as tape:
            tape.watch([loc, log_scale])
            made = cls(loc, log_scale)
            sample = made.sample(5, seed=[1, 2])
            total = tf.reduce_sum(made.log_prob(sample)) + tf.reduce_sum(made.mean())
        return [sample, *tape.gradient(total, [loc, log_scale])]

    for value in step(tf.constant([0.1, -3.0]), tf.constant([-1.0, 0.5])):
        assert np.all(np.isfinite(value))
