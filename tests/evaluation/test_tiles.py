"""Scenes as pixels, by hand."""

from __future__ import annotations

import numpy as np
import pytest

from asr_tf.evaluation import tiles


def test_every_pixel_becomes_a_square():
    images = np.random.default_rng(0).uniform(size=(1, 5, 4, 1)).astype(np.float32)
    grid = tiles.image_grid(images, zoom=3)
    assert grid.dtype == np.uint8
    expected = np.round(255 * images[0]).astype(np.uint8).repeat(3, axis=0).repeat(3, axis=1)
    np.testing.assert_array_equal(grid[4:-4, 4:-4], expected.repeat(3, axis=2))


def test_grid_is_filled_row_by_row():
    images = np.linspace(0.0, 1.0, 5)[:, None, None, None] * np.ones((5, 2, 3, 1))
    grid = tiles.image_grid(images, num_columns=3, zoom=1)
    assert grid.shape == (2 * 6 + 4, 3 * 7 + 4, 3)
    assert grid[4, 4, 0] == 0 and grid[4, 11, 0] == 64 and grid[10, 4, 0] == 191
    assert (grid[10, 18] == 128).all()  # no sixth image


def test_boxes_have_the_colour_of_their_step_and_the_right_place():
    boxes = np.array([[[0.2, 0.1, 0.6, 0.5], [0.5, 0.5, 1.0, 1.0], [0.0, 0.0, 1.0, 1.0]]])
    grid = tiles.draw_boxes_grid(np.zeros((1, 10, 10, 1)), boxes, [2], zoom=1)[4:-4, 4:-4]
    seen = (grid == tiles.STEP_COLOURS[0]).all(axis=-1)
    expected = np.zeros((10, 10), bool)
    expected[2:6, 1:5] = True
    expected[3:5, 2:4] = False
    expected[5, 4:5] = True
    np.testing.assert_array_equal(seen, expected)
    assert (grid[9, 5:] == tiles.STEP_COLOURS[1]).all()
    assert not grid[0].any()  # the third box is absent


def test_boxes_beyond_the_canvas_and_values_that_are_not_finite_are_survived():
    boxes = np.array([[[-0.5, -0.5, 0.5, 0.5], [np.nan] * 4, [-2.0, -2.0, -1.0, -1.0]]])
    images = np.full((1, 10, 10, 1), np.nan)
    grid = tiles.draw_boxes_grid(images, boxes, zoom=1)[4:-4, 4:-4]
    assert (grid[4, :5] == tiles.STEP_COLOURS[0]).all()
    assert not grid[5:].any() and not grid[0, 0].any()


def test_reconstruction_grid_puts_each_image_above_its_reconstruction():
    images = np.round(np.random.default_rng(1).uniform(size=(3, 50, 50, 1)))
    inferred = {
        "count": np.zeros(3, int),
        "boxes": np.ones((3, 2, 4)),
        "reconstruction": 1.0 - images,
    }
    grid = tiles.reconstruction_grid(images, inferred, num_columns=2, zoom=1)
    assert grid.shape == (4 * 54 + 4, 2 * 54 + 4, 3)
    for scene in range(3):
        top, left = 4 + 108 * (scene // 2), 4 + 54 * (scene % 2)
        above = grid[top : top + 50, left : left + 50, 0]
        np.testing.assert_array_equal(above, 255 * images[scene, ..., 0])
        np.testing.assert_array_equal(grid[top + 54 : top + 104, left : left + 50, 0], 255 - above)


def test_wrong_shapes_are_named():
    with pytest.raises(ValueError, match=r"images must have shape .* got \[5, 5\]"):
        tiles.image_grid(np.zeros((5, 5)))
    with pytest.raises(ValueError, match="N above 0"):
        tiles.image_grid(np.zeros((0, 5, 5, 1)))
