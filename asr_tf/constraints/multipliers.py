"""How multipliers are set: what is asked of which scenes, and how its factor in the objective follows what is measured.

Training maximizes the bound subject to e_k <= b_k for every demand k, where e_k is the mean penalty, or the share of
scenes that break a rule.  It descends along the Lagrangian -ELBO + sum_k lambda_k R_k, R_k the mean penalty, while
after each step

    e_k <- average of what is measured, exponential over steps
    v_k <- clip((e_k - a_k) / a_k, -1, 1),   a_k = 0.9 or 0.5 max(b_k, floor_k)
    log lambda_k <- clip(log lambda_k + RATE (v_k + LEAD (v_k - v_k before)), lowest, highest)

Why so:

* The steps of lambda are factors: one that starts 100 times too low or too high is right after log(100) / RATE = 920
  steps, whatever the rule's unit.  Clipping v makes that so however far a rule is from holding.
* The integral alone oscillates, as what is measured follows the multiplier with a delay.  The proportional term answers
  to where e_k is going (the nu-PI controller with its average in e_k).
* Differentiable penalties move the weights, while countable violations move the multipliers: proxy constraints.
* The aim lies below the tolerance.  A controller holds e_k around its aim: aimed at b_k, half of all other sets of
  scenes would have more.
* What isn't measured at every step is taken to be as it was: its multiplier moves on.

References:
    Cotter et al., "Two-player games for efficient non-convex constrained optimization", ALT 2019, arXiv:1804.06500.
    Sohrabi et al., "On PI controllers for updating Lagrange multipliers in constrained optimization", ICML 2024,
    arXiv:2406.04558.
    Rezende and Viola, "Taming VAEs", 2018, arXiv:1810.00597.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from asr_tf.constraints.base import Constraint
from asr_tf.constraints.statistics import SceneStatistics

__all__ = ["Demand", "Multipliers", "demands", "first_multipliers", "highest_multipliers", "next_multipliers"]

# Of the tolerance, what training aims at: shares of scenes vary more from one set of scenes to another.
_AIM, _AIM_OF_SHARES = 0.9, 0.5
RATE = 0.005  # of log lambda, a step
LEAD = 100.0  # steps
_KEPT = 0.98  # of an average, a step
_LOWEST, _HIGHEST = 0.01, 1000.0  # times the multiplier that a rule starts with


class Demand(NamedTuple):
    """A rule, asked of inferred scenes or of scenes that are drawn.

    Attributes:
        rule: what is asked.
        on_samples: whether of scenes drawn from the prior.
        label: its name in metrics and reports.
    """

    rule: Constraint
    on_samples: bool
    label: str

    @property
    def has_multiplier(self) -> bool:
        """Whether the factor is found during training; otherwise it is the rule's strength."""
        return self.rule.strength is None

    @property
    def highest(self) -> float:
        """The largest multiplier: a rule that isn't held there can't be."""
        return _HIGHEST * self.rule.start if self.rule.highest is None else self.rule.highest

    @property
    def aim(self) -> float:
        """What training aims at, below the tolerance."""
        return (_AIM_OF_SHARES if self.rule.limits_share else _AIM) * max(self.rule.limit, self.rule.floor)

    @property
    def without_sampling(self) -> bool:
        """Whether what a prior draws can be told from its distribution of the count."""
        return self.on_samples and not self.rule.looks_at

    def of_statistics(self, statistics: SceneStatistics) -> tuple[tf.Tensor, tf.Tensor]:
        """The penalty and what is measured, [B] or [] each.

        Raises:
            ValueError: the penalty has another rank, whose mean would be the penalty divided by what should have been
                summed over.
        """
        penalty = tf.convert_to_tensor(self.rule.penalty(statistics))
        if penalty.shape.rank not in (0, 1):
            raise ValueError(
                f"{type(self.rule).__name__}.penalty must give a number an image, [B], or one in all, [], got shape "
                f"{penalty.shape}: sum over the other axes."
            )
        return penalty, self.rule.measured(statistics, penalty)

    def of_drawn_counts(self, count_log_probs: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """The same of a prior with log p(n = k), float [T + 1], [] each, where nothing has to be drawn."""
        penalty = self.rule.drawn_penalty(count_log_probs)
        if not self.rule.limits_share:
            return penalty, tf.stop_gradient(penalty)
        probs = self.rule.broken_probs(SceneStatistics.of_counts(count_log_probs))
        return penalty, tf.stop_gradient(probs)


def demands(rules: Sequence[Constraint]) -> tuple[Demand, ...]:
    """What rules ask, each of the posterior, of samples or of both; two of one name are `<name>` and `<name>_2`."""
    names = [rule.name for rule in rules]
    found = []
    for i, rule in enumerate(rules):
        name = names[i] if names[i] not in names[:i] else f"{names[i]}_{names[:i].count(names[i]) + 1}"
        for on_samples in (False, True):
            if rule.asks(on_samples):
                found.append(Demand(rule, on_samples, f"{name}_samples" if on_samples else name))
    return tuple(found)


class Multipliers(NamedTuple):
    """Where the multipliers of K demands stand, float32 [K] each.

    Attributes:
        logs: log lambda.
        features: e, the averages of what is measured; NaN before anything was.
        violations: v.
    """

    logs: Any
    features: Any
    violations: Any


def first_multipliers(asked: Sequence[Demand], scale: float = 1.0) -> Multipliers:
    """Where training begins.

    Args:
        asked: demands with a multiplier.
        scale: how many times higher than usual all multipliers start.
    """
    logs = np.log([scale * demand.rule.start for demand in asked], dtype=np.float32)
    logs = np.clip(logs, _lowest_multipliers(asked), highest_multipliers(asked))
    return Multipliers(logs, np.full_like(logs, np.nan), np.zeros_like(logs))


def highest_multipliers(asked: Sequence[Demand]) -> np.ndarray:
    """Float32 [K], the largest log lambda that each rule may have."""
    return np.log([demand.highest for demand in asked], dtype=np.float32)


def next_multipliers(
    asked: Sequence[Demand], now: Multipliers, measured: tf.Tensor, highest: Any = None
) -> Multipliers:
    """Where the multipliers stand after a step.

    Args:
        asked: demands with a multiplier.
        now: where they stand before it.
        measured: float32 [K], means over the batch; what isn't finite wasn't measured, and is as it was.
        highest: float32 [K], log lambdas that aren't passed; None for those of the rules.
    """
    aims = np.array([demand.aim for demand in asked], np.float32)
    is_first = tf.math.is_nan(now.features)
    features = tf.where(is_first, measured, _KEPT * now.features + (1.0 - _KEPT) * measured)
    features = tf.where(tf.math.is_finite(measured), features, now.features)
    violations = tf.clip_by_value(tf.where(tf.math.is_nan(features), 0.0, features / aims - 1.0), -1.0, 1.0)
    lead = tf.where(is_first, 0.0, LEAD * (violations - now.violations))
    bounds = _lowest_multipliers(asked), highest_multipliers(asked) if highest is None else highest
    logs = tf.clip_by_value(now.logs + RATE * (violations + lead), *bounds)
    return Multipliers(logs, features, violations)


def _lowest_multipliers(asked: Sequence[Demand]) -> np.ndarray:
    """Float32 [K], the smallest log lambda."""
    return np.log([_LOWEST * demand.rule.start for demand in asked], dtype=np.float32)
