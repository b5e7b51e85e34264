"""The bound against sums over counts written out, and its gradient against a score-function estimate."""

import numpy as np
import pytest
import tensorflow as tf
from tensorflow_probability import distributions as tfd

from asr_tf.distributions import (
    GridPlacement,
    IndependentSteps,
    PresenceCode,
    RelaxedPresenceCode,
    normal,
    normal_cell_logits,
    scene_posterior,
)
from asr_tf.imaging.composition import Drawn, Sum
from asr_tf.imaging.observation import BernoulliPixels
from asr_tf.models import bound
from asr_tf.scene import PosteriorStatistics, SceneLatents

B, T, H, W, Z = 3, 3, 6, 5, 4


def normals(rng, size):
    return rng.normal(size=(B, T, size)).astype(np.float32), rng.normal(-0.5, 0.3, size=(B, T, size)).astype(np.float32)


class Problem:
    """A posterior and a prior by their statistics, drawn objects and images."""

    def __init__(self):
        rng = np.random.default_rng(0)

        def statistics():
            logits = rng.normal(size=(B, T)).astype(np.float32)
            return PosteriorStatistics(logits, *normals(rng, 2), *normals(rng, 1), *normals(rng, Z))

        self.q, self.p = statistics(), statistics()
        self.images = rng.uniform(size=(B, H, W, 1)).astype(np.float32)
        self.drawn = rng.uniform(0, 0.3, size=(B, T, H, W, 1)).astype(np.float32)
        self.latents = self.sample(rng)

    def sample(self, rng):
        """A sample of the posterior."""
        pairs = (self.q[1:3], self.q[3:5], self.q[5:7])
        drawn = (loc + np.exp(log_scale) * rng.normal(size=loc.shape) for loc, log_scale in pairs)
        return SceneLatents(np.ones((B, T), np.float32), *(x.astype(np.float32) for x in drawn))

    def arguments(self, latents=None, q=None, prior=None):
        """Of `enumerated_terms` and `log_weights`."""
        observations = BernoulliPixels()(Sum().canvases(Drawn(tf.constant(self.drawn))))
        posterior = scene_posterior(self.q if q is None else q)
        prior = scene_posterior(self.p) if prior is None else prior
        return tf.constant(self.images), posterior, prior, latents or self.latents, observations

    def nll(self, presence):
        """[B], of the sum of objects by their presence [B, T]."""
        canvas = np.clip((presence[..., None, None, None] * self.drawn).sum(1), 1e-6, 1 - 1e-6)
        return -(self.images * np.log(canvas) + (1 - self.images) * np.log1p(-canvas)).sum((1, 2, 3))

    def divergences(self):
        """Of shift, scale and appearance, [B, T] each."""
        found = []
        for i in (1, 3, 5):
            (q_loc, q_log), (p_loc, p_log) = self.q[i : i + 2], self.p[i : i + 2]
            ratio = np.exp(2.0 * (q_log - p_log))
            distance = (q_loc - p_loc) ** 2 * np.exp(-2.0 * p_log)
            found.append((0.5 * (ratio + distance - 1 - np.log(ratio))).sum(-1))
        return found

    def given_count(self, k):
        """nll and divergences where the count is k, [B]."""
        first = np.tile(np.arange(T) < k, (B, 1)).astype(float)
        return self.nll(first) + sum((first * kl).sum(1) for kl in self.divergences())


@pytest.fixture
def problem():
    return Problem()


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


def test_enumerated_bound_equals_brute_force_sum_over_counts(problem):
    terms = bound.enumerated_terms(*problem.arguments())
    q, p = count_probs(problem.q.presence_logits), count_probs(problem.p.presence_logits)
    expected = np.zeros(B)
    for k in range(T + 1):
        expected += q[:, k] * (problem.given_count(k) + np.log(q[:, k]) - np.log(p[:, k]))
    np.testing.assert_allclose(terms.negative_elbo, expected, rtol=1e-5)
    np.testing.assert_allclose(terms.kl_count, (q * np.log(q / p)).sum(1), rtol=1e-4)


def on_grid(statistics, size):
    shift = GridPlacement(normal_cell_logits(statistics.shift_loc, statistics.shift_log_scale, size))
    scale, what = (normal(*map(tf.constant, statistics[i : i + 2])) for i in (3, 5))
    return IndependentSteps(PresenceCode(statistics.presence_logits), shift, scale, what)


