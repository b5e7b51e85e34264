"""The bound on log p(x), term by term, by either of two estimators of the expectation over the count.

`enumerated_terms` takes the expectation over the count exactly: with q(n = k) from the presence code, and one sample of
every step's continuous latents,

    -ELBO = sum_k q(n = k) [ nll_k + sum_{t <= k} KL_t + log q(n = k) - log p(n = k) ]

where nll_k is the likelihood of the canvas of the first k objects.  `concrete_terms` is the published estimator: a
relaxed presence weights the objects, and the divergence of the code is a one-sample estimate.

References:
    Xu et al., arXiv:1906.03923, section 3; Eslami et al., arXiv:1603.08575, section 2.1.
    Burda et al., "Importance Weighted Autoencoders", ICLR 2016, arXiv:1509.00519, equation 8.
"""

from __future__ import annotations

import tensorflow as tf
from tensorflow_probability import distributions as tfd

from asr_tf.distributions import (
    IndependentSteps,
    RelaxedPresenceCode,
    divergence,
    relaxed_kl_estimate,
    running_sum,
)
from asr_tf.scene import ObjectiveTerms, SceneLatents

__all__ = ["ESTIMATORS", "concrete_terms", "enumerated_terms", "log_weights", "relaxed_presence"]

ESTIMATORS = ("enumerate", "concrete")

# A relaxed scene ends where the running sum of (1 - presence) reaches this (the published stopping rule).
_STOPPING_SUM = 0.9


def relaxed_presence(relaxed: tf.Tensor) -> tf.Tensor:
    """Relaxed presence with the published stopping rule.

    Args:
        relaxed: float [B, T], an event of `RelaxedPresenceCode`.

    Returns:
        float [B, T]: the relaxed unary code, zero from the step on at which the running sum of (1 - presence of the
        step alone) reaches 0.9.
    """
    absent = tf.sigmoid(-relaxed)
    counts = tf.cast(running_sum(absent) < _STOPPING_SUM, relaxed.dtype)
    return RelaxedPresenceCode.presence(relaxed) * counts


def _divergences(
    posterior: IndependentSteps, prior: IndependentSteps, latents: SceneLatents, presence: tf.Tensor
) -> dict[str, tf.Tensor]:
    """Divergences of shift, scale and appearance, [B] each, weighted by the steps' presence [B, T]."""
    steps = {
        "kl_shift": divergence(posterior.shift, prior.shift, latents.shift_latent),
        "kl_scale": divergence(posterior.scale, prior.scale, latents.scale_latent),
        "kl_what": divergence(posterior.what, prior.what, latents.what),
    }
    return {name: tf.reduce_sum(presence * step, axis=-1) for name, step in steps.items()}


def enumerated_terms(
    images: tf.Tensor,
    posterior: IndependentSteps,
    prior: IndependentSteps,
    latents: SceneLatents,
    observations: tfd.Distribution,
) -> ObjectiveTerms:
    """The bound with the expectation over the count taken exactly.

    Args:
        images: float32 [B, H, W, C] in [0, 1].
        posterior: q(z | x), batch shape [B].
        prior: p(z_t | z_<t) given the latents, batch shape [B] or [].
        latents: a sample of the posterior, float [B, T, ...] each.
        observations: p(x | the first k objects), batch shape [B, T + 1].

    Returns:
        Terms, float [B] each, in nats.
    """
    nll = -observations.log_prob(images[:, tf.newaxis])  # [B, T + 1]
    return ObjectiveTerms(
        nll=tf.reduce_sum(posterior.presence.count_probs() * nll, axis=-1),
        kl_count=tfd.kl_divergence(posterior.presence, prior.presence),
        **_divergences(posterior, prior, latents, posterior.presence.presence_probs()),
    )


def concrete_terms(
    images: tf.Tensor,
    posterior: IndependentSteps,
    prior: IndependentSteps,
    latents: SceneLatents,
    observation: tfd.Distribution,
    relaxed: tf.Tensor,
    temperature: float,
) -> ObjectiveTerms:
    """The bound's published relaxation, with one sample of a Concrete presence.

    Args:
        images, posterior, prior, latents: as for `enumerated_terms`.
        observation: p(x | the objects by their relaxed presence), batch shape [B].
        relaxed: float [B, T], a sample of the posterior's presence, relaxed at this temperature.
        temperature: of the binary Concrete, above 0.

    Returns:
        Terms, float [B] each, in nats; `kl_count` is a one-sample estimate and may be negative.
    """
    q_code, p_code = (RelaxedPresenceCode(temperature, x.presence.logits) for x in (posterior, prior))
    return ObjectiveTerms(
        nll=-observation.log_prob(images),
        kl_count=relaxed_kl_estimate(q_code, p_code, relaxed),
        **_divergences(posterior, prior, latents, relaxed_presence(relaxed)),
    )


def log_weights(
    images: tf.Tensor,
    posterior: IndependentSteps,
    prior: IndependentSteps,
    latents: SceneLatents,
    observations: tfd.Distribution,
) -> tf.Tensor:
    """Log importance weights of sampled latents, with the count summed out.

    With z_1..z_T ~ q,  sum_k p(n = k) p(z_1..z_k) p(x | z_1..z_k) / q(z_1..z_k)  has the mean p(x): each term of the
    sum is an importance weight of the scene with k objects.

    Args: as for `enumerated_terms`.

    Returns:
        float [B], nats.
    """
    ratios = prior.step_log_prob(latents) - posterior.step_log_prob(latents)
    by_count = tf.pad(running_sum(ratios), [[0, 0], [1, 0]]) + observations.log_prob(images[:, tf.newaxis])
    return tf.reduce_logsumexp(prior.presence.count_log_probs() + by_count, axis=-1)
