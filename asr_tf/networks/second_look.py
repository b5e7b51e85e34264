"""A second look: a window that was chosen from the whole image is set right by what it shows.

The recognition LSTM finds objects but places windows no better than a linear map of the whole image can.  From the
glimpse itself it is plain by how far an object is off the centre, and how much smaller or larger it is: a small
perceptron sees the glimpse and corrects mean and spread of the window's posterior.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import tensorflow as tf

from asr_tf.imaging.windows import read_windows
from asr_tf.networks.contracts import Network
from asr_tf.networks.layers import Perceptron
from asr_tf.scene import SceneSpec

__all__ = ["LEAST_SLOPE", "Correction", "SecondLook"]

# 1 - tanh(u)^2 is at least this at windows whose centre is on the canvas, but for the last two pixels of 100.
LEAST_SLOPE = 0.05


class Correction(NamedTuple):
    """What to add to a window's statistics, float32.

    Attributes:
        moved, shift_spread: [B, 2], to mean and log standard deviation of the shift latent.
        resized, scale_spread: [B, 1], to those of the scale latent.
        presence: [B, 1], a logit of "there is an object"; None where it isn't asked for.
    """

    moved: tf.Tensor
    shift_spread: tf.Tensor
    resized: tf.Tensor
    scale_spread: tf.Tensor
    presence: tf.Tensor | None = None


class SecondLook(Network):
    """Corrects the normals over shift and scale latents, given what lies in and around the window."""

    def __init__(
        self,
        margin: float,
        glimpse_size: int = 16,
        units: int = 128,
        context_size: int = 0,
        with_presence: bool = False,
        output_scale: float = 1.0,
        name: str = "second_look",
    ):
        """Initializes the network.

        Args:
            margin: side of the region looked at / side of the window, 1 or more.
            glimpse_size: pixels a side of what is seen.
            units: width of the perceptron's hidden layer.
            context_size: numbers that a look is told beside what it sees.
            with_presence: whether it also says if there is an object.
            output_scale: of the last layer's initial kernel, see `dense`; small, so that windows start where they are.
            name: Keras name.
        """
        super().__init__(name=name, autocast=False)  # latents stay float32
        self.margin, self.glimpse_size, self.units = margin, glimpse_size, units
        self.context_size, self.with_presence, self.output_scale = context_size, with_presence, output_scale

    def build(self, spec: SceneSpec) -> None:
        """See `Network.build`."""
        super().build(spec)
        self.perceptron = Perceptron(
            [self.glimpse_size**2 * spec.channels + self.context_size, self.units, 6 + self.with_presence],
            "relu",
            "perceptron",
            output_scale=self.output_scale,
        )

    def call(
        self, images: tf.Tensor, shift_loc: tf.Tensor, scale_loc: tf.Tensor, context: tf.Tensor | None = None
    ) -> Correction:
        """What to add to the statistics.  No gradient goes through what is seen to where it is seen.

        Args:
            images: float32 [B, H, W, C] in [0, 1].
            shift_loc: float32 [B, 2], mean of the shift latent (x, y).
            scale_loc: float32 [B, 1], mean of the scale latent.
            context: float32 [B, context_size]; None for none.

        Returns:
            The correction.  The window's centre moves within the region looked at.
        """
        shift, reach = tf.tanh(shift_loc), self.margin * tf.sigmoid(scale_loc)
        seen = read_windows(images, tf.stop_gradient(shift), tf.stop_gradient(reach), self.glimpse_size)
        told = tf.reshape(seen, [-1, math.prod(seen.shape[1:])])
        if context is not None:
            told = tf.concat([told, context], axis=-1)
        output = tf.cast(self.perceptron(told), tf.float32)
        moved, shift_spread, resized, scale_spread, *presence = tf.split(
            output, [2, 2, 1, 1, *[1] * self.with_presence], axis=-1
        )
        # The move is a share of half the region; along the tangent, the latent changes by that over the slope of tanh.
        height, width = self.spec.canvas_size
        shorter = min(height, width)
        half = reach * tf.constant([shorter / width, shorter / height])
        step = half * tf.tanh(moved) / tf.maximum(1.0 - tf.square(shift), LEAST_SLOPE)
        return Correction(step, shift_spread, resized, scale_spread, *presence)
