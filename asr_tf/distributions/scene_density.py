"""What the scene distributions share: the event's structure, and the density of the latents of present steps.

An absent step carries no latents: a density counts the continuous latents of the steps that the presence code names,
and integrates to 1 over counts and over the latents of that many steps.  Samples hold drawn numbers in absent steps
too, so that shapes are fixed; nothing may depend on them.
"""

from __future__ import annotations

from typing import Any

import tensorflow as tf
from tensorflow_probability import distributions as tfd

from asr_tf.distributions.gaussian import normal_log_prob
from asr_tf.distributions.placement import placement_log_prob
from asr_tf.distributions.presence import PresenceCode
from asr_tf.scene import PosteriorStatistics, PriorStatistics, SceneLatents

__all__ = [
    "REPARAMETERIZATION",
    "draw_normal",
    "scene_event_shape",
    "scene_log_prob",
    "with_standard_what",
]

# Gradients flow through samples of the continuous latents, not through counts.
REPARAMETERIZATION = SceneLatents(
    presence=tfd.NOT_REPARAMETERIZED,
    shift_latent=tfd.FULLY_REPARAMETERIZED,
    scale_latent=tfd.FULLY_REPARAMETERIZED,
    what=tfd.FULLY_REPARAMETERIZED,
)


def scene_event_shape(num_steps: int, what_size: int) -> SceneLatents:
    """Shapes of one scene: presence [T], shift_latent [T, 2], scale_latent [T, 1], what [T, Z]."""
    return SceneLatents(
        presence=tf.TensorShape([num_steps]),
        shift_latent=tf.TensorShape([num_steps, 2]),
        scale_latent=tf.TensorShape([num_steps, 1]),
        what=tf.TensorShape([num_steps, what_size]),
    )


def with_standard_what(statistics: PriorStatistics, what_size: int) -> PosteriorStatistics:
    """The prior's statistics with those of its standard normal `what`.

    Args:
        statistics: [..., T, ...] each.
        what_size: Z.

    Returns:
        The same, with `what_loc` and `what_log_scale` zeros, float [..., T, Z].
    """
    logits = statistics.presence_logits
    zeros = tf.zeros(tf.concat([tf.shape(logits), [what_size]], axis=0), logits.dtype)
    return PosteriorStatistics(*statistics[:5], what_loc=zeros, what_log_scale=zeros)


def scene_log_prob(
    latents: SceneLatents, statistics: PosteriorStatistics, shift_logits: tf.Tensor | None = None
) -> tf.Tensor:
    """Log-density of scenes whose steps are independent given `statistics`.

    Args:
        latents: float [..., T, ...] each; `presence` holds unary codes.
        statistics: float [..., T, ...] each, broadcasts with `latents`.
        shift_logits: float [..., T, g, g], as in `PriorStatistics`, or None.

    Returns:
        float [...], nats; -inf where `presence` is not a unary code.
    """
    if shift_logits is None:
        shift = _step_log_prob(latents.shift_latent, statistics.shift_loc, statistics.shift_log_scale)
    else:
        shift = placement_log_prob(latents.shift_latent, shift_logits)
    continuous = (
        shift
        + _step_log_prob(latents.scale_latent, statistics.scale_loc, statistics.scale_log_scale)
        + _step_log_prob(latents.what, statistics.what_loc, statistics.what_log_scale)
    )  # [..., T]
    present = tf.math.multiply_no_nan(
        continuous, tf.broadcast_to(latents.presence, tf.shape(continuous))
    )
    count = PresenceCode(statistics.presence_logits).log_prob(latents.presence)
    return count + tf.reduce_sum(present, axis=-1)


def draw_normal(shape: Any, loc: tf.Tensor, log_scale: tf.Tensor, seed: Any) -> tf.Tensor:
    """Normal numbers of `shape`, to which `loc` and `log_scale` broadcast."""
    noise = tf.random.stateless_normal(shape, seed, dtype=loc.dtype)
    return loc + tf.exp(log_scale) * noise


def _step_log_prob(value: tf.Tensor, loc: tf.Tensor, log_scale: tf.Tensor) -> tf.Tensor:
    """Float [..., T], the log-density of each step's vector."""
    return tf.reduce_sum(normal_log_prob(value, loc, log_scale), axis=-1)
