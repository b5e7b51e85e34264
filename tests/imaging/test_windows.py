"""Reading and writing against slow loops over pixels, and their gradients against finite differences."""

import numpy as np
import pytest
import tensorflow as tf

from asr_tf.imaging.windows import interpolate, read_windows, without_windows, write_boxes
from asr_tf.scene import window_boxes

CANVASES = [(30, 30), (12, 17), (20, 9)]


def slow_interpolate(values, rows, columns):
    """Bilinear interpolation of values [P, Q, C] at crossings, one by one; zero outside them."""
    result = np.zeros((len(rows), len(columns), values.shape[-1]))
    for i, y in enumerate(rows):
        for j, x in enumerate(columns):
            for row in (int(np.floor(y)), int(np.floor(y)) + 1):
                for column in (int(np.floor(x)), int(np.floor(x)) + 1):
                    if 0 <= row < values.shape[0] and 0 <= column < values.shape[1]:
                        result[i, j] += (1 - abs(y - row)) * (1 - abs(x - column)) * values[row, column]
    return result


def corner_and_side(shift, scale, canvas_size):
    """Upper left corner (y, x) and side of a window, in pixels."""
    (height, width), side = canvas_size, scale * min(canvas_size)
    return (shift[1] + 1) / 2 * height - side / 2, (shift[0] + 1) / 2 * width - side / 2, side


def slow_read(image, shift, scale, size):
    """The image at the centres of the window's parts."""
    top, left, side = corner_and_side(shift, scale, image.shape[:2])
    parts = (np.arange(size) + 0.5) * side / size - 0.5
    return slow_interpolate(image, top + parts, left + parts)


def slow_write(content, box, canvas_size):
    """The content at the canvas' pixel centres."""
    lines = []
    for axis, size in enumerate(canvas_size):
        start, end = box[axis] * size, box[axis + 2] * size
        lines.append((np.arange(size) + 0.5 - start) * len(content) / (end - start) - 0.5)
    return slow_interpolate(content, *lines)


def windows(rng, number, dtype=np.float32):
    """Windows within the canvas, beyond its edges, and larger than it."""
    shift, scale = rng.uniform(-1.1, 1.1, (number, 2)), rng.uniform(0.05, 1.5, (number, 1))
    return shift.astype(dtype), scale.astype(dtype)


def any_boxes(rng, number, dtype=np.float32):
    """Boxes that needn't be square."""
    low = rng.uniform(-0.4, 0.9, (number, 2))
    return np.concatenate([low, low + rng.uniform(0.02, 1.0, (number, 2))], -1).astype(dtype)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("canvas_size", CANVASES)
def test_read_equals_slow_bilinear_reference(canvas_size, channels):
    rng = np.random.default_rng(0)
    images = rng.uniform(size=(6, *canvas_size, channels)).astype(np.float32)
    shift, scale = windows(rng, 6)
    found = read_windows(tf.constant(images), tf.constant(shift), tf.constant(scale), 8)
    expected = [slow_read(*args, 8) for args in zip(images, shift, scale[:, 0], strict=True)]
    np.testing.assert_allclose(found, expected, atol=2e-5)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("canvas_size", CANVASES)
def test_write_equals_slow_bilinear_reference(canvas_size, channels):
    rng = np.random.default_rng(1)
    contents = rng.uniform(size=(8, 7, 7, channels)).astype(np.float32)
    square = window_boxes(*(tf.constant(part) for part in windows(rng, 4)), canvas_size)
    boxes = np.concatenate([square, any_boxes(rng, 4)])
    found = write_boxes(tf.constant(contents), tf.constant(boxes), canvas_size)
    expected = [slow_write(*args, canvas_size) for args in zip(contents, boxes, strict=True)]
    np.testing.assert_allclose(found, expected, atol=5e-5)


@pytest.mark.parametrize("channels", [1, 3])
def test_a_window_on_pixel_borders_copies_exactly(channels):
    image = np.random.default_rng(2).uniform(size=(1, 50, 50, channels)).astype(np.float32)
    # Centre (x, y) = (25, 20) px, side 10 px: columns 20..29, rows 15..24.
    shift, scale = tf.constant([[0.0, -0.2]]), tf.constant([[0.2]])
    glimpse = read_windows(tf.constant(image), shift, scale, 10)
    np.testing.assert_allclose(glimpse[0], image[0, 15:25, 20:30], atol=1e-5)
    canvas = write_boxes(glimpse, window_boxes(shift, scale, (50, 50)), (50, 50)).numpy()
    np.testing.assert_allclose(canvas[0, 15:25, 20:30], image[0, 15:25, 20:30], atol=1e-5)
    canvas[0, 15:25, 20:30] = 0.0
    np.testing.assert_allclose(canvas, np.zeros_like(canvas), atol=1e-5)


