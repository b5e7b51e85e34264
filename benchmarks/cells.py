"""The cells of the paper's comparison, and the lines of what was run of them.

A cell is MODEL/DATA/SETTING.  Its line in docs/results/cells.jsonl holds `cell`, `seed`, `minutes`, `settings` (a
digest of what the gin files say), the keys of report.json and `curve`, the reports of the training.  A cell that was
run again counts once, with its last line; runs with other settings than the last of their cell and budget don't count.
"""

from __future__ import annotations

import json
import pathlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from benchmarks.command import ROOT

__all__ = [
    "DATA",
    "LINES",
    "MODELS",
    "PICTURES",
    "ROOT",
    "SETTINGS",
    "Cell",
    "all_cells",
    "lines",
    "of_newest_settings",
]

LINES = ROOT / "docs" / "results" / "cells.jsonl"
PICTURES = ROOT / "docs" / "results" / "samples"
MODELS = ("vae", "air", "air_pprior", "asr")
SETTINGS = ("count13", "count14", "count24", "overlap3")
DATA = {"mnist": SETTINGS, "dsprites": SETTINGS, "sprites": ("count13",)}
"""Data sets, and the settings that there are of each."""


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
        cell = cls(*parts)
        if cell.setting not in DATA[cell.data]:
            raise ValueError(f"--cell={name!r}: of {cell.data} there is only {', '.join(DATA[cell.data])}.")
        return cell

    @property
    def name(self) -> str:
        """MODEL/DATA/SETTING."""
        return "/".join(self)

    @property
    def gin_files(self) -> tuple[str, str]:
        """The files that the cell is made of."""
        return f"models/{self.model}.gin", f"scenes/{self.data}_{self.setting}.gin"


def all_cells() -> Iterator[Cell]:
    """All cells, models innermost."""
    for data, settings in DATA.items():
        for setting in settings:
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


def of_newest_settings(rows: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Of runs of one cell and budget, in the order of the file, those with the gin settings of the last."""
    return [row for row in rows if row.get("settings") == rows[-1].get("settings")]
