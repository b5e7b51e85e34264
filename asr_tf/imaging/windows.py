"""Reads windows of images and writes windows to the canvas, for axis-aligned square windows.

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

__all__ = ["interpolate", "read_windows", "without_windows", "write_boxes"]


def _sum_to(gradient: tf.Tensor, like: tf.Tensor) -> tf.Tensor:
    """Sums over the leading axes along which `like` was broadcast: to its shape."""
    if gradient.shape.is_fully_defined() and gradient.shape == like.shape:
        return gradient
    axes, _ = tf.raw_ops.BroadcastGradientArgs(s0=tf.shape(like), s1=tf.shape(gradient))
    return tf.reshape(tf.reduce_sum(gradient, axes), tf.shape(like))


def _channels_first(values: tf.Tensor) -> tf.Tensor:
    """[..., H, W, C] to [..., C, H, W]; where C is 1, nothing has to be moved."""
    if values.shape[-1] == 1:
        return tf.expand_dims(tf.squeeze(values, -1), -3)
    rank = values.shape.rank
    return tf.transpose(values, [*range(rank - 3), rank - 1, rank - 3, rank - 2])


def _channels_last(values: tf.Tensor) -> tf.Tensor:
    """[..., C, H, W] to [..., H, W, C]."""
    if values.shape[-3] == 1:
        return tf.expand_dims(tf.squeeze(values, -3), -1)
    rank = values.shape.rank
    return tf.transpose(values, [*range(rank - 3), rank - 2, rank - 1, rank - 3])


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
            _sum_to(tf.matmul(hats_of_rows, of_by_row), values),
            _sum_to(tf.reduce_sum(of_by_row * moved_rows, axis=-1), rows),
            _sum_to(tf.reduce_sum(along_columns * moved_columns, axis=-2), columns),
        )

    return tf.matmul(by_row, _hat(distance_of_columns())), gradient


def read_windows(images: tf.Tensor, shift: tf.Tensor, scale: tf.Tensor, size: int) -> tf.Tensor:
    """Reads what images show in windows.

    Args:
        images: float [..., H, W, C], of a shape that broadcasts with the windows'; H, W and C static.
        shift: float [..., 2], window centres (x, y) in canvas units, -1 to 1 across the canvas.
        scale: float [..., 1], window side / shorter canvas side.
        size: G in pixels.

    Returns:
        float [..., G, G, C].
    """
    start, side = _window_starts_and_sides(shift, scale, (images.shape[-3], images.shape[-2]))
    centres = (tf.range(size, dtype=shift.dtype) + 0.5) / size
    columns, rows = (_line(start[..., i : i + 1] - 0.5, side, centres)[..., tf.newaxis, :] for i in range(2))
    return _channels_last(interpolate(_channels_first(images), rows, columns))


def write_boxes(contents: tf.Tensor, boxes: tf.Tensor, canvas_size: tuple[int, int]) -> tf.Tensor:
    """Writes each content to a canvas of its own, so that it fills its box.

    Args:
        contents: float [..., G, G, C].
        boxes: float [..., 4], `[ymin, xmin, ymax, xmax]` as fractions of the canvas.
        canvas_size: (H, W) in pixels.

    Returns:
        float [..., H, W, C], zero outside each box.
    """
    lines = []
    for axis, size in enumerate(canvas_size):
        start, end = boxes[..., axis : axis + 1] * float(size), boxes[..., axis + 2 : axis + 3] * float(size)
        # Floor on the side: a box under a hundredth of a pixel would divide by nothing.
        parts_per_pixel = float(contents.shape[-2]) / tf.maximum(end - start, 1e-2)
        pixels = tf.range(size, dtype=boxes.dtype) + 0.5
        lines.append(_line(-start * parts_per_pixel - 0.5, parts_per_pixel, pixels)[..., tf.newaxis, :])
    return _channels_last(interpolate(_channels_first(contents), *lines))


def without_windows(images: tf.Tensor, shift: tf.Tensor, scale: tf.Tensor) -> tf.Tensor:
    """Images less what lies in one window each, by the shares of pixels that it covers.

    Args:
        images: float [B, H, W, C].
        shift: float [B, 2], window centres (x, y) in canvas units.
        scale: float [B, 1], window side / shorter canvas side; windows are over a pixel wide.

    Returns:
        float [B, H, W, C]; no gradient goes to the windows.
    """
    canvas_size = images.shape[1:3]
    half = 0.5 * min(canvas_size) * scale
    covered = []
    for size, centre in zip(canvas_size, (shift[:, 1:], shift[:, :1]), strict=True):
        away = tf.abs(np.arange(size, dtype=np.float32) + 0.5 - 0.5 * size * (1.0 + centre))
        covered.append(tf.clip_by_value(half - away + 0.5, 0.0, 1.0))
    left = 1.0 - covered[0][:, :, tf.newaxis] * covered[1][:, tf.newaxis]
    return images * tf.stop_gradient(left)[..., tf.newaxis]
