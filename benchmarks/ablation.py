"""What each penalty, the number of steps and the number of images are worth, on mnist count13.

    python -m benchmarks.ablation --minutes=2           runs what isn't there, adds lines to docs/results/ablation.jsonl
    python -m benchmarks.ablation --plot                draws docs/images/ablation.png from the lines

Each run is a cell of `benchmarks.reproduce` with one more line of gin.  Strengths are fixed ones, in place of a
tolerance, and factors of those that were usual before there were tolerances.
`python -m benchmarks.reproduce --table` takes the lines into docs/RESULTS.md.
"""

from __future__ import annotations

import argparse
import pathlib
import sys
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from benchmarks import cell_runs, cells

__all__ = ["LINES", "draw", "section", "variants"]

ROOT = cells.ROOT
LINES = ROOT / "docs" / "results" / "ablation.jsonl"
PICTURE = ROOT / "docs" / "images" / "ablation.png"
CELL = cells.Cell("asr", "mnist", "count13")
# Rule and the strength that was usual before tolerances, nats a unit.
STRENGTHS = {"CountInSet": 10.0, "AggregateCount": 100.0, "TightWindows": 2.0}
FACTORS = (0.0, 0.1, 1.0, 3.0, 10.0)
STEPS = (3, 4, 6, 8)
SHARES = (0.01, 0.1, 1.0)
TRAINING_IMAGES = 40_000  # in the lines that are there; a thousand of them are for validation today

Row = Mapping[str, Any]


def variants() -> Iterator[tuple[str, float, str]]:
    """(what is varied, its value, the line of gin) of every run; the usual setting comes once in each series."""
    for rule, usual in STRENGTHS.items():
        for factor in FACTORS:
            yield f"strength of {rule}", factor * usual, f"{rule}.strength = {factor * usual}"
    for steps in STEPS:
        yield "T", float(steps), f"ASRModel.num_steps = {steps}"
    for share in SHARES:
        images = round(share * TRAINING_IMAGES)
        yield "training images", float(images), f"data.num_train = {images}"


def _known(row: Row, binding: str, minutes: float, seed: int) -> bool:
    return (row["bindings"], row["minutes"], row["seed"]) == ([binding], minutes, seed)


def _of_one_budget(rows: Sequence[Row]) -> list[tuple[str, float, Row]]:
    """What is varied, its value and the line, for the seed and minutes that most variants were run with.

    Raises:
        ValueError: there is no line of a variant.
    """
    found: dict[tuple[float, int], list[tuple[str, float, Row]]] = {}
    for what, value, binding in variants():
        for row in rows:
            if _known(row, binding, row["minutes"], row["seed"]):
                found.setdefault((row["minutes"], row["seed"]), []).append((what, value, row))
    if not found:
        raise ValueError("there is no line to draw; run python -m benchmarks.ablation first.")
    return max(found.values(), key=len)


def section(rows: Sequence[Row]) -> list[str]:
    """The part of docs/RESULTS.md about these runs, line by line."""
    varied = _of_one_budget(rows)
    minutes, seed = (varied[0][2][key] for key in ("minutes", "seed"))
    titles = ["varied", "value", "count accuracy", "mean IoU", "-ELBO, nats", "samples with a wrong count", "steps"]
    usual = ", ".join(f"{strength:g} for `{rule}`" for rule, strength in STRENGTHS.items())
    about = (
        f"AIR-ASR, seed {seed}, {minutes:g} minute{'' if minutes == 1.0 else 's'} of training a run, "
        f"one setting varied at a time, of a revision whose rules had fixed strengths; the usual ones are {usual}, "
        f"T = 4 and all {TRAINING_IMAGES:,} images, so that five rows are the same setting and tell how runs differ. "
        "The prior follows the posterior with a delay: samples depend on the number of steps. The lines of "
        "[results/ablation.jsonl](results/ablation.jsonl) are those that `python -m benchmarks.ablation` adds."
    )
    lines = [
        f"## {CELL.data} {CELL.setting}: what the rules, T and the number of images are worth\n",
        textwrap.fill(about, 120, break_long_words=False, break_on_hyphens=False) + "\n",
        "| " + " | ".join(titles) + " |",
        "|---" * len(titles) + "|",
    ]
    for what, value, row in varied:
        wrong = 1.0 - row["samples_with_allowed_count"]
        numbers = f"{row['count_accuracy']:.3f} | {row['mean_iou']:.3f} | {row['negative_elbo_nats']:.1f}"
        lines.append(f"| {what} | {value:,g} | {numbers} | {wrong:.3f} | {row['train_steps']:,} |")
    return [*lines, "", "![accuracy, IoU and broken rules against each](images/ablation.png)\n"]


def draw(rows: Sequence[Row], path: pathlib.Path = PICTURE) -> None:
    """Accuracy, IoU and broken rules against each of what is varied.

    Raises:
        ValueError: there is no line of a variant.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    series: dict[str, list[tuple[float, Row]]] = {}
    for what, value, row in _of_one_budget(rows):
        series.setdefault(what, []).append((value, row))
    figure = Figure(figsize=(3.2 * len(series), 3.4), dpi=90)
    FigureCanvasAgg(figure)
    all_axes = figure.subplots(1, len(series), sharey=True, squeeze=False)[0]
    for axes, (what, points) in zip(all_axes, series.items(), strict=True):
        values = [value for value, _ in points]
        for label, numbers in (
            ("count accuracy", [row["count_accuracy"] for _, row in points]),
            ("mean IoU", [row["mean_iou"] for _, row in points]),
            ("samples with a wrong count", [1.0 - row["samples_with_allowed_count"] for _, row in points]),
        ):
            axes.plot(values, numbers, "o-", markersize=4, label=label)
        axes.set_xlabel(what + (", nats" if what.startswith("strength") else ""))
        if what == "training images":
            axes.set_xscale("log")
        elif what.startswith("strength"):
            axes.set_xscale("symlog", linthresh=0.1 * STRENGTHS[what.split()[-1]])
        axes.set_ylim(-0.02, 1.02)
        axes.grid(alpha=0.3)
    figure.axes[0].legend(fontsize=8)
    figure.set_layout_engine("constrained")
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--minutes", type=float, default=2.0, help="of training a run (default: 2)")
    parser.add_argument("--seed", type=int, default=0, help="of the training (default: 0)")
    parser.add_argument("--data", type=pathlib.Path, help="folder with mnist/")
    parser.add_argument("--runs", type=pathlib.Path, default=ROOT / "runs" / "ablation", help="where runs are kept")
    parser.add_argument("--output", type=pathlib.Path, default=LINES, help="file that lines are added to")
    parser.add_argument("--plot", action="store_true", help="only draw what is there")
    arguments = parser.parse_args()
    try:
        rows = cells.lines(arguments.output)
        if arguments.plot:
            draw(rows)
            return
        data = cell_runs.data_folder(arguments.data)
        for _, _, binding in variants():
            if not any(_known(row, binding, arguments.minutes, arguments.seed) for row in rows):
                cell_runs.run_cell(
                    CELL, arguments.seed, arguments.minutes, data, arguments.runs, arguments.output, [binding]
                )
    except ValueError as error:
        sys.exit(f"benchmarks.ablation: error: {error}")


if __name__ == "__main__":
    main()
