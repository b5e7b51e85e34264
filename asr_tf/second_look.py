"""A second look: a window that was chosen from the whole image is set right by what it shows.

The recognition RNN finds objects but places windows no better than a linear map of the whole image can.  From the
glimpse itself it is plain by how far an object is off the centre, and how much smaller or larger it is: one small
perceptron sees the glimpses of all steps as one batch and corrects mean and spread of the windows' posterior.
"""

from __future__ import annotations

import keras
import tensorflow as tf

from asr_tf.layers import MLP
from asr_tf.spatial_transformer import read_glimpses

__all__ = ["LEAST_SLOPE", "SecondLook"]

# 1 - tanh(u)^2 is at least this at windows whose centre is on the canvas, but for the last two pixels of 100.
LEAST_SLOPE = 0.05


class SecondLook(keras.layers.Layer):
    """Corrects the normals over shift and scale latents, given what lies in and around the window.

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
        self.canvas_size, self.margin, self.glimpse_size = tuple(canvas_size), margin, glimpse_size
        self.mlp = MLP([glimpse_size**2, units, 6], "relu", "mlp")
        self.built = True

    def call(
        self, images: tf.Tensor, shift_stats: tf.Tensor, scale_stats: tf.Tensor
    ) -> tuple[tf.Tensor, tf.Tensor]:
        """Corrected statistics.

        Args:
            images: float32 [B, H, W] in [0, 1].
            shift_stats: float32 [B, T, 4], mean and log standard deviation of the shift latent, (x, y) each.
            scale_stats: float32 [B, T, 2], those of the scale latent.

        Returns:
            The same, corrected.  The shift moves by up to half a window's side in either direction.
        """
        height, width = self.canvas_size
        shift, scale = tf.tanh(shift_stats[..., :2]), tf.sigmoid(scale_stats[..., :1])
        seen = read_glimpses(images[:, tf.newaxis], shift, self.margin * scale, self.glimpse_size)
        flat = tf.reshape(seen, tf.concat([tf.shape(seen)[:-2], [self.glimpse_size**2]], 0))
        moved, spread, resized = tf.split(tf.cast(self.mlp(flat), tf.float32), [2, 2, 2], axis=-1)
        # Half a side in canvas units, and from there to the latent, whose tanh is the shift.
        half = scale * tf.constant([min(height, width) / width, min(height, width) / height])
        step = half * tf.tanh(moved) / tf.maximum(1.0 - tf.square(shift), LEAST_SLOPE)
        return shift_stats + tf.concat([step, spread], -1), scale_stats + resized
