"""Encoder and decoder of images: where they start, shapes of glimpses in batches, images that aren't square."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from asr_tf.networks.autoencoder import ImageDecoder, ImageEncoder


@pytest.fixture(autouse=True)
def _same_weights_every_time():
    keras.utils.set_random_seed(0)


def test_decoder_starts_at_the_given_brightness():
    images = ImageDecoder(4, (8,), (6, 9), 0.1, "decoder")(tf.zeros([3, 4]))
    np.testing.assert_allclose(images, np.full((3, 6, 9), 0.1), atol=0.15)


def test_encoder_treats_every_image_alike():
    """Glimpses [B, T, h, w] as if each were on its own."""
    encoder = ImageEncoder((5, 7), (8,), 3, "encoder")
    glimpses = np.random.default_rng(0).uniform(size=(2, 4, 5, 7)).astype(np.float32)
    loc, log_scale = encoder(tf.constant(glimpses))
    alone = [encoder(tf.constant(glimpses[b, t][np.newaxis])) for b in range(2) for t in range(4)]
    np.testing.assert_allclose(np.reshape(loc, (8, 3)), np.concatenate([a for a, _ in alone]), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(
        np.reshape(log_scale, (8, 3)), np.concatenate([b for _, b in alone]), rtol=1e-5, atol=1e-6
    )
