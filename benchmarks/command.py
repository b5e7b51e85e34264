"""What the benchmarks share: a command line that measures, prints, and writes JSON; and turns that take turns."""

from __future__ import annotations

import argparse
import json
import os
import pathlib
import platform
import statistics
import time
from collections.abc import Callable, Mapping
from typing import Any

__all__ = ["interleaved", "machine", "run"]

NUM_ROUNDS = 7


def run(
    doc: str | None,
    measure: Callable[[], Mapping[str, Any]],
    draw: Callable[[Any, pathlib.Path], None] | None = None,
) -> None:
    """Measures, prints, and writes the figures where `--output` says.

    Args:
        doc: docstring of the benchmark, whose first line tells what it measures.
        measure: returns the figures by name.
        draw: draws the figures into a PNG file beside the output, if there is something to draw.
    """
    parser = argparse.ArgumentParser(description=(doc or "").splitlines()[0])
    parser.add_argument("--output", type=pathlib.Path, help="JSON file to write the figures to")
    arguments = parser.parse_args()
    figures = measure()
    for name, value in figures.items():
        print(f"{name}: {value}")
    if arguments.output:
        arguments.output.parent.mkdir(parents=True, exist_ok=True)
        arguments.output.write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")
        if draw is not None:
            draw(figures, arguments.output.with_suffix(".png"))


def interleaved(turns: Mapping[str, Callable[[], Any]], rounds: int = NUM_ROUNDS) -> dict[str, float]:
    """Median seconds of each turn.  The turns follow one another, round after round, after one that isn't counted.

    Args:
        turns: what to time, by name; each call must end when its work is done.
        rounds: how often each is timed.
    """
    seconds: dict[str, list[float]] = {name: [] for name in turns}
    for _ in range(rounds + 1):
        for name, turn in turns.items():
            start = time.perf_counter()
            turn()
            seconds[name].append(time.perf_counter() - start)
    return {name: statistics.median(values[1:]) for name, values in seconds.items()}


def machine() -> dict[str, Any]:
    """What the figures were measured on."""
    cpu = ""
    cpuinfo = pathlib.Path("/proc/cpuinfo")
    if cpuinfo.is_file():
        names = [line.split(":", 1)[1] for line in cpuinfo.read_text().splitlines() if "model name" in line]
        cpu = names[0].strip() if names else ""
    return {"cpu": cpu or platform.processor(), "cores": os.cpu_count(), "python": platform.python_version()}
