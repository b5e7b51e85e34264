"""Attention: where on a canvas something of an object's size stands out that no window explains yet.

Places are the cells of a feature map.  How much something stands out there is a difference of two Gaussian means, of a
narrow and of a wide surrounding, which is largest in the middle of what is about as large as the narrow one.  It needs
no learning, so that windows lie on objects from the first training step on.

References:
    Lindeberg, "Feature detection with automatic scale selection", IJCV 1998 (differences of Gaussians find blobs).
    Koch and Ullman, "Shifts in selective visual attention", Human Neurobiology 1985 (one place wins).
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import tensorflow as tf

__all__ = ["Attention", "Place"]

# Standard deviations of the two Gaussians and of what counts as near a place, in sides of an object.
_NARROW, _WIDE, _NEAR = 0.2, 0.5, 1.0 / 3.0
# Of what stands out near the winner, a place with a tenth less counts 1/e.
_SHARPNESS = 10.0
# A canvas on which less stands out is empty: its middle is as good as any place.
_LEAST = 0.01


class Place(NamedTuple):
    """What won.

    Attributes:
        index: int64 [B], which place, row by row.
        centre: float32 [B, 2], (x, y) in canvas units, the mean position of what stands out around it.
        peak: float32 [B, 1], by how much it stands out.
    """

    index: tf.Tensor
    centre: tf.Tensor
    peak: tf.Tensor


class Attention:
    """Finds the place where most stands out."""

    def __init__(self, canvas_size: tuple[int, int], grid: tuple[int, int], stride: int, side_px: float) -> None:
        """Makes the constants.

        Args:
            canvas_size: (H, W) in pixels.
            grid: rows and columns of places; the first lies in the middle of the first `stride` x `stride` pixels.
            stride: pixels from place to place.
            side_px: the side of a typical object.
        """
        at = [(np.arange(number) + 0.5) * stride for number in grid]
        at = [np.minimum(points, size - 0.5) for points, size in zip(at, canvas_size, strict=True)]
        self._narrow, self._wide = (
            [_gaussian(points, size, share * side_px) for points, size in zip(at, canvas_size, strict=True)]
            for share in (_NARROW, _WIDE)
        )
        rows, columns = at
        points = np.stack(np.meshgrid(columns, rows), -1).reshape(-1, 2)  # [P, 2], (x, y) in pixels
        squares = np.square(points[:, np.newaxis] - points).sum(-1)
        self._near = np.exp(-0.5 * squares / (_NEAR * side_px) ** 2).astype(np.float32)
        self._centres = (2.0 * points / canvas_size[::-1] - 1.0).astype(np.float32)

    def __call__(self, ink: tf.Tensor) -> Place:
        """Finds where on each canvas most stands out; no gradient.

        Args:
            ink: float32 [B, H, W], what isn't explained yet, 0 where nothing is.
        """
        standing_out = tf.reshape(_means(ink, self._narrow) - _means(ink, self._wide), [-1, len(self._centres)])
        winner = tf.argmax(standing_out, axis=-1)
        peak = tf.reduce_max(standing_out, axis=-1, keepdims=True)
        weights = tf.gather(self._near, winner) * tf.exp(
            _SHARPNESS * (standing_out - peak) / tf.maximum(peak, _LEAST)
        )
        centre = tf.matmul(weights / tf.reduce_sum(weights, axis=-1, keepdims=True), self._centres)
        return Place(winner, *map(tf.stop_gradient, (centre, peak)))


def _gaussian(points: np.ndarray, size: int, stddev: float) -> np.ndarray:
    """Weights of pixels 0..size - 1 around each point, [N, size], whose sum is 1 where none are cut off."""
    away = np.arange(size) + 0.5 - points[:, np.newaxis]
    return (np.exp(-0.5 * np.square(away / stddev)) / (stddev * np.sqrt(2.0 * np.pi))).astype(np.float32)


def _means(ink: tf.Tensor, weights: list[np.ndarray]) -> tf.Tensor:
    """[B, H, W] to [B, rows, columns]."""
    rows, columns = weights
    return tf.matmul(tf.matmul(rows, ink), columns, transpose_b=True)
