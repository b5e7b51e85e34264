"""Observation models p(x | canvas): how the drawn canvas becomes an image.

References:
    Eslami et al., arXiv:1603.08575; Xu et al., arXiv:1906.03923, section 2.1: Bernoulli or Gaussian pixels around the
    sum of the present objects.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import tensorflow as tf

from asr_tf.checks import check_choice, check_positive
from asr_tf.distributions.sums import pixel_sum, sum_to

__all__ = ["OBSERVATION_MODELS", "negative_log_likelihood"]

OBSERVATION_MODELS = ("bernoulli", "gaussian")

# Keeps log(1 - canvas) finite in float32, where 1 - 1e-8 is 1.
_CEILING = 1.0 - 1e-6


@tf.custom_gradient
def _bernoulli(
    images: tf.Tensor, means: tf.Tensor
) -> tuple[tf.Tensor, Callable[[tf.Tensor], tuple[tf.Tensor, tf.Tensor]]]:
    """-log p(x | mean), pixel by pixel, [..., H, W].  With respect to the means, its gradient takes one division."""

    def gradient(upstream: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        of_images = upstream * (tf.math.log(1.0 - means) - tf.math.log(means))
        of_means = upstream * (means - images) / (means * (1.0 - means))
        return sum_to(of_images, images), sum_to(of_means, means)

    return -(images * tf.math.log(means) + (1.0 - images) * tf.math.log(1.0 - means)), gradient


def negative_log_likelihood(
    images: tf.Tensor,
    canvases: tf.Tensor,
    observation: str = "bernoulli",
    *,
    background: float = 1e-6,
    scale: float = 0.3,
) -> tf.Tensor:
    """-log p(x | canvas), summed over pixels.

    The canvas, a sum of objects, is clipped to [background, 1 - 1e-6] (Bernoulli) or [0, 1] (Gaussian) first.

    Args:
        images: float32 [..., H, W] in [0, 1]; grey values count as soft Bernoulli outcomes.
        canvases: float32 [..., H, W], of a shape that broadcasts with the images'; H and W static.
        observation: "bernoulli" or "gaussian".
        background: Bernoulli mean of a pixel that nothing is drawn on.
        scale: standard deviation of the Gaussian.

    Returns:
        float32 [...], nats an image.

    Raises:
        ValueError: unknown observation model, or a scale or background that is not above zero.
    """
    check_choice("observation", observation, OBSERVATION_MODELS)
    if observation == "gaussian":
        check_positive("observation scale", scale)
        error = (images - tf.clip_by_value(canvases, 0.0, 1.0)) / scale
        pixels = 0.5 * tf.square(error) + (math.log(scale) + 0.5 * math.log(2.0 * math.pi))
    else:
        check_positive("background", background)
        pixels = _bernoulli(images, tf.clip_by_value(canvases, background, _CEILING))
    return pixel_sum(pixels)
