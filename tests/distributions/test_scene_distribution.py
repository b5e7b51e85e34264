"""Scenes of independent steps: joint densities against sums by hand, samples, exact counts, and divergences."""

import itertools

import numpy as np
import pytest
import tensorflow as tf
from scipy import stats
from tensorflow_probability import distributions as tfd

from asr_tf.distributions import (
    GridPlacement,
    IndependentSteps,
    PresenceCode,
    SceneDistribution,
    divergence,
    normal,
    normal_cell_logits,
    scene_posterior,
)
from asr_tf.scene import PosteriorStatistics, SceneLatents

T, Z, B = 3, 2, 4


def random_statistics(dtype=np.float64):
    rng = np.random.default_rng(0)
    sizes = ((), (2,), (2,), (1,), (1,), (Z,), (Z,))
    return PosteriorStatistics(*(tf.constant(0.5 * rng.normal(size=(B, T, *size)), dtype) for size in sizes))


def air_prior(logits, dtype=tf.float32):
    """Standard normals, and one for the scale, for all steps of one scene."""
    zeros = [tf.zeros([T, size], dtype) for size in (2, 1, Z)]
    scale = normal(zeros[1] - 1.0, zeros[1] + 0.5 * np.log(0.05))
    code = PresenceCode(tf.constant(logits, dtype))
    return IndependentSteps(code, normal(zeros[0], zeros[0]), scale, normal(zeros[2], zeros[2]))


def slow_log_prob(latents, statistics, row):
    """The density of one scene, step by step, until the first absent step."""
    total = 0.0
    s = [np.asarray(part)[row] for part in statistics]
    presence, *values = [np.asarray(part)[row] for part in latents]
    for t in range(T):
        yes = 1.0 / (1.0 + np.exp(-s[0][t]))
        if not presence[t]:
            return total + np.log(1.0 - yes)
        total += np.log(yes)
        for value, loc, log_scale in zip(values, s[1::2], s[2::2], strict=True):
            total += stats.norm.logpdf(value[t], loc[t], np.exp(log_scale[t])).sum()
    return total


@pytest.mark.parametrize("shape", [(), (1,), (B,), (6,), (6, 2)])
@pytest.mark.parametrize("batch", [[B], []])
def test_shapes_and_structure(batch, shape):
    distribution = scene_posterior(random_statistics(np.float32)) if batch else air_prior([0.0] * T)
    assert distribution.batch_shape == batch
    assert isinstance(distribution.event_shape, SceneLatents)
    assert distribution.dtype == SceneLatents(*[tf.float32] * 4)
    assert distribution.reparameterization_type.presence == tfd.NOT_REPARAMETERIZED
    assert distribution.reparameterization_type.what == tfd.FULLY_REPARAMETERIZED
    assert distribution.copy().batch_shape == batch
    sample = distribution.sample(shape, seed=[0, 1])
    assert isinstance(sample, SceneLatents)
    for part, event in zip(sample, distribution.event_shape, strict=True):
        assert part.shape == [*shape, *batch, *event]
    assert distribution.log_prob(sample).shape == [*shape, *batch]
    tf.nest.map_structure(np.testing.assert_array_equal, sample, distribution.sample(shape, seed=[0, 1]))


def test_names():
    statistics = random_statistics(np.float32)
    assert scene_posterior(statistics).name == "scene_posterior"
    assert air_prior([0.0] * T).name == "IndependentSteps"


def test_log_prob_equals_the_sum_over_present_steps():
    statistics = random_statistics()
    posterior = scene_posterior(statistics)
    latents = posterior.sample(seed=[1, 2])._replace(presence=tf.constant(np.tri(B, T, -1)))
    expected = [slow_log_prob(latents, statistics, row) for row in range(B)]
    np.testing.assert_allclose(posterior.log_prob(latents), expected, rtol=1e-10)
    assert posterior.given(latents) is posterior


