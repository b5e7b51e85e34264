"""Measures how fast training, inference, sampling and data are, and how close they come to the machine's limit.

    python -m benchmarks.speed [--output=FILE] [--rounds=7]
    python -m benchmarks.speed --against=REVISION       this checkout and another revision, in turns; see `versus.py`

The model has the published sizes (see `published.py`).  All rates are measured in one run, in turns that follow one
another, so that their ratios hold on a machine whose speed drifts; each is the median of its turns after one that isn't
counted.  Then fresh processes measure start-up, and, unless ASR_TF_GROWTH=0, how time and memory grow; the plot of the
growth lies beside FILE.
"""

from __future__ import annotations

import os
import pathlib
from typing import Any

from benchmarks import command, growth, startup, versus

__all__ = ["draw", "measure"]


def measure(rounds: int = command.NUM_ROUNDS) -> dict[str, Any]:
    """All of it; medians of `rounds` turns."""
    from benchmarks import rates  # with TensorFlow, which --against needs in other processes only

    figures = {**command.machine(), "rounds": rounds, **rates.measure(rounds), **startup.measure(rounds)}
    if os.environ.get("ASR_TF_GROWTH") != "0":
        figures["growth"] = growth.measure()
    return figures


def draw(figures: dict[str, Any], path: pathlib.Path) -> None:
    """The plot of the growth, where it was measured."""
    if "growth" in figures:
        growth.draw(figures["growth"], path)


def _main() -> None:
    parser = command.parser(__doc__)
    parser.add_argument(
        "--against", metavar="REVISION", help="commit, branch or tag of git to time beside this checkout, turn by turn"
    )
    parser.add_argument("--rounds", type=int, default=command.NUM_ROUNDS, help="counted turns (default: %(default)s)")
    arguments = parser.parse_args()

    def measured() -> dict[str, Any]:
        if arguments.rounds < 1:
            raise command.Refusal(f"--rounds must be 1 or more, got {arguments.rounds}.")
        if arguments.against is None:
            return measure(arguments.rounds)
        return versus.measure(arguments.against, arguments.rounds)

    command.report(arguments.output, measured, draw)


if __name__ == "__main__":
    _main()
