"""Closed forms of normals against TFP."""

import numpy as np
import tensorflow as tf
from tensorflow_probability import distributions as tfd

from asr_tf.distributions import normal_kl, normal_log_prob

Q_LOC = np.array([0.0, 1.0, -3.0, 0.5])
Q_LOG_SCALE = np.array([0.0, -2.0, 1.0, -8.0])
P_LOC = np.array([0.0, 0.5, 2.0, 0.5])
P_LOG_SCALE = np.array([0.0, -1.0, 0.3, -8.0])


def test_kl_equals_tfp():
    kl = normal_kl(*map(tf.constant, (Q_LOC, Q_LOG_SCALE, P_LOC, P_LOG_SCALE)))
    expected = tfd.kl_divergence(
        tfd.Normal(Q_LOC, np.exp(Q_LOG_SCALE)), tfd.Normal(P_LOC, np.exp(P_LOG_SCALE))
    )
    np.testing.assert_allclose(kl, expected, rtol=1e-12, atol=1e-15)


def test_kl_takes_numbers_and_broadcasts():
    kl = normal_kl(tf.ones([2, 3]), 0.0, 0.0, 0.0)
    assert kl.dtype == tf.float32
    np.testing.assert_allclose(kl, np.full([2, 3], 0.5))


def test_kl_of_nearly_equal_normals_is_not_negative():
    log_scale = tf.constant(np.linspace(-3.0, 1.0, 1000), tf.float32)
    kl = normal_kl(0.0, log_scale, 0.0, log_scale + 1e-4).numpy()
    # d^2 for a difference d of the log scales: 1e-8, where rounding alone is 1e-7.
    assert kl.min() > -1e-10
    np.testing.assert_allclose(kl.mean(), 1e-8, rtol=0.05)


def test_log_prob_equals_tfp():
    log_prob = normal_log_prob(*map(tf.constant, (P_LOC, Q_LOC, Q_LOG_SCALE)))
    expected = tfd.Normal(Q_LOC, np.exp(Q_LOG_SCALE)).log_prob(P_LOC)
    np.testing.assert_allclose(log_prob, expected, rtol=1e-12)


def test_kl_gradient_equals_finite_differences():
    arguments = [tf.constant(x) for x in (0.3, -0.7, -0.2, 0.4)]
    arguments = [tf.cast(x, tf.float64) for x in arguments]
    with tf.GradientTape() as tape:
        tape.watch(arguments)
        kl = normal_kl(*arguments)
    for index, gradient in enumerate(tape.gradient(kl, arguments)):
        high, low = list(arguments), list(arguments)
        high[index], low[index] = high[index] + 1e-6, low[index] - 1e-6
        np.testing.assert_allclose(
            gradient, (normal_kl(*high) - normal_kl(*low)) / 2e-6, rtol=1e-6
        )
