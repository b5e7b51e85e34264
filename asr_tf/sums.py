"""Sums as products with ones: running sums along short axes, and sums over pixels.

`tf.cumsum` is slow: along an inner axis TensorFlow's own kernel takes ten times as long as the product, and XLA makes a
tree of kernels of it, each of which takes time to compile.  And a sum over pixels, as XLA does it, reads what it sums
from memory; into a product with ones goes what is computed pixel by pixel.
"""

from __future__ import annotations

import numpy as np
import tensorflow as tf

__all__ = ["pixel_sum", "running_sum"]


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
