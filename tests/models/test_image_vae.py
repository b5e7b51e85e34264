"""The plain autoencoder: its bound against TFP and a linear model's exact likelihood, training, reload, messages."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from tensorflow_probability import distributions as tfd

from asr_tf.data import Scenes
from asr_tf.evaluation.measurement import measure
from asr_tf.models.build import build_model
from asr_tf.models.image_vae import ImageVAE

CANVAS = (6, 8)


def tiny(**settings):
    sizes = {"canvas_size": CANVAS, "what_size": 3, "encoder_units": (10,), "decoder_units": (10,)}
    return ImageVAE(**{**sizes, **settings})


def images(n=5, seed=0):
    return np.random.default_rng(seed).uniform(size=(n, *CANVAS, 1)).astype(np.float32)


def log_pixels(x, means):
    """Bernoulli log-probabilities of grey values, summed over the pixels."""
    x, means = x[..., 0].astype(np.float64), np.asarray(means, np.float64)
    return (x * np.log(means) + (1.0 - x) * np.log1p(-means)).sum(axis=(1, 2))


def test_the_bound_is_that_of_tfp():
    model = tiny()
    x = images()
    terms = model.objective(x, (3, 4))
    loc, log_scale = model.encoder(tf.constant(x[..., 0]))
    q = tfd.MultivariateNormalDiag(loc, tf.exp(log_scale))
    kl = tfd.kl_divergence(q, tfd.MultivariateNormalDiag(tf.zeros_like(loc)))
    np.testing.assert_allclose(terms.kl_what, kl, rtol=1e-4)
    code = loc + tf.exp(log_scale) * tf.random.stateless_normal([5, 3], (3, 4), alg="philox")
    np.testing.assert_allclose(terms.nll, -log_pixels(x, model.decoder(code)), rtol=1e-4)
    np.testing.assert_allclose(terms.negative_elbo, terms.nll + terms.kl_what)


def test_the_likelihood_is_the_mean_of_the_importance_weights():
    """Against the same estimate by TFP's densities, particle by particle."""
    model = tiny()
    x = images(2)
    loc, log_scale = model.encoder(tf.constant(x[..., 0]))
    q = tfd.MultivariateNormalDiag(loc, tf.exp(log_scale))
    weights = []
    for k in range(4):
        code = loc + tf.exp(log_scale) * tf.random.stateless_normal([2, 3], (7, 9 + k))
        prior = tfd.MultivariateNormalDiag(tf.zeros(3)).log_prob(code)
        weights.append(log_pixels(x, model.decoder(code)) + prior - q.log_prob(code))
    expected = tf.reduce_logsumexp(tf.stack(weights), 0) - np.log(4.0)
    np.testing.assert_allclose(model.log_likelihood(x, 4, (7, 9)), expected, rtol=1e-4)
    with pytest.raises(ValueError, match="num_particles must be a number above 0, got 0"):
        model.log_likelihood(x, 0, (0, 0))


def test_training_lowers_the_bound_and_skips_what_is_not_finite():
    model = tiny()
    model.compile(optimizer=keras.optimizers.Adam(1e-2), jit_compile=False)
    data = tf.data.Dataset.from_tensors({"image": images(), "count": np.ones(5, np.int32)}).repeat(60)
    history = model.fit(data, epochs=2, steps_per_epoch=30, verbose=0).history
    assert history["negative_elbo_nats"][1] < history["negative_elbo_nats"][0]
    assert set(history) >= {"loss", "nll_nats", "kl_what_nats"} and "count_accuracy" not in history
    before = [weight.numpy() for weight in model.trainable_variables]
    bad = tf.data.Dataset.from_tensors({"image": np.full((2, *CANVAS, 1), np.nan, np.float32)})
    model.fit(bad, verbose=0)
    assert model.nonfinite_terms()[0] == "nll_nats"
    for weight, old in zip(model.trainable_variables, before, strict=True):
        np.testing.assert_array_equal(weight.numpy(), old)


def test_inference_and_sampling_repeat():
    model = tiny()
    inferred = model.infer(images())
    np.testing.assert_allclose(inferred["z_what"], model.encoder(tf.constant(images()[..., 0]))[0], rtol=1e-5)
    np.testing.assert_allclose(inferred["reconstruction"][..., 0], model.decoder(inferred["z_what"]), rtol=1e-5)
    first, second = model.sample(4, (1, 2)), model.sample(4, (1, 2))
    np.testing.assert_array_equal(first["images"], second["images"])
    assert np.ptp(model.sample(4, (1, 3))["z_what"] - first["z_what"]) > 0.0


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


def test_bad_settings_are_named():
    with pytest.raises(ValueError, match="ImageVAE.what_size must be a number above 0, got 0"):
        tiny(what_size=0)
    with pytest.raises(ValueError, match=r"ImageVAE.canvas_size must be \(H, W\), got \(6,\)"):
        tiny(canvas_size=(6,))
    with pytest.raises(ValueError, match="model.kind='va' is unknown .did you mean 'vae'.*scenes"):
        build_model(CANVAS, 0, kind="va")
    with pytest.raises(ValueError, match="images must be 6 x 8 pixels"):
        tiny().infer(np.zeros((1, 8, 6, 1), np.float32))
