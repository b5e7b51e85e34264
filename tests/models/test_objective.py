"""The bound against sums over counts written out, and its gradient against a score-function estimate."""

import numpy as np
import pytest
import tensorflow as tf

from asr_tf.distributions import RelaxedPresenceCode, normal_cell_logits
from asr_tf.imaging.observation import negative_log_likelihood
from asr_tf.models import objective
from asr_tf.scene import PosteriorStatistics, PriorStatistics, SceneLatents, steps_first

B, T, H, W, Z = 3, 3, 6, 5, 4


def normals(rng, size):
    return rng.normal(size=(B, T, size)).astype(np.float32), rng.normal(
        -0.5, 0.3, size=(B, T, size)
    ).astype(np.float32)


@pytest.fixture
def problem():
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(B, T)).astype(np.float32)
    posterior = PosteriorStatistics(logits, *normals(rng, 2), *normals(rng, 1), *normals(rng, Z))
    prior = PriorStatistics(
        rng.normal(size=(B, T)).astype(np.float32), *normals(rng, 2), *normals(rng, 1)
    )
    images = rng.uniform(size=(B, H, W)).astype(np.float32)
    drawn = rng.uniform(0, 0.3, size=(B, T, H, W)).astype(np.float32)
    return posterior, prior, drawn, images


def nll_of(images):
    return lambda canvases: negative_log_likelihood(tf.constant(images), canvases)


def count_probs(logits):
    """P(n = k) step by step."""
    p = 1 / (1 + np.exp(-logits.astype(np.float64)))
    probs = np.ones((B, T + 1))
    for k in range(T + 1):
        for t in range(k):
            probs[:, k] *= p[:, t]
        if k < T:
            probs[:, k] *= 1 - p[:, k]
    return probs


def slow_kl(q_loc, q_log_scale, p_loc, p_log_scale):
    ratio = np.exp(2.0 * (q_log_scale - p_log_scale))
    distance = (q_loc - p_loc) ** 2 * np.exp(-2.0 * p_log_scale)
    return 0.5 * (ratio + distance - 1 - np.log(ratio))


def conditional_terms(posterior, prior, drawn, images, k):
    """nll and the three continuous divergences where the count is k, [B] each."""
    canvas = np.clip(drawn[:, :k].sum(1), 1e-6, 1 - 1e-6)
    nll = -(images * np.log(canvas) + (1 - images) * np.log1p(-canvas)).sum((1, 2))
    pairs = (
        (posterior.shift_loc, posterior.shift_log_scale, prior.shift_loc, prior.shift_log_scale),
        (posterior.scale_loc, posterior.scale_log_scale, prior.scale_loc, prior.scale_log_scale),
        (posterior.what_loc, posterior.what_log_scale, 0.0, 0.0),
    )
    return nll, *(slow_kl(*pair)[:, :k].sum((1, 2)) for pair in pairs)


def test_enumerated_bound_equals_brute_force_sum_over_counts(problem):
    posterior, prior, drawn, images = problem
    terms = objective.enumerated_terms(posterior, prior, steps_first(drawn), nll_of(images))
    q, p = count_probs(posterior.presence_logits), count_probs(prior.presence_logits)
    expected = np.zeros(B)
    for k in range(T + 1):
        conditional = sum(conditional_terms(posterior, prior, drawn, images, k))
        expected += q[:, k] * (conditional + np.log(q[:, k]) - np.log(p[:, k]))
    np.testing.assert_allclose(terms.negative_elbo, expected, rtol=1e-5)
    np.testing.assert_allclose(terms.kl_count, (q * np.log(q / p)).sum(1), rtol=1e-4)


def test_divergence_from_a_placement_is_right_on_average(problem):
    """The mean over samples of the estimate, against the divergence from the normal that the fine grid stands for."""
    posterior, prior, drawn, images = problem
    posterior = posterior._replace(shift_loc=0.3 * posterior.shift_loc)
    prior = prior._replace(shift_loc=0.3 * prior.shift_loc)
    on_grid = prior._replace(shift_logits=normal_cell_logits(prior.shift_loc, prior.shift_log_scale, 80))
    exact = objective.enumerated_terms(posterior, prior, steps_first(drawn), nll_of(images))
    rng, estimates = np.random.default_rng(5), []
    for _ in range(120):
        noise = rng.normal(size=(B, T, 2)).astype(np.float32)
        value = posterior.shift_loc + np.exp(posterior.shift_log_scale) * noise
        terms = objective.enumerated_terms(posterior, on_grid, steps_first(drawn), nll_of(images), value)
        estimates.append(terms.kl_shift.numpy())
    error = np.std(estimates, axis=0) / np.sqrt(len(estimates))
    assert np.all(np.abs(np.mean(estimates, axis=0) - exact.kl_shift) < 5.0 * error + 0.05)
    np.testing.assert_allclose(terms.nll, exact.nll)
    np.testing.assert_allclose(terms.kl_scale, exact.kl_scale)