def test_step_log_prob_counts_absent_steps_too():
    statistics = random_statistics()
    posterior = scene_posterior(statistics)
    latents = posterior.sample(seed=[1, 2])
    expected = sum(
        stats.norm.logpdf(value, loc, np.exp(log_scale)).sum(-1)
        for value, loc, log_scale in zip(latents[1:], statistics[1::2], statistics[2::2], strict=True)
    )
    np.testing.assert_allclose(posterior.step_log_prob(latents), expected, rtol=1e-10)


def test_absent_steps_and_codes_that_are_none():
    posterior = scene_posterior(random_statistics())
    latents = posterior.sample(seed=[1, 2])._replace(presence=tf.constant(np.tile([1.0, 0.0, 0.0], (B, 1))))
    # Whatever stands in an absent step, even no number at all, changes nothing.
    absent = np.array([False, True, True])[:, np.newaxis]
    spoilt = latents._replace(what=tf.where(absent, np.nan, latents.what))
    np.testing.assert_array_equal(posterior.log_prob(spoilt), posterior.log_prob(latents))
    wrong = latents._replace(presence=tf.constant(np.tile([0.0, 1.0, 0.0], (B, 1))))
    assert np.all(np.isneginf(posterior.log_prob(wrong)))


def many_samples(statistics, number, seed):
    """[number, B, T, ...], without asking for more than one sample."""
    tiled = tf.nest.map_structure(lambda part: tf.tile(part[np.newaxis], [number, *[1] * part.shape.rank]), statistics)
    return scene_posterior(tiled).sample(seed=seed)


def test_density_integrates_to_one_over_counts_and_latents():
    # By importance sampling: E_r[p / r] over r's own samples is the mass of p.
    statistics = random_statistics()
    wider = {name: part + 0.2 for name, part in statistics._asdict().items() if name.endswith("log_scale")}
    other = statistics._replace(presence_logits=-statistics.presence_logits, **wider)
    samples = many_samples(other, 60_000, [3, 4])
    weights = np.exp(scene_posterior(statistics).log_prob(samples) - scene_posterior(other).log_prob(samples))
    error = weights.std(axis=0) / np.sqrt(len(weights))
    assert np.all(np.abs(weights.mean(axis=0) - 1.0) < 4 * error)
    assert error.max() < 0.05


def test_samples_match_moments():
    statistics = random_statistics(np.float32)
    sample = many_samples(statistics, 20_000, [1, 2])
    code = PresenceCode(statistics.presence_logits)
    np.testing.assert_allclose(np.mean(sample.presence, axis=0), code.presence_probs(), atol=0.016)
    for drawn, loc, log_scale in zip(sample[1:], statistics[1::2], statistics[2::2], strict=True):
        stddev = np.exp(log_scale)
        assert np.abs((np.mean(drawn, axis=0) - loc) / stddev).max() < 0.04
        np.testing.assert_allclose(np.std(drawn, axis=0), stddev, rtol=0.03)


def test_samples_of_the_continuous_latents_are_reparameterized():
    statistics = random_statistics(np.float32)
    with tf.GradientTape() as tape:
        tape.watch(statistics)
        sample = scene_posterior(statistics).sample(seed=[1, 2])
        total = tf.add_n([tf.reduce_sum(part) for part in sample])
    by_logits, *gradients = tape.gradient(total, list(statistics))
    assert by_logits is None
    for drawn, loc, by_loc, by_log_scale in zip(
        sample[1:], statistics[1::2], gradients[::2], gradients[1::2], strict=True
    ):
        np.testing.assert_array_equal(by_loc, np.ones(loc.shape))
        np.testing.assert_allclose(by_log_scale, drawn - loc, rtol=1e-4, atol=1e-5)  # stddev times the noise


def test_a_scene_has_exactly_the_count_it_is_given():
    prior = air_prior([0.5, -0.5, 1.0])
    counts = np.array([0, 1, 2, 3] * 5)
    sample = prior.sample_given_count(tf.constant(counts), tf.constant([1, 2]))
    np.testing.assert_array_equal(sample.presence, np.arange(T) < counts[:, np.newaxis])
    assert [part.shape.as_list() for part in sample[1:]] == [[20, T, 2], [20, T, 1], [20, T, Z]]
    again = prior.sample_given_count(tf.constant(counts), tf.constant([1, 2]))
    tf.nest.map_structure(np.testing.assert_array_equal, sample, again)


