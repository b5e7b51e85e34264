"""How the objects of a scene keep their distance: a learned potential between windows, as weights of a grid's cells.

The learned prior places an object given those before it.  What matters between two square windows is their distance in
sides, by the larger of its two components: under 1 they overlap.  A potential of that distance is one curve for all
pairs, places and steps; it is learned from few scenes, and as sharp as the scenes are.
"""

from __future__ import annotations

import numpy as np
import tensorflow as tf

from asr_tf.distributions import cell_centres
from asr_tf.networks.contracts import Network
from asr_tf.scene import SceneSpec

__all__ = ["PairPlacement"]

# The curve is a sum of soft steps at these distances, in sides of the earlier window, and of this width.
_DISTANCES = np.arange(1, 17, dtype=np.float32) / 8.0
_WIDTH = 0.04
# Adam moves a weight by its rate a step: nats are reached within hundreds of steps.
_GAIN = 10.0
# Sides up to which the room for a window counts.
_WIDE = 2.0


class PairPlacement(Network):
    """Log-weights of the cells of a grid given one earlier window.

    The potential is -sum_k c_k [distance < d_k] with soft brackets.  As max(a, b) < d where both are, a bracket is the
    product of one factor a row and one a column, and the sum over k a small matrix product.
    """

    def __init__(self, grid_size: int, name: str = "placement"):
        """Initializes the potential.

        Args:
            grid_size: g cells along each axis.
            name: Keras name.
        """
        super().__init__(name=name, autocast=False)
        self.grid_size = grid_size

    def build(self, spec: SceneSpec) -> None:
        """See `Network.build`."""
        super().build(spec)
        self.heights = self.add_weight(
            shape=(len(_DISTANCES),), initializer="zeros", dtype="float32", autocast=False, name="heights"
        )

    def call(self, shift_latent: tf.Tensor, scale_latent: tf.Tensor) -> tf.Tensor:
        """Weights by one window.

        Args:
            shift_latent: float [..., 2], (x, y).
            scale_latent: float [..., 1].

        Returns:
            float32 [..., g, g], nats, rows along y.
        """
        height, width = self.spec.canvas_size
        shorter = float(min(height, width))
        # A side in canvas units, along x and y.
        sides = 2.0 * tf.sigmoid(scale_latent) * tf.constant([shorter / width, shorter / height])
        away = tf.abs(cell_centres(self.grid_size) - tf.tanh(shift_latent)[..., tf.newaxis])
        away /= sides[..., tf.newaxis]  # [..., 2, g]
        within = tf.sigmoid((_DISTANCES - away[..., tf.newaxis]) / _WIDTH)  # [..., 2, g, K]
        heights = -_GAIN * tf.convert_to_tensor(self.heights)
        return tf.matmul(within[..., 1, :, :] * heights, within[..., 0, :, :], transpose_b=True)

    def room(self, shift_latent: tf.Tensor, earlier: tf.Tensor, is_there: tf.Tensor) -> tf.Tensor:
        """How large a window may be there before it meets an earlier one, in sides of that one.

        Args:
            shift_latent: float [..., 2], (x, y), where.
            earlier: float [..., U, 3], shift and scale latents of other windows.
            is_there: bool [..., U], which of them are earlier ones.

        Returns:
            float32 [..., 1], from 0 to 2; 2 where no window is near.
        """
        height, width = self.spec.canvas_size
        sides = float(min(height, width)) * tf.sigmoid(earlier[..., 2])
        away = tf.abs(tf.tanh(shift_latent)[..., tf.newaxis, :] - tf.tanh(earlier[..., :2]))
        distance = tf.reduce_max(away * tf.constant([0.5 * width, 0.5 * height]), axis=-1)
        room = tf.where(is_there, 2.0 * distance / sides - 1.0, _WIDE)
        return tf.clip_by_value(tf.reduce_min(room, axis=-1, keepdims=True), 0.0, _WIDE)
