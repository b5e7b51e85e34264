"""How far a training run is, and the learning rate that belongs there.

Pure arithmetic on numbers: nothing here knows Keras, files or clocks.  A run is bounded either by a number of
optimizer updates or by seconds of training; both are turned into one `fraction` in [0, 1], so that the
learning rate fits itself to whichever bound was asked for.  With a larger budget the same step has a smaller
fraction: in a run that is prolonged, the rate rises to where the longer cosine is, and ends as low as any other.
"""

from __future__ import annotations

import dataclasses
import math

from asr_tf import checks

__all__ = ["LearningRate", "TrainingBudget"]


@dataclasses.dataclass(frozen=True)
class TrainingBudget:
    """What a run may spend.

    Attributes:
        num_steps: optimizer updates; the bound where `max_seconds` is None.
        max_seconds: seconds of training (compilation, evaluation and checkpoints left out), or None.
    """

    num_steps: int
    max_seconds: float | None = None

    def __post_init__(self) -> None:
        """Raises ValueError for a bound that is not above zero."""
        checks.check_whole("num_steps", self.num_steps)
        if self.max_seconds is not None:
            checks.check_positive("max_seconds", self.max_seconds)

    def fraction(self, step: int, seconds: float) -> float:
        """The part of the budget that is spent, in [0, 1].

        Args:
            step: optimizer updates so far.
            seconds: seconds of training so far.
        """
        spent = step / self.num_steps if self.max_seconds is None else seconds / self.max_seconds
        return min(1.0, max(0.0, spent))

    def is_spent(self, step: int, seconds: float, next_seconds: float) -> bool:
        """Whether the next execution of the compiled step would overrun the budget.

        Args:
            step: optimizer updates so far.
            seconds: seconds of training so far.
            next_seconds: how long the next execution is expected to take, in seconds.
        """
        if self.max_seconds is None:
            return step >= self.num_steps
        return seconds + next_seconds > self.max_seconds


@dataclasses.dataclass(frozen=True)
class LearningRate:
    """Linear warm-up over the first steps, then half a cosine down to a fraction of the peak.

    Attributes:
        peak: the highest rate, above 0.
        warmup_steps: optimizer updates until the peak; 0 for none.  In steps, whatever bounds the run, because
            what it protects (Adam's young moments) counts updates, not seconds.
        final_fraction: the rate at the end of the budget, as a fraction of `peak`, in [0, 1].
    """

    peak: float
    warmup_steps: int
    final_fraction: float

    def __post_init__(self) -> None:
        """Raises ValueError for a value outside its range."""
        checks.check_positive("peak_learning_rate", self.peak)
        checks.check_range("warmup_steps", self.warmup_steps, 0, 10**9)
        checks.check_range("final_learning_rate_fraction", self.final_fraction, 0.0, 1.0)

    def __call__(self, step: int, fraction: float) -> float:
        """The rate of one update.

        Args:
            step: optimizer updates done before this one.
            fraction: the part of the budget that is spent, in [0, 1].
        """
        warmup = min(1.0, (step + 1) / self.warmup_steps) if self.warmup_steps else 1.0
        cosine = 0.5 * (1.0 + math.cos(math.pi * fraction))
        return self.peak * warmup * (self.final_fraction + (1.0 - self.final_fraction) * cosine)
