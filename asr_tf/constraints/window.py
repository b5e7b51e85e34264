"""A rule about the attention windows: each is the square crop of the object that is drawn in it.

The likelihood alone leaves a window free: the decoder can draw an object anywhere in a window that is too large, so
boxes drift away from objects at no cost.  This rule fixes that freedom, whatever the objects' size.
"""

from __future__ import annotations

import gin
import tensorflow as tf

from asr_tf.constraints.base import Constraint, SceneStatistics

__all__ = ["TightWindows"]

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

    def __init__(self, ink: float = 0.4, strength: float = 2.0) -> None:
        """Initializes the rule.

        Args:
            ink: brightness from which on a pixel surely is ink, in (0, 1).
            strength: nats an image for each pixel of margin.

        Raises:
            ValueError: `ink` is not in (0, 1).
        """
        super().__init__(strength)
        if not 0.0 < ink < 1.0:
            raise ValueError(f"TightWindows.ink must be in (0, 1), got {ink!r}.")
        self.ink = ink

    def penalty(self, statistics: SceneStatistics) -> tf.Tensor:
        """float [B], canvas pixels."""
        objects = tf.stop_gradient(statistics.objects)  # [B, T, G, G]
        own = statistics.glimpses * tf.minimum(2.0 * objects / self.ink, 1.0)
        ymin, _, ymax, _ = tf.unstack(statistics.boxes, axis=-1)
        pixel = (ymax - ymin) * statistics.canvas_size[0] / objects.shape[-1]  # [B, T]
        vertical = self._margins(tf.reduce_max(own, axis=-1))
        horizontal = self._margins(tf.reduce_max(own, axis=-2))
        off_centre = sum(0.5 * tf.abs(first - last) for first, last in (vertical, horizontal))
        slack = tf.minimum(sum(vertical), sum(horizontal))
        drawn = tf.minimum(tf.reduce_max(objects, axis=[-2, -1]) / self.ink, 1.0)
        weight = statistics.presence_probs * drawn * pixel
        return tf.reduce_sum(weight * (off_centre + slack), axis=-1)

    def _margins(self, brightest: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """Lengths of the empty runs from both ends of a profile [..., G], in units of its pixels."""
        occupied = tf.minimum(brightest / self.ink, 1.0)
        log_empty = tf.math.log(1.0 - (1.0 - _EPSILON) * occupied)
        first = tf.exp(tf.cumsum(log_empty, axis=-1))
        last = tf.exp(tf.cumsum(log_empty, axis=-1, reverse=True))
        return tf.reduce_sum(first, axis=-1), tf.reduce_sum(last, axis=-1)
