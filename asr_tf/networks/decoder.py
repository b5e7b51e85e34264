"""The published object decoder: a perceptron from an appearance to the pixels of a glimpse.

References:
    Kingma and Welling, "Auto-Encoding Variational Bayes", ICLR 2014, arXiv:1312.6114, appendix C.
    Xu et al., arXiv:1906.03923, section 4 (sizes).
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import gin
import tensorflow as tf

from asr_tf.checks import check_range, check_whole
from asr_tf.networks.contracts import Drawn, ObjectDecoder
from asr_tf.networks.layers import Perceptron
from asr_tf.scene import SceneSpec

__all__ = ["MLPDecoder"]


@gin.register
class MLPDecoder(ObjectDecoder):
    """Appearance [N, Z] to colours in (0, 1), without a mask."""

    def __init__(
        self, units: Sequence[int] = (256, 512), initial_brightness: float = 0.1, name: str = "decoder"
    ):
        """Initializes the network.

        Args:
            units: hidden widths.
            initial_brightness: where pixels start, in (0, 1).
            name: Keras name.

        Raises:
            ValueError, TypeError: a value is out of range, or of the wrong type.
        """
        super().__init__(name=name)
        for i, width in enumerate(units):
            check_whole(f"MLPDecoder.units[{i}]", width)
        check_range("MLPDecoder.initial_brightness", initial_brightness, 1e-4, 1.0 - 1e-4)
        self.units, self.initial_brightness = tuple(units), initial_brightness

    def build(self, spec: SceneSpec) -> None:
        """See `Network.build`."""
        super().build(spec)
        bias = math.log(self.initial_brightness / (1.0 - self.initial_brightness))
        pixels = spec.glimpse_size**2 * spec.channels
        self.perceptron = Perceptron([spec.what_size, *self.units, pixels], "softplus", "perceptron", bias)

    def call(self, what: tf.Tensor) -> Drawn:
        """See `ObjectDecoder.call`."""
        pixels = tf.sigmoid(tf.cast(self.perceptron(what), tf.float32))
        side = self.spec.glimpse_size
        return Drawn(tf.reshape(pixels, [-1, side, side, self.spec.channels]))
