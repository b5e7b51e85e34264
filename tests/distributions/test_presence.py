"""The presence code against brute force, closed forms, Monte Carlo and extreme parameters."""

import itertools

import numpy as np
import pytest
import tensorflow as tf
from scipy import integrate
from tensorflow_probability import distributions as tfd

from asr_tf.distributions import (
    PresenceCode,
    RelaxedPresenceCode,
    certain_presence_logits,
    code_of_count,
    relaxed_kl_estimate,
    running_sum,
)

LOGITS = np.array([[0.3, -1.0, 2.0, 0.5], [-2.0, 1.0, 0.0, 3.0]])
EXTREME = np.array(list(itertools.product([-30.0, 30.0], repeat=4)))


def slow_count_probs(logits):
    """P(n = k) of one row of logits by walking through the steps."""
    sigmoid = 1.0 / (1.0 + np.exp(-np.asarray(logits, np.float64)))
    probs, alive = [], 1.0
    for p in sigmoid:
        probs.append(alive * (1.0 - p))
        alive *= p
    return np.array([*probs, alive])


def run_three_ways(function, *args):
    """Results of `function` eagerly, in a graph and compiled by XLA."""
    yield function(*args)
    yield tf.function(function)(*args)
    yield tf.function(function, jit_compile=True)(*args)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("shape", [(5,), (2, 3, 4), (3, 1)])
def test_running_sums_from_both_ends(shape, dtype):
    values = np.random.default_rng(0).normal(size=shape).astype(dtype)
    for reverse, expected in ((False, np.cumsum(values, -1)), (True, np.cumsum(values[..., ::-1], -1)[..., ::-1])):
        found = running_sum(tf.constant(values), reverse)
        assert found.dtype == dtype
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("count", [0, 2, 4])
def test_certain_counts_have_all_of_the_probability_and_no_gradient_that_is_not_finite(count):
    logits = certain_presence_logits(count, 4)
    certain, other = PresenceCode(logits), PresenceCode(tf.zeros([4]))
    np.testing.assert_array_equal(certain.count_probs(), np.arange(5) == count)
    np.testing.assert_array_equal(tf.reduce_sum(certain.sample(50, seed=[0, 1]), -1), np.full(50, count))
    assert certain.log_prob(code_of_count(count, 4)) == 0.0
    exact = -float(other.count_log_probs()[count])
    np.testing.assert_allclose(tfd.kl_divergence(certain, other), exact, rtol=1e-6)
    with tf.GradientTape() as tape:
        tape.watch(logits)
        kl = tfd.kl_divergence(other, PresenceCode(logits)) + tfd.kl_divergence(PresenceCode(logits), other)
    assert np.isfinite(kl) and np.isfinite(tape.gradient(kl, logits)).all()


def test_count_probs_equal_a_walk_through_the_steps_and_sum_to_one():
    code = PresenceCode(tf.constant(LOGITS))
    expected = np.stack([slow_count_probs(row) for row in LOGITS])
    np.testing.assert_allclose(code.count_probs(), expected, rtol=1e-12)
    np.testing.assert_allclose(tf.reduce_sum(code.count_probs(), -1), 1.0, rtol=1e-12)
    tails = np.cumsum(expected[:, ::-1], axis=1)[:, ::-1][:, 1:]
    np.testing.assert_allclose(code.presence_probs(), tails, rtol=1e-12)
    np.testing.assert_allclose(code.mean(), tails, rtol=1e-12)


@pytest.mark.parametrize("dtype", [tf.float32, tf.float64])
def test_probabilities_of_extreme_logits_sum_to_one_without_losing_small_ones(dtype):
    code = PresenceCode(tf.constant(EXTREME, dtype))
    np.testing.assert_allclose(tf.reduce_sum(code.count_probs(), -1), 1.0, rtol=1e-6)
    # Stopping at the first step has the odds of its logit: e^-30, which 1 - sigmoid(30) would round to 0.
    np.testing.assert_allclose(
        PresenceCode(tf.constant([30.0, 30.0], dtype)).count_log_probs()[0], -30.0, rtol=1e-6
    )


