"""Reads glimpses from images and writes objects to the canvas, for axis-aligned square windows.

Bilinear interpolation on an axis-aligned window is separable: the weight of a pixel is the product of one hat function
an axis.  Reading and writing are therefore two small matrix products each: no gather, no scatter.  So are their
gradients, which are written out below: the derivative of an interpolated image with respect to a row's position is the
same interpolation with the hat's slope in place of the hat.

Positions are continuous and in pixels; pixel i covers [i, i + 1) and its value sits at its centre, i + 1/2.  The G
values of a glimpse sit at the centres of G equal parts of the window.  What lies outside the image, or outside the
window when writing, is zero, with the bilinear fall-off of half a pixel's width around the edge.

References:
    Jaderberg et al., "Spatial Transformer Networks", NIPS 2015, arXiv:1506.02025, section 3.3 (bilinear kernel).
    Eslami et al., "Attend, Infer, Repeat", NIPS 2016, arXiv:1603.08575, section 2.2.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import tensorflow as tf

from asr_tf.distributions.sums import sum_to

__all__ = ["interpolate", "read_glimpses", "write_objects"]


def _window_starts_and_sides(
    shift: tf.Tensor, scale: tf.Tensor, canvas_size: tuple[int, int]
) -> tuple[tf.Tensor, tf.Tensor]:
    """Window's upper left corner [..., 2] as (x, y) and side [..., 1], in pixels."""
    height, width = canvas_size
    side = scale * float(min(height, width))
    extent = tf.constant([float(width), float(height)], shift.dtype)
    return (shift + 1.0) / 2.0 * extent - side / 2.0, side


def _line(offset: tf.Tensor, slope: tf.Tensor, points: tf.Tensor) -> tf.Tensor:
    """offset + slope * points, [..., 1] and [N] to [..., N], as a product, so that its gradient is one too."""
    return tf.tensordot(tf.concat([offset, slope], -1), tf.stack([tf.ones_like(points), points]), 1)


def _hat(distance: tf.Tensor) -> tf.Tensor:
    return tf.nn.relu(1.0 - tf.abs(distance))


def _slope(distance: tf.Tensor) -> tf.Tensor:
    """Derivative of the hat; at its top that of the right side."""
    one = tf.ones([], distance.dtype)
    return tf.where(tf.abs(distance) < 1.0, tf.where(distance < 0.0, one, -one), 0.0)


@tf.custom_gradient
def interpolate(
    values: tf.Tensor, rows: tf.Tensor, columns: tf.Tensor
) -> tuple[tf.Tensor, Callable[[tf.Tensor], tuple[tf.Tensor, tf.Tensor, tf.Tensor]]]:
    """Bilinear interpolation at the crossings of some rows and columns; zero outside the values.

    Every product, those of the gradient included, has both factors in the order in which they lie in memory: batches of
    small products with a transposed factor take two to four times as long.

    Args:
        values: float [..., P, Q].
        rows: float [..., M], where, in indices along P; fractions lie between two values.
        columns: float [..., N], likewise along Q.

    Returns:
        float [..., M, N].
    """
    height, width = values.shape[-2:]
    # Half a pixel more on both sides of each difference: XLA makes integers of a range that starts at 0, and converts
    # them to floats one by one.
    rows, columns = rows + 0.5, columns + 0.5
    across, along = (tf.constant(np.arange(size) + 0.5, values.dtype) for size in (height, width))

    def distance_of_rows() -> tf.Tensor:
        return rows[..., :, tf.newaxis] - across  # [..., M, P]

    def distance_of_columns() -> tf.Tensor:
        return columns[..., tf.newaxis, :] - along[:, tf.newaxis]  # [..., Q, N]

    by_row = tf.matmul(_hat(distance_of_rows()), values)  # [..., M, Q]

    def gradient(upstream: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        hats_of_rows = _hat(rows[..., tf.newaxis, :] - across[:, tf.newaxis])  # [..., P, M]
        hats_of_columns = _hat(columns[..., :, tf.newaxis] - along)  # [..., N, Q]
        of_by_row = tf.matmul(upstream, hats_of_columns)  # [..., M, Q]
        moved_rows = tf.matmul(_slope(distance_of_rows()), values)  # [..., M, Q]
        # What moving a column changes is summed over rows: of the result, or of the values if these are fewer.
        if rows.shape[-1] > height:
            along_columns = tf.matmul(hats_of_rows, upstream)  # [..., P, N]
            moved_columns = tf.matmul(values, _slope(distance_of_columns()))
        else:
            along_columns = upstream  # [..., M, N]
            moved_columns = tf.matmul(by_row, _slope(distance_of_columns()))
        return (
            sum_to(tf.matmul(hats_of_rows, of_by_row), values),
            sum_to(tf.reduce_sum(of_by_row * moved_rows, axis=-1), rows),
            sum_to(tf.reduce_sum(along_columns * moved_columns, axis=-2), columns),
        )

    return tf.matmul(by_row, _hat(distance_of_columns())), gradient


def read_glimpses(
    images: tf.Tensor, shift: tf.Tensor, scale: tf.Tensor, glimpse_size: int
) -> tf.Tensor:
    """Reads a glimpse from each image.

    Args:
        images: float [..., H, W], of a shape that broadcasts with the windows'; H and W static.
        shift: float [..., 2], window centres (x, y) in canvas units, -1 to 1 across the canvas.
        scale: float [..., 1], window side / shorter canvas side.
        glimpse_size: G in pixels.

    Returns:
        float [..., G, G].
    """
    start, side = _window_starts_and_sides(shift, scale, (images.shape[-2], images.shape[-1]))
    centres = (tf.range(glimpse_size, dtype=shift.dtype) + 0.5) / glimpse_size
    columns, rows = (_line(start[..., i : i + 1] - 0.5, side, centres) for i in range(2))
    return interpolate(images, rows, columns)


def write_objects(
    objects: tf.Tensor, shift: tf.Tensor, scale: tf.Tensor, canvas_size: tuple[int, int]
) -> tf.Tensor:
    """Writes each object to a canvas of its own.

    Args:
        objects: float [..., G, G].
        shift: float [..., 2], window centres (x, y) in canvas units, -1 to 1 across the canvas.
        scale: float [..., 1], window side / shorter canvas side.
        canvas_size: (H, W) in pixels.

    Returns:
        float [..., H, W], zero outside each object's window.
    """
    start, side = _window_starts_and_sides(shift, scale, canvas_size)
    # Floor on the side: a window under a hundredth of a pixel would divide by nothing.
    parts_per_pixel = float(objects.shape[-1]) / tf.maximum(side, 1e-2)
    rows, columns = (
        _line(
            -start[..., axis : axis + 1] * parts_per_pixel - 0.5,
            parts_per_pixel,
            tf.range(size, dtype=shift.dtype) + 0.5,
        )
        for axis, size in ((1, canvas_size[0]), (0, canvas_size[1]))
    )
    return interpolate(objects, rows, columns)
