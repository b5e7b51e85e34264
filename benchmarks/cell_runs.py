"""Trains and evaluates one cell of the paper's comparison, and writes its line and its picture.

Original files are taken from the folder that --data names, with mnist/ and dsprites/ in it; by default from the one
that ASR_TF_TEST_DATA names, else from ../shared/data beside the checkout.
"""

from __future__ import annotations

import hashlib
import json
import os
import pathlib
from collections.abc import Sequence
from typing import Any

from benchmarks.cells import LINES, PICTURES, ROOT, Cell

__all__ = ["data_folder", "run_cell", "train_cell"]

_CURVE = ("step", "train_seconds", "negative_elbo_nats", "val_count_accuracy", "val_mean_iou", "val_squared_error")
_SHOWN = 8  # sampled scenes kept as a picture


def data_folder(given: pathlib.Path | None) -> pathlib.Path:
    """The folder with mnist/ and dsprites/.

    Raises:
        ValueError: it isn't there.
    """
    folder = given or pathlib.Path(os.environ.get("ASR_TF_TEST_DATA") or ROOT.parent / "shared" / "data")
    if not folder.is_dir():
        raise ValueError(f"no folder {folder} with the original files; give --data, with mnist/ and dsprites/ in it.")
    return folder


def train_cell(
    cell: Cell, seed: int, minutes: float, data: pathlib.Path, runs: pathlib.Path, bindings: Sequence[str] = ()
) -> tuple[pathlib.Path, str]:
    """Trains a cell, or goes on with a run that was interrupted; one that is finished stays as it is.

    Args:
        cell, seed, minutes, data, runs, bindings: as of `run_cell`.

    Returns:
        The run's folder, and a digest of what the gin files say.
    """
    import gin

    from asr_tf import fast
    from asr_tf.runs import configuration
    from asr_tf.training import fit

    fast.tune_process()
    name = "_".join([*cell, f"seed{seed}", f"{minutes:g}min"])
    if bindings:
        name += "_" + _digest("\n".join(bindings))
    configuration.parse(cell.gin_files, bindings)
    settings = _digest(gin.config_str())
    fit.train(runs / name, seed=seed, max_minutes=minutes, manual_dir=str(data))
    return runs / name, settings


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
    from asr_tf.runs import evaluate as evaluation

    workdir, settings = train_cell(cell, seed, minutes, data, runs, bindings)
    report = evaluation.evaluate(workdir, manual_dir=str(data))
    reports = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    row = {"cell": cell.name, "seed": seed, "minutes": minutes, "settings": settings, **report}
    if bindings:
        row["bindings"] = list(bindings)
    row["curve"] = {key: [_rounded(line.get(key)) for line in reports] for key in _CURVE if key in reports[-1]}
    output.parent.mkdir(parents=True, exist_ok=True)
    with output.open("a", encoding="utf-8") as file:
        file.write(json.dumps(row) + "\n")
    if not bindings:
        _draw_samples(workdir, PICTURES / f"{workdir.name}.png")
    return row


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:8]


def _draw_samples(workdir: pathlib.Path, path: pathlib.Path) -> None:
    """A strip of scenes from the prior."""
    import numpy as np
    from PIL import Image

    from asr_tf.evaluation import tiles
    from asr_tf.runs import run_folder

    model, _ = run_folder.restore_model(workdir)
    drawn = {key: np.asarray(value) for key, value in model.sample(_SHOWN, seed=(0, 0)).items()}
    strip = tiles.draw_boxes_grid(drawn["images"], drawn.get("boxes"), drawn.get("count"), zoom=2)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(strip).save(path)


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 4)
