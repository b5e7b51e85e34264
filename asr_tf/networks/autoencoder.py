"""The two halves of a variational autoencoder of images, as Keras layers: of glimpses, or of whole canvases.

What leaves a layer is float32, whatever precision it computes in.

References:
    Kingma and Welling, "Auto-Encoding Variational Bayes", ICLR 2014, arXiv:1312.6114, appendix C.
    Xu et al., arXiv:1906.03923, section 4 (sizes).
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import keras
import tensorflow as tf

from asr_tf.networks.layers import MLP

__all__ = ["ImageDecoder", "ImageEncoder"]


class ImageEncoder(keras.layers.Layer):
    """Image [..., h, w] to mean and log standard deviation of its code, each [..., Z]."""

    def __init__(self, image_size: tuple[int, int], units: Sequence[int], code_size: int, name: str):
        super().__init__(name=name)
        self.pixels = math.prod(image_size)
        self.mlp = MLP([self.pixels, *units, 2 * code_size], "softplus", "mlp")
        self.built = True

    def call(self, images: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """float [..., h, w] to two float32 [..., Z]."""
        flat = tf.reshape(images, tf.concat([tf.shape(images)[:-2], [self.pixels]], 0))
        loc, log_scale = tf.split(tf.cast(self.mlp(flat), tf.float32), 2, axis=-1)
        return loc, log_scale


class ImageDecoder(keras.layers.Layer):
    """Code [N, Z] to an image [N, h, w] in (0, 1)."""

    def __init__(
        self,
        code_size: int,
        units: Sequence[int],
        image_size: tuple[int, int],
        initial_brightness: float,
        name: str,
    ):
        super().__init__(name=name)
        self.image_size = tuple(image_size)
        bias = math.log(initial_brightness / (1.0 - initial_brightness))
        self.mlp = MLP([code_size, *units, math.prod(image_size)], "softplus", "mlp", bias)
        self.built = True

    def call(self, code: tf.Tensor) -> tf.Tensor:
        """float [N, Z] to float32 [N, h, w]."""
        images = tf.sigmoid(tf.cast(self.mlp(code), tf.float32))
        return tf.reshape(images, [-1, *self.image_size])
