"""A tiny run that nobody trained, and its export: what tests of serving share (fixtures `tiny_run`, `tiny_export`)."""

from __future__ import annotations

import pathlib

import numpy as np
from testing_asr_model import TINY, tiny

from asr_tf.export import exporter
from asr_tf.models.asr_model import ASRModel
from asr_tf.runs.run_folder import Checkpoints, RunFolder

CANVAS_SIZE = TINY["canvas_size"]
SETTINGS = {name: value for name, value in TINY.items() if name != "canvas_size"}


def images(number: int, seed: int = 0) -> np.ndarray:
    """float32 [number, H, W, 1]; the model finds from none to all objects in them."""
    rng = np.random.default_rng(seed)
    brightness = rng.uniform(0.0, 1.0, (number, 1, 1, 1))
    return (brightness * rng.uniform(size=(number, *CANVAS_SIZE, 1))).astype(np.float32)


def tiny_model(**settings) -> ASRModel:
    """A model whose count depends on the image."""
    model = tiny(**settings)
    if model.exact_count is None:
        last = model.recognition.presence_head.dense_1
        last.kernel.assign(40.0 * last.kernel)
        last.bias.assign([5.3])
    return model


def write_run(workdir: pathlib.Path) -> pathlib.Path:
    """A work folder as `asr_train` leaves it, with weights that were never trained."""
    folder = RunFolder(workdir)
    folder.check_writable()
    lines = [f"ASRModel.{name} = {value!r}\n" for name, value in SETTINGS.items()]
    folder.write_config("".join(lines), {"seed": 0})
    folder.write_info({"canvas_size": CANVAS_SIZE, "seed": 0, "train_seconds": 0.0, "train_steps": 0})
    Checkpoints(folder.checkpoints, model=tiny_model()).save(0)
    return folder.path


def export_tiny(workdir: pathlib.Path, export_dir: pathlib.Path) -> pathlib.Path:
    """An export folder with one version, 1, of the run."""
    exporter.export_run(workdir, export_dir)
    return export_dir