def test_log_prob_sums_to_one_over_all_bit_patterns_and_is_minus_infinity_off_the_codes():
    patterns = np.array(list(itertools.product([0.0, 1.0], repeat=4)))
    code = PresenceCode(tf.constant(LOGITS[0]))
    log_probs = code.log_prob(patterns).numpy()
    is_code = np.all(np.diff(patterns, axis=1) <= 0, axis=1)
    assert is_code.sum() == 5
    assert np.all(np.isneginf(log_probs[~is_code]))
    counts = patterns[is_code].sum(axis=1).astype(int)
    np.testing.assert_allclose(
        np.exp(log_probs[is_code]), slow_count_probs(LOGITS[0])[counts], rtol=1e-12
    )
    assert np.isneginf(code.log_prob([1.0, 0.5, 0.0, 0.0]))


def test_shapes_dtype_and_copies():
    code = PresenceCode(tf.zeros([5, 1, 3]))
    assert code.batch_shape == [5, 1]
    assert code.event_shape == [3]
    assert code.dtype == tf.float32
    assert code.reparameterization_type == tfd.NOT_REPARAMETERIZED
    assert code.sample([7, 2], seed=[0, 1]).shape == [7, 2, 5, 1, 3]
    assert code.sample(seed=3).shape == [5, 1, 3]
    assert code.copy(logits=tf.zeros([4])).batch_shape == []
    assert code[2].batch_shape == [1]
    assert set(PresenceCode.parameter_properties()) == {"logits"}
    relaxed = RelaxedPresenceCode(tf.ones([6, 1]), tf.zeros([2, 3]))
    assert relaxed.batch_shape == [6, 2]
    assert relaxed.sample(4, seed=[0, 1]).shape == [4, 6, 2, 3]
    assert relaxed.reparameterization_type == tfd.FULLY_REPARAMETERIZED
    with pytest.raises(ValueError, match=r"logits must have shape \[..., T\].*got a scalar"):
        PresenceCode(0.0)
    with pytest.raises(ValueError, match="temperature must be a number above 0, got 0"):
        RelaxedPresenceCode(0, [0.0])


@pytest.mark.parametrize("make", [PresenceCode, lambda logits: RelaxedPresenceCode(0.5, logits)])
def test_the_number_of_steps_may_be_known_late(make):
    late = tf.function(lambda logits: make(logits).event_shape_tensor(), input_signature=[tf.TensorSpec([2, None])])
    np.testing.assert_array_equal(late(tf.zeros([2, 3])), [3])


def test_samples_match_closed_form_moments_and_repeat_with_their_seed():
    code = PresenceCode(tf.constant(LOGITS, tf.float32))
    num = 40000
    samples = code.sample(num, seed=[1, 2])
    np.testing.assert_array_equal(samples, code.sample(num, seed=[1, 2]))
    counts = tf.reduce_sum(samples, -1).numpy().astype(int)
    assert np.all(np.isfinite(code.log_prob(samples)))
    for row in range(2):
        frequencies = np.bincount(counts[:, row], minlength=5) / num
        np.testing.assert_allclose(frequencies, slow_count_probs(LOGITS[row]), atol=0.011)
    np.testing.assert_allclose(np.mean(samples, axis=0), code.mean(), atol=0.011)
    np.testing.assert_allclose(np.var(samples, axis=0), code.variance(), atol=0.011)


def test_mode_entropy_and_code_of_count():
    code = PresenceCode(tf.constant(LOGITS))
    probs = np.stack([slow_count_probs(row) for row in LOGITS])
    np.testing.assert_array_equal(tf.reduce_sum(code.mode(), -1), probs.argmax(axis=1))
    np.testing.assert_allclose(code.entropy(), -np.sum(probs * np.log(probs), axis=1), rtol=1e-12)
    np.testing.assert_array_equal(
        code_of_count(tf.constant([0, 2, 3, 9, -1]), 3),
        [[0, 0, 0], [1, 1, 0], [1, 1, 1], [1, 1, 1], [0, 0, 0]],
    )


def test_from_count_logits_gives_back_the_probabilities():
    probs = np.array([[0.1, 0.5, 0.2, 0.15, 0.05], [0.2, 0.2, 0.2, 0.2, 0.2]])
    code = PresenceCode.from_count_logits(tf.constant(np.log(probs) + 3.0))
    np.testing.assert_allclose(code.count_probs(), probs, rtol=1e-12)


