"""The recognition that sees: what is the same everywhere, what is blanked, and what it is told of the whole image."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from asr_tf.networks.contracts import LatentNoise
from asr_tf.networks.conv_recognition import ConvRecognition
from asr_tf.scene import SceneSpec

SPEC = SceneSpec((48, 64), 1, 3, 8, 5, -1.2, 0.2)


@pytest.fixture(autouse=True)
def _same_weights_every_time():
    keras.utils.set_random_seed(0)


def made(spec=SPEC, **settings):
    recognition = ConvRecognition(**settings)
    recognition.build(spec)
    return recognition


def scene(*corners, side=10, channels=1):
    """White squares with those upper left corners (y, x)."""
    image = np.zeros((1, *SPEC.canvas_size, channels), np.float32)
    for y, x in corners:
        image[0, y : y + side, x : x + side] = 1.0
    return tf.constant(image)


def centres_px(latents):
    """(y, x) of each step, [T, 2]."""
    x, y = ((np.tanh(latents.shift_latent[0, :, i]) + 1.0) / 2.0 * SPEC.canvas_size[1 - i] for i in range(2))
    return np.stack([y, x], -1)


def test_windows_lie_on_objects_before_anything_is_learned():
    corners = [(4, 6), (5, 45), (32, 25)]
    _, latents = made().locate(scene(*corners))
    found = centres_px(latents)
    for y, x in corners:
        assert np.abs(found - (y + 5, x + 5)).max(-1).min() < 4.0  # each object has a window near its middle


def test_a_scene_moved_by_whole_places_has_its_windows_moved():
    recognition = made()
    _, before = recognition.locate(scene((14, 20)))
    _, after = recognition.locate(scene((18, 28)))
    np.testing.assert_allclose(centres_px(after)[0] - centres_px(before)[0], [4.0, 8.0], atol=0.05)
    np.testing.assert_allclose(after.scale_latent[0, 0], before.scale_latent[0, 0], atol=2e-3)


def test_what_a_window_explains_is_not_attended_to_again():
    """Two objects, two windows: the second step goes to the other object, wherever the first one went."""
    _, latents = made().locate(scene((8, 8), (30, 44)))
    found = centres_px(latents)[:2]
    assert np.linalg.norm(found[0] - found[1]) > 30.0


def test_noise_moves_samples_by_the_posteriors_spread():
    recognition, images = made(), scene((10, 10), (30, 40))
    noise = LatentNoise.draw(1, SPEC, tf.constant([1, 2]), "philox")
    posterior, latents = recognition.locate(images, noise)
    for name in ("shift", "scale"):
        loc, log_scale = getattr(posterior, f"{name}_loc"), getattr(posterior, f"{name}_log_scale")
        expected = loc + tf.exp(log_scale) * getattr(noise, name)
        np.testing.assert_allclose(getattr(latents, f"{name}_latent"), expected, rtol=1e-6)
    _, modes = recognition.locate(images)
    np.testing.assert_allclose(modes.shift_latent, posterior.shift_loc, rtol=1e-5)


def test_the_posterior_starts_as_wide_as_asked_for():
    """0.15 sides of a typical object, on the canvas."""
    recognition = made()
    for layer in recognition.corrector.perceptron.dense:
        layer.kernel.assign(tf.zeros_like(layer.kernel))
    posterior, latents = recognition.locate(scene((18, 26)))
    slope = 1.0 - np.square(np.tanh(latents.shift_latent[0, 0]))
    stddev_px = np.exp(posterior.shift_log_scale[0, 0]) * slope * 0.5 * 48
    np.testing.assert_allclose(stddev_px, 0.15 * 48 / (1 + np.exp(1.2)), rtol=0.05)


@pytest.mark.parametrize("least_spread", [0.03, 0.0])
def test_no_window_is_surer_than_the_least_spread(least_spread):
    """In sides of a typical object: the centre's standard deviation, and twice of it the side's."""
    recognition = made(least_spread=least_spread)
    last = recognition.corrector.perceptron.dense[-1]
    last.kernel.assign(tf.zeros_like(last.kernel))
    last.bias.assign([0.0, 0.0, -5.0, -5.0, 0.0, -5.0, 0.0])
    posterior, latents = recognition.locate(scene((18, 26)))
    share = 1 / (1 + np.exp(1.2))
    slope = 1.0 - np.square(np.tanh(latents.shift_latent[0, 0]))
    centre_px = np.exp(posterior.shift_log_scale[0, 0]) * slope * 0.5 * 48
    learned = 0.15 * np.exp(-5.0)
    np.testing.assert_allclose(centre_px, np.hypot(learned, least_spread) * 48 * share, rtol=1e-5)
    side = np.exp(posterior.scale_log_scale[0, 0]) * (1.0 - share)
    np.testing.assert_allclose(side, np.hypot(np.exp(-7.0) * (1.0 - share), 2.0 * least_spread), rtol=1e-5)


def test_a_look_is_told_how_much_ink_the_image_has():
    """Presence of the first step follows the ink far from its window."""
    recognition = made()
    alone, _ = recognition.locate(scene((8, 8)))
    images = scene((8, 8)).numpy()
    images[0, 40:46, 40:60] = 0.2  # faint, so that attention goes to the square first
    beside, _ = recognition.locate(tf.constant(images))
    assert abs(float(alone.presence_logits[0, 0] - beside.presence_logits[0, 0])) > 1e-3


@pytest.mark.parametrize("canvas", [(32, 32), (128, 96)])
@pytest.mark.parametrize("channels", [1, 3])
def test_canvases_from_32_to_128_pixels(canvas, channels):
    spec = SPEC._replace(canvas_size=canvas, channels=channels)
    images = tf.random.stateless_uniform([2, *canvas, channels], (1, 2))
    recognized = made(spec)(images, LatentNoise.draw(2, spec, tf.constant([1, 2]), "philox"))
    assert recognized.posterior.presence_logits.shape == (2, 3)
    assert all(np.all(np.isfinite(x)) for x in recognized.posterior)


def test_every_weight_has_a_gradient():
    recognition = made()
    with tf.GradientTape() as tape:
        recognized = recognition(scene((8, 8), (30, 44)), LatentNoise.draw(1, SPEC, tf.constant([1, 2]), "philox"))
        total = tf.add_n([tf.reduce_sum(tf.square(x)) for x in recognized.posterior])
    for variable, gradient in zip(
        recognition.trainable_variables, tape.gradient(total, recognition.trainable_variables), strict=True
    ):
        assert gradient is not None and np.any(gradient), variable.path


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"filters": 0}, r"ConvRecognition.filters must be"),
        ({"margin": 0.5}, r"ConvRecognition.margin must"),
        ({"initial_spread": 0.0}, r"ConvRecognition.initial_spread must"),
        ({"least_spread": -0.01}, r"ConvRecognition.least_spread must"),
        ({"least_spread": 0.2}, r"ConvRecognition.least_spread must .* 0.15"),
        ({"encoder_units": (8, 0)}, r"ConvRecognition.encoder_units\[1\] must"),
    ],
)
def test_settings_out_of_range(settings, message):
    with pytest.raises(ValueError, match=message):
        ConvRecognition(**settings)
