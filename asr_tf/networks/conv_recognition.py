"""A recognition that sees: attention goes to what no window explains, and a window there is set right by what it shows.

A convolutional network looks at the image once.  Then each of T steps attends to the place where most of an object's
size stands out, takes the window that the features there propose, looks at what lies in and around it, corrects it, and
blanks what lies in it for the steps that follow.  All of it but the edges of the canvas is the same everywhere, so that
what is learned in one corner holds in the others.

References:
    Eslami et al., "Attend, Infer, Repeat", NIPS 2016, arXiv:1603.08575, section 2.1 (the posterior).
    Crawford and Pineau, "Spatially Invariant Unsupervised Object Detection with Convolutional Neural Networks", AAAI
    2019 (windows proposed by a feature map's cells).
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import gin
import keras
import numpy as np
import tensorflow as tf

from asr_tf.checks import check_positive, check_range, check_whole
from asr_tf.imaging.pooling import mean_pool
from asr_tf.imaging.windows import without_windows
from asr_tf.networks.attention import Attention, Place
from asr_tf.networks.contracts import LatentNoise, Recognition
from asr_tf.networks.layers import Perceptron, dense
from asr_tf.networks.recognition import Decision, sampled
from asr_tf.networks.second_look import LEAST_SLOPE, SecondLook
from asr_tf.scene import PosteriorStatistics, SceneLatents, SceneSpec

__all__ = ["ConvRecognition"]

# Larger canvases are averaged until the shorter side is about this.
_SEEN_PX = 50
# Pixels of what the network sees from place to place.
_STRIDE = 4
# Of a window, the part that is ink if it holds an object: gives the ink in an image a number of objects.
_INK_SHARE = 0.2
# How far from the prior's mean a proposal's scale may be, in standard deviations.
_SCALE_RANGE = 2.0
# Of initial kernels: windows start where attention goes, with the size of a typical object.
_GENTLE = 0.01
# The posterior's standard deviation of the scale latent at the start.
_SCALE_SPREAD = math.exp(-2.0)
# The logit of "one more object" starts at half of that, and falls to the negative of it as less stands out.
_PRESENCE_RANGE = 6.0
# An image in which less stands out is empty.
_FAINT = 0.02
# Centres stay this far on the canvas, where the latent is finite.
_FARTHEST = 0.99


@gin.register
class ConvRecognition(Recognition):
    """T steps of attention, proposal and second look; a perceptron encodes the glimpses."""

    def __init__(
        self,
        filters: int = 32,
        margin: float = 2.0,
        look_size: int = 16,
        look_units: int = 128,
        initial_spread: float = 0.15,
        least_spread: float = 0.0125,
        encoder_units: Sequence[int] = (512, 256),
        name: str = "recognition",
    ):
        """Initializes the network.

        Args:
            filters: channels of the feature map.
            margin: side of the region looked at / side of the window, 1 to 4.
            look_size: pixels a side of what a look sees.
            look_units: width of a look's hidden layer.
            initial_spread: where the posterior's standard deviation of a window's centre starts, in sides of a typical
                object.
            least_spread: what that standard deviation never falls below, 0 or more, and about half of what the side's
                doesn't, in the same unit.  An object is then never seen in quite the same window, and decoder and
                encoder learn what lies between the objects of training, too.
            encoder_units: hidden widths of the glimpse encoder.
            name: Keras name.

        Raises:
            ValueError, TypeError: a value is out of range, or of the wrong type.
        """
        super().__init__(name=name, autocast=False)  # latents stay float32
        for label, value in (("filters", filters), ("look_size", look_size), ("look_units", look_units)):
            check_whole(f"ConvRecognition.{label}", value)
        for i, width in enumerate(encoder_units):
            check_whole(f"ConvRecognition.encoder_units[{i}]", width)
        check_range("ConvRecognition.margin", margin, 1.0, 4.0)
        check_positive("ConvRecognition.initial_spread", initial_spread)
        check_range("ConvRecognition.least_spread", least_spread, 0.0, initial_spread)
        self.filters, self.margin, self.look_size, self.look_units = filters, margin, look_size, look_units
        self.initial_spread, self.least_spread = initial_spread, least_spread
        self.encoder_units = tuple(encoder_units)

    def build(self, spec: SceneSpec) -> None:
        """See `Network.build`."""
        super().build(spec)
        self.pool = max(1, round(min(spec.canvas_size) / _SEEN_PX))
        seen = [-(-size // self.pool) for size in spec.canvas_size]
        grid = (-(-seen[0] // _STRIDE), -(-seen[1] // _STRIDE))
        side_px = min(spec.canvas_size) / (1.0 + math.exp(-spec.scale_loc))
        self.attention = Attention(spec.canvas_size, grid, _STRIDE * self.pool, side_px)
        self.object_ink = _INK_SHARE * side_px**2
        self.features = keras.Sequential(
            [
                keras.layers.Conv2D(filters, size, stride, "same", activation="relu")
                for filters, size, stride in (
                    (max(self.filters // 2, 1), 5, 2),
                    (self.filters, 3, 2),
                    (self.filters, 3, 1),
                    (self.filters, 3, 1),
                )
            ],
            name="features",
        )
        self.features.build((None, *seen, spec.channels))
        self.proposal = dense(self.filters, 3, "proposal", kernel_scale=_GENTLE)
        context_size = self.filters + 3 + spec.num_steps
        self.corrector = SecondLook(self.margin, self.look_size, self.look_units, context_size, True, _GENTLE)
        self.corrector.build(spec)
        share = side_px / min(spec.canvas_size)
        self.log_spread = math.log(self.initial_spread * 2.0 * share)
        # Of the centre in halves of the canvas, and of the scale latent, whose slope is 1 - share for a side of 1.
        self.least_shift_spread = self.least_spread * 2.0 * share
        self.least_scale_spread = self.least_spread * 2.0 / (1.0 - share)
        glimpse = spec.glimpse_size**2 * spec.channels
        self.encoder = Perceptron([glimpse, *self.encoder_units, 2 * spec.what_size], "softplus", "encoder")

    def locate(
        self, images: tf.Tensor, noise: LatentNoise | None = None
    ) -> tuple[PosteriorStatistics, SceneLatents]:
        """See `Recognition.locate`."""
        features = self._see(images)
        left = images  # what no window explains yet
        peaks: list[tf.Tensor] = []
        logits: list[tf.Tensor] = []
        decisions: list[Decision] = []
        for t in range(self.spec.num_steps):
            place = self.attention(tf.reduce_max(left, axis=-1))
            shift_loc, scale_loc = self._propose(place, features)
            context = self._context(features, images, left, t)
            step_noise = (None, None) if noise is None else (noise.shift[:, t], noise.scale[:, t])
            decision, presence = self._look(left, shift_loc, scale_loc, context, *step_noise)
            peaks.append(place.peak)
            # Where less stands out than half of what did at first, there hardly is an object; the look may know better.
            share = place.peak / tf.maximum(peaks[0], _FAINT)
            logits.append(_PRESENCE_RANGE * (share - 0.5) + presence)
            decisions.append(decision)
            # By the means, so that what is blanked doesn't jitter.
            centre, side = tf.tanh(decision.shift_loc), tf.sigmoid(decision.scale_loc)
            left = tf.stop_gradient(without_windows(left, centre, side))
        chosen = Decision(*(tf.stack(parts, 1) for parts in zip(*decisions, strict=True)))
        posterior = PosteriorStatistics(tf.concat(logits, -1), *chosen[:4], None, None)
        return posterior, SceneLatents(None, chosen.shift_latent, chosen.scale_latent, None)

    def _see(self, images: tf.Tensor) -> tf.Tensor:
        """The feature map, float32 [B, P, F] with P places."""
        features = self.features(images if self.pool == 1 else mean_pool(images, self.pool))
        return tf.cast(tf.reshape(features, [-1, math.prod(features.shape[1:3]), self.filters]), tf.float32)

    def _propose(self, place: Place, features: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """Means of shift and scale latents, [B, 2] and [B, 1]: a window near the place that won."""
        there = tf.gather(features, place.index, batch_dims=1)
        moved, resized = tf.split(tf.tanh(tf.cast(self.proposal(there), tf.float32)), [2, 1], axis=-1)
        scale_loc = self.spec.scale_loc + _SCALE_RANGE * self.spec.scale_stddev * resized
        height, width = self.spec.canvas_size
        half_side = tf.sigmoid(scale_loc) * tf.constant([1.0 / width, 1.0 / height]) * min(height, width)
        centre = tf.clip_by_value(place.centre + half_side * moved, -_FARTHEST, _FARTHEST)
        return 0.5 * (tf.math.log1p(centre) - tf.math.log1p(-centre)), scale_loc  # atanh, which LiteRT lacks

    def _context(self, features: tf.Tensor, images: tf.Tensor, left: tf.Tensor, t: int) -> tf.Tensor:
        """What a look is told of the image as a whole, [B, F + 3 + T].

        How much ink there is, and how much is left, in objects: two that touch may look like one, but have the ink of
        two.
        """
        ink, ink_left = (tf.reduce_sum(x, axis=[1, 2, 3])[:, tf.newaxis] / self.object_ink for x in (images, left))
        step = np.eye(self.spec.num_steps, dtype=np.float32)[t] + tf.zeros_like(ink)
        return tf.concat([tf.reduce_mean(features, axis=1), ink, ink_left, ink - ink_left, step], axis=-1)

    def _look(
        self,
        left: tf.Tensor,
        shift_loc: tf.Tensor,
        scale_loc: tf.Tensor,
        context: tf.Tensor,
        shift_noise: tf.Tensor | None,
        scale_noise: tf.Tensor | None,
    ) -> tuple[Decision, tf.Tensor]:
        """The window, set right by what it shows, and what it says of the presence [B, 1] of an object."""
        found = self.corrector(left, shift_loc, scale_loc, context)
        # The spread is one of positions on the canvas; the latent's is that over the slope of tanh.
        slope = tf.maximum(1.0 - tf.square(tf.tanh(shift_loc)), LEAST_SLOPE)
        shift_log_scale = _at_least(self.log_spread + found.shift_spread, self.least_shift_spread) - tf.math.log(slope)
        scale_log_scale = _at_least(math.log(_SCALE_SPREAD) + found.scale_spread, self.least_scale_spread)
        shift_loc, scale_loc = shift_loc + found.moved, scale_loc + found.resized
        decision = Decision(
            shift_loc,
            shift_log_scale,
            scale_loc,
            scale_log_scale,
            sampled(shift_loc, shift_log_scale, shift_noise),
            sampled(scale_loc, scale_log_scale, scale_noise),
        )
        return decision, found.presence

    def describe(self, glimpses: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """See `Recognition.describe`."""
        flat = tf.reshape(glimpses, [-1, math.prod(glimpses.shape[1:])])
        loc, log_scale = tf.split(tf.cast(self.encoder(flat), tf.float32), 2, axis=-1)
        return loc, log_scale


def _at_least(log_scale: tf.Tensor, least: float) -> tf.Tensor:
    """The log standard deviation of a normal to which independent noise of another standard deviation is added."""
    return log_scale if least == 0.0 else math.log(least) + 0.5 * tf.nn.softplus(2.0 * (log_scale - math.log(least)))
