"""A second look: a window that was chosen from the whole image is set right by what it shows.

The recognition RNN finds objects but places windows no better than a linear map of the whole image can.  From the
glimpse itself it is plain by how far an object is off the centre, and how much smaller or larger it is: a small
perceptron sees the glimpse and corrects mean and spread of the window's posterior.
"""

from __future__ import annotations

from collections.abc import Sequence

import keras
import numpy as np
import tensorflow as tf

from asr_tf.fast.recurrence import Apply
from asr_tf.imaging.spatial_transformer import read_glimpses
from asr_tf.networks.layers import MLP

__all__ = ["SecondLook", "shift_step", "without_windows"]

# 1 - tanh(u)^2 is at least this at windows whose centre is on the canvas, but for the last two pixels of 100.
_LEAST_SLOPE = 0.05


def shift_step(moved: tf.Tensor, shift: tf.Tensor, reach: tf.Tensor, canvas_size: tuple[int, int]) -> tf.Tensor:
    """By how much a shift latent changes, along its tangent.

    Args:
        moved: float [..., 2], (x, y), what was said; its tanh is the move as a share of half the region.
        shift: float [..., 2], the window's centre in canvas units.
        reach: float [..., 1], side of the region / shorter canvas side.
        canvas_size: (H, W) in pixels.

    Returns:
        float [..., 2].
    """
    height, width = canvas_size
    half = reach * tf.constant([min(height, width) / width, min(height, width) / height])
    return half * tf.tanh(moved) / tf.maximum(1.0 - tf.square(shift), _LEAST_SLOPE)


def without_windows(
    images: tf.Tensor, shift_latent: tf.Tensor, scale_latent: tf.Tensor, canvas_size: tuple[int, int]
) -> tf.Tensor:
    """Images less what lies in one window each, by the shares of pixels that it covers.

    Args:
        images: float [B, H, W].
        shift_latent: float [B, 2], (x, y).
        scale_latent: float [B, 1]; windows are over a pixel wide.
        canvas_size: (H, W) in pixels.

    Returns:
        float [B, H, W]; no gradient goes to the windows.
    """
    half = 0.5 * min(canvas_size) * tf.sigmoid(scale_latent)
    covered = []
    for size, shift in zip(canvas_size, (shift_latent[:, 1:], shift_latent[:, :1]), strict=True):
        away = tf.abs(np.arange(size, dtype=np.float32) + 0.5 - 0.5 * size * (1.0 + tf.tanh(shift)))
        covered.append(tf.clip_by_value(half - away + 0.5, 0.0, 1.0))
    return images * tf.stop_gradient(1.0 - covered[0][:, :, tf.newaxis] * covered[1][:, tf.newaxis])


class SecondLook(keras.layers.Layer):
    """Corrects the normals over shift and scale latents, given what lies in and around the window.

    The perceptron is in pieces, for use in `unroll`: a large product with `kernel`, and small `weights_beside`.

    Args:
        canvas_size: (H, W) in pixels.
        margin: side of the region looked at / side of the window, 1 or more.
        glimpse_size: pixels a side of what is seen.
        units: width of the perceptron's hidden layer.
        name: Keras name.
    """

    def __init__(
        self,
        canvas_size: tuple[int, int],
        margin: float,
        glimpse_size: int = 16,
        units: int = 128,
        name: str = "second_look",
    ):
        super().__init__(name=name, autocast=False)  # latents stay float32
        self.canvas_size, self.margin, self.glimpse_size = canvas_size, margin, glimpse_size
        self.mlp = MLP([glimpse_size**2, units, 6], "relu", "mlp")
        self.built = True

    def kernel(self) -> tf.Tensor:
        """float [glimpse_size^2, units], of the hidden layer, in the dtype that the perceptron computes in."""
        return tf.cast(self.mlp.dense_0.kernel, self.mlp.compute_dtype)

    def weights_beside(self) -> list[tf.Tensor]:
        """The perceptron's other weights: the hidden layer's bias, then kernel and bias of the output."""
        variables = self.mlp.dense_0.bias, self.mlp.dense_1.kernel, self.mlp.dense_1.bias
        return [tf.cast(variable, self.mlp.compute_dtype) for variable in variables]

    def correct(
        self,
        images: tf.Tensor,
        shift_stats: tf.Tensor,
        scale_stats: tf.Tensor,
        product: Apply,
        weights: Sequence[tf.Tensor],
    ) -> tuple[tf.Tensor, tf.Tensor]:
        """Corrected statistics.  No gradient goes through what is seen to where it is seen.

        Args:
            images: float32 [B, H, W] in [0, 1].
            shift_stats: float32 [B, 4], mean and log standard deviation of the shift latent, (x, y) each.
            scale_stats: float32 [B, 2], those of the scale latent.
            product: with `kernel`.
            weights: as `weights_beside` gives them.

        Returns:
            The same, corrected.  The window's centre moves within the region looked at.
        """
        shift, scale = tf.tanh(shift_stats[..., :2]), tf.sigmoid(scale_stats[..., :1])
        where = tf.stop_gradient(shift), tf.stop_gradient(self.margin * scale)
        seen = tf.reshape(read_glimpses(images, *where, self.glimpse_size), [-1, self.glimpse_size**2])
        hidden_bias, output_kernel, output_bias = weights
        hidden = tf.nn.relu(product(tf.cast(seen, hidden_bias.dtype)) + hidden_bias)
        output = tf.cast(tf.matmul(hidden, output_kernel) + output_bias, tf.float32)
        moved, spread, resized = tf.split(output, [2, 2, 2], axis=-1)
        step = shift_step(moved, shift, self.margin * scale, self.canvas_size)
        return shift_stats + tf.concat([step, spread], -1), scale_stats + resized
