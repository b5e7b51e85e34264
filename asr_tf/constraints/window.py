"""Rules about the attention windows: where they are, how large, and that each is the square crop of its object.

The likelihood alone leaves a window free: the decoder can draw an object anywhere in a window that is too large, or two
objects in one window, at no cost.

References:
    Xu et al., "Multi-object Generation with Amortized Structural Regularization", NeurIPS 2019, arXiv:1906.03923,
    section 4, for all but `TightWindows`; strengths as in the authors' published code.
"""

from __future__ import annotations

from collections.abc import Sequence

import gin
import numpy as np
import tensorflow as tf

from asr_tf.checks import check_positive, check_range
from asr_tf.constraints.base import (
    Constraint,
    SceneStatistics,
    ink,
    pairs_present,
    sides_px,
    steps_present,
)
from asr_tf.distributions import running_sum

__all__ = ["InsideCanvas", "SharedSize", "SizeInterval", "TightWindows"]

# Keeps the logarithm of "empty" finite in a row that is surely occupied.
_EPSILON = 1e-4


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

    def __init__(
        self, ink: float = 0.4, strength: float = 2.0, ramp_steps: Sequence[int] = (0, 0)
    ) -> None:
        """Initializes the rule.

        Args:
            ink: brightness from which on a pixel surely is ink, in (0, 1).
            strength: nats an image for each pixel of margin.
            ramp_steps: (first, last), the training steps between which the strength grows, as of `Constraint`.

        Raises:
            ValueError: `ink` is not in (0, 1).
        """
        super().__init__(strength, ramp_steps)
        if not 0.0 < ink < 1.0:
            raise ValueError(f"TightWindows.ink must be in (0, 1), got {ink!r}.")
        self.ink = ink

    def penalty(self, statistics: SceneStatistics) -> tf.Tensor:
        """float [B], canvas pixels."""
        objects = tf.stop_gradient(ink(statistics.objects))  # [B, T, G, G]
        own = ink(statistics.glimpses) * tf.minimum(2.0 * objects / self.ink, 1.0)
        pixel = statistics.sides_px() / objects.shape[-1]  # [B, T]
        brightest = tf.stack([tf.reduce_max(own, axis=-1), tf.reduce_max(own, axis=-2)])
        margins = self._margins(brightest)  # [2, B, T, 2]: vertical and horizontal, from both ends
        off_centre = 0.5 * tf.reduce_sum(tf.abs(margins[..., 0] - margins[..., 1]), axis=0)
        slack = tf.reduce_min(tf.reduce_sum(margins, axis=-1), axis=0)
        drawn = tf.minimum(tf.reduce_max(objects, axis=[-2, -1]) / self.ink, 1.0)
        weight = statistics.presence_probs * drawn * pixel
        return tf.reduce_sum(weight * (off_centre + slack), axis=-1)

    def _margins(self, brightest: tf.Tensor) -> tf.Tensor:
        """Lengths of the empty runs from both ends of a profile [..., G], in units of its pixels, [..., 2]."""
        occupied = tf.minimum(brightest / self.ink, 1.0)
        log_empty = tf.math.log(1.0 - (1.0 - _EPSILON) * occupied)
        empty_so_far = tf.exp(tf.stack([running_sum(log_empty), running_sum(log_empty, reverse=True)], -2))
        return tf.reduce_sum(empty_so_far, axis=-1)


@gin.register
class SizeInterval(Constraint):
    """Objects' windows have sides from `low_px` to `high_px`.

    The penalty of a step is the distance of its side from the interval, in canvas pixels, and counts by the
    probability that the step is present (the published code counts absent steps too).
    """

    def __init__(
        self,
        low_px: float = gin.REQUIRED,
        high_px: float = gin.REQUIRED,
        strength: float = 20.0,
        ramp_steps: Sequence[int] = (0, 0),
    ) -> None:
        """Initializes the rule.

        Args:
            low_px, high_px: the interval's ends, in canvas pixels.
            strength: nats an image for each pixel outside.
            ramp_steps: (first, last), the training steps between which the strength grows, as of `Constraint`.

        Raises:
            ValueError: an end is not above 0, or the ends are the wrong way round.
        """
        super().__init__(strength, ramp_steps)
        check_positive("SizeInterval.low_px", low_px)
        if not low_px <= high_px:
            raise ValueError(
                f"SizeInterval.low_px must be at most high_px, got {low_px!r} and {high_px!r}."
            )
        self.low_px, self.high_px = float(low_px), float(high_px)

    def penalty(self, statistics: SceneStatistics) -> tf.Tensor:
        """float [B], canvas pixels."""
        side = statistics.sides_px()
        outside = tf.nn.relu(self.low_px - side) + tf.nn.relu(side - self.high_px)
        return tf.reduce_sum(statistics.presence_probs * outside, axis=-1)

    def broken(
        self, counts: np.ndarray, boxes: np.ndarray | None, canvas_size: tuple[int, int]
    ) -> np.ndarray | None:
        """bool [N], which scenes have a window outside the interval."""
        if boxes is None:
            return None
        side = sides_px(boxes, canvas_size)
        outside = (side < self.low_px) | (side > self.high_px)
        return (outside & steps_present(counts, boxes.shape[1])).any(axis=1)


