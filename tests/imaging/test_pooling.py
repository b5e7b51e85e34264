"""Pooling against means of slices."""

import numpy as np
import pytest
import tensorflow as tf

from asr_tf.imaging.pooling import mean_pool

SIZES = [(6, 8, 2), (11, 14, 2), (5, 4, 3), (4, 5, 1), (3, 3, 7)]  # height, width, side


def slow_pool(images, side):
    _, height, width, _ = images.shape
    rows = [
        [images[:, i : i + side, j : j + side].mean((1, 2)) for j in range(0, width, side)]
        for i in range(0, height, side)
    ]
    return np.moveaxis(np.array(rows), 2, 0)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize(("height", "width", "side"), SIZES)
def test_pooled_pixels_are_means_of_what_is_there(height, width, side, channels):
    images = np.random.default_rng(0).uniform(size=(2, height, width, channels)).astype(np.float32)
    pooled = mean_pool(tf.constant(images), side)
    assert pooled.shape == (2, -(-height // side), -(-width // side), channels)
    np.testing.assert_allclose(pooled, slow_pool(images, side), rtol=1e-5)


@pytest.mark.parametrize("channels", [1, 3])
def test_gradient_is_the_share_of_each_pixel_in_its_mean(channels):
    images = tf.constant(np.random.default_rng(1).uniform(size=(2, 5, 7, channels)))
    weights = np.random.default_rng(2).normal(size=(2, 3, 4, channels))
    with tf.GradientTape() as tape:
        tape.watch(images)
        total = tf.reduce_sum(weights * mean_pool(images, 2))
    shares = np.repeat(np.repeat(weights, 2, axis=1), 2, axis=2)[:, :5, :7]
    rows, columns = np.array([2, 2, 2, 2, 1])[:, None, None], np.array([2] * 6 + [1])[:, None]
    np.testing.assert_allclose(tape.gradient(total, images), shares / (rows * columns), rtol=1e-6)


def test_the_number_of_images_may_be_unknown():
    pool = tf.function(lambda images: mean_pool(images, 3), jit_compile=True).get_concrete_function
    assert pool(tf.TensorSpec([None, 8, 7, 3])).output_shapes.as_list() == [None, 3, 3, 3]
