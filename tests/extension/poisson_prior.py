"""A prior whose count is Poisson up to T, with a rate that is learned; windows and appearance as in AIR."""

import math

import gin
import keras
import tensorflow as tf

from asr_tf.distributions import IndependentSteps, PresenceCode, certain_presence_logits, normal
from asr_tf.networks.contracts import ScenePrior


@gin.register
class PoissonPrior(ScenePrior):
    """Steps are independent; P(n) is proportional to rate^n / n! for n = 0..T."""

    def __init__(self, rate=2.0, name="prior"):
        """Keeps the settings.

        Args:
            rate: where the rate starts, above 0.
            name: Keras name.

        Raises:
            ValueError: it isn't above 0.
        """
        super().__init__(name=name, autocast=False)  # latents stay float32
        if rate <= 0.0:
            raise ValueError(f"PoissonPrior.rate must be above 0, got {rate!r}.")
        self.rate = rate

    def build(self, spec):
        """Makes the only weight."""
        super().build(spec)
        start = keras.initializers.Constant(math.log(self.rate))
        self.log_rate = self.add_weight(shape=(), initializer=start, dtype="float32", name="log_rate")

    def distribution(self, step, skip_absent=False):
        """See `ScenePrior.distribution`."""
        spec = self.spec
        counts = tf.range(spec.num_steps + 1, dtype=tf.float32)
        presence = PresenceCode.from_count_logits(counts * self.log_rate - tf.math.lgamma(counts + 1.0))
        if spec.exact_count is not None:
            presence = PresenceCode(certain_presence_logits(spec.exact_count, spec.num_steps))

        def each_step(size, loc, stddev):
            return normal(tf.fill([spec.num_steps, size], loc), math.log(stddev))

        scale = each_step(1, spec.scale_loc, spec.scale_stddev)
        return IndependentSteps(presence, each_step(2, 0.0, 1.0), scale, each_step(spec.what_size, 0.0, 1.0))
