"""Runs of the comparison with one line of gin more, beside those without it."""

from __future__ import annotations

from collections.abc import Sequence

from benchmarks.result_groups import BROKEN, COUNT, ELBO, IOU, STEPS, Group, Row

__all__ = ["section"]

_METRICS = (COUNT, IOU, ELBO, BROKEN, STEPS)
_ABOUT = """## Multipliers that start wrong, and a tighter tolerance

Five-minute runs with one further line of gin, each beside the run of the same scenes and the same seed without it.
Multipliers that start 100 times too low or too high should change the count accuracy by no more than 0.005 and the
bound by no more than 2 %. `broken_share = 0.01` tolerates boxes that overlap in 1 % of the scenes, inferred and sampled
ones alike, where 3 % are tolerated by default. Runs that took more steps have better bounds. Each line is that of

    python -m benchmarks.reproduce --cell=CELL --seed=SEED --minutes=5 --gin_bindings='BINDING'
"""


def _reached(row: Row, beside: Row) -> str:
    """Whether a run is as it should be, "-" where nothing is wanted of its binding."""
    setting, _, value = row["bindings"][0].partition(" = ")
    if setting.endswith(".broken_share"):
        broken = BROKEN.value(row)
        reached = broken is not None and broken <= float(value)
    elif setting == "ASRModel.multiplier_scale":
        reached = abs(row["count_accuracy"] - beside["count_accuracy"]) <= 0.005
        reached &= row["negative_elbo_nats"] <= 1.02 * beside["negative_elbo_nats"]
    else:
        return "-"
    return "yes" if reached else "**no**"


def section(rows: Sequence[Row]) -> list[str]:
    """The page's section as lines of Markdown, none where no variant was run."""
    lines = []
    for row in rows:
        beside = [
            other
            for other in rows
            if all(other[key] == row[key] for key in ("cell", "seed", "minutes")) and not other.get("bindings")
        ]
        if row.get("bindings") and row["cell"].startswith("asr/") and beside:
            shown = [f"{Group([row]).shown(metric)} ({Group(beside[-1:]).shown(metric)})" for metric in _METRICS]
            binding = f"`{'; '.join(row['bindings'])}`"
            cells = [row["cell"], str(row["seed"]), binding, *shown, _reached(row, beside[-1])]
            lines.append("| " + " | ".join(cells) + " |")
    if not lines:
        return []
    titles = ["cell", "seed", "binding", *(f"{metric.title} (without)" for metric in _METRICS), "reached"]
    return [_ABOUT, "| " + " | ".join(titles) + " |", "|---" * len(titles) + "|", *sorted(lines), ""]