def test_divergence_from_a_placement_is_right_on_average(problem):
    """The mean over samples of the estimate, against the divergence from the normal that the fine grid stands for."""
    problem.q = problem.q._replace(shift_loc=0.3 * problem.q.shift_loc)
    problem.p = problem.p._replace(shift_loc=0.3 * problem.p.shift_loc)
    exact = bound.enumerated_terms(*problem.arguments())
    rng, estimates = np.random.default_rng(5), []
    prior = on_grid(problem.p, 80)
    for _ in range(120):
        terms = bound.enumerated_terms(*problem.arguments(problem.sample(rng), prior=prior))
        estimates.append(terms.kl_shift.numpy())
    error = np.std(estimates, axis=0) / np.sqrt(len(estimates))
    assert np.all(np.abs(np.mean(estimates, axis=0) - exact.kl_shift) < 5.0 * error + 0.05)
    for field in ("nll", "kl_count", "kl_scale", "kl_what"):
        np.testing.assert_allclose(getattr(terms, field), getattr(exact, field), rtol=1e-5)


def test_enumerated_gradient_equals_mean_of_score_function_estimates(problem):
    """d/dl E_q[f(n)] = E_q[f(n) d log q(n) / dl], f(n) the bound's integrand; checked within five standard errors."""
    logits = tf.constant(problem.q.presence_logits)
    with tf.GradientTape() as tape:
        tape.watch(logits)
        terms = bound.enumerated_terms(*problem.arguments(q=problem.q._replace(presence_logits=logits)))
        total = tf.reduce_sum(terms.negative_elbo)
    gradient = tape.gradient(total, logits).numpy()

    q, p = count_probs(problem.q.presence_logits), count_probs(problem.p.presence_logits)
    integrand = np.stack([problem.given_count(k) + np.log(q[:, k] / p[:, k]) for k in range(T + 1)], axis=1)
    sigmoid = 1 / (1 + np.exp(-problem.q.presence_logits.astype(np.float64)))
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


def concrete(problem, relaxed, temperature=0.1, q=None):
    images, posterior, prior, latents, _ = problem.arguments(q=q)
    canvas = Sum().canvas(Drawn(tf.constant(problem.drawn)), bound.relaxed_presence(relaxed))
    return bound.concrete_terms(images, posterior, prior, latents, BernoulliPixels()(canvas), relaxed, temperature)


def test_concrete_terms_are_those_of_the_relaxed_presence(problem):
    """Against loops in NumPy: presence, where it stops, what it weights, and the code's one-sample divergence."""
    relaxed = np.random.default_rng(3).normal(1.0, 2.0, size=(B, T)).astype(np.float32)
    terms = concrete(problem, tf.constant(relaxed), temperature=0.7)
    alone = 1 / (1 + np.exp(-relaxed.astype(np.float64)))
    presence, kl_count = np.cumprod(alone, 1), np.zeros(B)
    for t in range(T):
        log_ratio = 0.0
        for sign, logits in ((1, problem.q.presence_logits), (-1, problem.p.presence_logits)):
            u = 0.7 * relaxed[:, t] - logits[:, t]
            log_ratio += sign * (np.log(0.7) - u - 2 * np.log1p(np.exp(-u)))
        kl_count += log_ratio * (presence[:, t - 1] if t else 1.0)
    presence *= np.cumsum(1 - alone, 1) < 0.9
    np.testing.assert_allclose(terms.nll, problem.nll(presence), rtol=1e-4)
    np.testing.assert_allclose(terms.kl_count, kl_count, rtol=1e-4, atol=1e-5)
    for field, kl in zip(("kl_shift", "kl_scale", "kl_what"), problem.divergences(), strict=True):
        np.testing.assert_allclose(getattr(terms, field), (presence * kl).sum(1), rtol=1e-4)
    assert 0 < (presence == 0).sum() < B * T


def test_concrete_terms_are_the_exact_ones_where_the_count_is_certain(problem):
    """At logits of +-30 a relaxed code is a hard one, so both estimators see two objects."""
    q = problem.q._replace(presence_logits=np.tile(np.array([30.0, 30.0, -30.0], np.float32), (B, 1)))
    exact = bound.enumerated_terms(*problem.arguments(q=q))
    relaxed = concrete(problem, RelaxedPresenceCode(0.1, q.presence_logits).sample(seed=(0, 1)), q=q)
    for field in ("nll", "kl_shift", "kl_scale", "kl_what"):
        np.testing.assert_allclose(getattr(relaxed, field), getattr(exact, field), rtol=1e-5)


def test_relaxed_presence_stops_where_the_published_rule_does():
    # Presence alone 0.8, 0.5, 0.7, 0.9: absent sums 0.2, 0.7, 1.0, 1.1; the third reaches 0.9.
    alone = np.array([[0.8, 0.5, 0.7, 0.9]])
    presence = bound.relaxed_presence(tf.constant(np.log(alone / (1 - alone))))
    np.testing.assert_allclose(presence, [[0.8, 0.4, 0.0, 0.0]], rtol=1e-6)


