"""The table of results in the README, from the lines of docs/results/cells.jsonl.

    python -m benchmarks.results            writes the table between its marks in README.md

A test holds the README against the lines.
"""

from __future__ import annotations

import argparse
import pathlib
import sys
from collections.abc import Sequence

from benchmarks import cells, result_groups
from benchmarks.result_groups import Row

README = cells.ROOT / "README.md"
START, END = "<!-- results: start -->", "<!-- results: end -->"

_MODELS = ("air", "air_pprior", "asr")  # a VAE finds no objects
_MINUTES = 5.0


def table(rows: Sequence[Row]) -> str:
    """Five-minute runs as a Markdown table: a row for each setting and model."""
    titles = ["scenes", "model", *result_groups.SUMMARY_TITLES]
    lines = ["| " + " | ".join(titles) + " |", "|---" * len(titles) + "|"]
    for data in cells.DATA:
        for setting in cells.SETTINGS:
            for model in _MODELS:
                found = result_groups.summary(rows, cells.Cell(model, data, setting), _MINUTES)
                if found is not None:
                    head = [f"{data} {setting}", result_groups.TITLES[model]]
                    lines.append("| " + " | ".join([*head, *found]) + " |")
    return "\n".join(lines)


def with_table(text: str, rows: Sequence[Row]) -> str:
    """`text` with the table between the two marks.

    Raises:
        ValueError: a mark is missing.
    """
    if START not in text or END not in text:
        raise ValueError(f"README.md must hold the marks {START} and {END}.")
    before, rest = text.split(START, 1)
    after = rest.split(END, 1)[1]
    return f"{before}{START}\n{table(rows)}\n{END}{after}"


def main(readme: pathlib.Path = README) -> None:
    """Command line."""
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter).parse_args()
    try:
        readme.write_text(with_table(readme.read_text(encoding="utf-8"), cells.lines()), encoding="utf-8")
    except ValueError as error:
        sys.exit(f"benchmarks.results: error: {error}")


if __name__ == "__main__":
    main()
