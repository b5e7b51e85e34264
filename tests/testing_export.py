"""A tiny run that nobody trained, and its export: what tests of serving share (fixtures `tiny_run`, `tiny_export`)."""

from __future__ import annotations

import pathlib

import numpy as np
from testing_asr_model import vary_counts

from asr_tf.export import exporter
from asr_tf.models import ASRModel
from asr_tf.networks.decoder import MLPDecoder
from asr_tf.networks.prior import AutoregressivePrior
from asr_tf.networks.recognition import LSTMRecognition
from asr_tf.runs.checkpoints import Checkpoints
from asr_tf.runs.run_folder import FORMAT, RunFolder

CANVAS_SIZE = (12, 14)
SETTINGS = {"num_steps": 3, "glimpse_size": 6, "what_size": 4}
PARTS = {
    "recognition": (LSTMRecognition, {"rnn_units": 8, "head_units": 6, "encoder_units": (10,)}),
    "decoder": (MLPDecoder, {"units": (10,)}),
    "prior": (AutoregressivePrior, {"rnn_units": 8, "head_units": 6}),
}


def images(number: int, seed: int = 0, channels: int = 1) -> np.ndarray:
    """float32 [number, H, W, C]; the model finds from none to all objects in them."""
    rng = np.random.default_rng(seed)
    brightness = rng.uniform(0.0, 1.0, (number, 1, 1, 1))
    return (brightness * rng.uniform(size=(number, *CANVAS_SIZE, channels))).astype(np.float32)


def tiny_part(role: str, **settings):
    """A new part of a tiny model, with other settings than the usual ones where they are given."""
    kind, usual = PARTS[role]
    return kind(**{**usual, **settings})


def tiny_model(**settings) -> ASRModel:
    """A model whose count depends on the image."""
    parts = {role: tiny_part(role) for role in PARTS if role not in settings}
    model = ASRModel(**{"canvas_size": CANVAS_SIZE, **SETTINGS, **parts, **settings})
    if model.spec.exact_count is None:
        vary_counts(model, images(30, channels=model.channels))
    return model


def write_run(workdir: pathlib.Path, channels: int = 1, constraints=(), rules: str = "") -> pathlib.Path:
    """A work folder as `asr_train` leaves it, with weights that were never trained; `rules` are constraints in gin."""
    folder = RunFolder(workdir)
    folder.check_writable()
    lines = [f"ASRModel.{name} = {value!r}\n" for name, value in SETTINGS.items()]
    for role, (kind, settings) in PARTS.items():
        lines.append(f"ASRModel.{role} = @{kind.__name__}()\n")
        lines += [f"{kind.__name__}.{name} = {value!r}\n" for name, value in settings.items()]
    folder.write_config("".join([*lines, rules]), {"seed": 0})
    info = {"canvas_size": CANVAS_SIZE, "channels": channels, "seed": 0, "train_seconds": 0.0, "train_steps": 0}
    info |= {"format": FORMAT, "sides_px": None}
    folder.write_info(info)
    Checkpoints(folder.checkpoints, model=tiny_model(channels=channels, constraints=constraints)).save(0)
    return folder.path


def export_tiny(workdir: pathlib.Path, export_dir: pathlib.Path) -> pathlib.Path:
    """An export folder with one version, 1, of the run."""
    exporter.export_run(workdir, export_dir)
    return export_dir