@gin.register
class SharedSize(Constraint):
    """The objects of a scene have about one size.

    The penalty is the sum over pairs of relu(abs(s_i - s_j) - slack), sides s in canvas pixels, each pair weighted by
    the probability that both are present (the published code counts absent steps too).
    """

    def __init__(
        self, slack_px: float = 3.0, strength: float = 10.0, ramp_steps: Sequence[int] = (0, 0)
    ) -> None:
        """Initializes the rule.

        Args:
            slack_px: by how much two sides may differ, in canvas pixels, 0 or more.
            strength: nats an image for each pixel beyond.
            ramp_steps: (first, last), the training steps between which the strength grows, as of `Constraint`.
        """
        super().__init__(strength, ramp_steps)
        self.slack_px = check_range("SharedSize.slack_px", slack_px, 0.0, float("inf"))

    def penalty(self, statistics: SceneStatistics) -> tf.Tensor:
        """float [B], canvas pixels."""
        side = statistics.sides_px()
        difference = tf.abs(side[..., tf.newaxis] - side[..., tf.newaxis, :])
        return tf.reduce_sum(
            statistics.pair_probs * tf.nn.relu(difference - self.slack_px), axis=[-2, -1]
        )

    def broken(
        self, counts: np.ndarray, boxes: np.ndarray | None, canvas_size: tuple[int, int]
    ) -> np.ndarray | None:
        """bool [N], which scenes have two windows whose sides differ by more than the slack."""
        if boxes is None:
            return None
        side = sides_px(boxes, canvas_size)
        differs = np.abs(side[:, :, None] - side[:, None]) > self.slack_px
        return (differs & pairs_present(counts, boxes.shape[1])).any(axis=(1, 2))


@gin.register
class InsideCanvas(Constraint):
    """Windows lie on the canvas.

    The penalty of a step is the sum of the pixels by which each side of its window leaves the canvas, and counts by the
    probability that the step is present (the published code counts absent steps too).
    """

    def __init__(
        self, strength: float = 1.0, tolerance_px: float = 1.0, ramp_steps: Sequence[int] = (0, 0)
    ) -> None:
        """Initializes the rule.

        Args:
            strength: nats an image for each pixel outside.
            tolerance_px: how far a window of a finished scene may leave the canvas, 0 or more.
            ramp_steps: (first, last), the training steps between which the strength grows, as of `Constraint`.
        """
        super().__init__(strength, ramp_steps)
        self.tolerance_px = check_range("InsideCanvas.tolerance_px", tolerance_px, 0.0, float("inf"))

    def penalty(self, statistics: SceneStatistics) -> tf.Tensor:
        """float [B], canvas pixels."""
        boxes = tf.convert_to_tensor(statistics.boxes)
        beyond = tf.nn.relu(tf.concat([-boxes[..., :2], boxes[..., 2:] - 1.0], -1))
        outside = tf.reduce_sum(beyond * (*statistics.canvas_size, *statistics.canvas_size), axis=-1)
        return tf.reduce_sum(statistics.presence_probs * outside, axis=-1)

    def broken(
        self, counts: np.ndarray, boxes: np.ndarray | None, canvas_size: tuple[int, int]
    ) -> np.ndarray | None:
        """bool [N], which scenes have a window that leaves the canvas by more than the tolerance."""
        if boxes is None:
            return None
        tolerance = self.tolerance_px / np.array((*canvas_size, *canvas_size), np.float64)
        outside = np.maximum(-boxes, boxes - 1.0) > tolerance
        return (outside.any(axis=-1) & steps_present(counts, boxes.shape[1])).any(axis=1)
