"""Reading and writing against slow loops over pixels."""

import numpy as np
import pytest
import tensorflow as tf
from asr_tf.imaging.spatial_transformer import read_glimpses, write_objects

from asr_tf.fast.crops import write_in_boxes
from asr_tf.scene import window_boxes

CANVASES = [(50, 50), (12, 17), (20, 9)]


def corner_and_side(shift, scale, canvas_size):
    height, width = canvas_size
    side = scale * min(height, width)
    return (shift[1] + 1) / 2 * height - side / 2, (shift[0] + 1) / 2 * width - side / 2, side


def slow_read(image, shift, scale, glimpse_size):
    """Bilinear samples at the centres of the window's parts, zero outside the image."""
    top, left, side = corner_and_side(shift, scale, image.shape)
    glimpse = np.zeros((glimpse_size, glimpse_size))
    for i in range(glimpse_size):
        for j in range(glimpse_size):
            y = top + (i + 0.5) * side / glimpse_size - 0.5
            x = left + (j + 0.5) * side / glimpse_size - 0.5
            for row in (int(np.floor(y)), int(np.floor(y)) + 1):
                for column in (int(np.floor(x)), int(np.floor(x)) + 1):
                    if 0 <= row < image.shape[0] and 0 <= column < image.shape[1]:
                        weight = (1 - abs(y - row)) * (1 - abs(x - column))
                        glimpse[i, j] += weight * image[row, column]
    return glimpse


def slow_write(thing, shift, scale, canvas_size):
    """Bilinear samples of the object at the canvas' pixel centres, zero outside the object."""
    top, left, side = corner_and_side(shift, scale, canvas_size)
    size = thing.shape[0]
    canvas = np.zeros(canvas_size)
    for row in range(canvas_size[0]):
        for column in range(canvas_size[1]):
            y = (row + 0.5 - top) * size / side - 0.5
            x = (column + 0.5 - left) * size / side - 0.5
            for i in (int(np.floor(y)), int(np.floor(y)) + 1):
                for j in (int(np.floor(x)), int(np.floor(x)) + 1):
                    if 0 <= i < size and 0 <= j < size:
                        canvas[row, column] += (1 - abs(y - i)) * (1 - abs(x - j)) * thing[i, j]
    return canvas


def windows(rng, n):
    return rng.uniform(-1.1, 1.1, (n, 2)).astype(np.float32), rng.uniform(0.05, 0.95, (n, 1)).astype(
        np.float32
    )


@pytest.mark.parametrize("canvas_size", CANVASES)
def test_read_equals_slow_bilinear_reference(canvas_size):
    rng = np.random.default_rng(0)
    images = rng.uniform(size=(6, *canvas_size)).astype(np.float32)
    shift, scale = windows(rng, 6)
    glimpses = read_glimpses(tf.constant(images), shift, scale, 8).numpy()
    expected = [slow_read(*args, 8) for args in zip(images, shift, scale[:, 0], strict=True)]
    np.testing.assert_allclose(glimpses, expected, atol=2e-5)


@pytest.mark.parametrize("canvas_size", CANVASES)
def test_write_equals_slow_bilinear_reference(canvas_size):
    rng = np.random.default_rng(1)
    objects = rng.uniform(size=(6, 7, 7)).astype(np.float32)
    shift, scale = windows(rng, 6)
    written = write_objects(tf.constant(objects), shift, scale, canvas_size).numpy()
    expected = [
        slow_write(*args, canvas_size) for args in zip(objects, shift, scale[:, 0], strict=True)
    ]
    np.testing.assert_allclose(written, expected, atol=2e-5)
    boxes = window_boxes(tf.constant(shift), tf.constant(scale), canvas_size)
    for portable in (False, True):
        cropped = write_in_boxes(tf.constant(objects), boxes, canvas_size, portable).numpy()
        np.testing.assert_allclose(cropped, expected, atol=2e-5)


def test_a_window_on_pixel_borders_copies_exactly():
    image = np.random.default_rng(2).uniform(size=(1, 50, 50)).astype(np.float32)
    # Centre (x, y) = (25, 20) px, side 10 px: columns 20..29, rows 15..24.
    shift = np.array([[0.0, -0.2]], np.float32)
    scale = np.array([[0.2]], np.float32)
    glimpse = read_glimpses(tf.constant(image), shift, scale, 10)
    np.testing.assert_allclose(glimpse[0], image[0, 15:25, 20:30], atol=1e-5)
    canvas = write_objects(glimpse, shift, scale, (50, 50)).numpy()
    np.testing.assert_allclose(canvas[0, 15:25, 20:30], image[0, 15:25, 20:30], atol=1e-5)
    canvas[0, 15:25, 20:30] = 0.0
    np.testing.assert_allclose(canvas, 0.0, atol=1e-5)


@pytest.mark.parametrize("canvas_size", CANVASES)
def test_write_after_read_restores_the_region(canvas_size):
    """A smooth image, read at twice its resolution, comes back inside the window."""
    height, width = canvas_size
    rows, columns = np.mgrid[:height, :width]
    image = (0.5 + 0.3 * np.sin(rows / 4.0) * np.cos(columns / 5.0)).astype(np.float32)[None]
    shift = np.array([[0.1, -0.07]], np.float32)
    scale = np.array([[0.6]], np.float32)
    glimpse = read_glimpses(tf.constant(image), shift, scale, 2 * min(canvas_size))
    canvas = write_objects(glimpse, shift, scale, canvas_size).numpy()[0]
    top, left, side = corner_and_side(shift[0], scale[0, 0], canvas_size)
    inside = np.s_[int(top) + 2 : int(top + side) - 1, int(left) + 2 : int(left + side) - 1]
    assert canvas[inside].size > 4
    np.testing.assert_allclose(canvas[inside], image[0][inside], atol=0.01)


def test_gradients_equal_finite_differences():
    rng = np.random.default_rng(3)
    image = tf.constant(rng.uniform(size=(1, 12, 14)))
    thing = tf.constant(rng.uniform(size=(1, 6, 6)))
    target = tf.constant(rng.uniform(size=(1, 12, 14)))
    where = np.array([[0.13, -0.21, 0.57]])

    def loss(values):
        shift, scale = values[:, :2], values[:, 2:]
        drawn = write_objects(thing, shift, scale, (12, 14))
        return tf.reduce_sum(tf.square(drawn - target)) + tf.reduce_sum(
            tf.square(read_glimpses(image, shift, scale, 6) - thing)
        )

    values = tf.constant(where)
    with tf.GradientTape() as tape:
        tape.watch(values)
        total = loss(values)
    gradient = tape.gradient(total, values).numpy()[0]
    for i in range(3):
        step = np.zeros_like(where)
        step[0, i] = 1e-6
        slope = (loss(tf.constant(where + step)) - loss(tf.constant(where - step))) / 2e-6
        np.testing.assert_allclose(gradient[i], slope, rtol=1e-4)


def test_leading_axes_broadcast():
    rng = np.random.default_rng(4)
    image = rng.uniform(size=(2, 1, 10, 10)).astype(np.float32)
    shift = rng.uniform(-0.5, 0.5, (2, 3, 2)).astype(np.float32)
    scale = rng.uniform(0.2, 0.8, (2, 3, 1)).astype(np.float32)
    glimpses = read_glimpses(tf.constant(image), shift, scale, 5)
    assert glimpses.shape == (2, 3, 5, 5)
    np.testing.assert_allclose(
        glimpses[1, 2], slow_read(image[1, 0], shift[1, 2], scale[1, 2, 0], 5), atol=2e-5
    )
