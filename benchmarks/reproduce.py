"""The paper's comparison, one command a cell.

    python -m benchmarks.reproduce --cell=asr/mnist/count13 --seed=0 --minutes=5
                                                               trains, evaluates, adds a line
    python -m benchmarks.reproduce --list                      the cells, and which are there
    python -m benchmarks.reproduce --table                     writes docs/RESULTS.md from the lines

A cell is MODEL/DATA/SETTING.  Its line in docs/results/cells.jsonl holds `cell`, `seed`, `minutes`, `settings` (a
digest of what the gin files say), the keys of report.json and `curve`, the reports of the training.  A cell that was
run again counts once, with its last line; runs with other settings than the last of their cell and budget don't count.
Original files are taken from --data, a folder with mnist/ and dsprites/; by default the one that
ASR_TF_TEST_DATA names, else ../shared/data beside the checkout.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import pathlib
import sys
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

__all__ = ["Cell", "cells", "lines", "of_newest_settings", "run_cell"]

ROOT = pathlib.Path(__file__).resolve().parents[1]
LINES = ROOT / "docs" / "results" / "cells.jsonl"
PICTURES = ROOT / "docs" / "results" / "samples"
MODELS = ("vae", "air", "air_pprior", "asr")
DATA = ("mnist", "dsprites")
SETTINGS = ("count13", "count14", "count24", "overlap3")

# What runs of up to ten minutes are trained with beside the gin files, all models alike.
_SHORT_RUNS = {("mnist", "overlap3"): ["train.peak_learning_rate = 1.5e-3"]}

_CURVE = ("step", "train_seconds", "negative_elbo_nats", "val_count_accuracy", "val_mean_iou", "val_squared_error")
_SHOWN = 8  # sampled scenes kept as a picture


class Cell(NamedTuple):
    """One combination of a model, a data set and a setting of objects."""

    model: str
    data: str
    setting: str

    @classmethod
    def parse(cls, name: str) -> Cell:
        """The cell of this name.

        Raises:
            ValueError: there is none; says which part is wrong, and the choices.
        """
        parts = name.split("/")
        if len(parts) != 3:
            raise ValueError(f"--cell must be MODEL/DATA/SETTING, such as asr/mnist/count13, got {name!r}.")
        for label, part, choices in zip(("model", "data", "setting"), parts, (MODELS, DATA, SETTINGS), strict=True):
            if part not in choices:
                raise ValueError(f"--cell={name!r}: {label} {part!r} is unknown; choose one of {', '.join(choices)}.")
        return cls(*parts)

    @property
    def name(self) -> str:
        """MODEL/DATA/SETTING."""
        return "/".join(self)

    def settings(self, minutes: float) -> list[str]:
        """Gin lines beside the files for runs of this length."""
        return _SHORT_RUNS.get((self.data, self.setting), []) if minutes <= 10.0 else []

    @property
    def gin_files(self) -> tuple[str, str]:
        """The files that the cell is made of."""
        return f"models/{self.model}.gin", f"scenes/{self.data}_{self.setting}.gin"


def cells() -> Iterator[Cell]:
    """All cells, models innermost."""
    for data in DATA:
        for setting in SETTINGS:
            for model in MODELS:
                yield Cell(model, data, setting)


def lines(path: pathlib.Path = LINES) -> list[dict[str, Any]]:
    """What was run, in the order of the file; of lines about the same run only the last, at its place.

    Raises:
        ValueError: a line isn't JSON.
    """
    kept: dict[tuple[Any, ...], dict[str, Any]] = {}
    text = path.read_text(encoding="utf-8") if path.is_file() else ""
    for number, line in enumerate(text.splitlines(), 1):
        try:
            row = json.loads(line)
        except ValueError as error:
            raise ValueError(f"{path}, line {number}, is not JSON: {error}; delete it.") from error
        key = row["cell"], row["seed"], row["minutes"], tuple(row.get("bindings", ()))
        kept.pop(key, None)
        kept[key] = row
    return list(kept.values())


def data_folder(given: pathlib.Path | None) -> pathlib.Path:
    """The folder with mnist/ and dsprites/.

    Raises:
        ValueError: it isn't there.
    """
    folder = given or pathlib.Path(os.environ.get("ASR_TF_TEST_DATA") or ROOT.parent / "shared" / "data")
    if not folder.is_dir():
        raise ValueError(f"no folder {folder} with the original files; give --data, with mnist/ and dsprites/ in it.")
    return folder


def run_cell(
    cell: Cell,
    seed: int,
    minutes: float,
    data: pathlib.Path,
    runs: pathlib.Path,
    output: pathlib.Path = LINES,
    bindings: Sequence[str] = (),
) -> dict[str, Any]:
    """Trains and evaluates a cell, and appends its line.

    A run that was interrupted goes on where it stopped; one that is finished is evaluated again.

    Args:
        cell: which.
        seed: of the training.
        minutes: of training.
        data: folder with mnist/ and dsprites/.
        runs: where the runs' folders lie.
        output: file that the line is appended to.
        bindings: further gin lines, which are written into the line.
    """
    import gin

    from asr_tf.runs import configuration
    from asr_tf.runs import evaluate as evaluation
    from asr_tf.training import fit

    name = "_".join([*cell, f"seed{seed}", f"{minutes:g}min"])
    if bindings:
        name += "_" + _digest("\n".join(bindings))
    workdir = str(runs / name)
    configuration.parse(cell.gin_files, [*cell.settings(minutes), *bindings])
    settings = _digest(gin.config_str())
    fit.train(workdir, seed=seed, max_minutes=minutes, manual_dir=str(data))
    report = evaluation.evaluate(workdir, manual_dir=str(data))
    reports = [json.loads(line) for line in (runs / name / "metrics.jsonl").read_text().splitlines()]
    row = {"cell": cell.name, "seed": seed, "minutes": minutes, "settings": settings, **report}
    if bindings:
        row["bindings"] = list(bindings)
    row["curve"] = {key: [_rounded(line.get(key)) for line in reports] for key in _CURVE if key in reports[-1]}
    output.parent.mkdir(parents=True, exist_ok=True)
    with output.open("a", encoding="utf-8") as file:
        file.write(json.dumps(row) + "\n")
    if not bindings:
        _draw_samples(workdir, PICTURES / f"{name}.png")
    return row


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:8]


def of_newest_settings(rows: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Of runs of one cell and budget, in the order of the file, those with the gin settings of the last."""
    return [row for row in rows if row.get("settings") == rows[-1].get("settings")]


