"""Scene posterior and AIR's prior: joint densities against sums by hand, samples, and the closed-form divergence."""

import itertools

import numpy as np
import pytest
import tensorflow as tf
from scipy import stats
from tensorflow_probability import distributions as tfd

from asr_tf.distributions import AIRScenePrior, PresenceCode, ScenePosterior
from asr_tf.scene import PosteriorStatistics, SceneLatents

T, Z, B = 3, 2, 4


def random_statistics(dtype=np.float64):
    rng = np.random.default_rng(0)
    sizes = ((), (2,), (2,), (1,), (1,), (Z,), (Z,))
    return PosteriorStatistics(
        *(tf.constant(0.5 * rng.normal(size=(B, T, *size)), dtype) for size in sizes)
    )


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


def three_ways(function, *args):
    yield function(*args)
    yield tf.function(function)(*args)
    yield tf.function(function, jit_compile=True)(*args)


def test_shapes_and_structure():
    posterior = ScenePosterior(random_statistics(np.float32))
    prior = AIRScenePrior(tf.zeros([5, 1, T]), Z)
    for distribution, batch in ((posterior, [B]), (prior, [5, 1])):
        assert distribution.batch_shape == batch
        assert isinstance(distribution.event_shape, SceneLatents)
        assert distribution.dtype == SceneLatents(*[tf.float32] * 4)
        assert distribution.reparameterization_type.presence == tfd.NOT_REPARAMETERIZED
        assert distribution.reparameterization_type.what == tfd.FULLY_REPARAMETERIZED
        sample = distribution.sample([6, 2], seed=[0, 1])
        assert isinstance(sample, SceneLatents)
        for part, event in zip(sample, distribution.event_shape, strict=True):
            assert part.shape == [6, 2, *batch, *event]
        assert distribution.log_prob(sample).shape == [6, 2, *batch]
        assert distribution.copy().batch_shape == batch
        repeated = distribution.sample([6, 2], seed=[0, 1])
        tf.nest.map_structure(np.testing.assert_array_equal, sample, repeated)
    assert posterior[1].batch_shape == []


def test_statistics_broadcast():
    statistics = random_statistics()
    shared = statistics._replace(
        presence_logits=statistics.presence_logits[0], what_loc=statistics.what_loc[:1]
    )
    posterior = ScenePosterior(shared)
    assert posterior.batch_shape == [B]
    sample = posterior.sample(2, seed=[0, 1])
    assert sample.presence.shape == [2, B, T]
    assert posterior.log_prob(sample).shape == [2, B]


def test_bad_arguments():
    with pytest.raises(TypeError, match="statistics must be PosteriorStatistics, got dict"):
        ScenePosterior({})
    with pytest.raises(ValueError, match="scale_stddev must be a number above 0, got 0"):
        AIRScenePrior(tf.zeros([T]), Z, scale_stddev=0.0)


def test_posterior_log_prob_equals_the_sum_over_present_steps():
    statistics = random_statistics()
    posterior = ScenePosterior(statistics)
    latents = posterior.sample(seed=[1, 2])
    latents = latents._replace(presence=tf.constant(np.tri(B, T, -1)))
    expected = [slow_log_prob(latents, statistics, row) for row in range(B)]
    np.testing.assert_allclose(posterior.log_prob(latents), expected, rtol=1e-10)


def test_absent_steps_and_codes_that_are_none():
    posterior = ScenePosterior(random_statistics())
    latents = posterior.sample(seed=[1, 2])
    latents = latents._replace(presence=tf.constant(np.tile([1.0, 0.0, 0.0], (B, 1))))
    absent = np.array([0.0, 1.0, 1.0])[:, np.newaxis]
    # Whatever stands in an absent step, even no number at all, changes nothing.
    spoilt = latents._replace(what=tf.where(absent > 0, np.nan, latents.what))
    np.testing.assert_array_equal(posterior.log_prob(spoilt), posterior.log_prob(latents))
    wrong = latents._replace(presence=tf.constant(np.tile([0.0, 1.0, 0.0], (B, 1))))
    assert np.all(np.isneginf(posterior.log_prob(wrong)))


def test_density_integrates_to_one_over_counts_and_latents():
    # By importance sampling: E_r[p / r] over r's own samples is the mass of p.
    statistics = random_statistics()
    wider = statistics._replace(
        presence_logits=-statistics.presence_logits,
        **{
            name: part + 0.2
            for name, part in statistics._asdict().items()
            if name.endswith("log_scale")
        },
    )
    p, r = ScenePosterior(statistics), ScenePosterior(wider)
    samples = r.sample(60000, seed=[3, 4])
    weights = np.exp(p.log_prob(samples) - r.log_prob(samples))
    error = weights.std(axis=0) / np.sqrt(len(weights))
    assert np.all(np.abs(weights.mean(axis=0) - 1.0) < 4 * error)
    assert error.max() < 0.05


