"""Rules that keep objects apart: no two share a pixel, no two windows share an area, or come near one another.

Where a canvas is a clipped sum of bright objects, drawing one object twice costs the likelihood nothing.  The count can
then be right while two windows lie on one object and a third one holds the rest.

References:
    Xu et al., "Multi-object Generation with Amortized Structural Regularization", NeurIPS 2019, arXiv:1906.03923,
    section 4, for `DisjointBoxes`.
"""

from __future__ import annotations

import gin
import tensorflow as tf

from asr_tf.checks import check_positive, check_range
from asr_tf.constraints.base import Constraint
from asr_tf.constraints.statistics import SceneStatistics, ink

__all__ = ["AtLeastApart", "DisjointBoxes", "DisjointObjects"]


@gin.register
class DisjointObjects(Constraint):
    """Objects don't lie on one another.

    The penalty is the brightness above 1 of the sum of the objects, each weighted by the probability that it is
    present, over all pixels: the number of pixels that are drawn twice, where objects are white.
    """

    unit = "pixels drawn twice"
    looks_at = ("drawn",)
    default_tolerance = 2.0
    start = 0.5

    def __init__(
        self,
        slack_px: float = 2.0,
        tolerance: float | None = None,
        broken_share: float | None = None,
        strength: float | None = None,
        applies_to: str = "posterior",
    ) -> None:
        """Initializes the rule.

        Args:
            slack_px: the pixels drawn twice up to which a finished scene still passes, 0 or more.
            tolerance, broken_share, strength, applies_to: as of `Constraint`.
        """
        super().__init__(tolerance, broken_share, strength, applies_to)
        self.slack_px = check_range("DisjointObjects.slack_px", slack_px, 0.0, float("inf"))

    def penalty(self, statistics: SceneStatistics) -> tf.Tensor:
        """Float [B], pixels."""
        presence = statistics.presence_probs[..., tf.newaxis, tf.newaxis]
        total = tf.reduce_sum(presence * ink(statistics.drawn), axis=1)
        return tf.reduce_sum(tf.nn.relu(total - 1.0), axis=[1, 2])

    def broken(self, scenes: SceneStatistics) -> tf.Tensor | None:
        """Bool [N], which scenes draw more pixels twice than the slack."""
        return self.penalty(scenes) > self.slack_px if self.can_see(scenes) else None


@gin.register
class DisjointBoxes(Constraint):
    """Windows don't overlap.

    Two windows with sides s_i and s_j (pixels) and centres that differ by dx and dy overlap by the depth

        relu((s_i + s_j) / 2 - max(abs(dx), abs(dy)))

    the pixels by which one of them would have to move to be free of the other.  The penalty is the sum over ordered
    pairs i != j, each weighted by the probability that both are present.  (The published code counts absent steps
    too, whose windows nothing else holds in place.)
    """

    default_broken_share = 0.03
    default_tolerance = 0.2
    start = 0.5

    def __init__(
        self,
        slack_px: float = 1.0,
        tolerance: float | None = None,
        broken_share: float | None = None,
        strength: float | None = None,
        applies_to: str = "posterior",
    ) -> None:
        """Initializes the rule.

        Args:
            slack_px: the depth up to which a finished scene still passes, 0 or more.
            tolerance, broken_share, strength, applies_to: as of `Constraint`.
        """
        super().__init__(tolerance, broken_share, strength, applies_to)
        self.slack_px = check_range("DisjointBoxes.slack_px", slack_px, 0.0, float("inf"))

    def penalty(self, statistics: SceneStatistics) -> tf.Tensor:
        """Float [B], canvas pixels."""
        depth = tf.nn.relu(-_gaps_px(statistics))
        return 2.0 * tf.reduce_sum(statistics.pair_probs * depth, axis=[-2, -1])

    def broken(self, scenes: SceneStatistics) -> tf.Tensor | None:
        """Bool [N], which scenes have two windows that share more than the slack in both directions."""
        if not self.can_see(scenes):
            return None
        low, high = tf.split(tf.convert_to_tensor(scenes.boxes) * (*scenes.canvas_size, *scenes.canvas_size), 2, -1)
        shared = tf.minimum(high[..., tf.newaxis, :], high[..., tf.newaxis, :, :]) - tf.maximum(
            low[..., tf.newaxis, :], low[..., tf.newaxis, :, :]
        )
        overlaps = tf.reduce_min(shared, axis=-1) > self.slack_px
        return tf.reduce_any(overlaps & (scenes.pair_probs > 0.5), axis=[-2, -1])


@gin.register
class AtLeastApart(Constraint):
    """Between any two windows there is a gap of at least `distance_px`.

    The gap is the larger of the two in x and in y, negative where windows overlap.  The penalty is the sum over pairs
    of the pixels that are missing, each weighted by the probability that both are present.
    """

    default_broken_share = 0.03
    default_tolerance = 0.2
    start = 0.5

    def __init__(
        self,
        distance_px: float = gin.REQUIRED,
        slack_px: float = 1.0,
        tolerance: float | None = None,
        broken_share: float | None = None,
        strength: float | None = None,
        applies_to: str = "posterior",
    ) -> None:
        """Initializes the rule.

        Args:
            distance_px: the least gap, in canvas pixels, above 0.
            slack_px: what may be missing of it in a finished scene that still passes, 0 or more.
            tolerance, broken_share, strength, applies_to: as of `Constraint`.
        """
        super().__init__(tolerance, broken_share, strength, applies_to)
        self.distance_px = float(check_positive("AtLeastApart.distance_px", distance_px))
        self.slack_px = check_range("AtLeastApart.slack_px", slack_px, 0.0, float("inf"))

    def penalty(self, statistics: SceneStatistics) -> tf.Tensor:
        """Float [B], canvas pixels."""
        missing = tf.nn.relu(self.distance_px - _gaps_px(statistics))
        return tf.reduce_sum(statistics.pair_probs * missing, axis=[-2, -1])

    def broken(self, scenes: SceneStatistics) -> tf.Tensor | None:
        """Bool [N], which scenes have two windows whose gap is too small by more than the slack."""
        if not self.can_see(scenes):
            return None
        near = self.distance_px - _gaps_px(scenes) > self.slack_px
        return tf.reduce_any(near & (scenes.pair_probs > 0.5), axis=[-2, -1])


def _gaps_px(statistics: SceneStatistics) -> tf.Tensor:
    """Float [B, T, T], the gap between two windows, the larger of both directions; negative where they overlap."""
    side = statistics.sides_px()
    centres = tf.stack(statistics.centres_px())  # [2, B, T]
    distance = tf.reduce_max(tf.abs(centres[..., tf.newaxis] - centres[..., tf.newaxis, :]), axis=0)
    return distance - 0.5 * (side[..., tf.newaxis] + side[..., tf.newaxis, :])
