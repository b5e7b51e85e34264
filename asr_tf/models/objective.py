"""The bound on log p(x), term by term, by either of two estimators of the expectation over the count.

`enumerated_terms` takes the expectation over the count exactly: with q(n = k) from the presence code, and one sample of
every step's continuous latents,

    -ELBO = sum_k q(n = k) [ nll_k + sum_{t <= k} KL_t + log q(n = k) - log p(n = k) ]

where canvas_k sums the first k objects.  `concrete_terms` is the published estimator: a relaxed presence weights the
objects, and the divergence of the code is a one-sample estimate.

References:
    Xu et al., arXiv:1906.03923, section 3; Eslami et al., arXiv:1603.08575, section 2.1.
    Burda et al., "Importance Weighted Autoencoders", ICLR 2016, arXiv:1509.00519, equation 8.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import tensorflow as tf

from asr_tf.distributions import (
    PresenceCode,
    RelaxedPresenceCode,
    normal_kl,
    normal_log_prob,
    placement_log_prob,
)
from asr_tf.distributions.presence import relaxed_kl_estimate
from asr_tf.scene import (
    ObjectiveTerms,
    PosteriorStatistics,
    PriorStatistics,
    SceneLatents,
    steps_first,
)

__all__ = [
    "ESTIMATORS",
    "canvases_by_count",
    "concrete_terms",
    "enumerated_terms",
    "log_weights",
    "running_presence",
]

ESTIMATORS = ("enumerate", "concrete")

# A relaxed scene ends where the running sum of (1 - presence) reaches this (the published stopping rule).
_STOPPING_SUM = 0.9

NegativeLogLikelihood = Callable[[tf.Tensor], tf.Tensor]


def canvases_by_count(drawn: tf.Tensor) -> tf.Tensor:
    """Sums of the first k objects, k = 1..T, from each step's drawing: float [T, B, H, W] both.

    One product with a triangle of ones, for which the steps must come first: nothing is copied then.
    """
    num_steps, _, height, width = drawn.shape
    first = np.tri(num_steps, dtype=drawn.dtype.as_numpy_dtype)
    flat = tf.matmul(first, tf.reshape(drawn, [num_steps, -1]))
    return tf.reshape(flat, [num_steps, -1, height, width])


def _nll_by_count(drawn: tf.Tensor, nll: NegativeLogLikelihood) -> tf.Tensor:
    """-log p(x | the first k objects), k = 0..T, [B, T + 1].  The empty canvas is apart: it is constant."""
    empty = nll(tf.zeros_like(drawn[:1]))
    return tf.transpose(tf.concat([empty, nll(canvases_by_count(drawn))], axis=0))


def running_presence(relaxed: tf.Tensor) -> tf.Tensor:
    """Relaxed presence with the published stopping rule.

    Args:
        relaxed: float [B, T], an event of `RelaxedPresenceCode`.

    Returns:
        float [B, T]: the relaxed unary code, zero from the step on at which the running sum of (1 - presence of the
        step alone) reaches 0.9.
    """
    absent = tf.sigmoid(-relaxed)
    counts = tf.cast(tf.cumsum(absent, axis=-1) < _STOPPING_SUM, relaxed.dtype)
    return RelaxedPresenceCode.presence(relaxed) * counts


def _continuous_kls(
    posterior: PosteriorStatistics, prior: PriorStatistics, presence: tf.Tensor, shift_latent: tf.Tensor | None
) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """Divergences of shift, scale and appearance, [B] each, weighted by the steps' presence [B, T].

    That of the shift from a mixture on a grid is a one-sample estimate, with the posterior's entropy exact.
    """
    if prior.shift_logits is None:
        shift = tf.reduce_sum(
            normal_kl(posterior.shift_loc, posterior.shift_log_scale, prior.shift_loc, prior.shift_log_scale), -1
        )
    else:
        entropy = tf.reduce_sum(posterior.shift_log_scale, -1) + math.log(2.0 * math.pi * math.e)
        # Steps first, as the learned prior makes the logits: XLA then leaves out both transpositions.
        log_prob = placement_log_prob(steps_first(shift_latent), steps_first(prior.shift_logits))
        shift = -entropy - steps_first(log_prob)
    scale = normal_kl(posterior.scale_loc, posterior.scale_log_scale, prior.scale_loc, prior.scale_log_scale)
    what = normal_kl(posterior.what_loc, posterior.what_log_scale, 0.0, 0.0)
    steps = (shift, tf.reduce_sum(scale, axis=-1), tf.reduce_sum(what, axis=-1))
    of_shift, of_scale, of_what = (tf.reduce_sum(presence * step, axis=-1) for step in steps)
    return of_shift, of_scale, of_what


def enumerated_terms(
    posterior: PosteriorStatistics,
    prior: PriorStatistics,
    drawn: tf.Tensor,
    nll: NegativeLogLikelihood,
    shift_latent: tf.Tensor | None = None,
) -> ObjectiveTerms:
    """The bound with the expectation over the count taken exactly.

    Args:
        posterior: statistics of q, [B, T, ...] each.
        prior: statistics of p given the sampled latents, [B, T, ...] each.
        drawn: float [T, B, H, W], each step's object on a canvas of its own.
        nll: canvases [K, B, H, W] to -log p(x | canvas) [K, B].
        shift_latent: float [B, T, 2], the samples; needed where the prior's shift is a mixture.

    Returns:
        Terms, float [B] each, in nats.
    """
    q_count = PresenceCode(posterior.presence_logits)
    p_count = PresenceCode(prior.presence_logits)
    shift, scale, what = _continuous_kls(posterior, prior, q_count.presence_probs(), shift_latent)
    return ObjectiveTerms(
        nll=tf.reduce_sum(q_count.count_probs() * _nll_by_count(drawn, nll), axis=-1),
        kl_count=q_count.kl_divergence(p_count),
        kl_shift=shift,
        kl_scale=scale,
        kl_what=what,
    )


def concrete_terms(
    posterior: PosteriorStatistics,
    prior: PriorStatistics,
    drawn: tf.Tensor,
    nll: NegativeLogLikelihood,
    temperature: float,
    seed: tf.Tensor,
    shift_latent: tf.Tensor | None = None,
) -> ObjectiveTerms:
    """The bound's published relaxation, with one sample of a Concrete presence.

    Args:
        posterior, prior, drawn, nll, shift_latent: as for `enumerated_terms`.
        temperature: of the binary Concrete, above 0.
        seed: int32 [2].

    Returns:
        Terms, float [B] each, in nats; `kl_count` is a one-sample estimate and may be negative.
    """
    q_code = RelaxedPresenceCode(temperature, posterior.presence_logits)
    p_code = RelaxedPresenceCode(temperature, prior.presence_logits)
    relaxed = q_code.sample(seed=seed)
    presence = running_presence(relaxed)
    shift, scale, what = _continuous_kls(posterior, prior, presence, shift_latent)
    canvas = tf.reduce_sum(tf.transpose(presence)[..., tf.newaxis, tf.newaxis] * drawn, axis=0, keepdims=True)
    return ObjectiveTerms(
        nll=nll(canvas)[0],
        kl_count=relaxed_kl_estimate(q_code, p_code, relaxed),
        kl_shift=shift,
        kl_scale=scale,
        kl_what=what,
    )


def log_weights(
    posterior: PosteriorStatistics,
    prior: PriorStatistics,
    latents: SceneLatents,
    drawn: tf.Tensor,
    nll: NegativeLogLikelihood,
    exact_count: int | None = None,
) -> tf.Tensor:
    """Log importance weights of sampled latents, with the count summed out where it isn't given.

    With z_1..z_T ~ q,  sum_k p(n = k) p(z_1..z_k) p(x | z_1..z_k) / q(z_1..z_k)  has the mean p(x): each term of the
    sum is an importance weight of the scene with k objects.

    Args:
        posterior, prior, drawn, nll: as for `enumerated_terms`.
        latents: the samples that `drawn` and `prior` were computed from, [B, T, ...] each.
        exact_count: k where every scene has k objects, whose term alone counts: the logits of a certain count are
            finite, and the sum would take another one for 40 nats.

    Returns:
        float [B], nats.
    """
    def log_prob(value: tf.Tensor, loc: Any, log_scale: Any) -> tf.Tensor:
        return tf.reduce_sum(normal_log_prob(value, loc, log_scale), axis=-1)

    if prior.shift_logits is None:
        ratios = log_prob(latents.shift_latent, *prior[1:3])
    else:
        ratios = placement_log_prob(latents.shift_latent, prior.shift_logits)
    ratios += log_prob(latents.scale_latent, *prior[3:5]) + log_prob(latents.what, 0.0, 0.0)
    for value, parameters in (
        (latents.shift_latent, posterior[1:3]),
        (latents.scale_latent, posterior[3:5]),
        (latents.what, posterior[5:7]),
    ):
        ratios -= log_prob(value, *parameters)
    by_count = tf.pad(tf.cumsum(ratios, axis=-1), [[0, 0], [1, 0]])
    given_count = by_count - _nll_by_count(drawn, nll)
    if exact_count is not None:
        return given_count[:, exact_count]
    return tf.reduce_logsumexp(PresenceCode(prior.presence_logits).count_log_probs() + given_count, axis=-1)
