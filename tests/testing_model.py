"""A tiny stand-in for the model and its data, with their interfaces: tests of training run in a second."""

from __future__ import annotations

import keras
import numpy as np
import tensorflow as tf

from asr_tf.data import Scenes
from asr_tf.runs import run_folder
from asr_tf.training import fit

CANVAS = (6, 8)


def tiny_scenes(n: int = 40, seed: int = 0) -> Scenes:
    """n random images with counts and boxes."""
    rng = np.random.default_rng(seed)
    return Scenes(
        images=rng.integers(0, 256, (n, *CANVAS, 1), dtype=np.uint8),
        counts=rng.integers(1, 3, n).astype(np.int32),
        boxes=np.tile(np.array([[[0.0, 0.0, 0.5, 0.5], [0.0, 0.0, 0.0, 0.0]]], np.float32), (n, 1, 1)),
    )


class TinyModel(keras.Model):
    """A noisy linear autoencoder that counts steps and skips those that aren't finite, as ASRModel does."""

    finds_objects = True

    def __init__(self, *, canvas_size, channels, seed=0, sides_px=None, poison_from=None):
        super().__init__()
        self.canvas_size = tuple(canvas_size)
        self.channels = channels
        self.num_steps = 2
        self._seed = seed
        self._poison_from = poison_from
        size = canvas_size[0] * canvas_size[1] * channels
        self.dense = keras.layers.Dense(size, kernel_initializer=keras.initializers.RandomNormal(seed=seed))
        self.dense.build((None, size))
        self.step = self.add_weight(name="step", shape=(), dtype="int64", initializer="zeros", trainable=False)
        self.in_a_row = self.add_weight(name="in_a_row", shape=(), dtype="int64", initializer="zeros", trainable=False)
        self.built = True

    def call(self, images):
        flat = tf.reshape(images, [tf.shape(images)[0], -1])
        return tf.reshape(self.dense(flat), tf.shape(images))

    def train_step(self, data):
        images = data["image"]
        seed = tf.stack([tf.cast(self._seed, tf.int64), tf.identity(self.step.value)])
        noise = 0.1 * tf.random.stateless_normal(tf.shape(images), seed)
        with tf.GradientTape() as tape:
            loss = tf.reduce_mean(tf.square(self(images + noise) - images))
            if self._poison_from is not None:
                loss = tf.where(self.step.value >= self._poison_from, np.nan, 1.0) * loss
        gradients = tape.gradient(loss, self.trainable_variables)
        is_finite = tf.math.is_finite(loss)
        gradients = [tf.where(is_finite, gradient, 0.0) for gradient in gradients]
        self.optimizer.apply_gradients(zip(gradients, self.trainable_variables, strict=True))
        self.in_a_row.assign(tf.where(is_finite, tf.zeros([], tf.int64), self.in_a_row.value + 1))
        self.step.assign(self.step + 1)
        return {
            "loss": loss,
            "negative_elbo_nats": loss,
            "nll_nats": loss,
            "skipped_steps": tf.cast(self.in_a_row.value, tf.float32),
            "skipped_in_a_row": tf.cast(self.in_a_row.value, tf.float32),
        }

    def objective(self, images, seed):
        return [tf.reduce_mean(tf.square(self(images) - images), axis=[1, 2, 3])]

    def rules_held(self):
        return {}

    def nonfinite_terms(self):
        return ["nll_nats"]

    def infer(self, images):
        batch = len(images)
        return {
            "count": np.ones(batch, np.int32),
            "boxes": np.tile(np.array([[[0.0, 0.0, 0.5, 0.5], [0.0] * 4]], np.float32), (batch, 1, 1)),
            "reconstruction": np.asarray(images),
        }

    def sample(self, num_samples, seed, num_objects=-1):
        rng = np.random.default_rng(list(seed))
        count = 1 if num_objects < 0 else num_objects
        return {
            "images": rng.random((num_samples, *self.canvas_size, self.channels), dtype=np.float32),
            "count": np.full(num_samples, count, np.int32),
            "boxes": np.zeros((num_samples, self.num_steps, 4), np.float32),
        }


def install(monkeypatch):
    """Puts the stand-ins for data, model and validation into the package."""
    monkeypatch.setattr(fit.DataSource, "load", lambda *_, **__: tiny_scenes())
    for module in (fit, run_folder):
        monkeypatch.setattr(module, "build_model", TinyModel)
    metrics = {"count_accuracy": 0.5, "mean_iou": 0.25}
    monkeypatch.setattr(fit, "validation_metrics", lambda *_: dict(metrics))


def run_command(main, *arguments):
    """What a command does between its process's start and end, with fresh flags."""
    own = main._FLAGS
    for name in own:
        own[name].unparse()
    own([main.__name__, *arguments])
    main._check()
    main._main()
