"""Rules about the attention windows: where they are, how large, and that each is the square crop of its object.

The likelihood alone leaves a window free: the decoder can draw an object anywhere in a window that is too large, or two
objects in one window, at no cost.

References:
    Xu et al., "Multi-object Generation with Amortized Structural Regularization", NeurIPS 2019, arXiv:1906.03923,
    section 4, for all but `TightWindows`.
"""

from __future__ import annotations

from collections.abc import Sequence

import gin
import tensorflow as tf

from asr_tf.checks import check_interval, check_range
from asr_tf.constraints.base import Constraint
from asr_tf.constraints.statistics import SceneStatistics, ink
from asr_tf.distributions import running_sum

__all__ = ["InsideCanvas", "SharedSize", "SizeInterval", "TightWindows"]

# Keeps the logarithm of "empty" finite in a row that is surely occupied.
_EPSILON = 1e-4
# Of a mean over objects.
_FEWEST_OBJECTS = 1e-3


@gin.register
class TightWindows(Constraint):
    """Windows are square crops: an object is centred in its window and touches two opposite edges of it.

    What a window shows counts as the object's where the step also draws something there, so that neighbours don't
    count, and drawing alone changes nothing: the rule moves windows, not the decoder.  A row (or column) is occupied
    to the degree min(brightest pixel / ink, 1); the margin at an edge is the expected length of the run of empty rows
    from there, in canvas pixels.  The penalty of a step is

        abs(top - bottom) / 2 + abs(left - right) / 2 + min(top + bottom, left + right)

    and counts by the probability that the step is present.  A step that draws nothing has none.
    """

    looks_at = ("boxes", "objects", "glimpses")
    default_tolerance = 1.2  # an object
    start = 0.5
    highest = 5.0

    def __init__(
        self,
        ink: float = 0.4,
        slack_px: float = 2.0,
        tolerance: float | None = None,
        broken_share: float | None = None,
        strength: float | None = None,
        applies_to: str = "posterior",
    ) -> None:
        """Initializes the rule.

        Args:
            ink: brightness from which on a pixel surely is ink, in (0, 1).
            slack_px: the penalty of a step up to which a finished scene still passes, 0 or more.
            tolerance, broken_share, strength, applies_to: as of `Constraint`.

        Raises:
            ValueError: `ink` is not in (0, 1), or the slack is negative.
        """
        super().__init__(tolerance, broken_share, strength, applies_to)
        if not 0.0 < ink < 1.0:
            raise ValueError(f"TightWindows.ink must be in (0, 1), got {ink!r}.")
        self.ink = ink
        self.slack_px = check_range("TightWindows.slack_px", slack_px, 0.0, float("inf"))

    def penalty(self, statistics: SceneStatistics) -> tf.Tensor:
        """Float [B], canvas pixels."""
        return tf.reduce_sum(statistics.presence_probs * self._of_steps(statistics), axis=-1)

    def broken(self, scenes: SceneStatistics) -> tf.Tensor | None:
        """Bool [N], which scenes have a window with a penalty above the slack."""
        if not self.can_see(scenes):
            return None
        return tf.reduce_any((self._of_steps(scenes) > self.slack_px) & (scenes.presence_probs > 0.5), axis=-1)

    def measured(self, statistics: SceneStatistics, penalty: tf.Tensor) -> tf.Tensor:
        """See `Constraint.measured`; a mean penalty is one over objects, whatever the number of objects in an image."""
        if self.limits_share:
            return super().measured(statistics, penalty)
        objects = statistics.batch_mean(tf.reduce_sum(statistics.presence_probs, axis=-1))
        return tf.stop_gradient(penalty / tf.maximum(objects, _FEWEST_OBJECTS))

    def _of_steps(self, statistics: SceneStatistics) -> tf.Tensor:
        """Float [B, T], the penalty of each step as if it were present."""
        objects = tf.stop_gradient(ink(statistics.objects))  # [B, T, G, G]
        own = ink(statistics.glimpses) * tf.minimum(2.0 * objects / self.ink, 1.0)
        pixel = statistics.sides_px() / objects.shape[-1]  # [B, T]
        brightest = tf.stack([tf.reduce_max(own, axis=-1), tf.reduce_max(own, axis=-2)])
        margins = self._margins(brightest)  # [2, B, T, 2]: vertical and horizontal, from both ends
        off_centre = 0.5 * tf.reduce_sum(tf.abs(margins[..., 0] - margins[..., 1]), axis=0)
        slack = tf.reduce_min(tf.reduce_sum(margins, axis=-1), axis=0)
        drawn = tf.minimum(tf.reduce_max(objects, axis=[-2, -1]) / self.ink, 1.0)
        return drawn * pixel * (off_centre + slack)

    def _margins(self, brightest: tf.Tensor) -> tf.Tensor:
        """Lengths of the empty runs from both ends of a profile [..., G], in units of its pixels, [..., 2]."""
        occupied = tf.minimum(brightest / self.ink, 1.0)
        log_empty = tf.math.log(1.0 - (1.0 - _EPSILON) * occupied)
        empty_so_far = tf.exp(tf.stack([running_sum(log_empty), running_sum(log_empty, reverse=True)], -2))
        return tf.reduce_sum(empty_so_far, axis=-1)


