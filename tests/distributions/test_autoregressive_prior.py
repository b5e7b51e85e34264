"""The learned prior with a tiny RNN: against NumPy, brute force, rejection sampling; compiled and not."""

import numpy as np
import pytest
import tensorflow as tf
from scipy import stats
from tensorflow_probability import distributions as tfd

from asr_tf.distributions import AIRScenePrior, AutoregressiveScenePrior
from asr_tf.scene import PriorStatistics, SceneLatents

T, Z, UNITS = 3, 2, 4
RNG = np.random.default_rng(1)
W_STATE = 0.6 * RNG.normal(size=(UNITS, UNITS))
W_INPUT = 0.6 * RNG.normal(size=(3 + Z, UNITS))
W_OUTPUT = 0.8 * RNG.normal(size=(UNITS, 7))
W_SCALE = RNG.normal(size=(2 + UNITS, 2)) * [0.5, 0.05]
START = np.full(UNITS, 0.3)


def numpy_step(values, state):
    """State and outputs (logit, shift loc 2, shift log scale 2, scale loc, scale log scale)."""
    state = np.tanh(state @ W_STATE + values @ W_INPUT)
    return state, state @ W_OUTPUT


def make_prior(with_scale_fn=False, presence_gain=2.0, dtype=tf.float64, w_output=W_OUTPUT, w_scale=W_SCALE):
    def step_fn(previous, state):
        values = tf.concat([previous.shift_latent, previous.scale_latent, previous.what], -1)
        state = tf.tanh(
            tf.matmul(state, tf.cast(W_STATE, dtype)) + tf.matmul(values, tf.cast(W_INPUT, dtype))
        )
        out = tf.matmul(state, tf.cast(w_output, dtype))
        logits, shift_loc, shift_log_scale, scale_loc, scale_log_scale = tf.split(
            out, [1, 2, 2, 1, 1], axis=-1
        )
        statistics = PriorStatistics(
            presence_gain * logits[:, 0], shift_loc, shift_log_scale, scale_loc, scale_log_scale
        )
        return statistics, state

    def scale_fn(shift_latent, state):
        out = tf.matmul(tf.concat([shift_latent, state], -1), tf.cast(w_scale, dtype))
        return tf.split(out, 2, axis=-1)

    return AutoregressiveScenePrior(
        step_fn,
        lambda size: tf.tile(tf.cast(START, dtype)[tf.newaxis], [size, 1]),
        T,
        Z,
        scale_fn=scale_fn if with_scale_fn else None,
        dtype=dtype,
    )


def slow_log_prob(latents, row, with_scale_fn, presence_gain=2.0):
    """log p(z) of one scene, step by step in NumPy."""
    presence, shift, scale, what = (np.asarray(part)[row] for part in latents)
    state, values, total = START, np.zeros(3 + Z), 0.0
    for t in range(T):
        state, out = numpy_step(values, state)
        yes = 1.0 / (1.0 + np.exp(-presence_gain * out[0]))
        if not presence[t]:
            return total + np.log(1.0 - yes)
        scale_out = np.concatenate([shift[t], state]) @ W_SCALE if with_scale_fn else out[5:]
        total += np.log(yes)
        total += stats.norm.logpdf(shift[t], out[1:3], np.exp(out[3:5])).sum()
        total += stats.norm.logpdf(scale[t, 0], scale_out[0], np.exp(scale_out[1]))
        total += stats.norm.logpdf(what[t]).sum()
        values = np.concatenate([shift[t], scale[t], what[t]])
    return total


@pytest.mark.parametrize("with_scale_fn", [False, True])
def test_log_prob_equals_a_walk_in_numpy(with_scale_fn):
    prior = make_prior(with_scale_fn)
    latents = prior.sample(4, seed=[1, 2])
    latents = latents._replace(
        presence=tf.constant([[0.0] * 3, [1, 0, 0], [1, 1, 0], [1] * 3], tf.float64)
    )
    expected = [slow_log_prob(latents, row, with_scale_fn) for row in range(4)]
    np.testing.assert_allclose(prior.log_prob(latents), expected, rtol=1e-10)
    square = tf.nest.map_structure(lambda x: tf.reshape(x, [2, 2, *x.shape[1:]]), latents)
    np.testing.assert_allclose(prior.log_prob(square), np.reshape(expected, [2, 2]), rtol=1e-10)


