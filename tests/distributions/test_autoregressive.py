"""Scenes whose steps follow from one another, with a tiny RNN: against NumPy, step by step, compiled and not."""

import numpy as np
import pytest
import tensorflow as tf
from scipy import stats
from tensorflow_probability import distributions as tfd

from asr_tf.distributions import (
    AutoregressiveScene,
    GridPlacement,
    IndependentSteps,
    NextStep,
    PresenceCode,
    normal,
    normal_cell_logits,
)
from asr_tf.scene import SceneLatents

T, Z, UNITS, GRID = 3, 2, 4, 5
RNG = np.random.default_rng(1)
W_STATE = 0.6 * RNG.normal(size=(UNITS, UNITS))
W_INPUT = 0.6 * RNG.normal(size=(3 + Z, UNITS))
W_OUTPUT = 0.8 * RNG.normal(size=(UNITS, 4 + Z))
W_SCALE = RNG.normal(size=(2 + UNITS, 2)) * [0.5, 0.05]
START = np.full(UNITS, 0.3)
LOGITS = [0.8, -0.3, 0.5]


class Steps:
    """The functions that `AutoregressiveScene` is handed; all follow from `advance` and `step`."""

    def __init__(self, dtype=tf.float64, grid=False, w_output=W_OUTPUT, w_scale=W_SCALE):
        self.dtype, self.grid, self.calls = dtype, grid, []
        self.w_output, self.w_scale = w_output, w_scale

    def advance(self, state, values):
        return tf.tanh(tf.matmul(state, tf.cast(W_STATE, self.dtype)) + tf.matmul(values, tf.cast(W_INPUT, self.dtype)))

    def shift(self, state):
        loc, log_scale, _ = tf.split(state @ tf.cast(self.w_output, self.dtype), [2, 2, Z], axis=-1)
        return GridPlacement(normal_cell_logits(loc, log_scale, GRID)) if self.grid else normal(loc, log_scale)

    def scale(self, state, shift_latent):
        return normal(*tf.split(tf.concat([shift_latent, state], -1) @ tf.cast(self.w_scale, self.dtype), 2, axis=-1))

    def what(self, state):
        loc = (state @ tf.cast(self.w_output, self.dtype))[..., 4:]
        return normal(loc, tf.zeros_like(loc))

    def step(self, state):
        scale_given = lambda shift_latent: self.scale(state, shift_latent)  # noqa: E731
        return NextStep(self.shift(state), scale_given, self.what(state), state)

    def first(self, size):
        self.calls.append(0)
        start = tf.tile(tf.cast(START, self.dtype)[tf.newaxis], [size, 1])
        return self.step(self.advance(start, tf.zeros([size, 3 + Z], self.dtype)))

    def following(self, t, previous, state):
        self.calls.append(t)
        return self.step(self.advance(state, tf.concat(previous[1:], -1)))

    def given(self, presence, latents):
        values = tf.concat(latents[1:], -1)
        state = tf.tile(tf.cast(START, self.dtype)[tf.newaxis], [tf.shape(values)[0], 1])
        states = []
        for t in range(T):
            state = self.advance(state, values[:, t - 1] if t else tf.zeros_like(values[:, 0]))
            states.append(state)
        states = tf.stack(states, 1)
        return IndependentSteps(
            presence, self.shift(states), self.scale(states, latents.shift_latent), self.what(states)
        )


def make_scene(steps, skip_absent=False):
    presence = PresenceCode(tf.constant(LOGITS, steps.dtype))
    given = lambda latents: steps.given(presence, latents)  # noqa: E731
    return AutoregressiveScene(presence, Z, steps.first, steps.following, given, skip_absent)


def slow_log_prob(latents, row):
    """log p(z) of one scene, step by step in NumPy."""
    presence, shift, scale, what = (np.asarray(part)[row] for part in latents)
    state, values, total = START, np.zeros(3 + Z), 0.0
    for t in range(T):
        state = np.tanh(state @ W_STATE + values @ W_INPUT)
        yes = 1.0 / (1.0 + np.exp(-LOGITS[t]))
        if not presence[t]:
            return total + np.log(1.0 - yes)
        out, scale_out = state @ W_OUTPUT, np.concatenate([shift[t], state]) @ W_SCALE
        total += np.log(yes)
        total += stats.norm.logpdf(shift[t], out[:2], np.exp(out[2:4])).sum()
        total += stats.norm.logpdf(scale[t, 0], scale_out[0], np.exp(scale_out[1]))
        total += stats.norm.logpdf(what[t], out[4:]).sum()
        values = np.concatenate([shift[t], scale[t], what[t]])
    return total


def test_log_prob_equals_a_walk_in_numpy():
    scene = make_scene(Steps())
    latents = scene.sample_given_count(tf.constant([0, 1, 2, 3]), tf.constant([1, 2]))
    expected = [slow_log_prob(latents, row) for row in range(4)]
    np.testing.assert_allclose(scene.log_prob(latents), expected, rtol=1e-10)


