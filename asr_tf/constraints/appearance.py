"""Rules about what objects look like."""

from __future__ import annotations

import gin
import tensorflow as tf

from asr_tf.checks import check_range
from asr_tf.constraints.base import Constraint
from asr_tf.constraints.statistics import SceneStatistics

__all__ = ["SameAppearance"]


@gin.register
class SameAppearance(Constraint):
    """The objects of a scene look alike, whatever their size and place.

    The penalty is the sum over pairs of relu(d - slack), d the mean absolute difference of what the two steps draw in
    their windows, each pair weighted by the probability that both are present.
    """

    unit = "brightness"
    looks_at = ("objects",)
    default_tolerance = 0.02
    start = 10.0

    def __init__(
        self,
        slack: float = 0.1,
        tolerance: float | None = None,
        broken_share: float | None = None,
        strength: float | None = None,
        applies_to: str = "posterior",
    ) -> None:
        """Initializes the rule.

        Args:
            slack: the mean difference that is no difference, as a share of full brightness, in [0, 1].
            tolerance, broken_share, strength, applies_to: as of `Constraint`.
        """
        super().__init__(tolerance, broken_share, strength, applies_to)
        self.slack = check_range("SameAppearance.slack", slack, 0.0, 1.0)

    def penalty(self, statistics: SceneStatistics) -> tf.Tensor:
        """Float [B], brightness."""
        objects = tf.unstack(tf.convert_to_tensor(statistics.objects), axis=1)  # [B, G, G, C] a step
        presence = tf.unstack(tf.convert_to_tensor(statistics.presence_probs), axis=-1)
        total = tf.zeros_like(presence[0])
        for t, later in enumerate(objects):
            for earlier in objects[:t]:
                difference = tf.reduce_mean(tf.abs(later - earlier), axis=[1, 2, 3])
                total += presence[t] * tf.nn.relu(difference - self.slack)
        return total
