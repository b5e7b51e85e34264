"""Rules about the number of objects: which counts a scene may have, and how often each occurs.

Two of them compare the probability that a step is present, q_t = q(n >= t), with unary codes of counts, by the
cross-entropy of independent steps.  Logarithms are taken of q + 1e-12: gradients are finite where q_t is 0 or 1, and
with respect to the logits still right where q_t is as small as 1e-11.

Asked of samples, they look at the prior's own distribution of the count, where it learns one: nothing is drawn.

References:
    Xu et al., "Multi-object Generation with Amortized Structural Regularization", NeurIPS 2019,
    arXiv:1906.03923, section 4.
"""

from __future__ import annotations

import abc
import math
from collections.abc import Iterable, Mapping
from typing import Any

import gin
import numpy as np
import tensorflow as tf

from asr_tf.checks import check_counts, check_whole
from asr_tf.constraints.base import Constraint
from asr_tf.constraints.statistics import SceneStatistics

__all__ = ["AggregateCount", "AllowedCounts", "AtMost", "CountDistribution", "CountInSet"]

_EPSILON = 1e-12
_SUM_ROUNDING = 1e-6


class AllowedCounts(Constraint):
    """What the rules share that name allowed counts: a scene breaks them with the probability of all other counts."""

    unit = "nats"
    looks_at = ()
    default_tolerance = 0.05
    default_broken_share = 0.01
    start = 1.0

    @abc.abstractmethod
    def allowed(self, num_steps: int) -> list[int]:
        """The allowed ones of the counts 0..T."""

    @property
    @abc.abstractmethod
    def fact(self) -> str:
        """What is known, as it was given, for messages."""

    def broken(self, scenes: SceneStatistics) -> tf.Tensor:
        """Bool [N], which scenes have another count."""
        return self.broken_probs(scenes) > 0.5

    def broken_probs(self, statistics: SceneStatistics) -> tf.Tensor:
        """Float [B], the probability of all other counts."""
        counts = np.arange(statistics.num_steps + 1)
        others = ~np.isin(counts, self.allowed(statistics.num_steps))
        probs = tf.convert_to_tensor(statistics.count_probs)
        return tf.reduce_sum(probs * others.astype(probs.dtype.as_numpy_dtype), axis=-1)

    def drawn_penalty(self, count_log_probs: tf.Tensor) -> tf.Tensor:
        """Float [], -log p(n is allowed) in nats.

        The bound alone teaches the prior how often each count is inferred, mistakes included, with a delay.  With a
        factor s, mistakes end with 1 / (1 + s) of that share: as if with each image came s scenes that keep the rule.
        """
        allowed = tf.gather(count_log_probs, self.allowed(count_log_probs.shape[-1] - 1), axis=-1)
        return -tf.minimum(tf.reduce_logsumexp(allowed, axis=-1), 0.0)


@gin.register
class CountInSet(AllowedCounts):
    """Each scene has one of the given counts.

    The penalty is min over k in K of the cross-entropy between the unary code of k and q_1..q_T: the nats by which the
    posterior is unsure of the nearest allowed count.  It is 0 where one allowed count is certain.
    """

    def __init__(
        self,
        counts: Iterable[int] = gin.REQUIRED,
        tolerance: float | None = None,
        broken_share: float | None = None,
        strength: float | None = None,
        applies_to: str = "posterior",
    ) -> None:
        """Initializes the rule.

        Args:
            counts: the allowed counts K, different integers, 0 or more.
            tolerance, broken_share, strength, applies_to: as of `Constraint`.

        Raises:
            ValueError: no count, a negative one or one given twice.
            TypeError: a count that is not an integer.
        """
        super().__init__(tolerance, broken_share, strength, applies_to)
        self.counts = check_counts("CountInSet.counts", counts)

    @property
    def fact(self) -> str:
        """What is known."""
        return f"CountInSet.counts={self.counts}"

    def allowed(self, num_steps: int) -> list[int]:
        """See `AllowedCounts.allowed`."""
        return [count for count in self.counts if count <= num_steps]

    def check(self, num_steps: int, canvas_size: tuple[int, int]) -> None:
        """Raises ValueError if one of the counts is over `num_steps`."""
        _check_steps(self.fact, max(self.counts), num_steps)

    def penalty(self, statistics: SceneStatistics) -> tf.Tensor:
        """Float [B], nats."""
        _check_steps(self.fact, max(self.counts), statistics.num_steps)
        dtype = tf.as_dtype(statistics.presence_probs.dtype).as_numpy_dtype
        codes = (np.arange(statistics.num_steps) < np.array(self.counts)[:, np.newaxis]).astype(dtype)  # [K, T]
        present = _log(statistics.presence_probs)[..., tf.newaxis, :]  # [B, 1, T]
        absent = _log(statistics.absence_probs)[..., tf.newaxis, :]
        cross_entropy = -tf.reduce_sum(codes * present + (1.0 - codes) * absent, axis=-1)  # [B, K]
        return tf.reduce_min(cross_entropy, axis=-1)