@pytest.mark.parametrize("grid", [False, True])
def test_log_prob_is_the_sum_of_the_conditionals_of_a_walk(grid):
    """What `given` says of all steps at once is what `first` and `following` say one by one."""
    steps = Steps(tf.float32 if grid else tf.float64, grid)
    scene = make_scene(steps)
    latents = scene.sample(6, seed=[1, 2])
    conditionals, step = [], steps.first(6)
    for t in range(T):
        now = tf.nest.map_structure(lambda part, t=t: part[:, t], latents)
        of_scale = step.scale_given(now.shift_latent).log_prob(now.scale_latent)
        conditionals.append(step.shift.log_prob(now.shift_latent) + of_scale + step.what.log_prob(now.what))
        if t + 1 < T:
            step = steps.following(t + 1, now, step.state)
    conditionals = tf.stack(conditionals, 1)
    np.testing.assert_allclose(scene.given(latents).step_log_prob(latents), conditionals, rtol=1e-5)
    expected = scene.presence.log_prob(latents.presence) + tf.reduce_sum(latents.presence * conditionals, -1)
    np.testing.assert_allclose(scene.log_prob(latents), expected, rtol=1e-5)


def test_shapes_and_structure():
    scene = make_scene(Steps(tf.float32))
    assert (scene.batch_shape, scene.event_shape.what, scene.dtype.presence) == ([], [T, Z], tf.float32)
    assert scene.reparameterization_type.shift_latent == tfd.FULLY_REPARAMETERIZED
    sample = scene.sample([5, 2], seed=[1, 2])
    assert isinstance(sample, SceneLatents)
    assert [part.shape.as_list() for part in sample] == [[5, 2, T], [5, 2, T, 2], [5, 2, T, 1], [5, 2, T, Z]]
    assert scene.sample(seed=[1, 2]).presence.shape == [T]
    assert scene.copy().event_shape.presence == [T]
    tf.nest.map_structure(np.testing.assert_array_equal, sample, scene.sample([5, 2], seed=[1, 2]))


def test_samples_follow_the_density():
    # The mean of the score, the gradient of log p(z) by the parameters, is 0 over samples of p itself.
    parameters = [tf.constant(W_OUTPUT), tf.constant(W_SCALE)]
    samples = make_scene(Steps()).sample([20, 1000], seed=[3, 4])

    @tf.function
    def mean_score(chunk):
        with tf.GradientTape() as tape:
            tape.watch(parameters)
            scene = make_scene(Steps(w_output=parameters[0], w_scale=parameters[1]))
            mean = tf.reduce_mean(scene.log_prob(chunk))
        return tape.gradient(mean, parameters)

    chunks = [tf.nest.map_structure(lambda part, i=i: part[i], samples) for i in range(20)]
    for scores in zip(*(mean_score(chunk) for chunk in chunks), strict=True):
        error = np.std(scores, axis=0) / np.sqrt(20)
        assert np.all(np.abs(np.mean(scores, axis=0)) < 4.5 * error + 1e-12)
        assert 0.0 < error.max() < 0.1


def test_samples_of_the_count_and_the_first_step_have_their_moments():
    sample = make_scene(Steps()).sample(20_000, seed=[5, 6])
    code = PresenceCode(tf.constant(LOGITS))
    found = np.bincount(np.sum(sample.presence, -1).astype(int), minlength=T + 1) / 20_000
    np.testing.assert_allclose(found, code.count_probs(), atol=0.016)
    out = np.tanh(START @ W_STATE) @ W_OUTPUT
    first = sample.shift_latent[:, 0].numpy()
    assert np.abs((first.mean(0) - out[:2]) / np.exp(out[2:4])).max() < 0.03
    np.testing.assert_allclose(first.std(0), np.exp(out[2:4]), rtol=0.03)
    np.testing.assert_allclose(np.mean(sample.what[:, 0], 0), out[4:], atol=0.03)


@pytest.mark.parametrize("skip_absent", [False, True])
@pytest.mark.parametrize("mode", ["eager", "graph", "xla"])
def test_a_scene_has_exactly_the_count_it_is_given(mode, skip_absent):
    scene = make_scene(Steps(tf.float32, grid=True), skip_absent)
    counts = np.resize([0, 1, 2, 3], 20)

    def draw(counts):
        return scene.sample_given_count(counts, tf.constant([1, 2]))

    if mode != "eager":
        draw = tf.function(draw, jit_compile=mode == "xla")
    sample = draw(tf.constant(counts))
    np.testing.assert_array_equal(sample.presence, np.arange(T) < counts[:, np.newaxis])
    assert [part.shape.as_list() for part in sample[1:]] == [[20, T, 2], [20, T, 1], [20, T, Z]]
    assert all(np.isfinite(part).all() for part in sample)