def test_a_negative_count_is_drawn():
    prior, number = air_prior([0.5, -0.5, 1.0]), 20_000
    counts = np.resize([-1, 2, -1, 0], number)
    found = tf.reduce_sum(prior.sample_given_count(tf.constant(counts), tf.constant([1, 2])).presence, -1).numpy()
    np.testing.assert_array_equal(found[counts >= 0], counts[counts >= 0])
    frequencies = np.bincount(found[counts < 0].astype(int), minlength=T + 1) / (number / 2)
    np.testing.assert_allclose(frequencies, prior.presence.count_probs(), atol=0.02)


@pytest.mark.parametrize("jit_compile", [False, True])
def test_the_number_of_scenes_may_be_known_late(jit_compile):
    prior = air_prior([0.5, -0.5, 1.0])

    @tf.function(input_signature=[tf.TensorSpec([None], tf.int32)], jit_compile=jit_compile)
    def draw(count):
        return prior.sample_given_count(count, tf.constant([1, 2]))

    sample = draw(tf.constant([1, 3, -1, 0]))
    assert sample.what.shape == [4, T, Z]
    np.testing.assert_array_equal(tf.reduce_sum(sample.presence, -1).numpy()[[0, 1, 3]], [1, 3, 0])


def test_samples_of_the_latents_follow_the_density():
    sample = air_prior([0.4, -1.0, 0.2]).sample(20_000, seed=[1, 2])
    code_mean = np.cumprod(1.0 / (1.0 + np.exp([-0.4, 1.0, -0.2])))
    np.testing.assert_allclose(np.mean(sample.presence, axis=0), code_mean, atol=0.016)
    for part, loc, variance in zip(sample[1:], (0.0, -1.0, 0.0), (1.0, 0.05, 1.0), strict=True):
        np.testing.assert_allclose(np.mean(part, axis=0), np.full(part.shape[1:], loc), atol=0.04)
        np.testing.assert_allclose(np.var(part, axis=0), np.full(part.shape[1:], variance), rtol=0.06)


def test_latents_are_no_matter_to_a_count_and_the_other_way_round():
    """Steps are drawn the same for any count, as none looks at it."""
    prior = air_prior([0.0] * T)
    few, many = (prior.sample_given_count(tf.fill([6], count), tf.constant([1, 2])) for count in (0, 3))
    tf.nest.map_structure(np.testing.assert_array_equal, few[1:], many[1:])


def test_divergence_of_normals_is_the_closed_form():
    rng = np.random.default_rng(1)
    q_loc, q_log, p_loc, p_log = (rng.normal(size=(5, 2)) for _ in range(4))
    ratio = np.exp(2.0 * (q_log - p_log))
    expected = (p_log - q_log + 0.5 * (ratio + np.square(q_loc - p_loc) / np.exp(2.0 * p_log)) - 0.5).sum(-1)
    q, p = normal(tf.constant(q_loc), tf.constant(q_log)), normal(tf.constant(p_loc), tf.constant(p_log))
    found = divergence(q, p, q.sample(seed=[1, 2]))
    np.testing.assert_allclose(found, expected, rtol=1e-9)
    np.testing.assert_allclose(divergence(q, q, None), np.zeros(5), atol=1e-12)


def test_divergence_without_a_closed_form_is_right_in_the_mean():
    """From a normal to a placement that is nearly a normal, against the closed form of the normals."""
    q = normal(tf.constant([0.1, -0.2]), tf.constant([-1.2, -1.0]))
    loc, log_scale = tf.constant([0.3, 0.0]), tf.constant([-0.9, -1.0])
    p = GridPlacement(normal_cell_logits(loc, log_scale, 80))
    samples = q.sample(20_000, seed=[1, 2])
    estimates = np.array(divergence(q, p, samples))
    assert estimates.shape == (20_000,)
    np.testing.assert_allclose(estimates, -q.entropy() - p.log_prob(samples), rtol=1e-6)
    error = estimates.std() / np.sqrt(len(estimates))
    assert abs(estimates.mean() - divergence(q, normal(loc, log_scale), samples)) < 4 * error + 0.01