def test_kl_equals_the_sum_over_counts_and_monte_carlo():
    q, p = PresenceCode(tf.constant(LOGITS)), PresenceCode(tf.constant(LOGITS[::-1].copy()))
    q_probs = np.stack([slow_count_probs(row) for row in LOGITS])
    expected = np.sum(q_probs * np.log(q_probs / q_probs[::-1]), axis=1)
    kl = tfd.kl_divergence(q, p)
    np.testing.assert_allclose(kl, expected, rtol=1e-12)
    np.testing.assert_allclose(tfd.kl_divergence(q, q), 0.0, atol=1e-15)
    samples = q.sample(40000, seed=[3, 4])
    differences = (q.log_prob(samples) - p.log_prob(samples)).numpy()
    error = differences.std(axis=0) / np.sqrt(len(differences))
    assert np.all(np.abs(differences.mean(axis=0) - kl) < 4 * error)


def test_kl_counts_nothing_where_there_is_no_probability():
    never, half = PresenceCode([-np.inf, 0.0]), PresenceCode([0.0, 0.0])
    np.testing.assert_allclose(tfd.kl_divergence(never, half), np.log(2.0), rtol=1e-6)
    assert np.isposinf(tfd.kl_divergence(half, never))
    np.testing.assert_allclose(never.entropy(), 0.0)
    np.testing.assert_allclose(never.log_prob([0.0, 0.0]), 0.0)


@pytest.mark.parametrize("dtype", [tf.float32, tf.float64])
def test_gradients_are_finite_at_extreme_logits_and_low_temperature(dtype):
    def gradients(q_logits, p_logits):
        with tf.GradientTape() as tape:
            tape.watch([q_logits, p_logits])
            q, p = PresenceCode(q_logits), PresenceCode(p_logits)
            relaxed_q = RelaxedPresenceCode(0.05, q_logits)
            relaxed_p = RelaxedPresenceCode(0.05, p_logits)
            y = relaxed_q.sample(8, seed=[1, 2])
            terms = [
                tfd.kl_divergence(q, p),
                q.entropy(),
                q.log_prob(q.mode()),
                q.presence_probs(),
                q.count_probs(),
                relaxed_q.log_prob(y),
                relaxed_p.log_prob(y),
                relaxed_q.presence(y),
                relaxed_kl_estimate(relaxed_q, relaxed_p, y),
            ]
            total = tf.add_n([tf.reduce_sum(term) for term in terms])
        return total, *tape.gradient(total, [q_logits, p_logits])

    q_logits = tf.constant(np.repeat(EXTREME, len(EXTREME), axis=0), dtype)
    p_logits = tf.constant(np.tile(EXTREME, (len(EXTREME), 1)), dtype)
    for values in run_three_ways(gradients, q_logits, p_logits):
        for value in values:
            assert np.all(np.isfinite(value))


def test_gradient_of_the_kl_equals_finite_differences():
    q_logits, p_logits, step = tf.constant(LOGITS[0]), tf.constant(LOGITS[1]), 1e-6
    with tf.GradientTape() as tape:
        tape.watch(q_logits)
        kl = tfd.kl_divergence(PresenceCode(q_logits), PresenceCode(p_logits))
    shifts = step * np.eye(4)
    high = tfd.kl_divergence(PresenceCode(q_logits + shifts), PresenceCode(p_logits))
    low = tfd.kl_divergence(PresenceCode(q_logits - shifts), PresenceCode(p_logits))
    np.testing.assert_allclose(
        tape.gradient(kl, q_logits), (high - low) / (2 * step), rtol=1e-6, atol=1e-9
    )


def test_closed_forms_agree_compiled_and_not():
    def values(logits):
        code = PresenceCode(logits)
        return code.count_probs(), code.mode(), tfd.kl_divergence(code, PresenceCode(-logits))

    first, *others = run_three_ways(values, tf.constant(LOGITS, tf.float32))
    for other in others:
        for a, b in zip(first, other, strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-5)


def test_compiled_samples_match_the_mean():
    code_mean = PresenceCode(tf.constant(LOGITS, tf.float32)).mean()
    sample = tf.function(
        lambda logits: PresenceCode(logits).sample(20000, seed=[5, 6]), jit_compile=True
    )
    samples = sample(tf.constant(LOGITS, tf.float32))
    np.testing.assert_allclose(np.mean(samples, axis=0), code_mean, atol=0.015)


