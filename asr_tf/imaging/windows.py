"""Reads windows of images and writes windows to the canvas, for axis-aligned square windows.

Bilinear interpolation on an axis-aligned window is separable: the weight of a pixel is the product of one hat function
an axis.  Reading and writing are therefore two small matrix products each: no gather, no scatter.

Positions are continuous and in pixels; pixel i covers [i, i + 1) and its value sits at its centre, i + 1/2.  The G
values of a glimpse sit at the centres of G equal parts of the window.  What lies outside the image, or outside the
window when writing, is zero, with the bilinear fall-off of half a pixel's width around the edge.

References:
    Jaderberg et al., "Spatial Transformer Networks", NIPS 2015, arXiv:1506.02025, section 3.3 (bilinear kernel).
    Eslami et al., "Attend, Infer, Repeat", NIPS 2016, arXiv:1603.08575, section 2.2.
"""

from __future__ import annotations

import numpy as np
import tensorflow as tf

__all__ = ["interpolate", "read_windows", "without_windows", "write_boxes"]


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


def interpolate(values: tf.Tensor, rows: tf.Tensor, columns: tf.Tensor) -> tf.Tensor:
    """Bilinear interpolation at the crossings of some rows and columns; zero outside the values.

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
    across, along = (tf.constant(np.arange(size) + 0.5, values.dtype) for size in (height, width))
    of_rows = _hat((rows + 0.5)[..., :, tf.newaxis] - across)  # [..., M, P]
    of_columns = _hat((columns + 0.5)[..., tf.newaxis, :] - along[:, tf.newaxis])  # [..., Q, N]
    return tf.matmul(tf.matmul(of_rows, values), of_columns)


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
