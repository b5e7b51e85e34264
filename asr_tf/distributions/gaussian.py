"""Divergence and log-density of normals given by mean and log standard deviation, element by element.

Plain functions of tensors for the training step, where building distribution objects would only add operations.
"""

from __future__ import annotations

import math
from typing import Any

import tensorflow as tf

__all__ = ["normal_kl", "normal_log_prob"]

_HALF_LOG_TWO_PI = 0.5 * math.log(2.0 * math.pi)


def normal_kl(q_loc: Any, q_log_scale: Any, p_loc: Any, p_log_scale: Any) -> tf.Tensor:
    """KL(N(q_loc, exp(q_log_scale)^2) || N(p_loc, exp(p_log_scale)^2)).

    Args:
        q_loc: float [...], mean of q.
        q_log_scale: float [...], log standard deviation of q.
        p_loc: float [...], mean of p.
        p_log_scale: float [...], log standard deviation of p.

    Returns:
        float [...] (broadcast), nats, one an element:
        d + (exp(-2 d) - 1) / 2 + ((q_loc - p_loc) / exp(p_log_scale))^2 / 2 with d = p_log_scale - q_log_scale.
        `expm1` keeps it exact where q is close to p.
    """
    log_ratio = p_log_scale - tf.convert_to_tensor(q_log_scale, dtype_hint=tf.float32)
    distance = (q_loc - tf.convert_to_tensor(p_loc, dtype=log_ratio.dtype)) * tf.exp(
        -tf.convert_to_tensor(p_log_scale, dtype=log_ratio.dtype)
    )
    return log_ratio + 0.5 * (tf.math.expm1(-2.0 * log_ratio) + tf.square(distance))


def normal_log_prob(value: Any, loc: Any, log_scale: Any) -> tf.Tensor:
    """Log-density of N(loc, exp(log_scale)^2).

    Args:
        value: float [...], where.
        loc: float [...], mean.
        log_scale: float [...], log standard deviation.

    Returns:
        float [...] (broadcast), nats, one an element.
    """
    log_scale = tf.convert_to_tensor(log_scale, dtype_hint=tf.float32)
    distance = (value - tf.convert_to_tensor(loc, dtype=log_scale.dtype)) * tf.exp(-log_scale)
    return -0.5 * tf.square(distance) - log_scale - _HALF_LOG_TWO_PI
