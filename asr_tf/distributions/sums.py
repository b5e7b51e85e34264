"""Sums as products with ones: running sums along short axes, and sums over pixels.  And sums over broadcast axes.

`tf.cumsum` is slow: along an inner axis TensorFlow's own kernel takes ten times as long as the product, and XLA makes a
tree of kernels of it, each of which takes time to compile.  And a sum over pixels, as XLA does it, reads what it sums
from memory; into a product with ones goes what is computed pixel by pixel.
"""

from __future__ import annotations

import numpy as np
import tensorflow as tf

__all__ = ["pixel_sum", "running_sum", "sum_to"]


def running_sum(values: tf.Tensor, reverse: bool = False) -> tf.Tensor:
    """Sums up to and with each element of the last axis.

    Args:
        values: finite floating point [..., N] with N static and small: the product takes N operations an element.
        reverse: whether to sum from the end.

    Returns:
        As `values`.
    """
    size = values.shape[-1]
    triangle = np.tri(size, dtype=values.dtype.as_numpy_dtype)  # [to, from]
    summed = tf.matmul(tf.reshape(values, [-1, size]), triangle if reverse else triangle.T)
    return tf.reshape(summed, tf.shape(values))


def pixel_sum(values: tf.Tensor) -> tf.Tensor:
    """Sums over the last two axes: float [..., H, W], H and W static, to [...]."""
    height, width = values.shape[-2:]
    pixels = height * width
    summed = tf.matmul(tf.reshape(values, [-1, pixels]), tf.ones([pixels, 1], values.dtype))
    return tf.reshape(summed, tf.shape(values)[:-2])


def sum_to(gradient: tf.Tensor, like: tf.Tensor) -> tf.Tensor:
    """Sums over the leading axes along which `like` was broadcast: to its shape."""
    if gradient.shape.is_fully_defined() and gradient.shape == like.shape:
        return gradient
    axes, _ = tf.raw_ops.BroadcastGradientArgs(s0=tf.shape(like), s1=tf.shape(gradient))
    return tf.reshape(tf.reduce_sum(gradient, axes), tf.shape(like))
