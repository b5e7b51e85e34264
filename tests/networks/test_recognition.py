"""The recognition LSTM: a loop in NumPy, steps and their windows, the second look, bounds, precision."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from asr_tf.imaging.windows import read_windows
from asr_tf.networks.contracts import LatentNoise
from asr_tf.networks.recognition import LSTMRecognition
from asr_tf.scene import SceneSpec

T, G, Z = 3, 5, 4
SIZES = {"rnn_units": 8, "head_units": 6, "encoder_units": (10,)}
STATISTICS = ("presence_logits", "shift_loc", "shift_log_scale", "scale_loc", "scale_log_scale")


@pytest.fixture(autouse=True)
def _same_weights_every_time():
    keras.utils.set_random_seed(0)


def made(canvas_size=(11, 14), channels=1, num_steps=T, exact_count=None, **settings):
    network = LSTMRecognition(**SIZES | settings)
    network.build(SceneSpec(canvas_size, channels, num_steps, G, Z, -0.4, 0.2, exact_count))
    return network


def noise(value=0.0, batch=2):
    return LatentNoise(*(tf.fill([batch, T, size], value) for size in (2, 1, Z)))


def some_images(batch=2, canvas_size=(11, 14), channels=1):
    return np.random.default_rng(0).uniform(size=(batch, *canvas_size, channels)).astype(np.float32)


def numbers(structure):
    """The tensors of a structure, without what isn't there."""
    return [value for value in tf.nest.flatten(structure) if value is not None]


def sigmoid(x):
    return 1.0 / (1.0 + np.exp(-x))


def through(layer, values):
    kernel, bias = layer.get_weights()
    return values @ kernel + bias


