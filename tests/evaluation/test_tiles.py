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


def test_rgb_images_keep_their_colours():
    """Channel by channel, a tile is the enlarged image; boxes are drawn over it."""
    images = np.random.default_rng(2).uniform(size=(3, 5, 4, 3)).astype(np.float32)
    drawn = tiles.scene_tiles(images, zoom=3)
    assert drawn.shape == (3, 15, 12, 3) and drawn.dtype == np.uint8
    for scene, y, x in np.ndindex(3, 15, 12):
        wanted = [round(255 * float(part)) for part in images[scene, y // 3, x // 3]]
        assert drawn[scene, y, x].tolist() == wanted
    as_bytes = np.round(255 * images).astype(np.uint8)
    np.testing.assert_array_equal(tiles.scene_tiles(as_bytes, zoom=3), drawn)
    with_box = tiles.scene_tiles(images, np.array([[[0.0, 0.0, 1.0, 1.0]]] * 3), zoom=3)
    np.testing.assert_array_equal(with_box[:, 1:-1, 1:-1], drawn[:, 1:-1, 1:-1])
    assert (with_box[:, 0] == tiles.STEP_COLOURS[0]).all()


def test_grey_images_look_the_same_in_three_channels():
    images = np.random.default_rng(3).uniform(size=(2, 6, 8, 1))
    np.testing.assert_array_equal(tiles.image_grid(images), tiles.image_grid(images.repeat(3, axis=-1)))


def test_reconstruction_grid_is_in_colour():
    images = np.zeros((2, 6, 8, 3))
    images[0, ..., 0] = images[1, ..., 2] = 1.0  # a red and a blue image
    inferred = {"reconstruction": images[..., [1, 0, 2]]}  # a green and a blue one
    grid = tiles.reconstruction_grid(images, inferred, zoom=1)
    assert (grid[4:10, 4:12] == [255, 0, 0]).all() and (grid[14:20, 4:12] == [0, 255, 0]).all()
    assert (grid[4:10, 16:24] == [0, 0, 255]).all() and (grid[14:20, 16:24] == [0, 0, 255]).all()


def test_wrong_shapes_are_named():
    with pytest.raises(ValueError, match=r"images must have shape .* got \[5, 5\]"):
        tiles.image_grid(np.zeros((5, 5)))
    with pytest.raises(ValueError, match=r"\[N, H, W, 1\] or \[N, H, W, 3\] with N above 0, got \[1, 5, 5, 2\]"):
        tiles.image_grid(np.zeros((1, 5, 5, 2)))
    with pytest.raises(ValueError, match="N above 0"):
        tiles.image_grid(np.zeros((0, 5, 5, 1)))