def _draw_samples(workdir: str, path: pathlib.Path) -> None:
    """A strip of scenes from the prior."""
    import numpy as np
    from PIL import Image

    from asr_tf.evaluation import tiles
    from asr_tf.runs import run_folder

    model, _ = run_folder.restore_model(workdir)
    drawn = {key: np.asarray(value) for key, value in model.sample(_SHOWN, seed=(0, 0)).items()}
    boxes = [drawn[key] for key in ("boxes", "count") if key in drawn]
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(tiles.draw_boxes_grid(drawn["images"], *boxes, zoom=2)).save(path)


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 4)


def _print_list(rows: Sequence[dict[str, Any]]) -> None:
    plain = [row for row in rows if not row.get("bindings")]
    for cell in cells():
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
            from benchmarks import ablation, results_page

            print(results_page.write(lines(arguments.output), lines(ablation.LINES)))
        else:
            row = run_cell(
                Cell.parse(arguments.cell),
                arguments.seed,
                arguments.minutes,
                data_folder(arguments.data),
                arguments.runs,
                arguments.output,
                arguments.gin_bindings,
            )
            print(json.dumps({key: value for key, value in row.items() if isinstance(value, (str, int, float))}))
    except ValueError as error:
        sys.exit(f"benchmarks.reproduce: error: {error}")


if __name__ == "__main__":
    main()