@pytest.mark.parametrize("channels", [1, 3])
def test_locate_is_a_plain_loop(channels):
    """Of one image at a time, with noise, pooled in squares of two that the lower edge cuts off."""
    network = made(channels=channels)
    images, values = some_images(channels=channels), np.random.default_rng(1)
    drawn = LatentNoise(*(values.normal(size=(2, T, size)).astype(np.float32) for size in (2, 1, Z)))
    posterior, latents = network.locate(tf.constant(images), LatentNoise(*map(tf.constant, drawn)))
    assert posterior.what_loc is None and latents.what is None and latents.presence is None
    kernel, bias = network.image_gates.get_weights()
    (again,) = network.state_gates.get_weights()
    for b in range(2):
        pooled = [[images[b, i : i + 2, j : j + 2].mean((0, 1)) for j in range(0, 14, 2)] for i in range(0, 11, 2)]
        seen = np.ravel(pooled) @ kernel + bias
        hidden, cell, window = np.zeros(8), np.zeros(8), np.zeros(3)
        for t in range(T):
            fed = np.concatenate([window, hidden]) @ again if t else 0.0
            i, f, o, g = np.split(seen + fed, 4)
            cell = sigmoid(f) * cell + sigmoid(i) * np.tanh(g)
            hidden = sigmoid(o) * np.tanh(cell)
            for_shift, for_scale, for_presence = np.split(through(network.head_hidden, hidden), 3)
            shift_loc, shift_log_scale = np.split(through(network.shift_output, np.maximum(for_shift, 0.0)), 2)
            shift = shift_loc + np.exp(shift_log_scale) * drawn.shift[b, t]
            for_scale = for_scale + np.tanh(shift) @ network.shift_to_scale.get_weights()[0]
            scale_loc, scale_log_scale = through(network.scale_output, np.maximum(for_scale, 0.0))
            scale = scale_loc + np.exp(scale_log_scale) * drawn.scale[b, t]
            window = np.concatenate([shift, scale])
            logit = through(network.presence_output, np.maximum(for_presence, 0.0))[0]
            wanted = (logit, shift_loc, shift_log_scale, scale_loc, scale_log_scale)
            for name, value in zip(STATISTICS, wanted, strict=True):
                found = np.squeeze(getattr(posterior, name)[b, t])
                np.testing.assert_allclose(found, value, rtol=1e-4, atol=1e-5, err_msg=name)
            np.testing.assert_allclose(latents.shift_latent[b, t], shift, rtol=1e-4, atol=1e-5)
            np.testing.assert_allclose(latents.scale_latent[b, t], scale, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("second_look", [None, 1.5])
def test_samples_are_location_plus_scaled_noise(second_look):
    recognized = made(second_look=second_look)(tf.constant(some_images()), noise(0.7))
    stats, latents, glimpses = recognized
    for value, loc, log_scale in (
        (latents.shift_latent, stats.shift_loc, stats.shift_log_scale),
        (latents.scale_latent, stats.scale_loc, stats.scale_log_scale),
        (latents.what, stats.what_loc, stats.what_log_scale),
    ):
        np.testing.assert_allclose(value, loc + 0.7 * tf.exp(log_scale), rtol=1e-5)
    assert glimpses.shape == (2, T, G, G, 1)


def test_without_noise_is_with_a_noise_of_zero():
    network, images = made(), tf.constant(some_images())
    for value, wanted in zip(*map(numbers, (network(images), network(images, noise(0.0)))), strict=True):
        np.testing.assert_allclose(value, wanted, atol=1e-6)


def test_steps_look_at_earlier_windows_only():
    """Noise at the last step changes nothing before it; noise at the first changes the second."""
    network, images = made(), tf.ones([2, 11, 14, 1])
    zero = noise()
    late = zero._replace(shift=zero.shift + tf.constant([0.0, 0.0, 1.0])[None, :, None])
    early = zero._replace(shift=zero.shift + tf.constant([1.0, 0.0, 0.0])[None, :, None])
    base, changed_late, changed_early = (network(images, x).posterior for x in (zero, late, early))
    np.testing.assert_allclose(changed_late.shift_loc, base.shift_loc, atol=1e-6)
    assert np.abs(changed_early.shift_loc - base.shift_loc)[:, 1:].max() > 1e-6


def test_describe_is_a_perceptron():
    network = made(channels=3)
    glimpses = some_images(6, (G, G), 3)
    first, first_bias, last, last_bias = network.encoder.get_weights()
    wanted = np.log1p(np.exp(glimpses.reshape(6, -1) @ first + first_bias)) @ last + last_bias
    np.testing.assert_allclose(tf.concat(network.describe(tf.constant(glimpses)), -1), wanted, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("second_look", [None, 2.0])
def test_everything_is_trainable_and_tracked(second_look):
    network = made(second_look=second_look)
    with tf.GradientTape() as tape:
        stats, latents, _ = network(tf.constant(some_images()), noise(0.3))
        total = sum(tf.reduce_sum(tf.square(x)) for x in numbers((stats, latents)))
    gradients = tape.gradient(total, network.trainable_variables)
    assert len(gradients) == 2 + 1 + 2 + 1 + 3 * 2 + 4 + (4 if second_look else 0)
    assert all(np.abs(tf.convert_to_tensor(gradient)).max() > 0.0 for gradient in gradients)


def test_scale_stays_within_its_bound_and_spreads_start_where_they_are_told():
    network = made(initial_shift_stddev=0.5, scale_bound=1.5)  # of standard deviations of 0.2 around -0.4
    stats = network(tf.ones([2, 11, 14, 1]) * 0.1).posterior
    np.testing.assert_allclose(stats.shift_log_scale, np.full((2, T, 2), np.log(0.5)), atol=0.5)
    kernel = network.scale_output.kernel
    kernel.assign(tf.constant([[1000.0, 0.0]]) * tf.ones_like(kernel))  # the mean, not the spread
    away = np.abs(network(tf.ones([2, 11, 14, 1])).posterior.scale_loc + 0.4).max()
    assert 0.29 < away <= 0.3 + 1e-6


def test_corrected_scales_stay_within_their_bound():
    network = made(scale_bound=0.5, second_look=1.5, num_steps=2)
    network.corrector.perceptron.dense[1].bias.assign([0.0, 0.0, 0.0, 0.0, 50.0, 0.0])
    stats = network(tf.zeros([1, 11, 14, 1])).posterior
    np.testing.assert_allclose(stats.scale_loc, np.full((1, 2, 1), -0.3), atol=1e-4)


def test_with_a_second_look_the_means_do_not_depend_on_the_noise():
    network, images = made(second_look=1.5), tf.constant(some_images())
    stats, mode = network(images, noise(0.7)).posterior, network(images).posterior
    for field in STATISTICS:
        np.testing.assert_allclose(getattr(stats, field), getattr(mode, field), rtol=1e-6)


def _without_windows(images, windows):
    """Images [B, H, W, C] less what lies in one window each, pixel by pixel; windows [B, 3] of latents."""
    kept = np.ones(images.shape, np.float32)
    _, height, width, _ = images.shape
    for b, (x, y, u) in enumerate(windows.numpy()):
        half = 0.5 * min(height, width) / (1.0 + np.exp(-u))
        middles = 0.5 * height * (1.0 + np.tanh(y)), 0.5 * width * (1.0 + np.tanh(x))
        for i, j in np.ndindex(height, width):
            covered = [
                max(0.0, min(pixel + 1.0, middle + half) - max(pixel, middle - half))
                for pixel, middle in zip((i, j), middles, strict=True)
            ]
            kept[b, i, j] -= covered[0] * covered[1]
    return images * kept


def _located_plainly(network, images):
    """Means of shift and scale latents [B, T, 3]: see, decide, correct, blank, step by step."""
    look, batch = network.corrector, len(images)
    cell = keras.layers.LSTMCell(8)
    hidden = memory = tf.zeros([batch, 8])
    window, found = tf.zeros([batch, 3]), []
    for t in range(T):
        side = network.image_pool
        pooled = tf.nn.avg_pool2d(images, side, side, "VALID")
        gates = network.image_gates(tf.reshape(pooled, [batch, -1]))
        if t:
            gates += network.state_gates(tf.concat([window, hidden], -1))
        i, f, o, g = tf.split(gates, 4, -1)
        memory = cell.recurrent_activation(f) * memory + cell.recurrent_activation(i) * cell.activation(g)
        hidden = cell.recurrent_activation(o) * cell.activation(memory)
        for_shift, for_scale, _ = tf.split(network.head_hidden(hidden), 3, -1)
        shift = network.shift_output(tf.nn.relu(for_shift))[:, :2]
        scale = network.scale_output(tf.nn.relu(for_scale + network.shift_to_scale(tf.tanh(shift))))[:, :1]
        reach = look.margin * tf.sigmoid(scale)
        seen = read_windows(images, *map(tf.stop_gradient, (tf.tanh(shift), reach)), look.glimpse_size)
        said = look.perceptron(tf.reshape(seen, [batch, -1]))
        shift += reach * tf.tanh(said[:, :2]) / (1.0 - tf.tanh(shift) ** 2)
        window = tf.concat([shift, scale + said[:, 4:5]], -1)
        found.append(window)
        images = _without_windows(images, window)
    return tf.stack(found, 1)


@pytest.mark.parametrize("image_pool", [1, 2])
def test_steps_correct_their_windows_and_blank_them_for_later_steps(image_pool):
    """Values and gradients are those of a plain loop that cuts windows out pixel by pixel."""
    network = made((14, 14), image_pool=image_pool, second_look=1.5)
    network.image_gates.kernel.assign(3.0 * network.image_gates.kernel)
    images = tf.constant(some_images(4, (14, 14)))
    weights = [
        *network.image_gates.trainable_variables,
        *network.state_gates.trainable_variables,
        *network.shift_output.trainable_variables,
        *network.corrector.trainable_variables,
    ]
    values, gradients = [], []
    for located in (
        lambda: tf.concat(network.locate(images)[1][1:3], -1),
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


def test_for_a_given_count_there_is_no_head():
    """The model knows the count."""
    network = made(exact_count=2)
    np.testing.assert_array_equal(network(tf.constant(some_images())).posterior.presence_logits, np.zeros((2, T)))
    assert len(network.trainable_variables) == len(made().trainable_variables) - 2


def test_what_leaves_in_mixed_precision_is_float32_and_near():
    images = tf.constant(some_images())
    wanted = made(second_look=2.0)(images)
    previous = keras.mixed_precision.dtype_policy()
    keras.mixed_precision.set_dtype_policy("mixed_bfloat16")
    try:
        keras.utils.set_random_seed(0)
        network = made(second_look=2.0)
        found = network(images)
    finally:
        keras.mixed_precision.set_dtype_policy(previous)
    assert network.image_gates.compute_dtype == "bfloat16" and network.image_gates.kernel.dtype == "float32"
    for value, expected in zip(*map(numbers, (found, wanted)), strict=True):
        assert value.dtype == tf.float32
        np.testing.assert_allclose(value, expected, atol=0.1)


def test_xla_and_plain_graph_agree():
    network, images = made(second_look=1.5), tf.constant(some_images())
    outputs = [tf.function(network.__call__, jit_compile=jit)(images, noise(0.3)) for jit in (False, True)]
    for a, b in zip(*map(numbers, outputs), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-4)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"rnn_units": 0}, "LSTMRecognition.rnn_units must be a whole number, 1 or more, got 0"),
        ({"image_pool": 1.5}, "LSTMRecognition.image_pool must be a whole number"),
        ({"encoder_units": (10, -1)}, r"LSTMRecognition.encoder_units\[1\] must be a whole number"),
        ({"initial_shift_stddev": 0.0}, "LSTMRecognition.initial_shift_stddev must be a number above 0"),
        ({"scale_bound": -1.0}, "LSTMRecognition.scale_bound must be a number above 0"),
        ({"second_look": 0.5}, "LSTMRecognition.second_look must be between 1.0 and 4.0, got 0.5"),
    ],
)
def test_bad_settings(settings, message):
    with pytest.raises(ValueError, match=message):
        LSTMRecognition(**settings)