def test_given_counts_leave_the_rest_as_rejection_would():
    """The count looks at no other latents, so scenes of 2 are free scenes of which only those of 2 are kept."""
    scene, number = make_scene(Steps()), 20_000
    free = scene.sample(3 * number, seed=[1, 2])
    kept = np.sum(free.presence, -1) == 2
    drawn = scene.sample_given_count(tf.fill([number], 2), tf.constant([3, 4]))
    for name in ("shift_latent", "scale_latent", "what"):
        wanted, found = (np.array(getattr(latents, name))[:, :2] for latents in (free, drawn))
        wanted = wanted[kept]
        error = wanted.std(0) * np.sqrt(1.0 / len(wanted) + 1.0 / number)
        assert np.all(np.abs(found.mean(0) - wanted.mean(0)) < 4.5 * error)
        np.testing.assert_allclose(found.std(0), wanted.std(0), rtol=0.04)


def test_negative_counts_are_drawn():
    scene, counts = make_scene(Steps()), np.resize([-1, 2, -1, 0], 20_000)
    found = np.sum(scene.sample_given_count(tf.constant(counts), tf.constant([1, 2])).presence, -1).astype(int)
    np.testing.assert_array_equal(found[counts >= 0], counts[counts >= 0])
    frequencies = np.bincount(found[counts < 0], minlength=T + 1) / 10_000
    np.testing.assert_allclose(frequencies, scene.presence.count_probs(), atol=0.02)


@pytest.mark.parametrize(
    ("mode", "most"), [*(("eager", most) for most in range(T + 1)), ("graph", 0), ("graph", 2), ("xla", 2)]
)
def test_skipping_absent_steps_changes_no_present_one(mode, most):
    counts = tf.constant([most, 0, max(most - 1, 0)])

    def draw(skip_absent):
        steps = Steps(tf.float32, grid=True)
        scene = make_scene(steps, skip_absent)
        draw = lambda counts: scene.sample_given_count(counts, tf.constant([1, 2]))  # noqa: E731
        if mode != "eager":
            draw = tf.function(draw, jit_compile=mode == "xla")
        return draw(counts), steps.calls

    (plain, plain_calls), (skipping, skipping_calls) = draw(False), draw(True)
    assert plain_calls == [0, 1, 2]
    if mode == "eager":  # a graph has all steps, of which it runs some
        assert skipping_calls == list(range(max(most, 1)))
    np.testing.assert_array_equal(skipping.presence, plain.presence)
    drawn = max(most, 1)
    for found, wanted in zip(skipping[1:], plain[1:], strict=True):
        np.testing.assert_allclose(found[:, :drawn], wanted[:, :drawn], rtol=1e-5, atol=1e-6)
        np.testing.assert_array_equal(found[:, drawn:], tf.zeros_like(found[:, drawn:]))


def test_gradients_of_samples_and_densities_equal_finite_differences():
    """By one number of the weights, through the steps."""
    target = np.random.default_rng(2).normal(size=(6, T, Z))
    latents = make_scene(Steps()).sample(6, seed=[3, 4])

    def value(w):
        scene = make_scene(Steps(w_output=w))
        sample = scene.sample_given_count(tf.fill([6], 3), tf.constant([1, 2]))
        return tf.reduce_sum(tf.square(sample.what - target)) + tf.reduce_sum(scene.log_prob(latents))

    w = tf.constant(W_OUTPUT)
    with tf.GradientTape() as tape:
        tape.watch(w)
        total = value(w)
    gradient = tape.gradient(total, w).numpy()
    for place in [(0, 1), (2, 3), (3, 5)]:
        step = np.zeros(W_OUTPUT.shape)
        step[place] = 1e-6
        slope = (value(tf.constant(W_OUTPUT + step)) - value(tf.constant(W_OUTPUT - step))) / 2e-6
        np.testing.assert_allclose(gradient[place], slope, rtol=1e-5)


@pytest.mark.parametrize("skip_absent", [False, True])
def test_number_of_samples_may_be_a_tensor(skip_absent):
    scene = make_scene(Steps(tf.float32), skip_absent)

    @tf.function(input_signature=[tf.TensorSpec([], tf.int32), tf.TensorSpec([], tf.int32)])
    def draw(number, count):
        free = scene.sample(number, seed=[1, 2])
        return free, scene.log_prob(free), scene.sample_given_count(tf.fill([number], count), tf.constant([1, 2]))

    free, log_prob, given = draw(5, 2)
    assert free.what.shape == [5, T, Z]
    np.testing.assert_allclose(log_prob, [slow_log_prob(free, row) for row in range(5)], rtol=1e-4)
    np.testing.assert_array_equal(tf.reduce_sum(given.presence, -1), [2.0] * 5)
