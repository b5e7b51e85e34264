"""Reads glimpses from images and writes objects to the canvas, for axis-aligned square windows.

Bilinear interpolation on an axis-aligned window is separable: the weight of a pixel is the product of one hat function
an axis.  Reading and writing are therefore two small matrix products each, and so are their gradients: no gather, no
scatter.

Positions are continuous and in pixels; pixel i covers [i, i + 1) and its value sits at its centre, i + 1/2.  The G
values of a glimpse sit at the centres of G equal parts of the window.  What lies outside the image, or outside the
window when writing, is zero, with the bilinear fall-off of half a pixel's width around the edge.

References:
    Jaderberg et al., "Spatial Transformer Networks", NIPS 2015, arXiv:1506.02025, section 3.3 (bilinear kernel).
    Eslami et al., "Attend, Infer, Repeat", NIPS 2016, arXiv:1603.08575, section 2.2.
"""

from __future__ import annotations

import tensorflow as tf

__all__ = ["read_glimpses", "read_weights", "write_objects", "write_weights"]


def _window_starts_and_sides(
    shift: tf.Tensor, scale: tf.Tensor, canvas_size: tuple[int, int]
) -> tuple[tf.Tensor, tf.Tensor]:
    """Window's upper left corner [..., 2] as (x, y) and side [..., 1], in pixels."""
    height, width = canvas_size
    side = scale * float(min(height, width))
    extent = tf.constant([float(width), float(height)], shift.dtype)
    return (shift + 1.0) / 2.0 * extent - side / 2.0, side


def _hat(distance: tf.Tensor) -> tf.Tensor:
    return tf.nn.relu(1.0 - tf.abs(distance))


def read_weights(
    shift: tf.Tensor, scale: tf.Tensor, canvas_size: tuple[int, int], glimpse_size: int
) -> tuple[tf.Tensor, tf.Tensor]:
    """Interpolation weights of `read_glimpses`, an axis each.

    Args:
        shift: float [..., 2], window centres (x, y) in canvas units, -1 to 1 across the canvas.
        scale: float [..., 1], window side / shorter canvas side.
        canvas_size: (H, W) in pixels.
        glimpse_size: G in pixels.

    Returns:
        float [..., G, H] and [..., G, W].
    """
    start, side = _window_starts_and_sides(shift, scale, canvas_size)
    parts = (tf.range(glimpse_size, dtype=shift.dtype) + 0.5) / glimpse_size
    weights = []
    for axis, size in ((1, canvas_size[0]), (0, canvas_size[1])):
        position = start[..., axis : axis + 1] + side * parts  # [..., G]
        centres = tf.range(size, dtype=shift.dtype) + 0.5
        weights.append(_hat(position[..., None] - centres))  # [..., G, size]
    return weights[0], weights[1]


def write_weights(
    shift: tf.Tensor, scale: tf.Tensor, canvas_size: tuple[int, int], glimpse_size: int
) -> tuple[tf.Tensor, tf.Tensor]:
    """Interpolation weights of `write_objects`, an axis each.

    Args: as for `read_weights`.

    Returns:
        float [..., H, G] and [..., W, G].
    """
    start, side = _window_starts_and_sides(shift, scale, canvas_size)
    # Floor on the side: a window under a hundredth of a pixel would divide by nothing.
    parts_per_pixel = float(glimpse_size) / tf.maximum(side, 1e-2)
    index = tf.range(glimpse_size, dtype=shift.dtype)
    weights = []
    for axis, size in ((1, canvas_size[0]), (0, canvas_size[1])):
        centres = tf.range(size, dtype=shift.dtype) + 0.5
        position = (centres - start[..., axis : axis + 1]) * parts_per_pixel - 0.5  # [..., size]
        weights.append(_hat(position[..., None] - index))  # [..., size, G]
    return weights[0], weights[1]


def read_glimpses(
    images: tf.Tensor, shift: tf.Tensor, scale: tf.Tensor, glimpse_size: int
) -> tf.Tensor:
    """Reads a glimpse from each image.

    Args:
        images: float [..., H, W], of a shape that broadcasts with the windows'; H and W static.
        shift: float [..., 2], window centres (x, y) in canvas units.
        scale: float [..., 1], window side / shorter canvas side.
        glimpse_size: G in pixels.

    Returns:
        float [..., G, G].
    """
    rows, columns = read_weights(shift, scale, (images.shape[-2], images.shape[-1]), glimpse_size)
    return tf.matmul(tf.matmul(rows, images), columns, transpose_b=True)


def write_objects(
    objects: tf.Tensor, shift: tf.Tensor, scale: tf.Tensor, canvas_size: tuple[int, int]
) -> tf.Tensor:
    """Writes each object to a canvas of its own.

    Args:
        objects: float [..., G, G].
        shift: float [..., 2], window centres (x, y) in canvas units.
        scale: float [..., 1], window side / shorter canvas side.
        canvas_size: (H, W) in pixels.

    Returns:
        float [..., H, W], zero outside each object's window.
    """
    rows, columns = write_weights(shift, scale, canvas_size, objects.shape[-1])
    return tf.matmul(tf.matmul(rows, objects), columns, transpose_b=True)
