"""What a training step with multipliers takes beside one with fixed strengths, and beside one without rules.

    python -m benchmarks.multipliers --output=docs/performance/multipliers.json

The models are those of the digits' `count13` and `overlap3`: the same rules, asked of the same scenes.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

from asr_tf.constraints import AggregateCount, Constraint, CountInSet, DisjointBoxes, TightWindows
from asr_tf.models import ASRModel, ConvRecognition
from asr_tf.networks.prior import AutoregressivePrior
from benchmarks import command, published

__all__ = ["measure", "models"]

STEPS, BATCH_SIZE = 80, 64
ROUNDS = 9


def _rules(counts: Sequence[int], **strength: Any) -> list[Constraint]:
    """The rules; those of exactly so many objects may not overlap, those of several counts may not be of another."""
    if len(counts) == 1:
        return [TightWindows(**strength), DisjointBoxes(applies_to="both", **strength)]
    return [
        CountInSet(counts, applies_to="both", **strength),
        AggregateCount(counts, **strength),
        TightWindows(**strength),
    ]


def models() -> dict[str, ASRModel]:
    """Models that are alike but for their rules, by scene and kind of rules."""
    made = {}
    for scene, counts in (("count13", (1, 3)), ("overlap3", (3,))):
        kinds = {"multipliers": _rules(counts), "strengths": _rules(counts, strength=1.0), "no_rules": []}
        for kind, rules in kinds.items():
            made[f"{scene}_{kind}"] = ASRModel(
                counts=counts,
                constraints=rules,
                recognition=ConvRecognition(),
                prior=AutoregressivePrior(learn_scale=True),
            )
    return made


def measure() -> dict[str, Any]:
    """Milliseconds a training step through `fit`, medians of turns that follow one another, and their ratios."""
    data = published.dataset(BATCH_SIZE)
    turns: dict[str, Callable[[], Any]] = {}
    for name, model in models().items():
        fit = published.compiled(model).fit
        turns[name] = functools.partial(fit, data, steps_per_epoch=STEPS, epochs=1, verbose=0, shuffle=False)
    seconds = command.interleaved(turns, ROUNDS)
    figures: dict[str, Any] = {**command.machine(), "rounds": ROUNDS, "batch_size": BATCH_SIZE}
    figures["ms_a_step"] = {name: round(1e3 * value / STEPS, 3) for name, value in seconds.items()}
    for scene in ("count13", "overlap3"):
        ours = seconds[f"{scene}_multipliers"]
        for other in ("strengths", "no_rules"):
            figures[f"{scene}_multipliers_to_{other}"] = round(ours / seconds[f"{scene}_{other}"], 3)
    return figures


if __name__ == "__main__":
    command.run(__doc__, measure)
