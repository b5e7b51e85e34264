"""The second look: by how far it moves a window, what it sees, and that the means of all steps are free of noise."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from asr_tf.networks import LatentNoise, RecognitionNetwork
from asr_tf.scene import window_boxes
from asr_tf.second_look import SecondLook

HEIGHT, WIDTH = CANVAS = (30, 40)
SHIFT = tf.constant([[[0.3, -0.2, -2.0, -2.0], [-0.6, 0.5, -2.0, -2.0]]])
SCALE = tf.constant([[[-1.0, -2.0], [0.2, -2.0]]])


@pytest.fixture(autouse=True)
def _same_weights_every_time():
    keras.utils.set_random_seed(0)


def look_that_says(output):
    """A second look whose perceptron gives the same six numbers whatever it sees."""
    look = SecondLook(CANVAS, 1.5, glimpse_size=8, units=4)
    look.mlp.dense_1.kernel.assign(tf.zeros([4, 6]))
    look.mlp.dense_1.bias.assign(output)
    return look


def centres_and_sides(shift_stats, scale_stats):
    """In pixels, [T, 2] as (y, x) and [T]."""
    boxes = window_boxes(tf.tanh(shift_stats[0, :, :2]), tf.sigmoid(scale_stats[0, :, :1]), CANVAS)
    boxes = np.asarray(boxes) * [HEIGHT, WIDTH, HEIGHT, WIDTH]
    return (boxes[:, :2] + boxes[:, 2:]) / 2.0, boxes[:, 2] - boxes[:, 0]


def test_nothing_to_say_changes_nothing():
    shift, scale = look_that_says([0.0] * 6)(tf.zeros([1, *CANVAS]), SHIFT, SCALE)
    np.testing.assert_array_equal(shift, SHIFT)
    np.testing.assert_array_equal(scale, SCALE)


def test_moves_are_shares_of_the_side_on_a_canvas_that_is_not_square():
    small = 0.02  # the latent is moved along the tangent, which is exact for small moves
    shift, scale = look_that_says([small, -small, 0.5, -0.25, np.log(2.0), 1.0])(tf.zeros([1, *CANVAS]), SHIFT, SCALE)
    before, sides = centres_and_sides(SHIFT, SCALE)
    after, _ = centres_and_sides(shift, scale)
    expected = np.stack([-sides, sides], -1) / 2.0 * np.tanh(small)  # (y, x)
    np.testing.assert_allclose(after - before, expected, rtol=0.03)
    np.testing.assert_allclose(shift[..., 2:], SHIFT[..., 2:] + [0.5, -0.25], rtol=1e-6)
    np.testing.assert_allclose(scale, SCALE + [np.log(2.0), 1.0], rtol=1e-6)


def test_sees_the_window_and_its_margin():
    """A pixel counts where it lies in the window and half a window around, and nowhere else."""
    look = SecondLook(CANVAS, 1.5, glimpse_size=16)
    shift, scale = tf.zeros([1, 1, 4]), tf.fill([1, 1, 2], -1.0)
    side = 30.0 * float(tf.sigmoid(-1.0))

    def seen(offset):
        image = np.zeros((1, *CANVAS), np.float32)
        image[0, HEIGHT // 2 : HEIGHT // 2 + 2, round(WIDTH / 2 + offset)] = 1.0
        return np.abs(look(image, shift, scale)[0] - look(np.zeros_like(image), shift, scale)[0]).max()

    assert seen(0.0) > 1e-4 and seen(0.65 * side) > 1e-4
    assert seen(1.0 * side) == 0.0


def test_the_means_do_not_depend_on_the_noise():
    network = RecognitionNetwork((11, 14), 3, 5, 4, 8, 6, (10,), -0.4, second_look=1.5)
    images = tf.constant(np.random.default_rng(0).uniform(size=(2, 11, 14)).astype(np.float32))
    stats, latents, _ = network(images, LatentNoise(*(tf.fill([2, 3, size], 0.7) for size in (2, 1, 4))))
    mode, _, _ = network(images, LatentNoise.zeros(2, 3, 4))
    for field in ("presence_logits", "shift_loc", "shift_log_scale", "scale_loc", "scale_log_scale"):
        np.testing.assert_allclose(getattr(stats, field), getattr(mode, field), rtol=1e-6)
    np.testing.assert_allclose(latents.shift_latent, stats.shift_loc + 0.7 * tf.exp(stats.shift_log_scale), rtol=1e-5)
    np.testing.assert_allclose(latents.scale_latent, stats.scale_loc + 0.7 * tf.exp(stats.scale_log_scale), rtol=1e-5)


def test_corrected_scales_stay_within_their_radius():
    network = RecognitionNetwork((11, 14), 2, 5, 4, 8, 6, (10,), -0.4, scale_radius=0.1, second_look=1.5)
    network.second_look.mlp.dense_1.bias.assign([0.0, 0.0, 0.0, 0.0, 50.0, 0.0])
    stats, _, _ = network(tf.zeros([1, 11, 14]), LatentNoise.zeros(1, 2, 4))
    np.testing.assert_allclose(stats.scale_loc, np.full((1, 2, 1), -0.3), atol=1e-4)
