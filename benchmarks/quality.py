"""Time to quality: seconds of training after which runs reached a count accuracy or a bound.

    python -m benchmarks.quality [--output=FILE] WORKDIR [WORKDIR ...]

Reads the metrics.jsonl of finished runs of `asr_train`, one line every 500 steps: the count accuracy is that on
held-out images, the bound the mean over the training batches since the line before.  The median of the runs counts.
"""

from __future__ import annotations

import argparse
import json
import math
import pathlib
import statistics
import sys
from collections.abc import Callable, Mapping
from typing import Any

__all__ = ["reached_after"]

GOALS: dict[str, Callable[[Mapping[str, float]], bool]] = {
    "count_accuracy_0.95": lambda row: row["val_count_accuracy"] >= 0.95,
    "400_nats": lambda row: row["negative_elbo_nats"] <= 400.0,
    "300_nats": lambda row: row["negative_elbo_nats"] <= 300.0,
}


def reached_after(rows: list[dict[str, float]], goal: Callable[[Mapping[str, float]], bool]) -> float:
    """Seconds of training at the first row that reaches the goal; infinity if none does."""
    return next((row["train_seconds"] for row in rows if goal(row)), math.inf)


def measure(workdirs: list[pathlib.Path]) -> dict[str, Any]:
    """By goal, each run's seconds and their median; and each run's last row."""
    runs = [
        [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
        for folder in workdirs
    ]
    figures: dict[str, Any] = {}
    for name, goal in GOALS.items():
        seconds = [round(reached_after(rows, goal), 1) for rows in runs]
        figures[f"seconds_to_{name}"] = {"median": statistics.median(seconds), "runs": seconds}
    for key in ("step", "train_seconds", "negative_elbo_nats", "val_count_accuracy", "val_mean_iou"):
        figures[f"last_{key}"] = [round(rows[-1][key], 4) for rows in runs]
    return figures


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--output", type=pathlib.Path, help="JSON file to write the figures to")
    parser.add_argument("workdirs", nargs="+", type=pathlib.Path, help="folders of finished runs")
    arguments = parser.parse_args()
    missing = [str(folder) for folder in arguments.workdirs if not (folder / "metrics.jsonl").is_file()]
    if missing:
        sys.exit(f"benchmarks.quality: error: no metrics.jsonl in {', '.join(missing)}; name folders of asr_train.")
    figures = measure(arguments.workdirs)
    for name, value in figures.items():
        print(f"{name}: {value}")
    if arguments.output:
        arguments.output.write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