def test_sum_of_divergences_is_the_mean_of_log_ratios():
    """KL of the counts plus those of present steps' latents, against samples of q."""
    statistics = random_statistics()
    q, p = scene_posterior(statistics), air_prior([1.0, 0.5, -1.0], tf.float64)
    steps = sum(divergence(getattr(q, name), getattr(p, name), None) for name in ("shift", "scale", "what"))
    kl = tfd.kl_divergence(q.presence, p.presence) + tf.reduce_sum(q.presence.presence_probs() * steps, -1)
    samples = many_samples(statistics, 20_000, [5, 6])
    differences = (q.log_prob(samples) - p.log_prob(samples)).numpy()
    error = differences.std(axis=0) / np.sqrt(len(differences))
    assert np.all(np.abs(differences.mean(axis=0) - kl) < 4 * error)


@pytest.mark.parametrize("jit_compile", [None, False, True])
def test_gradients_are_finite_at_extreme_logits_compiled_and_not(jit_compile):
    extreme = np.array(list(itertools.product([-30.0, 30.0], repeat=T)))[:B]

    def gradients(logits):
        statistics = random_statistics(np.float32)._replace(presence_logits=logits)
        with tf.GradientTape() as tape:
            tape.watch(statistics)
            q = scene_posterior(statistics)
            sample = q.sample(seed=[1, 2])
            total = tf.reduce_sum(q.log_prob(sample) + air_prior([0.0] * T).log_prob(sample))
        return tape.gradient(total, list(statistics), unconnected_gradients="zero")

    compute = gradients if jit_compile is None else tf.function(gradients, jit_compile=jit_compile)
    for value in compute(tf.constant(extreme, tf.float32)):
        assert np.all(np.isfinite(value))


class Rows(SceneDistribution):
    """A prior of one's own: each object lies right of the one before."""

    def __init__(self):
        super().__init__(PresenceCode([0.3, -0.4, 0.1]), Z, {}, "Rows")

    def given(self, latents):
        x = latents.shift_latent[..., :1]
        before = tf.concat([tf.zeros_like(x[..., :1, :]) - 1.0, x[..., :-1, :]], -2)
        shift = tf.concat([before + 0.5, tf.zeros_like(before)], -1)
        zeros = tf.zeros_like(latents.what)
        fixed = tf.zeros_like(before)
        return IndependentSteps(self.presence, normal(shift, 0.0 * shift), normal(fixed, fixed), normal(zeros, zeros))

    def sample_steps(self, presence, seed):
        seeds = tf.unstack(tf.random.split(seed, 3))
        noise = [
            tf.random.stateless_normal([tf.shape(presence)[0], T, size], s)
            for size, s in zip((2, 1, Z), seeds, strict=True)
        ]
        x = -1.0 + tf.cumsum(0.5 + noise[0][..., :1], axis=1)
        return SceneLatents(presence, tf.concat([x, noise[0][..., 1:]], -1), *noise[1:])


def test_a_prior_of_ones_own_says_how_steps_follow_and_gets_the_rest():
    prior = Rows()
    assert (prior.batch_shape, prior.event_shape.what) == ([], [T, Z])
    latents = prior.sample(5, seed=[1, 2])
    before = np.pad(latents.shift_latent[:, :-1, 0], [(0, 0), (1, 0)], constant_values=-1.0)
    steps = stats.norm.logpdf(latents.shift_latent[..., 0], before + 0.5) + sum(
        stats.norm.logpdf(part).sum(-1) for part in (latents.shift_latent[..., 1:], latents.scale_latent, latents.what)
    )
    count = np.sum(latents.presence, -1).astype(int)
    expected = prior.presence.count_log_probs().numpy()[count] + (steps * latents.presence.numpy()).sum(-1)
    np.testing.assert_allclose(prior.log_prob(latents), expected, rtol=1e-5)
