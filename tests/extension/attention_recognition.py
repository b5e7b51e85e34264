"""A recognition without an LSTM: every step attends to one place of a convolutional network's feature map."""

import gin
import keras
import numpy as np
import tensorflow as tf

from asr_tf.distributions import certain_presence_logits
from asr_tf.networks.contracts import Recognition
from asr_tf.scene import PosteriorStatistics, SceneLatents


@gin.register
class AttentionRecognition(Recognition):
    """Places have scores; a step attends by their softmax, and lowers the scores around the place that it attended."""

    def __init__(self, filters=16, units=64, inhibition=8.0, name="recognition"):
        """Keeps the settings.

        Args:
            filters: channels of the feature map, which has a place every 4 pixels.
            units: hidden width of the encoder of glimpses.
            inhibition: by how much the score falls where a step attended.
            name: Keras name.
        """
        super().__init__(name=name, autocast=False)  # latents stay float32
        self.filters, self.units, self.inhibition = filters, units, inhibition

    def build(self, spec):
        """Makes the layers, and with them the weights."""
        super().build(spec)
        convolutions = [keras.layers.Conv2D(self.filters, 5, 2, "same", activation="relu") for _ in range(2)]
        self.features = keras.Sequential(convolutions)
        self.features.build((None, *spec.canvas_size, spec.channels))
        start = [0.0, 0.0, 0.0, -2.0, -2.0, spec.scale_loc, -2.0]
        self.score = keras.layers.Dense(1)
        self.head = keras.layers.Dense(7, bias_initializer=keras.initializers.Constant(start))
        self.score.build((None, self.filters))
        self.head.build((None, self.filters + 1))
        layers = [keras.layers.Dense(self.units, "relu"), keras.layers.Dense(2 * spec.what_size)]
        self.encoder = keras.Sequential(layers)
        self.encoder.build((None, spec.glimpse_size**2 * spec.channels))

    def locate(self, images, noise=None):
        """See `Recognition.locate`."""
        features = tf.cast(self.features(images), tf.float32)
        rows, columns = ((np.arange(size) + 0.5) / size * 2.0 - 1.0 for size in features.shape[1:3])
        places = np.stack(np.meshgrid(columns, rows), -1).reshape(-1, 2).astype(np.float32)  # [P, 2], (x, y)
        features = tf.reshape(features, [-1, len(places), self.filters])
        scores = tf.cast(self.score(features), tf.float32)[..., 0]  # [B, P]
        steps = []
        for _ in range(self.spec.num_steps):
            attention = tf.nn.softmax(scores)
            attended = tf.linalg.matvec(features, attention, transpose_a=True)  # [B, F]
            left = tf.reduce_logsumexp(scores, -1, keepdims=True)
            centre = tf.matmul(attention, places)  # [B, 2]
            head = tf.cast(self.head(tf.concat([attended, left], -1)), tf.float32)
            presence, moved, shift_spread, scale, scale_spread = tf.split(head, [1, 2, 2, 1, 1], -1)
            shift = 0.5 * tf.math.log((1.0 + centre) / (1.0 - centre)) + moved  # the first is atanh, which LiteRT lacks
            steps.append((presence, shift, shift_spread, scale, scale_spread))
            away = tf.reduce_sum(tf.square(places - centre[:, tf.newaxis]), -1) / tf.square(tf.sigmoid(scale))
            scores -= self.inhibition * tf.exp(-2.0 * away)
        logits, *window = (tf.stack(values, 1) for values in zip(*steps, strict=True))
        logits = logits[..., 0]
        if self.spec.exact_count is not None:
            certain = certain_presence_logits(self.spec.exact_count, self.spec.num_steps)
            logits = tf.broadcast_to(certain, tf.shape(logits))
        shift, shift_spread, scale, scale_spread = window
        if noise is not None:
            shift, scale = shift + tf.exp(shift_spread) * noise.shift, scale + tf.exp(scale_spread) * noise.scale
        return PosteriorStatistics(logits, *window, None, None), SceneLatents(tf.ones_like(logits), shift, scale, None)

    def describe(self, glimpses):
        """See `Recognition.describe`."""
        flat = tf.reshape(glimpses, [-1, self.spec.glimpse_size**2 * self.spec.channels])
        return tf.split(tf.cast(self.encoder(flat), tf.float32), 2, -1)
