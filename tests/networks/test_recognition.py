"""Networks: samples and their statistics, teacher forcing against sampling, shapes on odd canvases."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from asr_tf.networks.recognition import LatentNoise, RecognitionNetwork


@pytest.fixture(autouse=True)
def _same_weights_every_time():
    keras.utils.set_random_seed(0)


def recognition(canvas_size=(11, 14)):
    return RecognitionNetwork(canvas_size, 3, 5, 4, 8, 6, (10,), -0.4)


def noise(value=0.0, batch=2):
    return LatentNoise(*(tf.fill([batch, 3, size], value) for size in (2, 1, 4)))


def test_recognition_samples_are_location_plus_scaled_noise():
    images = tf.constant(np.random.default_rng(0).uniform(size=(2, 11, 14)).astype(np.float32))
    stats, latents, glimpses = recognition()(images, noise(0.7))
    for value, loc, log_scale in (
        (latents.shift_latent, stats.shift_loc, stats.shift_log_scale),
        (latents.scale_latent, stats.scale_loc, stats.scale_log_scale),
        (latents.what, stats.what_loc, stats.what_log_scale),
    ):
        np.testing.assert_allclose(value, loc + 0.7 * tf.exp(log_scale), rtol=1e-5)
    assert glimpses.shape == (2, 3, 5, 5)


def test_recognition_steps_look_at_earlier_windows_only():
    """Noise at the last step changes nothing before it; noise at the first changes the second."""
    network, images = recognition(), tf.ones([2, 11, 14])
    zero, late = noise(), noise()
    late = late._replace(shift=late.shift + tf.constant([0.0, 0.0, 1.0])[None, :, None])
    early = zero._replace(shift=zero.shift + tf.constant([1.0, 0.0, 0.0])[None, :, None])
    base, changed_late, changed_early = (network(images, x)[0] for x in (zero, late, early))
    np.testing.assert_allclose(changed_late.shift_loc, base.shift_loc, atol=1e-6)
    assert np.abs(changed_early.shift_loc - base.shift_loc)[:, 1:].max() > 1e-6


def test_everything_is_trainable_and_tracked():
    network = recognition()
    with tf.GradientTape() as tape:
        stats, latents, _ = network(tf.ones([2, 11, 14]) * 0.5, noise(0.3))
        total = sum(tf.reduce_sum(tf.square(x)) for x in tf.nest.flatten((stats, latents)))
    gradients = tape.gradient(total, network.trainable_variables)
    assert len(gradients) == 1 + 2 + 3 * 4 + 4  # projection, cell, heads, encoder
    assert all(gradient is not None for gradient in gradients)


def test_scale_stays_within_its_radius_and_starts_where_it_is_told():
    network = RecognitionNetwork((11, 14), 3, 5, 4, 8, 6, (10,), -0.4, 0.5, scale_radius=0.3)
    stats, _, _ = network(tf.ones([2, 11, 14]) * 0.1, noise())
    np.testing.assert_allclose(stats.shift_log_scale, np.log(0.5), atol=0.5)
    kernel = network.scale_head.dense_1.kernel
    kernel.assign(tf.constant([[1000.0, 0.0]]) * tf.ones_like(kernel))  # the mean, not the spread
    stats, _, _ = network(tf.ones([2, 11, 14]), noise())
    assert np.abs(stats.scale_loc + 0.4).max() <= 0.3 + 1e-6
    assert np.abs(stats.scale_loc + 0.4).max() > 0.29