@pytest.mark.parametrize("canvas_size", CANVASES)
def test_write_after_read_restores_the_region(canvas_size):
    """A smooth image, read at twice its resolution, comes back inside the window."""
    rows, columns = np.mgrid[: canvas_size[0], : canvas_size[1]]
    waves = 0.3 * np.sin(rows / 4.0) * np.cos(columns / 5.0)
    image = np.stack([0.5 + waves, 0.4 - waves, 0.5 * waves], -1).astype(np.float32)
    shift, scale = np.float32([[0.1, -0.07]]), np.float32([[0.6]])
    glimpse = read_windows(tf.constant(image[None]), shift, scale, 2 * min(canvas_size))
    canvas = write_boxes(glimpse, window_boxes(shift, scale, canvas_size), canvas_size)[0].numpy()
    top, left, side = corner_and_side(shift[0], scale[0, 0], canvas_size)
    inside = np.s_[int(top) + 2 : int(top + side) - 1, int(left) + 2 : int(left + side) - 1]
    assert canvas[inside].size > 12
    np.testing.assert_allclose(canvas[inside], image[inside], atol=0.01)


def test_what_is_outside_is_black():
    image, far, scale = tf.ones([2, 9, 9, 3]), tf.constant([[2.5, 0.0], [0.0, -2.5]]), tf.fill([2, 1], 0.4)
    np.testing.assert_array_equal(read_windows(image, far, scale, 5), np.zeros((2, 5, 5, 3)))
    boxes = window_boxes(far, scale, (9, 9))
    np.testing.assert_array_equal(write_boxes(tf.ones([2, 5, 5, 3]), boxes, (9, 9)), np.zeros((2, 9, 9, 3)))


