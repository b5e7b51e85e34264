"""An object decoder that grows an object out of an appearance by transposed convolutions."""

import gin
import keras
import tensorflow as tf

from asr_tf.networks.contracts import Drawn, ObjectDecoder


@gin.register
class ConvDecoder(ObjectDecoder):
    """Appearance [N, Z] to colours [N, G, G, C] in (0, 1), without a mask."""

    def __init__(self, filters=16, name="decoder"):
        super().__init__(name=name)
        self.filters = filters

    def build(self, spec):
        """Makes the weights; two of the layers double the side."""
        super().build(spec)
        side = -(-spec.glimpse_size // 4)
        dark = keras.initializers.Constant(-2.0)  # pixels start at sigmoid(-2) = 0.12
        layers = [
            keras.layers.Dense(side * side * self.filters, "relu"),
            keras.layers.Reshape((side, side, self.filters)),
            keras.layers.Conv2DTranspose(self.filters, 4, 2, "same", activation="relu"),
            keras.layers.Conv2DTranspose(spec.channels, 4, 2, "same", bias_initializer=dark),
        ]
        self.network = keras.Sequential(layers)
        self.network.build((None, spec.what_size))

    def call(self, what):
        """Draws the objects; what is over G pixels is cut off."""
        side = self.spec.glimpse_size
        return Drawn(tf.sigmoid(tf.cast(self.network(what)[:, :side, :side], tf.float32)))
