"""The second look: by how far it moves a window, what it sees, and what it has gradients of."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from asr_tf.networks.second_look import SecondLook
from asr_tf.scene import SceneSpec, window_boxes

HEIGHT, WIDTH = CANVAS = (30, 40)
SHIFT = tf.constant([[0.3, -0.2], [-0.6, 0.5]])  # means of two windows
SCALE = tf.constant([[-1.0], [0.2]])


@pytest.fixture(autouse=True)
def _same_weights_every_time():
    keras.utils.set_random_seed(0)


def made(channels=1, margin=1.5, **settings):
    look = SecondLook(margin, **settings)
    look.build(SceneSpec(CANVAS, channels, 3, 6, 4, -1.0, 0.2))
    return look


def look_that_says(output):
    """A second look whose perceptron gives the same six numbers whatever it sees."""
    look = made(glimpse_size=8, units=4)
    look.perceptron.dense[1].kernel.assign(tf.zeros([4, 6]))
    look.perceptron.dense[1].bias.assign(output)
    return look


def centres_and_sides(shift_loc, scale_loc):
    """In pixels, [B, 2] as (y, x) and [B]."""
    boxes = window_boxes(tf.tanh(shift_loc), tf.sigmoid(scale_loc), CANVAS) * [HEIGHT, WIDTH, HEIGHT, WIDTH]
    return np.asarray(boxes[:, :2] + boxes[:, 2:]) / 2.0, np.asarray(boxes[:, 2] - boxes[:, 0])


def test_nothing_to_say_adds_nothing():
    for added in look_that_says([0.0] * 6)(tf.zeros([2, *CANVAS, 1]), SHIFT, SCALE)[:4]:
        assert added.dtype == tf.float32 and not np.any(added)


def test_moves_are_shares_of_the_side_on_a_canvas_that_is_not_square():
    small = 0.01  # the latent is moved along the tangent, which is exact for small moves
    look = look_that_says([small, -small, 0.5, -0.25, np.log(2.0), 1.0])
    moved, shift_spread, resized, scale_spread, _ = look(tf.zeros([2, *CANVAS, 1]), SHIFT, SCALE)
    before, sides = centres_and_sides(SHIFT, SCALE)
    after, _ = centres_and_sides(SHIFT + moved, SCALE)
    expected = 1.5 * np.stack([-sides, sides], -1) / 2.0 * np.tanh(small)  # (y, x)
    np.testing.assert_allclose(after - before, expected, rtol=0.03)
    np.testing.assert_allclose(shift_spread, [[0.5, -0.25]] * 2, rtol=1e-6)
    np.testing.assert_allclose(resized, [[np.log(2.0)]] * 2, rtol=1e-6)
    np.testing.assert_allclose(scale_spread, [[1.0]] * 2, rtol=1e-6)


def read(image, centre, side, size):
    """What `image` [H, W, C] shows in a square window, bilinearly, value by value; (y, x) and side in pixels."""
    height, width, channels = image.shape
    shown = np.zeros((size, size, channels))
    for i, j in np.ndindex(size, size):
        row, column = (c - side / 2.0 + (k + 0.5) * side / size - 0.5 for c, k in zip(centre, (i, j), strict=True))
        for y in range(max(0, int(row) - 1), min(height, int(row) + 3)):
            for x in range(max(0, int(column) - 1), min(width, int(column) + 3)):
                weight = max(0.0, 1.0 - abs(row - y)) * max(0.0, 1.0 - abs(column - x))
                shown[i, j] += weight * image[y, x]
    return shown


@pytest.mark.parametrize("channels", [1, 3])
def test_what_is_added_is_what_a_perceptron_makes_of_the_region(channels):
    look = made(channels, glimpse_size=7, units=5)
    images = np.random.default_rng(1).uniform(size=(2, *CANVAS, channels)).astype(np.float32)
    first, first_bias, last, last_bias = look.get_weights()
    found = [np.asarray(part) for part in look(tf.constant(images), SHIFT, SCALE)]
    centres, sides = centres_and_sides(SHIFT, SCALE)
    for b in range(2):
        seen = read(images[b], centres[b], 1.5 * sides[b], 7).ravel()
        said = np.maximum(seen @ first + first_bias, 0.0) @ last + last_bias
        half = 1.5 * sides[b] / np.array([WIDTH, HEIGHT])  # of the region, in canvas units
        moved = half * np.tanh(said[:2]) / (1.0 - np.tanh(SHIFT[b]) ** 2)
        wanted = (moved, said[2:4], said[4:5], said[5:])
        for value, expected in zip(found[:4], wanted, strict=True):
            np.testing.assert_allclose(value[b], expected, rtol=1e-3, atol=1e-5)


def test_sees_the_window_and_its_margin_and_no_more():
    look = made()
    shift, scale = tf.zeros([1, 2]), tf.fill([1, 1], -1.0)
    side = HEIGHT * float(tf.sigmoid(-1.0))

    def seen(offset):
        image = np.zeros((1, *CANVAS, 1), np.float32)
        image[0, HEIGHT // 2 : HEIGHT // 2 + 2, round(WIDTH / 2 + offset)] = 1.0
        there, nowhere = (look(tf.constant(x), shift, scale)[0] for x in (image, np.zeros_like(image)))
        return np.abs(there - nowhere).max()

    assert seen(0.0) > 1e-4 and seen(0.65 * side) > 1e-4
    assert seen(1.0 * side) == 0.0


def test_no_gradient_goes_through_what_is_seen_to_where_it_is_seen():
    """Only by the slope and the side, which are the same whatever the image shows."""
    images = tf.constant(np.random.default_rng(2).uniform(size=(2, *CANVAS, 1)), tf.float32)
    gradients = []
    look = made(glimpse_size=6)
    with tf.GradientTape(persistent=True) as tape:
        tape.watch((SHIFT, SCALE))
        _, shift_spread, resized, scale_spread, _ = look(images, SHIFT, SCALE)
        total = tf.reduce_sum(shift_spread) + tf.reduce_sum(resized) + tf.reduce_sum(scale_spread)
    assert tape.gradient(total, [SHIFT, SCALE]) == [None, None]
    gradients = tape.gradient(total, look.trainable_variables)
    assert all(np.abs(gradient).max() > 0.0 for gradient in gradients)


def test_a_centre_off_the_canvas_is_moved_by_a_finite_amount():
    moved = look_that_says([5.0] * 6)(tf.zeros([1, *CANVAS, 1]), tf.fill([1, 2], 12.0), tf.fill([1, 1], 0.0))[0]
    np.testing.assert_allclose(moved, [[0.75 * 0.75 * np.tanh(5.0) / 0.05, 0.75 * np.tanh(5.0) / 0.05]], rtol=1e-5)
