"""The plain autoencoder: its bound against TFP and a linear model's exact likelihood, training, colours, messages."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from tensorflow_probability import distributions as tfd

from asr_tf.data import Scenes
from asr_tf.evaluation.measurement import measure
from asr_tf.imaging.observation import GaussianPixels
from asr_tf.models.image_vae import ImageVAE

CANVAS = (6, 8)


def tiny(**settings):
    sizes = {"canvas_size": CANVAS, "what_size": 3, "encoder_units": (10,), "decoder_units": (10,)}
    return ImageVAE(**{**sizes, **settings})


def images(n=5, seed=0, channels=1):
    return np.random.default_rng(seed).uniform(size=(n, *CANVAS, channels)).astype(np.float32)


def perceptron(layer, values):
    first, first_bias, last, last_bias = layer.get_weights()
    return np.log1p(np.exp(values @ first + first_bias)) @ last + last_bias


def encoded(model, x):
    """Mean and log standard deviation of the vector."""
    return np.split(perceptron(model.encoder, x.reshape(len(x), -1)), 2, -1)


def decoded(model, code):
    pixels = 1.0 / (1.0 + np.exp(-perceptron(model.decoder, np.asarray(code))))
    return pixels.reshape(-1, *CANVAS, model.channels)


def log_pixels(x, means):
    """Bernoulli log-probabilities of grey values, summed over the pixels."""
    x, means = x.astype(np.float64), np.asarray(means, np.float64)
    return (x * np.log(means) + (1.0 - x) * np.log1p(-means)).sum(axis=(1, 2, 3))


@pytest.mark.parametrize("channels", [1, 3])
def test_the_bound_is_that_of_tfp(channels):
    model, x = tiny(channels=channels), images(channels=channels)
    terms = model.objective(x, (3, 4))
    loc, log_scale = encoded(model, x)
    q, p = tfd.MultivariateNormalDiag(loc, tf.exp(log_scale)), tfd.MultivariateNormalDiag(tf.zeros_like(loc))
    np.testing.assert_allclose(terms.kl_what, tfd.kl_divergence(q, p), rtol=1e-4)
    noise = model.draw_noise(5, tf.random.split((3, 4), 2)[0])
    np.testing.assert_allclose(terms.nll, -log_pixels(x, decoded(model, loc + np.exp(log_scale) * noise)), rtol=1e-4)
    np.testing.assert_allclose(terms.negative_elbo, terms.nll + terms.kl_what)


def test_the_likelihood_is_the_mean_of_the_importance_weights():
    """Against the same estimate by TFP's densities, particle by particle."""
    model, x = tiny(), images(2)
    loc, log_scale = encoded(model, x)
    q = tfd.MultivariateNormalDiag(loc, tf.exp(log_scale))
    weights = []
    for k in range(4):
        code = loc + np.exp(log_scale) * model.draw_noise(2, tf.constant([7, 9 + k])).numpy()
        prior = tfd.MultivariateNormalDiag(tf.zeros(3)).log_prob(code)
        weights.append(log_pixels(x, decoded(model, code)) + prior - q.log_prob(code))
    expected = tf.reduce_logsumexp(tf.stack(weights), 0) - np.log(4.0)
    np.testing.assert_allclose(model.log_likelihood(x, 4, (7, 9)), expected, rtol=1e-4)
    with pytest.raises(ValueError, match="num_particles must be a number above 0, got 0"):
        model.log_likelihood(x, 0, (0, 0))


def test_a_decoder_that_looks_at_nothing_has_a_known_likelihood():
    """Exactly so where the posterior is the prior: every weight is the likelihood."""
    model, x = tiny(observation=GaussianPixels(0.3)), images(3)
    for layer in (model.decoder, model.encoder):
        layer.dense[-1].kernel.assign(tf.zeros_like(layer.dense[-1].kernel))
    expected = tfd.Normal(0.1, 0.3).log_prob(x).numpy().sum((1, 2, 3))
    np.testing.assert_allclose(model.log_likelihood(x, 7, (0, 0)), expected, rtol=1e-5)