def test_enumerated_gradient_equals_mean_of_score_function_estimates(problem):
    """d/dl E_q[f(n)] = E_q[f(n) d log q(n) / dl], f(n) the bound's integrand; checked within five standard errors."""
    posterior, prior, drawn, images = problem
    logits = tf.constant(posterior.presence_logits)
    with tf.GradientTape() as tape:
        tape.watch(logits)
        terms = objective.enumerated_terms(
            posterior._replace(presence_logits=logits), prior, steps_first(drawn), nll_of(images)
        )
        total = tf.reduce_sum(terms.negative_elbo)
    gradient = tape.gradient(total, logits).numpy()

    q, p = count_probs(posterior.presence_logits), count_probs(prior.presence_logits)
    integrand = np.stack(
        [
            sum(conditional_terms(posterior, prior, drawn, images, k)) + np.log(q[:, k] / p[:, k])
            for k in range(T + 1)
        ],
        axis=1,
    )
    sigmoid = 1 / (1 + np.exp(-posterior.presence_logits.astype(np.float64)))
    rng = np.random.default_rng(1)
    num_samples = 200_000
    for b in range(B):
        n = rng.choice(T + 1, size=num_samples, p=q[b] / q[b].sum())
        steps = np.arange(T)
        score = (steps < n[:, None]) * (1 - sigmoid[b]) - (steps == n[:, None]) * sigmoid[b]
        # A baseline leaves the mean as it is and lowers the error.
        estimates = (integrand[b][n] - integrand[b] @ q[b])[:, None] * score
        error = estimates.std(0) / np.sqrt(num_samples)
        assert (np.abs(estimates.mean(0) - gradient[b]) < 5 * error + 1e-4).all()
        assert (error < 0.1 * np.abs(gradient[b]).max()).all()  # the check has teeth


def test_concrete_terms_are_the_exact_ones_where_the_count_is_certain(problem):
    """At logits of +-30 a relaxed code is a hard one, so both estimators see two objects."""
    posterior, prior, drawn, images = problem
    logits = np.tile(np.array([30.0, 30.0, -30.0], np.float32), (B, 1))
    certain = posterior._replace(presence_logits=logits)
    exact = objective.enumerated_terms(certain, prior, steps_first(drawn), nll_of(images))
    relaxed = objective.concrete_terms(
        certain, prior, steps_first(drawn), nll_of(images), 0.1, tf.constant([0, 1])
    )
    for field in ("nll", "kl_shift", "kl_scale", "kl_what"):
        np.testing.assert_allclose(getattr(relaxed, field), getattr(exact, field), rtol=1e-5)


def test_running_presence_stops_where_the_published_rule_does():
    # Presence alone 0.8, 0.5, 0.7, 0.9: absent sums 0.2, 0.7, 1.0, 1.1; the third reaches 0.9.
    alone = np.array([[0.8, 0.5, 0.7, 0.9]])
    presence = objective.running_presence(tf.constant(np.log(alone / (1 - alone))))
    np.testing.assert_allclose(presence, [[0.8, 0.4, 0.0, 0.0]], rtol=1e-6)


def test_concrete_gradients_are_finite_at_low_temperature_and_extreme_logits(problem):
    posterior, prior, drawn, images = problem
    logits = tf.constant([[30.0, -30.0, 30.0], [-30.0, 0.0, 1.0], [30.0, 30.0, 30.0]])
    with tf.GradientTape() as tape:
        tape.watch(logits)
        terms = objective.concrete_terms(
            posterior._replace(presence_logits=logits),
            prior,
            steps_first(drawn),
            nll_of(images),
            0.05,
            tf.constant([3, 4]),
        )
        total = tf.reduce_sum(terms.negative_elbo)
    assert np.isfinite(total.numpy())
    assert np.isfinite(tape.gradient(total, logits).numpy()).all()
    assert RelaxedPresenceCode(0.05, logits).sample(seed=[0, 0]).shape == (B, T)


def test_log_weights_sum_the_scenes_of_every_count(problem):
    posterior, prior, drawn, images = problem
    rng = np.random.default_rng(5)
    latents = SceneLatents(
        np.ones((B, T), np.float32),
        *(rng.normal(size=(B, T, size)).astype(np.float32) for size in (2, 1, Z)),
    )

    def log_normal(value, loc, log_scale):
        return -0.5 * ((value - loc) * np.exp(-log_scale)) ** 2 - log_scale - 0.5 * np.log(2 * np.pi)

    given_count = []
    p = count_probs(prior.presence_logits)
    for k in range(T + 1):
        log_ratio = np.zeros(B)
        for value, q_stats, p_stats in (
            (latents.shift_latent, posterior[1:3], prior[1:3]),
            (latents.scale_latent, posterior[3:5], prior[3:5]),
            (latents.what, posterior[5:7], (0.0, 0.0)),
        ):
            difference = log_normal(value, *p_stats) - log_normal(value, *q_stats)
            log_ratio += difference[:, :k].sum((1, 2))
        nll = conditional_terms(posterior, prior, drawn, images, k)[0]
        given_count.append(np.exp(log_ratio - nll))
    arguments = posterior, prior, latents, steps_first(drawn), nll_of(images)
    weights = (p * np.stack(given_count, axis=1)).sum(1)
    np.testing.assert_allclose(objective.log_weights(*arguments), np.log(weights), rtol=1e-4)
    for k, weight in enumerate(given_count):
        np.testing.assert_allclose(objective.log_weights(*arguments, exact_count=k), np.log(weight), rtol=1e-4)