@gin.register
class SizeInterval(Constraint):
    """Objects' windows have sides within an interval.

    The penalty of a step is the distance of its side from the interval, in canvas pixels, and counts by the
    probability that the step is present (the published code counts absent steps too).
    """

    default_tolerance = 0.2
    start = 2.0

    def __init__(
        self,
        sides_px: Sequence[float] = gin.REQUIRED,
        tolerance: float | None = None,
        broken_share: float | None = None,
        strength: float | None = None,
        applies_to: str = "posterior",
    ) -> None:
        """Initializes the rule.

        Args:
            sides_px: (low, high), the interval's ends, in canvas pixels.
            tolerance, broken_share, strength, applies_to: as of `Constraint`.

        Raises:
            ValueError: not two ends above 0 in order.
        """
        super().__init__(tolerance, broken_share, strength, applies_to)
        self.sides_px = check_interval("SizeInterval.sides_px", sides_px)

    @property
    def low_px(self) -> float:
        """The least side."""
        return self.sides_px[0]

    @property
    def high_px(self) -> float:
        """The largest side."""
        return self.sides_px[1]

    def check(self, num_steps: int, canvas_size: tuple[int, int]) -> None:
        """Raises ValueError if no window can be that large."""
        height, width = canvas_size
        if self.low_px > min(canvas_size):
            raise ValueError(
                f"SizeInterval.sides_px={self.sides_px} cannot hold on a canvas of {height} x {width} px: "
                f"a window is no larger than the shorter side, {min(canvas_size)} px."
            )

    def penalty(self, statistics: SceneStatistics) -> tf.Tensor:
        """Float [B], canvas pixels."""
        side = statistics.sides_px()
        outside = tf.nn.relu(self.low_px - side) + tf.nn.relu(side - self.high_px)
        return tf.reduce_sum(statistics.presence_probs * outside, axis=-1)


@gin.register
class SharedSize(Constraint):
    """The objects of a scene have about one size.

    The penalty is the sum over pairs of relu(abs(s_i - s_j) - slack), sides s in canvas pixels, each pair weighted by
    the probability that both are present (the published code counts absent steps too).
    """

    default_tolerance = 0.5
    start = 1.0

    def __init__(
        self,
        slack_px: float = 3.0,
        tolerance: float | None = None,
        broken_share: float | None = None,
        strength: float | None = None,
        applies_to: str = "posterior",
    ) -> None:
        """Initializes the rule.

        Args:
            slack_px: by how much two sides may differ, in canvas pixels, 0 or more.
            tolerance, broken_share, strength, applies_to: as of `Constraint`.
        """
        super().__init__(tolerance, broken_share, strength, applies_to)
        self.slack_px = check_range("SharedSize.slack_px", slack_px, 0.0, float("inf"))

    def penalty(self, statistics: SceneStatistics) -> tf.Tensor:
        """Float [B], canvas pixels."""
        side = statistics.sides_px()
        difference = tf.abs(side[..., tf.newaxis] - side[..., tf.newaxis, :])
        return tf.reduce_sum(statistics.pair_probs * tf.nn.relu(difference - self.slack_px), axis=[-2, -1])


@gin.register
class InsideCanvas(Constraint):
    """Windows lie on the canvas.

    The penalty of a step is the sum of the pixels by which each side of its window leaves the canvas, and counts by the
    probability that the step is present (the published code counts absent steps too).
    """

    default_tolerance = 0.2
    start = 0.1

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
            slack_px: how far a window of a finished scene may leave the canvas, 0 or more.
            tolerance, broken_share, strength, applies_to: as of `Constraint`.
        """
        super().__init__(tolerance, broken_share, strength, applies_to)
        self.slack_px = check_range("InsideCanvas.slack_px", slack_px, 0.0, float("inf"))

    def penalty(self, statistics: SceneStatistics) -> tf.Tensor:
        """Float [B], canvas pixels."""
        outside = tf.reduce_sum(self._beyond_px(statistics), axis=-1)
        return tf.reduce_sum(statistics.presence_probs * outside, axis=-1)

    def broken(self, scenes: SceneStatistics) -> tf.Tensor | None:
        """Bool [N], which scenes have a window that leaves the canvas by more than the slack on one side."""
        if not self.can_see(scenes):
            return None
        outside = tf.reduce_max(self._beyond_px(scenes), axis=-1) > self.slack_px
        return tf.reduce_any(outside & (scenes.presence_probs > 0.5), axis=-1)

    def _beyond_px(self, statistics: SceneStatistics) -> tf.Tensor:
        """Float [B, T, 4], the pixels by which each side of a window leaves the canvas."""
        boxes = tf.convert_to_tensor(statistics.boxes)
        beyond = tf.nn.relu(tf.concat([-boxes[..., :2], boxes[..., 2:] - 1.0], -1))
        return beyond * (*statistics.canvas_size, *statistics.canvas_size)
