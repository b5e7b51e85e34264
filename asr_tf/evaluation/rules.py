"""How well rules hold: what is tolerated, what is measured on test scenes and on samples, and what it costs."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from asr_tf.constraints import Constraint, Demand, SceneStatistics, demands

__all__ = ["interval", "rules_report"]

_QUANTILE = 1.959964  # of a standard normal, for 95 %


def interval(values: np.ndarray) -> tuple[float, float]:
    """The 95 % interval of a mean.

    Args:
        values: float [N]; where all are 0 or 1, the interval is Wilson's, else that of a normal mean.

    References:
        Wilson, "Probable inference, the law of succession, and statistical inference", JASA 1927.
    """
    number, mean = len(values), float(np.mean(values))
    if np.all((values == 0.0) | (values == 1.0)):
        square = _QUANTILE**2 / number
        middle = (mean + square / 2.0) / (1.0 + square)
        half = _QUANTILE / (1.0 + square) * math.sqrt(mean * (1.0 - mean) / number + square / (4.0 * number))
        return max(middle - half, 0.0), min(middle + half, 1.0)
    half = _QUANTILE * float(np.std(values)) / math.sqrt(number)
    return max(mean - half, 0.0), mean + half


def rules_report(
    model: Any,
    batches: Iterable[tuple[np.ndarray, int]],
    counts: np.ndarray,
    boxes: np.ndarray,
    rules: Sequence[Constraint],
    seed: int,
) -> dict[str, dict[str, Any]]:
    """Where each rule stands.

    Args:
        model: an `ASRModel`.
        batches: test images float32 [b, H, W, C], and how many of each batch are wanted.
        counts: integer [N], of sampled scenes.
        boxes: float [N, T, 4], theirs.
        rules: what scenes are held against.
        seed: of the posterior's samples.

    Returns:
        By the rule's label: `tolerance` and its `unit`; `multiplier`, in nats for each unit of penalty, or `strength`
        where that is fixed, null where the model is trained without the rule; and `inferred` and `samples`, with
        `feature` (what is held against the tolerance), its 95 % `interval`, and whether it is `held`; null where the
        rule isn't asked of them, or looks at pixels, which samples aren't asked for.
    """
    asked = demands(rules)
    of_images = [demand for demand in asked if not demand.on_samples]

    @tf.function
    def measured(images: tf.Tensor, batch_seed: tf.Tensor) -> list[tf.Tensor]:
        noise = model.draw_noise(tf.shape(images)[0], batch_seed)
        _, statistics = model.score(images, noise, batch_seed + 1, training=False)
        return [demand.of_statistics(statistics)[1] for demand in of_images]

    found: list[list[np.ndarray]] = []
    for index, (images, wanted) in enumerate(batches):
        values = measured(tf.constant(images), tf.constant([seed, index]))
        found.append([np.atleast_1d(value)[:wanted] for value in map(np.asarray, values)])
    by_label = {
        demand.label: np.concatenate(parts) for demand, parts in zip(of_images, zip(*found, strict=True), strict=True)
    }
    scenes = SceneStatistics.of_finished(counts, boxes, model.canvas_size)
    multipliers = {label: row["multiplier"] for label, row in model.rules_held().items()}
    report = {}
    for demand in asked:
        on_samples = demand.rule.can_see(scenes)
        report[demand.label] = {
            "tolerance": demand.rule.limit,
            "unit": demand.rule.limit_unit,
            "strength": demand.rule.strength,
            "multiplier": multipliers.get(demand.label),
            "inferred": _standing(demand, by_label.get(demand.label)),
            "samples": _standing(demand, np.asarray(demand.of_statistics(scenes)[1])) if on_samples else None,
        }
    return report


def _standing(demand: Demand, values: np.ndarray | None) -> dict[str, Any] | None:
    """A feature, its interval, and whether it is tolerated."""
    if values is None:
        return None
    values = np.atleast_1d(values).astype(np.float64)
    feature = float(values.mean())
    return {"feature": feature, "interval": list(interval(values)), "held": feature <= demand.rule.limit}
