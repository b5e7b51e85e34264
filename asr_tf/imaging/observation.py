"""Observation models p(x | canvas): how the composed canvas becomes an image.

References:
    Eslami et al., arXiv:1603.08575; Xu et al., arXiv:1906.03923, section 2.1: Bernoulli or Gaussian pixels around the
    canvas.
"""

from __future__ import annotations

import abc
import math

import gin
import tensorflow as tf
from tensorflow_probability import distributions as tfd

from asr_tf.checks import check_positive, check_range
from asr_tf.scene import Part

__all__ = ["BernoulliPixels", "GaussianPixels", "Observation"]

# Keeps log(1 - canvas) finite in float32, where 1 - 1e-8 is 1.
_MOST_MEAN = 1.0 - 1e-6


class Observation(Part, abc.ABC):
    """The contract of an observation model."""

    @abc.abstractmethod
    def __call__(self, canvas: tf.Tensor) -> tfd.Distribution:
        """The distribution over images, event shape [H, W, C], given a canvas float32 [..., H, W, C] in [0, 1]."""


class _IndependentPixels(tfd.Independent):
    """`tfd.Independent` over [H, W, C]; the sum over pixels is a product with ones: XLA's sums run on one core."""

    def _log_prob(self, value: tf.Tensor) -> tf.Tensor:
        each = self.distribution.log_prob(value)
        pixels = math.prod(each.shape[-3:])
        sums = tf.matmul(tf.reshape(each, [-1, pixels]), tf.ones([pixels, 1], each.dtype))
        return tf.reshape(sums, tf.shape(each)[:-3])


class _SoftBernoulli(tfd.Bernoulli):
    """Bernoulli variables whose outcomes may lie between 0 and 1, with means inside of that: no logarithm is infinite.

    (TFP's own takes care that 0 times infinity is 0, at a price in training.)
    """

    def _log_prob(self, event: tf.Tensor) -> tf.Tensor:
        return event * tf.math.log(self.probs) + (1.0 - event) * tf.math.log(1.0 - self.probs)


@gin.register
class BernoulliPixels(Observation):
    """Each pixel is a Bernoulli variable of the canvas; grey values count as soft outcomes."""

    def __init__(self, least_mean: float = 1e-6) -> None:
        """Initializes the observation model.

        Args:
            least_mean: mean of a pixel that nothing is drawn on, from 1e-6 to 0.5.

        Raises:
            ValueError: it is outside that range.
        """
        self.least_mean = check_range("BernoulliPixels.least_mean", least_mean, 1e-6, 0.5)

    def __call__(self, canvas: tf.Tensor) -> tfd.Distribution:
        """The distribution over images, event shape [H, W, C].

        Args:
            canvas: float32 [..., H, W, C] in [0, 1]; clipped to [least_mean, 1 - 1e-6].
        """
        probs = tf.clip_by_value(canvas, self.least_mean, _MOST_MEAN)
        return _IndependentPixels(_SoftBernoulli(probs=probs, dtype=probs.dtype), 3)


@gin.register
class GaussianPixels(Observation):
    """Each pixel is normal around the canvas."""

    def __init__(self, stddev: float = 0.3) -> None:
        """Initializes the observation model.

        Args:
            stddev: standard deviation in units of the pixel range [0, 1], above 0.

        Raises:
            ValueError: it isn't above 0.
        """
        self.stddev = check_positive("GaussianPixels.stddev", stddev)

    def __call__(self, canvas: tf.Tensor) -> tfd.Distribution:
        """The distribution over images, event shape [H, W, C], around a canvas float32 [..., H, W, C]."""
        return _IndependentPixels(tfd.Normal(canvas, self.stddev), 3)
