"""Composition: how objects, each on a canvas of its own, and a background become one canvas.

References:
    Eslami et al., arXiv:1603.08575; Xu et al., arXiv:1906.03923, section 2.1: the clipped sum of the present objects.
"""

from __future__ import annotations

import abc
import itertools
from collections.abc import Callable
from typing import Any, NamedTuple

import gin
import tensorflow as tf

from asr_tf.scene import Part

__all__ = ["Composition", "Drawn", "Sum"]


_FAINT = 0.1  # brightness of the brightest pixel that an object has at least, if it is one
_BLACK = 5e-3  # a pixel on which objects draw less than that is the ground's, the more so the less they draw


class Drawn(NamedTuple):
    """Objects, in their windows or each on a canvas of its own.

    Attributes:
        colour: float [..., h, w, C] in [0, 1].
        mask: float [..., h, w, 1] in [0, 1], where an object has one; None where what isn't black is the object.
    """

    colour: Any
    mask: Any = None

    def map(self, function: Callable[[tf.Tensor], tf.Tensor]) -> Drawn:
        """The function of the colour and, where there is one, of the mask."""
        return Drawn(*(None if part is None else function(part) for part in self))


class Composition(Part, abc.ABC):
    """The contract of a composition."""

    @abc.abstractmethod
    def canvases(self, drawn: Drawn, background: tf.Tensor | None = None) -> tf.Tensor:
        """The canvases of the first k objects, k = 0..T.

        Args:
            drawn: of T steps on canvases, [B, T, H, W, ...].
            background: float [B, H, W, C], None for black.

        Returns:
            float [B, T + 1, H, W, C] in [0, 1].
        """

    @abc.abstractmethod
    def canvas(self, drawn: Drawn, presence: tf.Tensor, background: tf.Tensor | None = None) -> tf.Tensor:
        """The canvas of some of the objects.

        Args:
            drawn: of T steps on canvases, [B, T, H, W, ...].
            presence: float [B, T], 1 for a present object, 0 for an absent one; between, an object is fainter.
            background: float [B, H, W, C], None for black.

        Returns:
            float [B, H, W, C] in [0, 1].
        """

    def masks(
        self, drawn: Drawn, presence: tf.Tensor, images: tf.Tensor, background: tf.Tensor | None = None
    ) -> tf.Tensor:
        """Which object each pixel of an image shows.

        An object that has a mask covers pixels by it; where objects cover more than the whole pixel, they share it.
        Without masks, an object's share of a pixel follows from what is seen there: as much of the pixel as its
        brightness is of the object's brightest pixel is ink, and of that an object has its part of what is drawn.

        Args:
            drawn: of T steps on canvases, [B, T, H, W, ...].
            presence: float [B, T], as of `canvas`.
            images: float [B, H, W, C] in [0, 1].
            background: float [B, H, W, C], None for black.

        Returns:
            float [B, T, H, W, 1] in [0, 1], each object's share of each pixel; what is left is the background's.
        """
        presence = presence[:, :, tf.newaxis, tf.newaxis, tf.newaxis]
        if drawn.mask is not None:
            covered = presence * drawn.mask
            return covered / tf.maximum(tf.reduce_sum(covered, axis=1, keepdims=True), 1.0)
        brightness = presence * _brightness(drawn.colour)
        brightest = tf.maximum(tf.reduce_max(brightness, axis=(-3, -2), keepdims=True), _FAINT)
        seen, behind = (0.0 if x is None else _brightness(x)[:, tf.newaxis] for x in (images, background))
        in_all = tf.reduce_sum(brightness, axis=1, keepdims=True) + behind
        return tf.minimum(seen / brightest, 1.0) * brightness / tf.maximum(in_all, _BLACK)


@gin.register
class Sum(Composition):
    """The published composition: colours of present objects add up, on the background, and are clipped to [0, 1]."""

    def canvases(self, drawn: Drawn, background: tf.Tensor | None = None) -> tf.Tensor:
        """See `Composition.canvases`."""
        objects = tf.unstack(drawn.colour, axis=1)
        empty = tf.zeros_like(objects[0]) if background is None else background
        return _clipped(tf.stack(list(itertools.accumulate(objects, initial=empty)), axis=1))

    def canvas(self, drawn: Drawn, presence: tf.Tensor, background: tf.Tensor | None = None) -> tf.Tensor:
        """See `Composition.canvas`."""
        sums = tf.reduce_sum(presence[:, :, tf.newaxis, tf.newaxis, tf.newaxis] * drawn.colour, axis=1)
        return _clipped(sums if background is None else sums + background)


def _brightness(colour: tf.Tensor) -> tf.Tensor:
    """[..., C] to [..., 1], that of the brightest channel."""
    return colour if colour.shape[-1] == 1 else tf.reduce_max(colour, axis=-1, keepdims=True)


def _clipped(colour: tf.Tensor) -> tf.Tensor:
    return tf.clip_by_value(colour, 0.0, 1.0)