def assert_gradients_are_slopes(function, *arguments):
    """Of a weighted sum of the result, by each number of the arguments (float64)."""
    arguments = [tf.constant(argument, tf.float64) for argument in arguments]
    with tf.GradientTape() as tape:
        tape.watch(arguments)
        result = function(*arguments)
        weights = np.random.default_rng(9).normal(size=result.shape)
        total = tf.reduce_sum(weights * result)
    step = 1e-6
    for index, gradient in enumerate(tape.gradient(total, arguments)):
        slopes = np.zeros(gradient.shape)
        for place in np.ndindex(*gradient.shape):
            moved = np.zeros(gradient.shape)
            moved[place] = step
            high, low = (
                np.sum(weights * function(*(a + sign * moved if i == index else a for i, a in enumerate(arguments))))
                for sign in (1.0, -1.0)
            )
            slopes[place] = (high - low) / (2.0 * step)
        assert np.abs(slopes).max() > 0.1
        np.testing.assert_allclose(gradient, slopes, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("size", [3, 8])  # fewer values than the image has, and more
def test_gradients_of_interpolation_equal_finite_differences(size):
    rng = np.random.default_rng(3)
    lines = rng.uniform(-1.5, 6.5, (2, size)), rng.uniform(-1.5, 5.5, (2, 4))
    assert_gradients_are_slopes(interpolate, rng.uniform(size=(2, 6, 5)), *lines)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("size", [3, 8])
def test_gradients_of_reading_equal_finite_differences(size, channels):
    rng = np.random.default_rng(4)
    images = rng.uniform(size=(2, 5, 7, channels))
    places = rng.uniform(-0.8, 0.8, (2, 2)), rng.uniform(0.3, 1.2, (2, 1))
    assert_gradients_are_slopes(lambda *args: read_windows(*args, size), images, *places)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("canvas_size", [(4, 3), (7, 9)])
def test_gradients_of_writing_equal_finite_differences(canvas_size, channels):
    rng = np.random.default_rng(5)
    contents, boxes = rng.uniform(size=(2, 5, 5, channels)), any_boxes(rng, 2, np.float64)
    boxes[:, 2:] += 0.2
    assert_gradients_are_slopes(lambda *args: write_boxes(*args, canvas_size), contents, boxes)


@pytest.mark.parametrize("channels", [1, 3])
def test_leading_axes_broadcast_and_their_gradients_are_summed(channels):
    rng = np.random.default_rng(6)
    images = tf.constant(rng.uniform(size=(2, 1, 10, 11, channels)), tf.float32)
    shift = tf.constant(rng.uniform(-0.5, 0.5, (2, 3, 2)), tf.float32)
    scale = tf.constant(rng.uniform(0.2, 0.8, (2, 3, 1)), tf.float32)
    results = []
    for repeats in (1, 3):
        with tf.GradientTape() as tape:
            tape.watch([images, shift])
            found = read_windows(tf.repeat(images, repeats, axis=1), shift, scale, 5)
            total = tf.reduce_sum(tf.square(found))
        results.append([found, *tape.gradient(total, [images, shift])])
    assert results[0][0].shape == (2, 3, 5, 5, channels)
    np.testing.assert_allclose(
        results[0][0][1, 2], slow_read(images[1, 0].numpy(), shift[1, 2].numpy(), scale[1, 2, 0].numpy(), 5), atol=2e-5
    )
    for value, expected in zip(*results, strict=True):
        np.testing.assert_allclose(value, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("channels", [1, 3])
def test_compiled_and_not_for_any_number_of_images(channels):
    rng = np.random.default_rng(7)
    images = rng.uniform(size=(3, 12, 9, channels)).astype(np.float32)
    shift, scale = windows(rng, 3)

    def read_and_write(images, shift, scale):
        with tf.GradientTape() as tape:
            tape.watch([images, shift, scale])
            seen = read_windows(images, shift, scale, 6)
            written = write_boxes(tf.square(seen), window_boxes(shift, scale, (12, 9)), (12, 9))
            total = tf.reduce_sum(written * images)
        return written, *tape.gradient(total, [images, shift, scale])

    specs = [tf.TensorSpec([None, *part.shape[1:]], tf.float32) for part in (images, shift, scale)]
    compiled = tf.function(read_and_write, jit_compile=True, input_signature=specs)
    expected = read_and_write(*(tf.constant(part) for part in (images, shift, scale)))
    for value, wanted in zip(compiled(images, shift, scale), expected, strict=True):
        np.testing.assert_allclose(value, wanted, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("side", [0.0, 1e-12, 1e-4])
def test_boxes_of_next_to_no_size_stay_finite(side):
    boxes = tf.constant([[0.4, 0.4, 0.4 + side, 0.4 + side]])
    contents = tf.ones([1, 5, 5, 1])
    with tf.GradientTape() as tape:
        tape.watch([boxes, contents])
        written = write_boxes(contents, boxes, (10, 10))
    for value in (written, *tape.gradient(written, [boxes, contents])):
        assert np.isfinite(value).all()
    assert np.min(written) >= 0.0 and np.max(written) <= 1.0


def slow_share_left(canvas_size, shift, scale):
    """[H, W], the share of each pixel that lies outside the window."""
    top, left, side = corner_and_side(shift, scale, canvas_size)
    rest = np.ones(canvas_size)
    for i, j in np.ndindex(*canvas_size):
        high = max(0.0, min(i + 1.0, top + side) - max(i, top))
        wide = max(0.0, min(j + 1.0, left + side) - max(j, left))
        rest[i, j] -= high * wide
    return rest


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("canvas_size", CANVASES)
def test_without_windows_keeps_the_share_of_each_pixel_outside(canvas_size, channels):
    rng = np.random.default_rng(8)
    images = rng.uniform(size=(5, *canvas_size, channels)).astype(np.float32)
    shift, scale = windows(rng, 5)
    scale = np.maximum(scale, 1.5 / min(canvas_size)).astype(np.float32)  # over a pixel wide
    shares = [slow_share_left(canvas_size, *args) for args in zip(shift, scale[:, 0], strict=True)]
    shares = np.array(shares)[..., np.newaxis]
    given = [tf.constant(part) for part in (images, shift, scale)]
    with tf.GradientTape() as tape:
        tape.watch(given)
        found = without_windows(*given)
    np.testing.assert_allclose(found, images * shares, atol=1e-5)
    by_images, *by_windows = tape.gradient(found, given)
    np.testing.assert_allclose(by_images, np.broadcast_to(shares, images.shape), atol=1e-5)
    assert by_windows == [None, None]