def test_shapes_and_structure():
    prior = make_prior(dtype=tf.float32)
    assert prior.batch_shape == []
    assert prior.event_shape.what == [T, Z]
    assert prior.dtype.presence == tf.float32
    assert prior.reparameterization_type.shift_latent == tfd.FULLY_REPARAMETERIZED
    sample = prior.sample([5, 2], seed=[1, 2])
    assert isinstance(sample, SceneLatents)
    assert [part.shape.as_list() for part in sample] == [
        [5, 2, T],
        [5, 2, T, 2],
        [5, 2, T, 1],
        [5, 2, T, Z],
    ]
    assert prior.sample(seed=[1, 2]).presence.shape == [T]
    assert prior.log_prob(sample).shape == [5, 2]
    repeated = prior.sample([5, 2], seed=[1, 2])
    tf.nest.map_structure(np.testing.assert_array_equal, sample, repeated)


@pytest.mark.parametrize("with_scale_fn", [False, True])
def test_samples_follow_the_density(with_scale_fn):
    # The mean of the score, the gradient of log p(z) by the parameters, is 0 over samples of p itself.
    samples = make_prior(with_scale_fn).sample([20, 1000], seed=[3, 4])
    parameters = [tf.constant(W_OUTPUT), tf.constant(W_SCALE)][: 2 if with_scale_fn else 1]

    @tf.function
    def mean_score(chunk, parameters):
        with tf.GradientTape() as tape:
            tape.watch(parameters)
            prior = make_prior(
                with_scale_fn, **dict(zip(("w_output", "w_scale"), parameters, strict=False))
            )
            mean = tf.reduce_mean(prior.log_prob(chunk))
        return tape.gradient(mean, parameters)

    chunks = [tf.nest.map_structure(lambda part, i=i: part[i], samples) for i in range(20)]
    for scores in zip(*(mean_score(chunk, parameters) for chunk in chunks), strict=True):
        scores = np.stack(scores)
        error = scores.std(axis=0) / np.sqrt(20)
        assert np.all(np.abs(scores.mean(axis=0)) < 4.5 * error + 1e-12)
        assert 0.0 < error.max() < 0.1


def test_a_prior_without_memory_is_the_fixed_prior():
    logits = np.array([0.5, -0.5, 1.0])

    def step_fn(previous, step):
        size = tf.shape(previous.presence)[0]
        fill = lambda value, width: tf.fill([size, width], tf.constant(value, tf.float64))  # noqa: E731
        stats_ = PriorStatistics(
            tf.fill([size], tf.gather(tf.constant(logits), step)),
            fill(0.0, 2),
            fill(0.0, 2),
            fill(-1.0, 1),
            fill(0.5 * np.log(0.05), 1),
        )
        return stats_, step + 1

    prior = AutoregressiveScenePrior(step_fn, lambda size: 0, T, Z, dtype=tf.float64)
    fixed = AIRScenePrior(tf.constant(logits), Z)
    samples = fixed.sample(50, seed=[1, 2])
    np.testing.assert_allclose(prior.log_prob(samples), fixed.log_prob(samples), rtol=1e-10)


@pytest.mark.parametrize("count", [0, 1, 2, 3])
def test_conditional_samples_have_exactly_the_count(count):
    sample = make_prior().sample_given_count(tf.fill([20, 2], count), seed=[1, 2])
    assert sample.presence.shape == [20, 2, T]
    assert sample.what.shape == [20, 2, T, Z]
    expected = np.broadcast_to(np.arange(T) < count, [20, 2, T])
    np.testing.assert_array_equal(sample.presence, expected)


