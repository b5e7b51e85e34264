"""Rules about how objects lie to one another: in an order, in a row, in a column.

Steps are counted from 0.  Which object is at which step is up to recognition; a rule that names steps gives them a
meaning.
"""

from __future__ import annotations

import gin
import tensorflow as tf

from asr_tf.checks import check_choice, check_range, check_whole
from asr_tf.constraints.base import Constraint
from asr_tf.constraints.statistics import SceneStatistics

__all__ = ["Aligned", "LeftOf"]


@gin.register
class LeftOf(Constraint):
    """One step's object lies left of another's, by their centres.

    `LeftOf(0, 1)` and `LeftOf(1, 2)` together say that three objects are listed from left to right.  The penalty is the
    pixels by which the first is too far to the right, weighted by the probability that both are present.
    """

    start = 0.5

    def __init__(
        self,
        first: int = 0,
        second: int = 1,
        slack_px: float = 0.0,
        tolerance: float | None = None,
        broken_share: float | None = None,
        strength: float | None = None,
        applies_to: str = "posterior",
    ) -> None:
        """Initializes the rule.

        Args:
            first, second: two different steps, counted from 0.
            slack_px: how far the first may lie to the right of the second, 0 or more.
            tolerance, broken_share, strength, applies_to: as of `Constraint`.

        Raises:
            ValueError: not two different steps, or a negative slack.
        """
        super().__init__(tolerance, broken_share, strength, applies_to)
        self.first, self.second = (
            int(check_whole(f"LeftOf.{key}", step, 0)) for key, step in (("first", first), ("second", second))
        )
        if first == second:
            raise ValueError(f"LeftOf.first and LeftOf.second must be two different steps, got {first!r} twice.")
        self.slack_px = check_range("LeftOf.slack_px", slack_px, 0.0, float("inf"))

    def check(self, num_steps: int, canvas_size: tuple[int, int]) -> None:
        """Raises ValueError if one of the steps isn't there."""
        last = max(self.first, self.second)
        if last >= num_steps:
            raise ValueError(
                f"LeftOf names step {last}, but with num_steps={num_steps} there are the steps 0 to {num_steps - 1}."
            )

    def penalty(self, statistics: SceneStatistics) -> tf.Tensor:
        """Float [B], canvas pixels."""
        _, x = statistics.centres_px()
        beyond = tf.nn.relu(x[..., self.first] - x[..., self.second] - self.slack_px)
        return statistics.presence_probs[..., max(self.first, self.second)] * beyond


@gin.register
class Aligned(Constraint):
    """The objects of a scene lie in one row, or in one column, by their centres.

    The penalty is the sum over pairs of relu(abs(d) - slack), d the difference of their y (rows) or x (columns), each
    pair weighted by the probability that both are present.
    """

    start = 0.5

    def __init__(
        self,
        axis: str = "rows",
        slack_px: float = 1.0,
        tolerance: float | None = None,
        broken_share: float | None = None,
        strength: float | None = None,
        applies_to: str = "posterior",
    ) -> None:
        """Initializes the rule.

        Args:
            axis: 'rows' where a scene's objects share a row, 'columns' where they share a column.
            slack_px: by how much two centres may differ, 0 or more.
            tolerance, broken_share, strength, applies_to: as of `Constraint`.

        Raises:
            ValueError: another axis, or a negative slack.
        """
        super().__init__(tolerance, broken_share, strength, applies_to)
        self.axis = check_choice("Aligned.axis", axis, ("rows", "columns"))
        self.slack_px = check_range("Aligned.slack_px", slack_px, 0.0, float("inf"))

    def penalty(self, statistics: SceneStatistics) -> tf.Tensor:
        """Float [B], canvas pixels."""
        centre = statistics.centres_px()[0 if self.axis == "rows" else 1]
        difference = tf.abs(centre[..., tf.newaxis] - centre[..., tf.newaxis, :])
        return tf.reduce_sum(statistics.pair_probs * tf.nn.relu(difference - self.slack_px), axis=[-2, -1])
