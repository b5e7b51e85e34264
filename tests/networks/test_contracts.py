"""The contracts: noise, what recognition's two halves give together, parts that are made again, parts of one's own."""

import inspect

import numpy as np
import pytest
import tensorflow as tf

from asr_tf.networks.contracts import LatentNoise, Network, Recognition
from asr_tf.networks.decoder import MLPDecoder
from asr_tf.networks.pair_placement import PairPlacement
from asr_tf.networks.prior import AIRPrior, AutoregressivePrior
from asr_tf.networks.recognition import LSTMRecognition
from asr_tf.networks.second_look import SecondLook
from asr_tf.scene import PosteriorStatistics, SceneLatents, SceneSpec

SPEC = SceneSpec((12, 14), 1, 3, 6, 4, -1.0, 0.2)


@pytest.mark.parametrize("algorithm", ["philox", "threefry"])
def test_noise_is_standard_normal_and_follows_its_seed(algorithm):
    def draw(seed):
        return LatentNoise.draw(5000, SPEC, seed, algorithm)

    draw = tf.function(draw, jit_compile=algorithm == "threefry")  # TensorFlow's own CPU kernels know only Philox
    drawn = draw(tf.constant([1, 2]))
    assert [part.shape[1:] for part in drawn] == [(3, 2), (3, 1), (3, 4)]
    values = np.concatenate(drawn, -1).reshape(5000, -1)
    np.testing.assert_allclose(values.mean(0), 0.0, atol=5 / np.sqrt(5000))
    np.testing.assert_allclose(np.cov(values.T), np.eye(21), atol=6 * np.sqrt(2 / 5000))
    for other, same in (((1, 2), True), ((1, 3), False), ((2, 2), False)):
        assert np.array_equal(draw(tf.constant(other)).what, drawn.what) == same


class Fixed(Recognition):
    """Windows that are given, and appearances that are sums of glimpses."""

    def __init__(self, shift, scale, name="fixed"):
        super().__init__(name=name)
        self.shift, self.scale = shift, scale

    def locate(self, images, noise=None):
        shift, scale = (tf.constant(x, tf.float32) for x in (self.shift, self.scale))
        posterior = PosteriorStatistics(tf.zeros([2, 3]), shift, shift, scale, scale, None, None)
        return posterior, SceneLatents(None, shift, scale, None)

    def describe(self, glimpses):
        total = tf.reduce_sum(glimpses, [1, 2, 3])[:, tf.newaxis] * tf.constant([1.0, 2.0, 3.0, 4.0])
        return total, tf.fill(tf.shape(total), np.log(0.5).astype(np.float32))


def _shown(image, shift, scale, size):
    """What an image [H, W, C] shows in a window, bilinearly, value by value."""
    height, width, channels = image.shape
    side = min(height, width) * scale
    left, top = (shift + 1.0) / 2.0 * [width, height] - side / 2.0
    shown = np.zeros((size, size, channels))
    for i, j, y, x in np.ndindex(size, size, height, width):
        row, column = top + side * (i + 0.5) / size - 0.5, left + side * (j + 0.5) / size - 0.5
        shown[i, j] += max(0, 1 - abs(row - y)) * max(0, 1 - abs(column - x)) * image[y, x]
    return shown


@pytest.mark.parametrize("channels", [1, 3])
def test_glimpses_are_read_where_locate_says_and_described_one_by_one(channels):
    rng = np.random.default_rng(0)
    shift, scale = rng.normal(0.0, 0.5, (2, 3, 2)), rng.normal(-0.5, 0.5, (2, 3, 1))
    network = Fixed(shift, scale)
    network.build(SPEC._replace(channels=channels))
    images = rng.uniform(size=(2, 12, 14, channels)).astype(np.float32)
    noise = LatentNoise(None, None, tf.constant(rng.normal(size=(2, 3, 4)), tf.float32))
    recognized, mode = network(tf.constant(images), noise), network(tf.constant(images))
    for b, t in np.ndindex(2, 3):
        shown = _shown(images[b], np.tanh(shift[b, t]), 1 / (1 + np.exp(-scale[b, t, 0])), 6)
        np.testing.assert_allclose(recognized.glimpses[b, t], shown, atol=1e-5)
        loc = shown.sum() * np.arange(1.0, 5.0)
        np.testing.assert_allclose(recognized.posterior.what_loc[b, t], loc, rtol=1e-4)
        np.testing.assert_allclose(recognized.latents.what[b, t], loc + 0.5 * noise.what[b, t], rtol=1e-4, atol=1e-4)
        np.testing.assert_allclose(mode.latents.what[b, t], loc, rtol=1e-4)
    np.testing.assert_allclose(recognized.posterior.what_log_scale, np.full((2, 3, 4), np.log(0.5)), rtol=1e-6)


@pytest.mark.parametrize(
    ("kind", "settings"),
    [
        (LSTMRecognition, {"rnn_units": 9, "second_look": 2.0, "encoder_units": (3, 4), "scale_bound": 1.0}),
        (MLPDecoder, {"units": (3,), "initial_brightness": 0.3}),
        (AutoregressivePrior, {"placement_grid": None, "learn_scale": True, "head_units": 5}),
        (AIRPrior, {"presence_logits": (1.0, 2.0), "anneal_steps": 3}),
        (PairPlacement, {"grid_size": 7}),
        (SecondLook, {"margin": 1.5, "units": 4}),
    ],
)
def test_a_part_is_made_again_from_what_it_says(kind, settings):
    part = kind(**settings)
    said = part.get_config()
    assert set(said) == set(inspect.signature(kind).parameters)
    assert {name: said[name] for name in settings} == settings
    again = kind(**said)
    for made in (part, again):
        assert isinstance(made, Network) and not made.built
        made.build(SPEC)
        assert made.built and made.spec == SPEC
    assert again.get_config() == said
    assert [weight.shape for weight in again.weights] == [weight.shape for weight in part.weights]


def test_a_contract_that_is_not_fulfilled_is_not_made():
    class Half(Recognition):
        def locate(self, images, noise=None):
            return None

    with pytest.raises(TypeError, match="abstract"):
        Half()
