"""The second look: by how far it moves a window, what it sees, and what later steps no longer see."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from asr_tf.imaging.spatial_transformer import read_glimpses

from asr_tf.networks.layers import mean_pool
from asr_tf.networks.recognition import LatentNoise, RecognitionNetwork
from asr_tf.networks.second_look import SecondLook
from asr_tf.scene import window_boxes

HEIGHT, WIDTH = CANVAS = (30, 40)
SHIFT = tf.constant([[0.3, -0.2, -2.0, -2.0], [-0.6, 0.5, -2.0, -2.0]])  # of two windows
SCALE = tf.constant([[-1.0, -2.0], [0.2, -2.0]])


@pytest.fixture(autouse=True)
def _same_weights_every_time():
    keras.utils.set_random_seed(0)


def corrected(look, images, shift_stats, scale_stats):
    product = lambda seen: tf.matmul(seen, look.kernel())  # noqa: E731
    return look.correct(images, shift_stats, scale_stats, product, look.weights_beside())


def look_that_says(output):
    """A second look whose perceptron gives the same six numbers whatever it sees."""
    look = SecondLook(CANVAS, 1.5, glimpse_size=8, units=4)
    look.mlp.dense_1.kernel.assign(tf.zeros([4, 6]))
    look.mlp.dense_1.bias.assign(output)
    return look


def centres_and_sides(shift_stats, scale_stats):
    """In pixels, [B, 2] as (y, x) and [B]."""
    boxes = window_boxes(tf.tanh(shift_stats[:, :2]), tf.sigmoid(scale_stats[:, :1]), CANVAS)
    boxes = np.asarray(boxes) * [HEIGHT, WIDTH, HEIGHT, WIDTH]
    return (boxes[:, :2] + boxes[:, 2:]) / 2.0, boxes[:, 2] - boxes[:, 0]


def test_nothing_to_say_changes_nothing():
    shift, scale = corrected(look_that_says([0.0] * 6), tf.zeros([2, *CANVAS]), SHIFT, SCALE)
    np.testing.assert_array_equal(shift, SHIFT)
    np.testing.assert_array_equal(scale, SCALE)


def test_moves_are_shares_of_the_side_on_a_canvas_that_is_not_square():
    small = 0.01  # the latent is moved along the tangent, which is exact for small moves
    look = look_that_says([small, -small, 0.5, -0.25, np.log(2.0), 1.0])
    shift, scale = corrected(look, tf.zeros([2, *CANVAS]), SHIFT, SCALE)
    before, sides = centres_and_sides(SHIFT, SCALE)
    after, _ = centres_and_sides(shift, scale)
    expected = 1.5 * np.stack([-sides, sides], -1) / 2.0 * np.tanh(small)  # (y, x)
    np.testing.assert_allclose(after - before, expected, rtol=0.03)
    np.testing.assert_allclose(shift[..., 2:], SHIFT[..., 2:] + [0.5, -0.25], rtol=1e-6)
    np.testing.assert_allclose(scale, SCALE + [np.log(2.0), 1.0], rtol=1e-6)


def test_sees_the_window_and_its_margin():
    """A pixel counts where it lies in the window and half a window around, and nowhere else."""
    look = SecondLook(CANVAS, 1.5, glimpse_size=16)
    shift, scale = tf.zeros([1, 4]), tf.fill([1, 2], -1.0)
    side = 30.0 * float(tf.sigmoid(-1.0))

    def seen(offset):
        image = np.zeros((1, *CANVAS), np.float32)
        image[0, HEIGHT // 2 : HEIGHT // 2 + 2, round(WIDTH / 2 + offset)] = 1.0
        there, nowhere = (corrected(look, tf.constant(x), shift, scale)[0] for x in (image, np.zeros_like(image)))
        return np.abs(there - nowhere).max()

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


def _without_windows(images, latents):
    """Images less what lies in one window each, pixel by pixel; latents [B, 3]."""
    kept = np.ones(images.shape, np.float32)
    _, height, width = images.shape
    for b, (x, y, u) in enumerate(latents.numpy()):
        half = 0.5 * min(height, width) / (1.0 + np.exp(-u))
        middles = 0.5 * height * (1.0 + np.tanh(y)), 0.5 * width * (1.0 + np.tanh(x))
        for i in range(height):
            for j in range(width):
                covered = [
                    max(0.0, min(pixel + 1.0, middle + half) - max(pixel, middle - half))
                    for pixel, middle in zip((i, j), middles, strict=True)
                ]
                kept[b, i, j] -= covered[0] * covered[1]
    return images * kept


def _located_plainly(network, images):
    """Means of shift and scale latents [B, T, 3], step by step; what a product of the loop is, is a product here."""
    cell, look, batch = network.cell, network.second_look, len(images)
    hidden, memory = cell.initial_state(batch)
    fed_back, found = tf.zeros([batch, 3]), []
    for _ in range(network.num_steps):
        pooled = images if network.image_pool == 1 else mean_pool(images, network.image_pool)
        gates = network.image_projection(tf.reshape(pooled, [batch, -1])) + cell.bias
        hidden, memory = cell.update(gates + cell.gates(tf.concat([fed_back, hidden], -1)), memory)
        shift_stats = network.shift_head(hidden)
        scale_stats = network.scale_head(tf.concat([hidden, tf.tanh(shift_stats[:, :2])], -1))
        where = tf.tanh(shift_stats[:, :2]), look.margin * tf.sigmoid(scale_stats[:, :1])
        glimpses = read_glimpses(images, *map(tf.stop_gradient, where), look.glimpse_size)
        said = look.mlp(tf.reshape(glimpses, [batch, -1]))
        reach = look.margin * tf.sigmoid(scale_stats[:, :1])
        shift = shift_stats[:, :2] + reach * tf.tanh(said[:, :2]) / (1.0 - tf.tanh(shift_stats[:, :2]) ** 2)
        fed_back = tf.concat([shift, scale_stats[:, :1] + said[:, 4:5]], -1)
        found.append(fed_back)
        images = _without_windows(images, fed_back)
    return tf.stack(found, 1)


@pytest.mark.parametrize("image_pool", [1, 2])
def test_steps_correct_their_windows_and_blank_them_for_later_steps(image_pool):
    """Values and gradients are those of a plain loop that cuts windows out pixel by pixel."""
    network = RecognitionNetwork((14, 14), 3, 5, 4, 8, 6, (10,), -0.4, image_pool=image_pool, second_look=1.5)
    network.image_projection.kernel.assign(3.0 * network.image_projection.kernel)
    images = tf.constant(np.random.default_rng(0).uniform(size=(4, 14, 14)).astype(np.float32))
    weights = [
        *(network.image_projection.kernel, network.cell.gates.kernel, network.cell.bias),
        *network.shift_head.trainable_variables,
        *network.second_look.trainable_variables,
    ]
    values, gradients = [], []
    for located in (
        lambda: tf.concat(network.locate(images, LatentNoise.zeros(4, 3, 4))[1:], -1),
        lambda: _located_plainly(network, images),
    ):
        with tf.GradientTape() as tape:
            values.append(located())
            total = tf.reduce_sum(tf.sin(5.0 * values[-1]))
        gradients.append(tape.gradient(total, [weight.value for weight in weights]))
    np.testing.assert_allclose(values[0], values[1], atol=1e-5)
    for found, expected in zip(*gradients, strict=True):
        found, expected = tf.convert_to_tensor(found), tf.convert_to_tensor(expected)
        np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-4 * np.abs(expected).max())
