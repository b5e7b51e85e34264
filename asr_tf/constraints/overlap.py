"""Rules that keep objects apart: no two share a pixel, or no two windows share an area.

Where a canvas is a clipped sum of bright objects, drawing one object twice costs the likelihood nothing.  The count can
then be right while two windows lie on one object and a third one holds the rest.

References:
    Xu et al., "Multi-object Generation with Amortized Structural Regularization", NeurIPS 2019, arXiv:1906.03923,
    section 4, for `DisjointBoxes`; strength as in the authors' published code.
"""

from __future__ import annotations

from collections.abc import Sequence

import gin
import numpy as np
import tensorflow as tf

from asr_tf.checks import check_range
from asr_tf.constraints.base import Constraint, SceneStatistics, ink, pairs_present

__all__ = ["DisjointBoxes", "DisjointObjects"]


@gin.register
class DisjointObjects(Constraint):
    """Objects don't lie on one another.

    The penalty is the brightness above 1 of the sum of the objects, each weighted by the probability that it is
    present, over all pixels: the number of pixels that are drawn twice, where objects are white.
    """

    def __init__(self, strength: float = 5.0, ramp_steps: Sequence[int] = (0, 0)) -> None:
        """Initializes the rule.

        Args:
            strength: nats an image for each pixel that is drawn twice.
            ramp_steps: (first, last), the training steps between which the strength grows, as of `Constraint`.
        """
        super().__init__(strength, ramp_steps)

    def penalty(self, statistics: SceneStatistics) -> tf.Tensor:
        """float [B], pixels."""
        presence = statistics.presence_probs[..., tf.newaxis, tf.newaxis]
        total = tf.reduce_sum(presence * ink(statistics.drawn), axis=1)
        return tf.reduce_sum(tf.nn.relu(total - 1.0), axis=[1, 2])


@gin.register
class DisjointBoxes(Constraint):
    """Windows don't overlap.

    Two windows with sides s_i and s_j (pixels) and centres that differ by dx and dy overlap by the depth

        relu((s_i + s_j) / 2 - max(abs(dx), abs(dy)))

    the pixels by which one of them would have to move to be free of the other.  The penalty is the sum over ordered
    pairs i != j, each weighted by the probability that both are present.  (The published code counts absent steps
    too, whose windows nothing else holds in place.)
    """

    def __init__(
        self, strength: float = 1.0, tolerance_px: float = 1.0, ramp_steps: Sequence[int] = (0, 0)
    ) -> None:
        """Initializes the rule.

        Args:
            strength: nats an image for each pixel of depth.
            tolerance_px: the depth up to which a finished scene still passes, 0 or more.
            ramp_steps: (first, last), the training steps between which the strength grows, as of `Constraint`.
        """
        super().__init__(strength, ramp_steps)
        self.tolerance_px = check_range("DisjointBoxes.tolerance_px", tolerance_px, 0.0, float("inf"))

    def penalty(self, statistics: SceneStatistics) -> tf.Tensor:
        """float [B], canvas pixels."""
        height, width = statistics.canvas_size
        ymin, xmin, ymax, xmax = tf.unstack(tf.convert_to_tensor(statistics.boxes), axis=-1)
        side = statistics.sides_px()
        centres = tf.stack([0.5 * height * (ymin + ymax), 0.5 * width * (xmin + xmax)])  # [2, B, T]
        distance = tf.reduce_max(tf.abs(centres[..., tf.newaxis] - centres[..., tf.newaxis, :]), axis=0)
        depth = tf.nn.relu(0.5 * (side[..., tf.newaxis] + side[..., tf.newaxis, :]) - distance)
        return 2.0 * tf.reduce_sum(statistics.pair_probs * depth, axis=[-2, -1])

    def broken(
        self, counts: np.ndarray, boxes: np.ndarray | None, canvas_size: tuple[int, int]
    ) -> np.ndarray | None:
        """bool [N], which scenes have two windows that overlap by more than the tolerance."""
        if boxes is None:
            return None
        low, high = np.split(np.asarray(boxes, np.float64) * (*canvas_size, *canvas_size), 2, axis=-1)
        shared = np.minimum(high[:, :, None], high[:, None]) - np.maximum(low[:, :, None], low[:, None])
        overlaps = shared.min(axis=-1) > self.tolerance_px
        return (overlaps & pairs_present(counts, boxes.shape[1])).any(axis=(1, 2))