def test_training_lowers_the_bound_and_skips_what_is_not_finite():
    model = tiny()
    model.compile(optimizer=keras.optimizers.Adam(1e-2), jit_compile=False)
    data = tf.data.Dataset.from_tensors({"image": images(), "count": np.ones(5, np.int32)}).repeat(60)
    history = model.fit(data, epochs=2, steps_per_epoch=30, verbose=0).history
    assert history["negative_elbo_nats"][1] < history["negative_elbo_nats"][0]
    assert set(history) >= {"loss", "nll_nats", "kl_what_nats"} and "count_accuracy" not in history
    changing = [*model.trainable_variables, *model.optimizer.variables]
    before = [variable.numpy() for variable in changing]
    bad = tf.data.Dataset.from_tensors({"image": np.full((5, *CANVAS, 1), np.nan, np.float32)})
    model.fit(bad, verbose=0)
    assert model.nonfinite_terms()[0] == "nll_nats"
    for variable, old in zip(changing, before, strict=True):
        np.testing.assert_array_equal(variable.numpy(), old)


@pytest.mark.parametrize("channels", [1, 3])
def test_inference_and_sampling_repeat(channels):
    model, x = tiny(channels=channels), images(channels=channels)
    inferred = model.infer(x)
    np.testing.assert_allclose(inferred["z_what"], encoded(model, x)[0], rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(inferred["reconstruction"], decoded(model, inferred["z_what"]), rtol=1e-4)
    first, second = model.sample(4, (1, 2)), model.sample(4, (1, 2))
    np.testing.assert_array_equal(first["images"], second["images"])
    np.testing.assert_allclose(first["images"], decoded(model, first["z_what"]), rtol=1e-4)
    assert np.ptp(model.sample(4, (1, 3))["z_what"] - first["z_what"]) > 0.0


def test_sampled_vectors_are_standard_normal():
    code = tiny().sample(4000, (1, 2))["z_what"].numpy()
    np.testing.assert_allclose(code.mean(0), 0.0, atol=5 / np.sqrt(4000))
    np.testing.assert_allclose(np.cov(code.T), np.eye(3), atol=6 * np.sqrt(2 / 4000))


def test_weights_follow_from_the_seed():
    one, other, third = (tiny(seed=seed) for seed in (1, 1, 2))
    for a, b in zip(one.get_weights(), other.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)
    assert np.abs(one.encoder.get_weights()[0] - third.encoder.get_weights()[0]).max() > 1e-3


def test_the_report_leaves_out_what_it_does_not_know():
    scenes = Scenes(
        (255 * images(6)).astype(np.uint8), counts=np.ones(6, np.int32), boxes=np.zeros((6, 1, 4), np.float32)
    )
    report, outputs = measure(tiny(), scenes, batch_size=4, num_samples=3, num_particles=2)
    assert {"negative_elbo_nats", "kl_what_nats", "squared_error", "log_likelihood_nats"} <= set(report)
    assert not {"count_accuracy", "mean_iou", "sample_counts", "kl_count_nats"} & set(report)
    assert set(outputs["inferred"]) == {"reconstruction"} and outputs["sampled"]["images"].shape == (3, *CANVAS, 1)
    difference = scenes.images / 255.0 - outputs["inferred"]["reconstruction"]
    np.testing.assert_allclose(report["squared_error"], np.square(difference).sum((1, 2, 3)).mean(), rtol=1e-5)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"what_size": 0}, "ImageVAE.what_size must be a whole number, 1 or more, got 0"),
        ({"canvas_size": (6,)}, r"ImageVAE.canvas_size must be \(H, W\), got \(6,\)"),
        ({"channels": 4}, "ImageVAE.channels=4 is unknown"),
        ({"initial_brightness": 0.0}, "ImageVAE.initial_brightness must be between"),
        ({"clipnorm": -1.0}, "ImageVAE.clipnorm must be a number above 0"),
    ],
)
def test_bad_settings_are_named(settings, message):
    with pytest.raises(ValueError, match=message):
        tiny(**settings)


def test_bad_images_are_named():
    with pytest.raises(ValueError, match="images must be 6 x 8 pixels"):
        tiny().infer(np.zeros((1, 8, 6, 1), np.float32))