@pytest.mark.parametrize("temperature", [0.05, 0.1, 1.0])
def test_relaxed_density_integrates_to_one(temperature):
    logits = tf.constant([0.7], tf.float64)
    code = RelaxedPresenceCode(temperature, logits)
    width = 45.0 / temperature
    grid = np.linspace(-width, width, 40001) + 0.7 / temperature
    total = integrate.simpson(np.exp(code.log_prob(grid[:, np.newaxis])), x=grid)
    np.testing.assert_allclose(total, 1.0, atol=1e-8)


def test_relaxed_log_prob_equals_tfp_logistics_and_samples_match_moments():
    code = RelaxedPresenceCode(0.1, tf.constant(LOGITS))
    reference = tfd.Independent(tfd.Logistic(LOGITS / 0.1, tf.constant(10.0, tf.float64)), 1)
    samples = code.sample(40000, seed=[1, 2])
    np.testing.assert_allclose(code.log_prob(samples), reference.log_prob(samples), rtol=1e-9)
    np.testing.assert_allclose(np.mean(samples, axis=0), code.mean(), atol=0.4)
    np.testing.assert_allclose(np.var(samples, axis=0), code.variance(), rtol=0.04)
    np.testing.assert_allclose(code.stddev()[0, 0], np.pi / np.sqrt(3.0) / 0.1, rtol=1e-9)


def test_relaxed_samples_cross_zero_as_often_as_the_exact_code_says_yes():
    relaxed = RelaxedPresenceCode(0.05, tf.constant(LOGITS))
    samples = relaxed.sample(40000, seed=[7, 8])
    hard = np.cumprod(samples.numpy() > 0, axis=-1)
    expected = PresenceCode(tf.constant(LOGITS)).presence_probs()
    np.testing.assert_allclose(hard.mean(axis=0), expected, atol=0.011)
    soft = relaxed.presence(samples).numpy()
    assert soft.min() >= 0.0 and soft.max() <= 1.0
    assert np.all(np.diff(soft, axis=-1) <= 0.0)
    np.testing.assert_allclose(
        soft, np.cumprod(1.0 / (1.0 + np.exp(-samples.numpy())), axis=-1), rtol=1e-9, atol=1e-300
    )


def test_a_temperature_that_is_made_of_any_number_is_above_zero():
    """As TFP makes parameters of numbers without bounds, to train a distribution."""
    to_temperature = RelaxedPresenceCode.parameter_properties()["temperature"].default_constraining_bijector_fn()
    made = to_temperature.forward(tf.constant([-5.0, 0.0, 5.0]))
    np.testing.assert_allclose(made, np.log1p(np.exp([-5.0, 0.0, 5.0])), rtol=1e-5)


def test_relaxed_samples_are_reparameterized():
    logits = tf.constant(LOGITS)
    with tf.GradientTape() as tape:
        tape.watch(logits)
        samples = RelaxedPresenceCode(0.1, logits).sample(seed=[1, 2])
    np.testing.assert_allclose(tape.gradient(samples, logits), np.full([2, 4], 10.0))


def test_relaxed_kl_estimate_is_above_the_exact_kl_and_zero_for_equal_codes():
    q_logits, p_logits = tf.constant(LOGITS), tf.constant(LOGITS[::-1].copy())
    q, p = RelaxedPresenceCode(0.05, q_logits), RelaxedPresenceCode(0.05, p_logits)
    samples = q.sample(20000, seed=[1, 2])
    estimate = relaxed_kl_estimate(q, p, samples).numpy()
    exact = tfd.kl_divergence(PresenceCode(q_logits), PresenceCode(p_logits))
    assert np.all(estimate.mean(axis=0) + 4 * estimate.std(axis=0) / np.sqrt(20000) > exact)
    np.testing.assert_allclose(relaxed_kl_estimate(q, q, samples), 0.0)
    # One step: nothing comes before it, so the estimate is log q - log p itself.
    one_q, one_p = RelaxedPresenceCode(0.1, [0.5]), RelaxedPresenceCode(0.2, [-0.5])
    y = tf.constant([[3.0], [-2.0]])
    np.testing.assert_allclose(
        relaxed_kl_estimate(one_q, one_p, y), one_q.log_prob(y) - one_p.log_prob(y), rtol=1e-5
    )
