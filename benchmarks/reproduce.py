"""The paper's comparison, one command a cell.

    python -m benchmarks.reproduce --cell=asr/mnist/count13 --seed=0 --minutes=5
                                                               trains, evaluates, adds a line
    python -m benchmarks.reproduce --list                      the cells, and which are there
    python -m benchmarks.reproduce --table                     writes docs/RESULTS.md from the lines

A cell is MODEL/DATA/SETTING; `cells.py` says what its line holds, and `cell_runs.py` where original files come from.
"""

from __future__ import annotations

import argparse
import json
import os
import pathlib
import sys
from collections.abc import Sequence
from typing import Any

from benchmarks import ablation, cell_runs, results_page
from benchmarks.cells import LINES, ROOT, Cell, all_cells, lines, of_newest_settings

__all__ = ["main"]


def _print_list(rows: Sequence[dict[str, Any]]) -> None:
    plain = [row for row in rows if not row.get("bindings")]
    for cell in all_cells():
        there = []
        for row in (row for row in plain if row["cell"] == cell.name):
            same = [other for other in plain if (other["cell"], other["minutes"]) == (cell.name, row["minutes"])]
            older = "" if row in of_newest_settings(same) else " (older settings)"
            there.append(f"seed {row['seed']}, {row['minutes']:g} min{older}")
        print(f"{cell.name:32}{'; '.join(there) or '-'}")


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--cell", help="MODEL/DATA/SETTING, as --list shows them")
    what.add_argument("--list", action="store_true", help="the cells, and which are there")
    what.add_argument("--table", action="store_true", help="write docs/RESULTS.md")
    parser.add_argument("--seed", type=int, default=0, help="of the training (default: 0)")
    parser.add_argument("--minutes", type=float, default=5.0, help="of training (default: 5)")
    parser.add_argument("--data", type=pathlib.Path, help="folder with mnist/ and dsprites/")
    parser.add_argument("--runs", type=pathlib.Path, default=ROOT / "runs" / "reproduce", help="where runs are kept")
    parser.add_argument("--output", type=pathlib.Path, default=LINES, help="file that the line is added to")
    parser.add_argument("--gin_bindings", action="append", default=[], help="a further line of gin, for variants")
    arguments = parser.parse_args()
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    try:
        if arguments.list:
            _print_list(lines(arguments.output))
        elif arguments.table:
            print(results_page.write(lines(arguments.output), lines(ablation.LINES)))
        else:
            row = cell_runs.run_cell(
                Cell.parse(arguments.cell),
                arguments.seed,
                arguments.minutes,
                cell_runs.data_folder(arguments.data),
                arguments.runs,
                arguments.output,
                arguments.gin_bindings,
            )
            print(json.dumps({key: value for key, value in row.items() if isinstance(value, (str, int, float))}))
    except ValueError as error:
        sys.exit(f"benchmarks.reproduce: error: {error}")


if __name__ == "__main__":
    main()
