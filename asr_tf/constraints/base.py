"""What a piece of knowledge about scenes is: a penalty, how much of it is tolerated, and a test of finished scenes.

A constraint of the posterior, E_q[phi(x, z)] <= b, has two sides here.  A *penalty*, zero where it holds and
differentiable where it does not, enters the objective times a multiplier, and moves the weights.  What is *measured*
and held against the tolerance b, the mean penalty or the share of scenes that break the rule, moves the multiplier, see
`asr_tf.constraints.multipliers`.  A rule with a strength of its own keeps that factor, as in the published method.

References:
    Xu et al., "Multi-object Generation with Amortized Structural Regularization", NeurIPS 2019,
    arXiv:1906.03923, section 3.
    Ganchev et al., "Posterior Regularization for Structured Latent Variable Models", JMLR 2010.
    Cotter et al., "Two-player games for efficient non-convex constrained optimization", ALT 2019, for penalties that
    stand in for what is measured.
"""

from __future__ import annotations

import abc
import math
import re
from typing import Any

import tensorflow as tf

from asr_tf.checks import check_choice
from asr_tf.constraints.statistics import SceneStatistics
from asr_tf.scene import Part

__all__ = ["APPLIES_TO", "Constraint"]

APPLIES_TO = ("posterior", "samples", "both")
"""What a rule can be asked of: inferred scenes, scenes drawn from the prior, or both."""

# A finished scene breaks a rule by more than rounding.
_ROUNDING = 1e-3