@gin.register
class AtMost(AllowedCounts):
    """No scene has more than `count` objects; the penalty is -log q(n <= count)."""

    def __init__(
        self,
        count: int = gin.REQUIRED,
        tolerance: float | None = None,
        broken_share: float | None = None,
        strength: float | None = None,
        applies_to: str = "posterior",
    ) -> None:
        """Initializes the rule.

        Args:
            count: 0 or more; from T on, the rule holds anyway.
            tolerance, broken_share, strength, applies_to: as of `Constraint`.

        Raises:
            ValueError: not a whole number, or a negative one.
        """
        super().__init__(tolerance, broken_share, strength, applies_to)
        self.count = int(check_whole("AtMost.count", count, 0))

    @property
    def fact(self) -> str:
        """What is known."""
        return f"AtMost.count={self.count}"

    def allowed(self, num_steps: int) -> list[int]:
        """See `AllowedCounts.allowed`."""
        return list(range(min(self.count, num_steps) + 1))

    def penalty(self, statistics: SceneStatistics) -> tf.Tensor:
        """Float [B], nats."""
        probs = tf.convert_to_tensor(statistics.count_probs)
        return -_log(tf.reduce_sum(probs[..., : self.count + 1], axis=-1))


@gin.register
class CountDistribution(Constraint):
    """Over many images, each count is as frequent as is known.

    With m_t the batch mean of q_t, and r_t the probability of t objects or more, the penalty is

        sum_t -[r_t log m_t + (1 - r_t) log(1 - m_t)]  -  sum_t H(r_t)

    the cross-entropy less the entropy H of the target, which is a constant: gradients are those of the cross-entropy,
    and the penalty is 0 where the rule holds.

    A batch never holds the counts in exact proportion.  With the right frequencies m_t still has the variance
    r_t (1 - r_t) / B, and the penalty the mean 1 / (2 B) for each step that is sometimes there and sometimes not: 0.016
    nats in a batch of 64 with the counts (1, 3).  What is measured leaves that out, so that the tolerance means the
    same for batches of any size; 0.05 nats are 0.39 and 0.61 of the images where the counts (1, 3) should share them.
    """

    unit = "nats"
    looks_at = ()
    of_one_scene = False
    default_tolerance = 0.05
    start = 10.0

    def __init__(
        self,
        probabilities: Mapping[int, float] | Iterable[float] = gin.REQUIRED,
        tolerance: float | None = None,
        broken_share: float | None = None,
        strength: float | None = None,
        applies_to: str = "posterior",
    ) -> None:
        """Initializes the rule.

        Args:
            probabilities: by count, `{1: 0.25, 3: 0.75}`, or in order, those of 0, 1, 2, ... objects; they sum to 1.
            tolerance, broken_share, strength, applies_to: as of `Constraint`; a single scene can't break the rule.

        Raises:
            ValueError: a count or a probability is out of range, or the sum is another.
            TypeError: what should be a number isn't one.
        """
        super().__init__(tolerance, broken_share, strength, applies_to)
        self.probabilities = _checked_probabilities("CountDistribution.probabilities", probabilities)

    @property
    def fact(self) -> str:
        """What is known, as it was given, for messages."""
        return f"CountDistribution.probabilities={self.probabilities}"

    def check(self, num_steps: int, canvas_size: tuple[int, int]) -> None:
        """Raises ValueError if one of the counts is over `num_steps`."""
        _check_steps(self.fact, len(self.probabilities) - 1, num_steps)

    def penalty(self, statistics: SceneStatistics) -> tf.Tensor:
        """Float [], nats."""
        target = self._target(statistics.num_steps)
        present = statistics.batch_mean(statistics.presence_probs)
        absent = statistics.batch_mean(statistics.absence_probs)
        entropy = -sum(p * math.log(p) for share in target for p in (share, 1.0 - share) if p > 0.0)
        target = target.astype(tf.as_dtype(present.dtype).as_numpy_dtype)
        cross_entropy = -tf.reduce_sum(target * _log(present) + (1.0 - target) * _log(absent))
        # Rounding could leave a difference of equal numbers just below 0.
        return tf.nn.relu(cross_entropy - entropy)

    def measured(self, statistics: SceneStatistics, penalty: tf.Tensor) -> tf.Tensor:
        """Float [], the penalty less what a batch of this size has with the right frequencies."""
        target = self._target(statistics.num_steps)
        uncertain = int(np.sum((target > 0.0) & (target < 1.0)))
        return tf.stop_gradient(tf.nn.relu(penalty - 0.5 * uncertain / statistics.batch_size()))

    def _target(self, num_steps: int) -> np.ndarray:
        """Float64 [T], the probability of t objects or more."""
        _check_steps(self.fact, len(self.probabilities) - 1, num_steps)
        probs = np.pad(self.probabilities, (0, num_steps + 1 - len(self.probabilities)))
        at_least = np.cumsum(probs[::-1])[::-1][1:]
        return np.where(at_least > 1.0 - _SUM_ROUNDING, 1.0, at_least)