def test_conditional_samples_match_rejection_sampling():
    # Presence depends strongly on the latents here, so that forced paths alone would have another distribution.
    prior = make_prior(presence_gain=5.0)
    samples = prior.sample(120000, seed=[1, 2])
    kept = tf.reduce_sum(samples.presence, -1) == 2
    rejected = tf.nest.map_structure(lambda part: part[kept].numpy(), samples)
    num = 20000
    resampled = prior.sample_given_count(tf.fill([num], 2), seed=[3, 4], num_candidates=64)
    forced = prior.sample_given_count(tf.fill([num], 2), seed=[3, 4], num_candidates=1)
    gap_forced = 0.0
    for name in ("shift_latent", "scale_latent", "what"):
        reference = getattr(rejected, name)[:, :2]
        drawn = getattr(resampled, name).numpy()[:, :2]
        stddev = reference.std(axis=0)
        error = stddev * np.sqrt(1.0 / len(reference) + 1.0 / num)
        gap = np.abs(drawn.mean(axis=0) - reference.mean(axis=0))
        assert np.all(gap < 4 * error + 0.02 * stddev)
        np.testing.assert_allclose(drawn.std(axis=0), stddev, rtol=0.05)
        plain = getattr(forced, name).numpy()[:, :2].mean(axis=0)
        gap_forced = max(gap_forced, (np.abs(plain - reference.mean(axis=0)) / stddev).max())
    assert gap_forced > 0.1


def test_negative_counts_leave_the_count_to_the_prior():
    prior = make_prior()
    num = 20000
    free = prior.sample_given_count(tf.fill([num], -1), seed=[1, 2], num_candidates=2)
    mixed = prior.sample_given_count(tf.constant([-1, 2, -1, 0]), seed=[1, 2])
    np.testing.assert_array_equal(tf.reduce_sum(mixed.presence, -1)[1::2], [2, 0])
    samples = prior.sample(num, seed=[5, 6])
    histogram = [
        np.bincount(tf.reduce_sum(part.presence, -1).numpy().astype(int), minlength=T + 1) / num
        for part in (free, samples)
    ]
    np.testing.assert_allclose(histogram[0], histogram[1], atol=0.02)


def test_bad_counts():
    with pytest.raises(ValueError, match="count must be at most 3, the steps of the prior, got 7"):
        make_prior().sample_given_count(7, seed=[1, 2])
    with pytest.raises(ValueError, match="num_candidates must be 1 or more, got 0"):
        make_prior().sample_given_count(1, seed=[1, 2], num_candidates=0)


def test_gradients_and_compilation():
    gain = tf.constant(2.0)

    @tf.function(jit_compile=True)
    def compiled(gain):
        prior = make_prior(True, presence_gain=gain, dtype=tf.float32)
        with tf.GradientTape() as tape:
            tape.watch(gain)
            samples = prior.sample(6, seed=[1, 2])
            log_prob = prior.log_prob(samples)
        given = prior.sample_given_count(tf.constant([1, 3, -1]), seed=[1, 2])
        return samples, log_prob, tape.gradient(log_prob, gain), given.presence

    samples, log_prob, gradient, given = compiled(gain)
    expected = [slow_log_prob(samples, row, True) for row in range(6)]
    np.testing.assert_allclose(log_prob, expected, rtol=1e-4)
    np.testing.assert_array_equal(tf.reduce_sum(given, -1)[:2], [1, 3])

    def total(value):
        return sum(slow_log_prob(samples, row, True, value) for row in range(6))

    np.testing.assert_allclose(gradient, (total(2.001) - total(1.999)) / 0.002, rtol=1e-3)


def test_number_of_samples_may_be_a_tensor():
    prior = make_prior(dtype=tf.float32)

    @tf.function(input_signature=[tf.TensorSpec([], tf.int32), tf.TensorSpec([], tf.int32)])
    def draw(num, count):
        free = prior.sample(num, seed=[1, 2])
        return free, prior.sample_given_count(tf.fill([num], count), seed=[1, 2])

    free, given = draw(5, 2)
    assert free.what.shape == [5, T, Z]
    np.testing.assert_array_equal(tf.reduce_sum(given.presence, -1), [2.0] * 5)
