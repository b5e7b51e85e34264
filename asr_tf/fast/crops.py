"""Reads windows and draws objects by TensorFlow's kernel for bilinear crops, where XLA doesn't compile the graph.

The numbers are those of `asr_tf.imaging.windows`, whose products XLA compiles and differentiates.  The kernel looks
only at the four values around each point, but neither XLA nor LiteRT has it.
"""

from __future__ import annotations

import tensorflow as tf

__all__ = ["read_windows", "write_boxes"]


def read_windows(
    images: tf.Tensor, scenes: tf.Tensor, shift: tf.Tensor, scale: tf.Tensor, size: int
) -> tf.Tensor:
    """See `asr_tf.fast.read_windows`.

    Not by way of boxes: fractions of the canvas are rounded, and codes feel it in their sixth digit.
    """
    canvas_size = images.shape[1:3].as_list()
    half_extent = scale * (0.5 * min(canvas_size) * (1.0 - 1.0 / size))  # to the centres of the outer parts
    centre = (shift[:, ::-1] + 1.0) * (0.5 * tf.constant(canvas_size, tf.float32)) - 0.5
    return _crops(images, scenes, centre - half_extent, centre + half_extent, (size, size))


def write_boxes(contents: tf.Tensor, boxes: tf.Tensor, canvas_size: tuple[int, int]) -> tf.Tensor:
    """See `asr_tf.imaging.windows.write_boxes`; contents [N, G, G, C] and boxes [N, 4]."""
    canvas = tf.constant(canvas_size, tf.float32)
    starts, ends = (edges * canvas for edges in tf.split(boxes, 2, axis=-1))  # upper left and lower right, (y, x)
    # Floor on the side: a box under a hundredth of a pixel would divide by nothing.
    parts_per_pixel = float(contents.shape[1]) / tf.maximum(ends - starts, 1e-2)
    first, last = ((pixel - starts) * parts_per_pixel - 0.5 for pixel in (0.5, canvas - 0.5))
    return _crops(contents, tf.range(tf.shape(contents)[0]), first, last, canvas_size)


def _crops(
    values: tf.Tensor, index: tf.Tensor, first: tf.Tensor, last: tf.Tensor, size: tuple[int, int]
) -> tf.Tensor:
    """Bilinear interpolation at the crossings of evenly spaced rows and columns; zero outside the values.

    Args:
        values: float32 [M, P, Q, C].
        index: int32 [N], which of the values.
        first, last: float32 [N, 2], the first and last row and column, in indices of the values.
        size: how many rows and columns.

    Returns:
        float32 [N, *size, C].
    """
    # A zero around all, for the fall-off beyond the edges, and more, so that the kernel's positions, which are
    # shares of the extent, are powers of two times ours: rounding them twice would cost a digit.
    sides = values.shape[1:3].as_list()
    intervals = [1 << side.bit_length() for side in sides]
    around = [(1, interval - side) for interval, side in zip(intervals, sides, strict=True)]
    padded = tf.pad(values, [(0, 0), *around, (0, 0)])
    boxes = (tf.concat([first, last], -1) + 1.0) / (2 * intervals)  # of both corners
    boxes = tf.where(tf.math.is_finite(boxes), boxes, -1.0)  # the kernel reads anywhere in memory for NaN
    return tf.image.crop_and_resize(padded, boxes, index, size)
