"""Rules about the number of objects: which counts an image may have, how often each occurs, and which are drawn.

The first two compare the probability that a step is present, q_t = q(n >= t), with unary codes of the allowed counts,
by the cross-entropy of independent steps.  Logarithms are taken of q + 1e-12: gradients are finite where q_t is 0 or 1,
and with respect to the logits still right where q_t is as small as 1e-11.

References:
    Xu et al., "Multi-object Generation with Amortized Structural Regularization", NeurIPS 2019,
    arXiv:1906.03923, section 4; strengths as in the authors' published code.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any

import gin
import numpy as np
import tensorflow as tf

from asr_tf.constraints.base import Constraint, SceneStatistics

__all__ = ["AggregateCount", "CountInSet", "PriorCountInSet"]

_EPSILON = 1e-12


class _CountRule(Constraint):
    """What the rules about counts share: a checked set of counts and its unary codes."""

    def __init__(
        self, counts: Iterable[int] = gin.REQUIRED, strength: float = 10.0, ramp_steps: Sequence[int] = (0, 0)
    ) -> None:
        """Initializes the rule.

        Args:
            counts: the allowed counts K, different integers, 0 or more.
            strength: factor of the penalty in the objective.
            ramp_steps: (first, last), the training steps between which the strength grows, as of `Constraint`.

        Raises:
            ValueError: no count, a negative one or one given twice.
            TypeError: a count that is not an integer.
        """
        super().__init__(strength, ramp_steps)
        self.counts = _checked_counts(f"{type(self).__name__}.counts", counts)

    def check(self, num_steps: int) -> None:
        """Raises ValueError if one of the counts is over `num_steps`."""
        if max(self.counts) > num_steps:
            raise ValueError(
                f"{type(self).__name__}.counts={self.counts} cannot hold with num_steps={num_steps}: "
                f"a scene of {num_steps} steps has at most {num_steps} objects; "
                f"drop count {max(self.counts)} or set num_steps to {max(self.counts)} or more."
            )

    def _codes(self, statistics: SceneStatistics) -> np.ndarray:
        """Float [K, T], the unary codes of the K counts."""
        num_steps = statistics.presence_probs.shape[-1]
        self.check(num_steps)
        dtype = tf.as_dtype(statistics.presence_probs.dtype).as_numpy_dtype
        return (np.arange(num_steps) < np.array(self.counts)[:, np.newaxis]).astype(dtype)


@gin.register
class CountInSet(_CountRule):
    """Each image has one of the given counts.

    The penalty is min over k in K of the cross-entropy between the unary code of k and q_1..q_T: the nats by which the
    posterior is unsure of the nearest allowed count.  It is 0 where one allowed count is certain.
    """

    def penalty(self, statistics: SceneStatistics) -> tf.Tensor:
        """Float [B], nats."""
        codes = self._codes(statistics)  # [K, T]
        present = _log(statistics.presence_probs)[..., tf.newaxis, :]  # [B, 1, T]
        absent = _log(statistics.absence_probs)[..., tf.newaxis, :]
        cross_entropy = -tf.reduce_sum(codes * present + (1.0 - codes) * absent, axis=-1)  # [B, K]
        return tf.reduce_min(cross_entropy, axis=-1)

    def broken(
        self, counts: np.ndarray, boxes: np.ndarray | None, canvas_size: tuple[int, int]
    ) -> np.ndarray:
        """Bool [N], which counts are not in the set."""
        return ~np.isin(np.asarray(counts), self.counts)


@gin.register
class AggregateCount(_CountRule):
    """The given counts are equally frequent over many images.

    With m_t the batch mean of q_t, and r_t the mean over k in K of the unary codes, the penalty is

        sum_t -[r_t log m_t + (1 - r_t) log(1 - m_t)]  -  sum_t H(r_t)

    the cross-entropy less the entropy H of the target, which is a constant: gradients are those of the cross-entropy,
    and the penalty is 0 where the rule holds.  It is about the batch: with equal counts in the data it is still a
    little above 0, since a finite batch never holds them in exact proportion.
    """

    def __init__(
        self, counts: Iterable[int] = gin.REQUIRED, strength: float = 100.0, ramp_steps: Sequence[int] = (0, 0)
    ) -> None:
        """Initializes the rule.

        Args:
            counts: the counts K, different integers, 0 or more, each with the same share of the images.
            strength: factor of the penalty in the objective.
            ramp_steps: (first, last), the training steps between which the strength grows, as of `Constraint`.

        Raises:
            ValueError: no count, a negative one or one given twice.
            TypeError: a count that is not an integer.
        """
        super().__init__(counts, strength, ramp_steps)

    def penalty(self, statistics: SceneStatistics) -> tf.Tensor:
        """Float [], nats."""
        target = self._codes(statistics).mean(axis=0)  # [T]
        present = statistics.batch_mean(statistics.presence_probs)
        absent = statistics.batch_mean(statistics.absence_probs)
        entropy = -sum(p * math.log(p) for share in target for p in (share, 1.0 - share) if p > 0.0)
        cross_entropy = -tf.reduce_sum(target * _log(present) + (1.0 - target) * _log(absent))
        # Rounding could leave a difference of equal numbers just below 0.
        return tf.nn.relu(cross_entropy - entropy)


@gin.register
class PriorCountInSet(_CountRule):
    """Scenes that the learned prior draws have one of the given counts.

    The penalty is -log p(n in K).  The bound alone teaches the prior how often each count is inferred, mistakes
    included, with a delay.  With strength s, mistakes end with 1 / (1 + s) of that share: as if with each image came s
    scenes that keep the rule.
    """

    def penalty(self, statistics: SceneStatistics) -> tf.Tensor:
        """Float [...], nats: [] for a prior that is the same for all images.

        Raises:
            ValueError: the prior isn't a learned one.
        """
        if statistics.prior_count_log_probs is None:
            raise ValueError("PriorCountInSet needs a prior that learns: set ASRModel.prior = @AutoregressivePrior().")
        self.check(statistics.presence_probs.shape[-1])
        allowed = tf.gather(statistics.prior_count_log_probs, self.counts, axis=-1)
        return -tf.minimum(tf.reduce_logsumexp(allowed, axis=-1), 0.0)


def _log(probs: tf.Tensor) -> tf.Tensor:
    """log(probs + epsilon), but 0 at probs = 1."""
    return tf.minimum(tf.math.log(probs + _EPSILON), 0.0)


def _checked_counts(label: str, counts: Any) -> tuple[int, ...]:
    """`counts` as a sorted tuple of different integers, none negative."""
    if isinstance(counts, (str, bytes)) or not isinstance(counts, Iterable):
        raise TypeError(f"{label} must be a list of integers such as (1, 3), got {counts!r}.")
    values = tuple(counts)
    for value in values:
        if isinstance(value, bool) or not isinstance(value, (int, np.integer)):
            raise TypeError(f"{label} must hold integers, got {value!r} in {values!r}.")
        if value < 0:
            raise ValueError(f"{label} must hold counts of 0 or more, got {value!r} in {values!r}.")
    if not values:
        raise ValueError(f"{label} must name at least one count, got {values!r}.")
    if len(set(values)) != len(values):
        raise ValueError(f"{label} must name each count once, got {values!r}.")
    return tuple(sorted(int(value) for value in values))
