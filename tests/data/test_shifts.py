"""Moved scenes against NumPy, their distribution, and what must not move."""

import numpy as np
import pytest
import tensorflow as tf

from asr_tf.data import Scenes
from asr_tf.data.pipeline import training_dataset
from asr_tf.data.shifts import shifted


def _scenes(number=40, height=12, width=15):
    """Two blobs a scene (one in every third), and their boxes as fractions of the canvas; the third is absent."""
    rng = np.random.default_rng(0)
    images, boxes = np.zeros((number, height, width, 1), np.uint8), np.zeros((number, 3, 4), np.float32)
    for i in range(number):
        for j in range(1 if i % 3 == 0 else 2):
            top, left = rng.integers(0, height - 3), rng.integers(0, width - 3)
            images[i, top : top + 3, left : left + 3] = rng.integers(1, 256, (3, 3, 1))
            boxes[i, j] = np.array([top, left, top + 3, left + 3]) / [height, width, height, width]
    return Scenes(images, counts=(boxes.max(-1) > 0).sum(1).astype(np.int32), boxes=boxes)


def _moved(scenes, seed=(0, 0), margin=0):
    batch = {"image": tf.constant(scenes.images), "boxes": tf.constant(scenes.boxes)}
    return {name: value.numpy() for name, value in shifted(batch, tf.constant(seed), margin).items()}


@pytest.mark.parametrize("margin", [0, 2])
def test_image_and_boxes_move_together_and_nothing_is_lost(margin):
    scenes = _scenes()
    moved = _moved(scenes, margin=margin)
    size = np.array([12, 15])
    steps = (moved["boxes"] - scenes.boxes)[:, 0, :2] * size
    np.testing.assert_allclose(steps, np.round(steps), atol=1e-4)
    steps = np.round(steps).astype(int)
    assert len(np.unique(steps, axis=0)) > 20
    for before, after, step in zip(scenes.images, moved["image"], steps, strict=True):
        np.testing.assert_array_equal(np.roll(before, step, (0, 1)), after)
        for axis in (0, 1):
            old, new = (np.flatnonzero(image.any((1 - axis, 2))) for image in (before, after))
            np.testing.assert_array_equal(new, old + step[axis])  # nothing went around
            assert new[0] >= min(margin, old[0]) and new[-1] <= max(size[axis] - 1 - margin, old[-1])
    there = scenes.boxes.any(-1)
    wanted = scenes.boxes + np.tile(steps / size, 2)[:, np.newaxis]
    np.testing.assert_allclose(moved["boxes"][there], wanted[there], atol=1e-6)
    assert not moved["boxes"][~there].any()


def test_moves_are_uniform_where_there_is_room():
    image = np.zeros((6000, 5, 6, 1), np.uint8)
    image[:, 4, 0] = 255  # in a margin: it leaves it, or stays where it is
    moved = shifted({"image": tf.constant(image)}, tf.constant([3, 4]), 1)["image"].numpy()
    places = np.argwhere(moved[..., 0])
    for axis, (low, high) in ((1, (1, 4)), (2, (0, 4))):
        counts = np.bincount(places[:, axis], minlength=6)
        number = high - low + 1
        assert counts[low : high + 1].sum() == 6000
        assert np.abs(counts[low : high + 1] - 6000 / number).max() < 5 * np.sqrt(6000 / number)


def test_what_fills_the_canvas_or_is_blank_stays():
    images = np.zeros((20, 8, 8, 1), np.uint8)
    images[:10, [0, 7], [0, 7]] = 1
    moved = shifted({"image": tf.constant(images)}, tf.constant([0, 0]), 2)
    np.testing.assert_array_equal(moved["image"], images)
    assert moved.keys() == {"image"}


def test_batches_are_moved_as_their_number_says():
    scenes = _scenes()

    def images(start, number, seed=0, margin=0):
        batches = training_dataset(scenes, 16, seed, start, margin).take(number)
        return [batch["image"] for batch in batches.as_numpy_iterator()]

    through = images(0, 4)
    np.testing.assert_array_equal(images(2, 2), through[2:])
    order = images(0, 1, margin=None)[0]
    np.testing.assert_allclose(through[0].sum((1, 2, 3)), order.sum((1, 2, 3)), rtol=1e-5)
    assert np.abs(through[0] - order).max() > 0.1 and through[0].dtype == np.float32
    with pytest.raises(ValueError, match="shift_margin must be between 0 and 15, got -1"):
        training_dataset(scenes, 16, 0, 0, -1)
