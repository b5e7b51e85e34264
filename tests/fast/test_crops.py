"""Reading and drawing by crops against the plain twins, for windows and boxes of every kind."""

import numpy as np
import pytest
import tensorflow as tf

from asr_tf.fast import crops
from asr_tf.imaging import windows
from asr_tf.scene import window_boxes

CANVASES = [(30, 30), (12, 17), (20, 9)]


def random_windows(rng, number, largest=0.95):
    shift, scale = rng.uniform(-1.1, 1.1, (number, 2)), rng.uniform(0.05, largest, (number, 1))
    return tf.constant(shift, tf.float32), tf.constant(scale, tf.float32)


@pytest.mark.parametrize("size", [1, 6, 28])
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("canvas_size", CANVASES)
def test_windows_are_read_as_plainly(canvas_size, channels, size):
    """Of images in any order; windows leave the canvas, or are larger."""
    rng = np.random.default_rng(0)
    images = tf.constant(rng.uniform(size=(3, *canvas_size, channels)), tf.float32)
    scenes = tf.constant([2, 0, 0, 1, 2, 2, 0, 1])
    shift, scale = random_windows(rng, 8, largest=2.5)
    found = crops.read_windows(images, scenes, shift, scale, size)
    assert found.shape == (8, size, size, channels)
    expected = windows.read_windows(tf.gather(images, scenes), shift, scale, size)
    np.testing.assert_allclose(found, expected, atol=2e-5)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("canvas_size", CANVASES)
def test_contents_of_windows_are_written_as_plainly(canvas_size, channels):
    rng = np.random.default_rng(1)
    contents = tf.constant(rng.uniform(size=(8, 7, 7, channels)), tf.float32)
    boxes = window_boxes(*random_windows(rng, 8, largest=2.5), canvas_size)
    found = crops.write_boxes(contents, boxes, canvas_size)
    assert found.shape == (8, *canvas_size, channels)
    np.testing.assert_allclose(found, windows.write_boxes(contents, boxes, canvas_size), atol=5e-5)


BOXES = {
    "all of the canvas": [0.0, 0.0, 1.0, 1.0],
    "beyond all edges": [-0.7, -0.2, 1.3, 1.9],
    "wide": [0.3, 0.05, 0.45, 0.9],
    "high": [-0.1, 0.6, 0.95, 0.7],
    "over a corner": [0.8, -0.3, 1.4, 0.2],
    "outside": [1.2, 0.1, 1.6, 0.5],
    "far outside": [-90.0, 40.0, -80.0, 50.0],
    "a third of a pixel": [0.5, 0.5, 0.5 + 1 / 36, 0.5 + 1 / 42],
    "less than a hundredth of a pixel": [0.543, 0.532, 0.5431, 0.5321],
    "nothing, on a pixel's centre": [4.5 / 12, 7.5 / 14, 4.5 / 12, 7.5 / 14],
    "nothing, between pixels": [0.5, 0.5, 0.5, 0.5],
    "turned round": [0.7, 0.6, 0.3, 0.2],
}


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("box", BOXES.values(), ids=BOXES.keys())
def test_any_box_is_written_as_plainly(box, channels):
    contents = tf.constant(np.random.default_rng(2).uniform(size=(1, 5, 5, channels)), tf.float32)
    found = crops.write_boxes(contents, tf.constant([box]), (12, 14))
    expected = windows.write_boxes(contents, tf.constant([box]), (12, 14))
    np.testing.assert_allclose(found, expected, atol=2e-4)


@pytest.mark.parametrize("side", [1, 2, 3, 7, 8, 50])
def test_contents_of_every_side_are_written_as_plainly(side):
    rng = np.random.default_rng(3)
    contents = tf.constant(rng.uniform(size=(4, side, side, 3)), tf.float32)
    boxes = window_boxes(*random_windows(rng, 4), (20, 16))
    found = crops.write_boxes(contents, boxes, (20, 16))
    np.testing.assert_allclose(found, windows.write_boxes(contents, boxes, (20, 16)), atol=1e-4)


def test_a_canvas_of_one_row():
    contents = tf.constant(np.random.default_rng(4).uniform(size=(2, 4, 4, 1)), tf.float32)
    boxes = tf.constant([[0.0, 0.0, 1.0, 1.0], [-0.5, 0.2, 0.9, 0.6]])
    found = crops.write_boxes(contents, boxes, (1, 9))
    np.testing.assert_allclose(found, windows.write_boxes(contents, boxes, (1, 9)), atol=2e-5)


def test_what_is_not_a_number_reads_no_memory_of_others():
    contents, nan = tf.ones([2, 5, 5, 1]), float("nan")
    boxes = tf.constant([[nan] * 4, [0.2, float("inf"), nan, 0.5]])
    assert np.isfinite(crops.write_boxes(contents, boxes, (9, 9))).all()
    shift, scale = tf.constant([[nan, 0.0], [0.0, 0.0]]), tf.constant([[0.5], [float("inf")]])
    assert np.isfinite(crops.read_windows(tf.ones([1, 9, 9, 1]), tf.constant([0, 0]), shift, scale, 4)).all()


def test_nothing_to_read_and_nothing_to_write():
    none = tf.zeros([0, 2]), tf.zeros([0, 1])
    assert crops.read_windows(tf.ones([2, 9, 8, 3]), tf.zeros([0], tf.int32), *none, 5).shape == (0, 5, 5, 3)
    assert crops.write_boxes(tf.zeros([0, 5, 5, 3]), tf.zeros([0, 4]), (9, 8)).shape == (0, 9, 8, 3)
