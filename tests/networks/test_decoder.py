"""The object decoder against NumPy, and where it starts."""

import numpy as np
import pytest
import tensorflow as tf

from asr_tf.networks.decoder import MLPDecoder
from asr_tf.scene import SceneSpec


def decoder(channels=1, **settings):
    made = MLPDecoder(**{"units": (8, 7), **settings})
    made.build(SceneSpec((12, 14), channels, 3, 5, 4, -1.0, 0.2))
    return made


@pytest.mark.parametrize("channels", [1, 3])
def test_colours_are_the_sigmoid_of_a_perceptron(channels):
    """Channels are next to one another: pixel by pixel in rows."""
    made = decoder(channels)
    what = np.random.default_rng(0).normal(size=(6, 4)).astype(np.float32)
    values, weights = what, made.get_weights()
    for i in range(0, 6, 2):
        values = values @ weights[i] + weights[i + 1]
        values = values if i == 4 else np.log1p(np.exp(values))
    drawn = made(tf.constant(what))
    assert drawn.mask is None and drawn.colour.dtype == tf.float32
    np.testing.assert_allclose(
        drawn.colour, (1.0 / (1.0 + np.exp(-values))).reshape(6, 5, 5, channels), rtol=1e-4, atol=1e-6
    )


@pytest.mark.parametrize("brightness", [0.1, 0.7])
def test_pixels_start_at_the_given_brightness(brightness):
    made = decoder(initial_brightness=brightness)
    made.perceptron.dense[-1].kernel.assign(tf.zeros([7, 25]))
    np.testing.assert_allclose(made(tf.ones([3, 4])).colour, np.full((3, 5, 5, 1), brightness), rtol=1e-5)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"units": (8, 0)}, r"MLPDecoder.units\[1\] must be a whole number, 1 or more, got 0"),
        ({"initial_brightness": 1.0}, "MLPDecoder.initial_brightness must be between"),
    ],
)
def test_bad_settings(settings, message):
    with pytest.raises(ValueError, match=message):
        MLPDecoder(**settings)
