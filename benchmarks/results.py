"""The table of results in the README, from reports that `asr_evaluate` wrote.

    python -m benchmarks.results --add=W    copies the report of a run's folder W to docs/results/
    python -m benchmarks.results            writes the table between its marks in README.md, from docs/results/*.json

A test holds the README against the files.
"""

from __future__ import annotations

import argparse
import json
import pathlib
import shutil
import sys
from typing import Any

ROOT = pathlib.Path(__file__).resolve().parents[1]
RESULTS = ROOT / "docs" / "results"
README = ROOT / "README.md"
START, END = "<!-- results: start -->", "<!-- results: end -->"

_COLUMNS = (
    ("count accuracy", "count_accuracy", "{:.3f}"),
    ("mean IoU", "mean_iou", "{:.3f}"),
    ("IoU of ink", "mean_ink_iou", "{:.3f}"),
    ("-ELBO, nats", "negative_elbo_nats", "{:.1f}"),
    ("allowed counts in samples", "samples_with_allowed_count", "{:.3f}"),
    ("training, s", "train_seconds", "{:.0f}"),
    ("steps", "train_steps", "{:,}"),
)


def add(workdir: pathlib.Path, folder: pathlib.Path = RESULTS) -> pathlib.Path:
    """Copies a run's report under the name of its data set and seed.

    Args:
        workdir: folder of an evaluated run.
        folder: where to.

    Returns:
        The copy.

    Raises:
        ValueError: the run has no report.
    """
    source = workdir / "report.json"
    if not source.is_file():
        raise ValueError(f"{workdir} has no report.json; run asr_evaluate --workdir={workdir} first.")
    report = json.loads(source.read_text())
    folder.mkdir(parents=True, exist_ok=True)
    target = folder / f"{report['data_set'].replace('/', '_')}_seed{report['seeds']['train']}.json"
    shutil.copyfile(source, target)
    return target


def table(reports: list[dict[str, Any]]) -> str:
    """The reports as a Markdown table, a row each."""
    lines = ["| data set | seed | " + " | ".join(title for title, _, _ in _COLUMNS) + " |"]
    lines.append("|---" * (2 + len(_COLUMNS)) + "|")
    for report in reports:
        cells = [
            form.format(report[key]) if report.get(key) is not None else "-"
            for _, key, form in _COLUMNS
        ]
        lines.append(f"| {report['data_set']} | {report['seeds']['train']} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def stored_reports(folder: pathlib.Path = RESULTS) -> list[dict[str, Any]]:
    """The reports of `docs/results`, by name."""
    return [json.loads(path.read_text()) for path in sorted(folder.glob("*_seed*.json"))]


def with_table(text: str, reports: list[dict[str, Any]]) -> str:
    """`text` with the table between the two marks.

    Raises:
        ValueError: a mark is missing.
    """
    if START not in text or END not in text:
        raise ValueError(f"README.md must hold the marks {START} and {END}.")
    before, rest = text.split(START, 1)
    after = rest.split(END, 1)[1]
    return f"{before}{START}\n{table(reports)}\n{END}{after}"


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--add", type=pathlib.Path, action="append", default=[], help="an evaluated run's folder")
    arguments = parser.parse_args()
    try:
        for workdir in arguments.add:
            print(add(workdir))
        README.write_text(with_table(README.read_text(), stored_reports()))
    except ValueError as error:
        sys.exit(f"benchmarks.results: error: {error}")


if __name__ == "__main__":
    main()