class Constraint(Part, abc.ABC):
    """One piece of knowledge.  A rule of one's own overrides `penalty`, and the rest where it has more to say.

    Attributes:
        tolerance, broken_share, strength, applies_to: as they were given.
        unit: of the penalty, such as "px" or "nats".
        looks_at: the fields of `SceneStatistics` that it needs beside the counts; () for a rule about counts alone.
        of_one_scene: whether a single scene can break the rule; False where it is about the batch as a whole.
        default_tolerance, default_broken_share: what is tolerated where nothing is given; the share goes first.
        start: the multiplier that training starts with, in nats for each unit of penalty.
        highest: the largest multiplier, at which a rule that isn't held can't be; None for a thousand times `start`.
        floor: what is tolerated at least: a tolerance below it is as good as this one.
    """

    unit: str = "px"
    looks_at: tuple[str, ...] = ("boxes",)
    of_one_scene: bool = True
    default_tolerance: float = 0.5
    default_broken_share: float | None = None
    start: float = 0.5
    highest: float | None = None
    floor: float = 1e-3

    def __init__(
        self,
        tolerance: float | None = None,
        broken_share: float | None = None,
        strength: float | None = None,
        applies_to: str = "posterior",
    ) -> None:
        """Initializes the rule; without any of the first three it has its own default tolerance.

        Args:
            tolerance: mean penalty over images that is tolerated, in the rule's unit, 0 or more.
            broken_share: the share of scenes that may break the rule, in [0, 1).
            strength: a fixed factor of the penalty in the objective, 0 or more, in place of a multiplier.
            applies_to: 'posterior' for inferred scenes, 'samples' for scenes drawn from the prior, or 'both', each
                with a multiplier of its own.

        Raises:
            ValueError: a number is out of range, two are given, or the rule can't be asked for that.
            TypeError: a number isn't one.
        """
        label = type(self).__name__
        numbers = {"tolerance": tolerance, "broken_share": broken_share, "strength": strength}
        given = {key: _checked_number(f"{label}.{key}", x) for key, x in numbers.items() if x is not None}
        if len(given) > 1:
            names = " and ".join(f"{label}.{key}" for key in given)
            raise ValueError(f"{names} are both given: give one of tolerance, broken_share and strength.")
        if given.get("broken_share", 0.0) >= 1.0:
            raise ValueError(f"{label}.broken_share must be a share of scenes, in [0, 1), got {broken_share!r}.")
        if broken_share is not None and not self.of_one_scene:
            raise ValueError(
                f"{label}.broken_share={broken_share!r} can't be meant: the rule is about many scenes together, and no "
                f"single one breaks it; give {label}.tolerance, in {self.unit}."
            )
        check_choice(f"{label}.applies_to", applies_to, APPLIES_TO)
        if applies_to != "posterior" and not self.of_one_scene and self.looks_at:
            raise ValueError(
                f"{label}.applies_to={applies_to!r} can't be meant: of rules about many scenes together, only those "
                "about counts can be asked of samples."
            )
        self.tolerance, self.broken_share, self.strength = (
            given.get(key) for key in ("tolerance", "broken_share", "strength")
        )
        self.applies_to = applies_to

    @property
    def name(self) -> str:
        """The rule's name in metrics and reports: the class name in snake case."""
        return snake_case(type(self).__name__)

    @property
    def limits_share(self) -> bool:
        """Whether the share of broken scenes is limited, and not the mean penalty."""
        if self.tolerance is None and self.broken_share is None:
            return self.default_broken_share is not None
        return self.broken_share is not None

    @property
    def limit(self) -> float:
        """What is tolerated: a share of scenes, or a mean penalty in the rule's unit; 0 or more."""
        for value in (self.broken_share, self.tolerance, self.default_broken_share):
            if value is not None:
                return value
        return self.default_tolerance

    @property
    def limit_unit(self) -> str:
        """The unit of `limit`."""
        return "share of scenes" if self.limits_share else self.unit

    @abc.abstractmethod
    def penalty(self, statistics: SceneStatistics) -> tf.Tensor:
        """How far scenes are from the rule, not weighted by any factor.

        Args:
            statistics: expectations of the posterior, or scenes.

        Returns:
            float [B], or [] for a rule about the batch as a whole; 0 or more, 0 where the rule holds, with finite
            gradients everywhere.
        """

    def broken(self, scenes: SceneStatistics) -> tf.Tensor | None:
        """Which finished scenes break the rule, in operations of TensorFlow: those that have a penalty.

        Args:
            scenes: finished scenes, see `SceneStatistics.of_finished`.

        Returns:
            bool [N], or None if the rule says nothing of one scene alone, or needs what isn't known of these.
        """
        if not (self.of_one_scene and self.can_see(scenes)):
            return None
        penalty = tf.convert_to_tensor(self.penalty(scenes))
        return None if penalty.shape.rank == 0 else penalty > _ROUNDING

    def broken_probs(self, statistics: SceneStatistics) -> tf.Tensor | None:
        """How surely each image's scene breaks the rule.

        Args:
            statistics: expectations of the posterior, or scenes.

        Returns:
            float [B] in [0, 1]: 0 or 1, of the scene with the likeliest count, unless a rule knows it exactly; None
            where `broken` says nothing.
        """
        broken = self.broken(statistics.likeliest())
        return None if broken is None else tf.cast(broken, statistics.count_probs.dtype)

    def measured(self, statistics: SceneStatistics, penalty: tf.Tensor) -> tf.Tensor:
        """What is held against the tolerance.

        Args:
            statistics: what the penalty is of.
            penalty: what `penalty` gives.

        Returns:
            float [B], whose mean is meant, or []; without gradients.

        Raises:
            ValueError: a share of scenes is tolerated, but the rule doesn't say which break it.
        """
        if not self.limits_share:
            return tf.stop_gradient(penalty)
        probs = self.broken_probs(statistics)
        if probs is None:
            label = type(self).__name__
            raise ValueError(f"{label}.broken doesn't say which scenes break the rule: give {label}.tolerance instead.")
        return tf.stop_gradient(probs)

    def drawn_penalty(self, count_log_probs: tf.Tensor) -> tf.Tensor:
        """The penalty of what a prior draws, for a rule about counts alone, without any sampling.

        Args:
            count_log_probs: float [T + 1], log p(n = k).

        Returns:
            float [].
        """
        return tf.reduce_mean(self.penalty(SceneStatistics.of_counts(count_log_probs[tf.newaxis])))

    def check(self, num_steps: int, canvas_size: tuple[int, int]) -> None:
        """Refuses a model in which the rule can't hold.

        Args:
            num_steps: T, the most objects that the model can infer.
            canvas_size: (H, W) in pixels.

        Raises:
            ValueError: the rule can't hold.
        """

    def asks(self, on_samples: bool) -> bool:
        """Whether the rule is asked of samples, or else of the posterior."""
        return self.applies_to in ("both", "samples" if on_samples else "posterior")

    def can_see(self, statistics: SceneStatistics) -> bool:
        """Whether all is known that the rule looks at."""
        return all(getattr(statistics, field) is not None for field in self.looks_at)


def snake_case(name: str) -> str:
    """A name of a class as one of a metric.

    >>> snake_case("CountInSet")
    'count_in_set'
    """
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name).lower()


def _checked_number(label: str, value: Any) -> float:
    """`value` as a float, finite and 0 or more."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise TypeError(f"{label} must be a number, got {value!r}.")
    if not (math.isfinite(value) and value >= 0):
        raise ValueError(f"{label} must be a finite number, 0 or more, got {value!r}.")
    return float(value)
