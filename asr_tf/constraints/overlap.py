"""A rule about pixels: no two objects share one.

Where a canvas is a clipped sum of bright objects, drawing one object twice costs the likelihood nothing.  The count can
then be right while two windows lie on one object and a third one holds the rest.
"""

from __future__ import annotations

import gin
import tensorflow as tf

from asr_tf.constraints.base import Constraint, SceneStatistics

__all__ = ["DisjointObjects"]


@gin.register
class DisjointObjects(Constraint):
    """Objects don't lie on one another.

    The penalty is the brightness above 1 of the sum of the objects, each weighted by the probability that it is
    present, over all pixels: the number of pixels that are drawn twice, where objects are white.
    """

    def __init__(self, strength: float = 5.0) -> None:
        """Initializes the rule.

        Args:
            strength: nats an image for each pixel that is drawn twice.
        """
        super().__init__(strength)

    def penalty(self, statistics: SceneStatistics) -> tf.Tensor:
        """float [B], pixels."""
        presence = statistics.presence_probs[..., tf.newaxis, tf.newaxis]
        total = tf.reduce_sum(presence * statistics.drawn, axis=1)
        return tf.reduce_sum(tf.nn.relu(total - 1.0), axis=[1, 2])
