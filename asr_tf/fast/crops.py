"""Reads windows and draws objects by TensorFlow's kernel for bilinear crops, where XLA doesn't compile the graph.

The numbers are those of `asr_tf.imaging.spatial_transformer`, whose products XLA compiles and differentiates.  The
kernel looks only at the four values around each point, but neither XLA nor LiteRT has it.
"""

from __future__ import annotations

import numpy as np
import tensorflow as tf

from asr_tf.imaging.spatial_transformer import interpolate

__all__ = ["interpolate_evenly", "write_in_boxes"]


def interpolate_evenly(
    values: tf.Tensor,
    index: tf.Tensor,
    first: tf.Tensor,
    last: tf.Tensor,
    size: tuple[int, int],
    portable: bool = False,
) -> tf.Tensor:
    """Bilinear interpolation at the crossings of evenly spaced rows and columns; zero outside the values.

    Args:
        values: float32 [M, P, Q].
        index: int32 [N], which of the values.
        first, last: float32 [N, 2], the first and last row and column, in indices of the values.
        size: how many rows and columns.
        portable: whether to do with products instead of the kernel.

    Returns:
        float32 [N, *size].
    """
    if portable:
        steps = (last - first) / tf.constant([max(number - 1.0, 1.0) for number in size])
        lines = (first[:, i, None] + steps[:, i, None] * np.arange(n, dtype=np.float32) for i, n in enumerate(size))
        return interpolate(tf.gather(values, index), *lines)
    # A zero around all, for the fall-off beyond the edges, and more, so that the kernel's positions, which are
    # shares of the extent, are powers of two times ours: rounding them twice would cost a digit.
    sides = values.shape[1:].as_list()
    intervals = [1 << side.bit_length() for side in sides]
    around = [(1, interval - side) for interval, side in zip(intervals, sides, strict=True)]
    padded = tf.pad(values, [(0, 0), *around])[..., tf.newaxis]
    boxes = tf.concat([(first + 1.0) / intervals, (last + 1.0) / intervals], -1)
    boxes = tf.where(tf.math.is_finite(boxes), boxes, -1.0)  # the kernel reads anywhere in memory for NaN
    return tf.squeeze(tf.image.crop_and_resize(padded, boxes, index, size), -1)


def write_in_boxes(
    objects: tf.Tensor, boxes: tf.Tensor, canvas_size: tuple[int, int], portable: bool = False
) -> tf.Tensor:
    """Draws each object on a canvas of its own, so that it fills its box.

    Args:
        objects: float32 [N, G, G].
        boxes: float32 [N, 4], `[ymin, xmin, ymax, xmax]` as fractions of the canvas.
        canvas_size: (H, W) in pixels.
        portable: as for `interpolate_evenly`.

    Returns:
        float32 [N, H, W], zero outside each object's box.
    """
    canvas = tf.constant(canvas_size, tf.float32)
    starts, ends = (edges * canvas for edges in tf.split(boxes, 2, axis=-1))  # upper left and lower right, (y, x)
    # Floor on the side: a box under a hundredth of a pixel would divide by nothing.
    parts_per_pixel = float(objects.shape[-1]) / tf.maximum(ends - starts, 1e-2)
    first, last = ((pixel - starts) * parts_per_pixel - 0.5 for pixel in (0.5, canvas - 0.5))
    return interpolate_evenly(objects, tf.range(tf.shape(objects)[0]), first, last, canvas_size, portable)