def test_samples_match_moments():
    statistics = random_statistics(np.float32)
    sample = ScenePosterior(statistics).sample(20000, seed=[1, 2])
    code = PresenceCode(statistics.presence_logits)
    np.testing.assert_allclose(
        np.mean(sample.presence, axis=0), code.presence_probs(), atol=0.016
    )
    for name, part in (("shift", "shift_latent"), ("scale", "scale_latent"), ("what", "what")):
        drawn = getattr(sample, part).numpy()
        loc = getattr(statistics, f"{name}_loc").numpy()
        stddev = np.exp(getattr(statistics, f"{name}_log_scale").numpy())
        assert np.abs((drawn.mean(axis=0) - loc) / stddev).max() < 0.04
        np.testing.assert_allclose(drawn.std(axis=0), stddev, rtol=0.03)


def test_air_prior_holds_the_published_normals():
    prior = AIRScenePrior(tf.constant([0.4, -1.0, 0.2], tf.float64), Z)
    sample = prior.sample(20000, seed=[1, 2])
    np.testing.assert_allclose(
        np.mean(sample.presence, axis=0),
        np.cumprod(1.0 / (1.0 + np.exp([-0.4, 1.0, -0.2]))),
        atol=0.016,
    )
    for part, loc, variance in (
        (sample.shift_latent, 0.0, 1.0),
        (sample.scale_latent, -1.0, 0.05),
        (sample.what, 0.0, 1.0),
    ):
        np.testing.assert_allclose(np.mean(part, axis=0), loc, atol=0.04)
        np.testing.assert_allclose(np.var(part, axis=0), variance, rtol=0.06)
    statistics = PosteriorStatistics(*prior.statistics[:5], tf.zeros([T, Z]), tf.zeros([T, Z]))
    single = tf.nest.map_structure(lambda part: part[:5], sample)
    expected = [
        slow_log_prob(
            tf.nest.map_structure(lambda part, i=i: part[i : i + 1], single),
            tf.nest.map_structure(lambda part: part[tf.newaxis], statistics),
            0,
        )
        for i in range(5)
    ]
    np.testing.assert_allclose(prior.log_prob(single), expected, rtol=1e-7)


def test_kl_equals_monte_carlo_and_brute_force_over_counts():
    statistics = random_statistics()
    q, p = ScenePosterior(statistics), AIRScenePrior(tf.constant([1.0, 0.5, -1.0], tf.float64), Z)
    kl = tfd.kl_divergence(q, p).numpy()
    samples = q.sample(20000, seed=[5, 6])
    differences = (q.log_prob(samples) - p.log_prob(samples)).numpy()
    error = differences.std(axis=0) / np.sqrt(len(differences))
    assert np.all(np.abs(differences.mean(axis=0) - kl) < 4 * error)
    # sum_k q(k) [log q(k) / p(k) + sum_{t <= k} KL_t] with TFP's normals.
    q_count, p_count = q.presence_code.count_probs(), p.presence_code.count_probs()
    normals = np.zeros([B, T])
    for name, (loc, variance) in {
        "shift": (0.0, 1.0),
        "scale": (-1.0, 0.05),
        "what": (0.0, 1.0),
    }.items():
        q_normal = tfd.Normal(
            getattr(statistics, f"{name}_loc"), np.exp(getattr(statistics, f"{name}_log_scale"))
        )
        p_normal = tfd.Normal(np.float64(loc), np.sqrt(variance))
        normals += tf.reduce_sum(tfd.kl_divergence(q_normal, p_normal), -1).numpy()
    expected = sum(
        q_count[:, k] * (np.log(q_count[:, k] / p_count[k]) + normals[:, :k].sum(axis=1))
        for k in range(T + 1)
    )
    np.testing.assert_allclose(kl, expected, rtol=1e-9)


def test_gradients_are_finite_compiled_and_not():
    extreme = np.array(list(itertools.product([-30.0, 30.0], repeat=T)))[:B]

    def gradients(logits):
        statistics = random_statistics(np.float32)._replace(presence_logits=logits)
        with tf.GradientTape() as tape:
            tape.watch(statistics)
            q = ScenePosterior(statistics)
            p = AIRScenePrior(-statistics.presence_logits, Z)
            sample = q.sample(seed=[1, 2])
            log_probs = q.log_prob(sample) + p.log_prob(sample)
            total = tf.reduce_sum(tfd.kl_divergence(q, p) + log_probs)
        return tape.gradient(total, list(statistics))

    for values in three_ways(gradients, tf.constant(extreme, tf.float32)):
        for value in values:
            assert np.all(np.isfinite(value))