def test_concrete_gradients_are_finite_at_low_temperature_and_extreme_logits(problem):
    logits = tf.constant([[30.0, -30.0, 30.0], [-30.0, 0.0, 1.0], [30.0, 30.0, 30.0]])
    with tf.GradientTape() as tape:
        tape.watch(logits)
        relaxed = RelaxedPresenceCode(0.05, logits).sample(seed=(3, 4))
        terms = concrete(problem, relaxed, 0.05, problem.q._replace(presence_logits=logits))
        total = tf.reduce_sum(terms.negative_elbo)
    assert np.isfinite(total.numpy())
    assert np.isfinite(tape.gradient(total, logits).numpy()).all()


def test_log_weights_sum_the_scenes_of_every_count(problem):
    def log_normal(value, loc, log_scale):
        return -0.5 * ((value - loc) * np.exp(-log_scale)) ** 2 - log_scale - 0.5 * np.log(2 * np.pi)

    p, latents = count_probs(problem.p.presence_logits), problem.latents
    weights = np.zeros(B)
    for k in range(T + 1):
        log_ratio = np.zeros(B)
        for i, value in ((1, latents.shift_latent), (3, latents.scale_latent), (5, latents.what)):
            difference = log_normal(value, *problem.p[i : i + 2]) - log_normal(value, *problem.q[i : i + 2])
            log_ratio += difference[:, :k].sum((1, 2))
        weights += p[:, k] * np.exp(log_ratio - problem.nll(np.tile(np.arange(T) < k, (B, 1)).astype(float)))
    np.testing.assert_allclose(bound.log_weights(*problem.arguments()), np.log(weights), rtol=1e-4)


@pytest.fixture(scope="module")
def evidence():
    """A model whose p(x) is known: an image of one pixel is the sum of the objects' appearances, and noise of 0.8.

    Samples of a posterior that is none, with -ELBO and log weight of each, and log p(x).
    """
    n, x = 100_000, 0.7
    rng = np.random.default_rng(0)
    p_logits, q_logits = np.float32([0.4, -0.3]), np.float32([0.1, 0.2])
    zeros = {size: tf.zeros([2, size]) for size in (1, 2)}
    prior = IndependentSteps(PresenceCode(p_logits), *(normal(zeros[size], zeros[size]) for size in (2, 1, 1)))
    loc, log_scale = tf.constant([[0.4], [0.2]]), tf.constant([[0.1], [0.2]])
    same = (normal(zeros[size], zeros[size]) for size in (2, 1))
    posterior = IndependentSteps(PresenceCode(q_logits), *same, normal(loc, log_scale))
    what = (loc + tf.exp(log_scale) * rng.normal(size=(n, 2, 1))).numpy().astype(np.float32)
    latents = SceneLatents(tf.ones([n, 2]), tf.zeros([n, 2, 2]), tf.zeros([n, 2, 1]), tf.constant(what))
    canvases = np.pad(np.cumsum(what, 1), ((0, 0), (1, 0), (0, 0))).reshape(n, 3, 1, 1, 1)
    arguments = (tf.fill([n, 1, 1, 1], x), posterior, prior, latents, tfd.Independent(tfd.Normal(canvases, 0.8), 3))
    terms, weights = bound.enumerated_terms(*arguments), bound.log_weights(*arguments)
    a, b = 1 / (1 + np.exp(-p_logits))
    variances = 0.64 + np.arange(3.0)
    density = np.exp(-0.5 * x**2 / variances) / np.sqrt(2 * np.pi * variances)
    return -terms.negative_elbo.numpy(), weights.numpy(), np.log(np.dot([1 - a, a * (1 - b), a * b], density))


def test_the_mean_of_the_weights_is_the_likelihood(evidence):
    _, log_weights, log_p = evidence
    weights = np.exp(log_weights.astype(np.float64) - log_p)
    error = weights.std() / np.sqrt(len(weights))
    assert error < 0.01
    assert abs(weights.mean() - 1.0) < 5 * error


def test_the_bound_is_below_the_mean_log_weight_which_is_below_the_likelihood(evidence):
    """With a margin that is many times the error of these means."""
    elbo, log_weights, log_p = evidence
    error = max(elbo.std(), log_weights.std()) / np.sqrt(len(elbo))
    assert elbo.mean() + 10 * error < log_weights.mean() < log_p - 10 * error
