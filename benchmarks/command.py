"""What the benchmarks share: a command line that measures, prints, and writes JSON; and turns that take turns."""

from __future__ import annotations

import argparse
import json
import os
import pathlib
import platform
import statistics
import sys
import time
from collections.abc import Callable, Mapping
from typing import Any

__all__ = ["NUM_ROUNDS", "ROOT", "Refusal", "interleaved", "machine", "parser", "report", "run"]

ROOT = pathlib.Path(__file__).resolve().parents[1]  # of the checkout
NUM_ROUNDS = 7


class Refusal(Exception):
    """What was asked for can't be measured; the message says why, in one line."""


def parser(doc: str | None) -> argparse.ArgumentParser:
    """The command line that all benchmarks share.

    Args:
        doc: docstring of the benchmark, whose first line tells what it measures.
    """
    made = argparse.ArgumentParser(description=(doc or "").splitlines()[0])
    made.add_argument("--output", type=pathlib.Path, help="JSON file to write the figures to, in a folder that exists")
    return made


def report(
    output: pathlib.Path | None,
    measure: Callable[[], Mapping[str, Any]],
    draw: Callable[[Any, pathlib.Path], None] | None = None,
) -> None:
    """Measures, prints the figures as JSON, and writes them.  A refusal ends the process with one line.

    Args:
        output: file to write to, None to print only.
        measure: returns the figures by name.
        draw: draws the figures into a PNG file beside the output, if there is something to draw.
    """
    try:
        if output is not None and not output.absolute().parent.is_dir():
            raise Refusal(f"--output={output}: there is no folder {output.absolute().parent}.")
        figures = measure()
    except Refusal as error:
        sys.exit(f"benchmarks: error: {error}")
    text = json.dumps(figures, indent=2)
    print(text)
    if output is not None:
        output.write_text(text + "\n", encoding="utf-8")
        if draw is not None:
            draw(figures, output.with_suffix(".png"))


def run(
    doc: str | None,
    measure: Callable[[], Mapping[str, Any]],
    draw: Callable[[Any, pathlib.Path], None] | None = None,
) -> None:
    """`report`, where `--output` is the only option."""
    report(parser(doc).parse_args().output, measure, draw)


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
