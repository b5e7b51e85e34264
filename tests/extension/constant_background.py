"""A background that is one colour in an image: C numbers of each image are inferred, whose prior is standard normal."""

import gin
import keras
import tensorflow as tf
from tensorflow_probability import distributions as tfd

from asr_tf.distributions import normal
from asr_tf.networks.contracts import Background


@gin.register
class ConstantBackground(Background):
    """The sigmoid of a normal latent [B, C] is the colour; a perceptron infers it from mean and least of the pixels."""

    def __init__(self, units=16, name="background"):
        """Keeps the settings.

        Args:
            units: hidden width of the perceptron.
            name: Keras name.
        """
        super().__init__(name=name, autocast=False)  # latents stay float32
        self.units = units

    def build(self, spec):
        """Makes the layers, and with them the weights."""
        super().build(spec)
        layers = [keras.layers.Dense(self.units, "relu"), keras.layers.Dense(2 * spec.channels)]
        self.network = keras.Sequential(layers)
        self.network.build((None, 2 * spec.channels))

    def call(self, images, seed=None):
        """See `Background.call`."""
        seen = tf.concat([tf.reduce_mean(images, [1, 2]), tf.reduce_min(images, [1, 2])], -1)
        loc, log_scale = tf.split(tf.cast(self.network(seen), tf.float32), 2, -1)
        posterior, prior = normal(loc, log_scale), normal(tf.zeros_like(loc), 0.0)
        latent = loc if seed is None else loc + tf.exp(log_scale) * tf.random.stateless_normal(tf.shape(loc), seed)
        return self._fill(latent), tfd.kl_divergence(posterior, prior)

    def sample(self, num_samples, seed):
        """See `Background.sample`."""
        return self._fill(tf.random.stateless_normal([num_samples, self.spec.channels], seed))

    def _fill(self, latent):
        """Images [N, H, W, C] of one colour each, from latents [N, C]."""
        colour = tf.sigmoid(latent)[:, tf.newaxis, tf.newaxis]
        return tf.tile(colour, [1, *self.spec.canvas_size, 1])