@gin.register
class AggregateCount(CountDistribution):
    """The given counts are equally frequent over many images; see `CountDistribution`."""

    def __init__(
        self,
        counts: Iterable[int] = gin.REQUIRED,
        tolerance: float | None = None,
        broken_share: float | None = None,
        strength: float | None = None,
        applies_to: str = "posterior",
    ) -> None:
        """Initializes the rule.

        Args:
            counts: the counts K, different integers, 0 or more, each with the same share of the images.
            tolerance, broken_share, strength, applies_to: as of `CountDistribution`.

        Raises:
            ValueError: no count, a negative one or one given twice.
            TypeError: a count that is not an integer.
        """
        self.counts = check_counts("AggregateCount.counts", counts)
        probabilities = dict.fromkeys(self.counts, 1.0 / len(self.counts))
        super().__init__(probabilities, tolerance, broken_share, strength, applies_to)

    @property
    def fact(self) -> str:
        """What is known."""
        return f"AggregateCount.counts={self.counts}"


def _log(probs: tf.Tensor) -> tf.Tensor:
    """log(probs + epsilon), but 0 at probs = 1."""
    return tf.minimum(tf.math.log(probs + _EPSILON), 0.0)


def _check_steps(fact: str, most: int, num_steps: int) -> None:
    """Refuses counts beyond what a model can hold."""
    if most > num_steps:
        raise ValueError(
            f"{fact} cannot hold with num_steps={num_steps}: a scene of {num_steps} steps has at most {num_steps} "
            f"objects; drop count {most} or set num_steps to {most} or more."
        )


def _checked_probabilities(label: str, probabilities: Any) -> tuple[float, ...]:
    """`probabilities` as those of 0, 1, ... objects, the last one above 0, with the sum 1."""
    if isinstance(probabilities, (str, bytes)) or not isinstance(probabilities, Iterable):
        raise TypeError(f"{label} must be such as {{1: 0.25, 3: 0.75}}, got {probabilities!r}.")
    if isinstance(probabilities, Mapping):
        counts = check_counts(label, probabilities)
        values = [probabilities.get(count, 0.0) for count in range(max(counts) + 1)]
    else:
        values = list(probabilities)
    for value in values:
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            raise TypeError(f"{label} must hold numbers, got {value!r} in {probabilities!r}.")
        if not 0.0 <= value <= 1.0:
            raise ValueError(f"{label} must lie in [0, 1], got {value!r} in {probabilities!r}.")
    total = math.fsum(values)
    if abs(total - 1.0) > _SUM_ROUNDING:
        raise ValueError(f"{label} must sum to 1, got {' + '.join(f'{x:g}' for x in values)} = {total:g}.")
    while values[-1] == 0.0:
        values.pop()
    return tuple(float(value) for value in values)
