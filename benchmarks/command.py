"""What the benchmarks share: a command line that measures, prints, and writes JSON."""

from __future__ import annotations

import argparse
import json
import pathlib
from collections.abc import Callable, Mapping

__all__ = ["run"]


def run(doc: str | None, measure: Callable[[], Mapping[str, float | int]]) -> None:
    """Measures, prints, and writes the figures where `--json` says.

    Args:
        doc: docstring of the benchmark, whose first line tells what it measures.
        measure: returns the figures by name.
    """
    parser = argparse.ArgumentParser(description=(doc or "").splitlines()[0])
    parser.add_argument("--json", type=pathlib.Path, help="file to write the figures to")
    arguments = parser.parse_args()
    figures = measure()
    for name, value in figures.items():
        print(f"{name}: {value}")
    if arguments.json:
        arguments.json.write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")
