"""Attention: the place that wins, against a slow reference, and where nothing is left."""

import numpy as np
import pytest
import tensorflow as tf

from asr_tf.networks.attention import Attention

CANVAS, STRIDE, SIDE = (40, 52), 4, 10.0
GRID = (10, 13)


def slow_winner(ink):
    """Row and column of the place where a narrow Gaussian mean exceeds a wide one most, pixel by pixel."""
    ys, xs = np.mgrid[: CANVAS[0], : CANVAS[1]] + 0.5
    best, place = -np.inf, None
    for row in range(GRID[0]):
        for column in range(GRID[1]):
            squares = (ys - (row + 0.5) * STRIDE) ** 2 + (xs - (column + 0.5) * STRIDE) ** 2
            means = [
                np.sum(ink * np.exp(-squares / (2 * stddev**2)) / (2 * np.pi * stddev**2))
                for stddev in (0.2 * SIDE, 0.5 * SIDE)
            ]
            if means[0] - means[1] > best:
                best, place = means[0] - means[1], row * GRID[1] + column
    return place


def test_the_winner_is_where_the_difference_of_gaussian_means_is_largest():
    ink = np.random.default_rng(3).random((6, *CANVAS)).astype(np.float32) ** 8
    place = Attention(CANVAS, GRID, STRIDE, SIDE)(ink)
    assert place.index.numpy().tolist() == [slow_winner(image) for image in ink]


@pytest.mark.parametrize(("y", "x"), [(9, 11), (20, 30), (31, 17)])
def test_the_centre_of_a_square_of_an_objects_size_is_found(y, x):
    ink = np.zeros((1, *CANVAS), np.float32)
    ink[0, y - 5 : y + 5, x - 5 : x + 5] = 1.0
    centre = Attention(CANVAS, GRID, STRIDE, SIDE)(ink).centre.numpy()[0]
    found = (centre + 1.0) / 2.0 * (CANVAS[1], CANVAS[0])
    np.testing.assert_allclose(found, [x, y], atol=1.0)


def test_an_empty_canvas_has_a_place_and_no_gradient_flows():
    ink = tf.Variable(tf.zeros([2, *CANVAS]))
    with tf.GradientTape() as tape:
        place = Attention(CANVAS, GRID, STRIDE, SIDE)(ink)
    assert np.all(np.abs(place.centre) < 1.0)
    assert tape.gradient(place.centre, ink) is None
