"""What the parts work on: drawn sprites, a tiny run that was trained on them, its export, and a batch's images.

Each is made once, by whichever part asks first, with the commands themselves.
"""

from __future__ import annotations

import json
import pathlib
import time
from typing import Any

import numpy as np
import pyarrow.parquet

from asr_tf.data import SceneSettings, synthesize
from asr_tf.data.sprites import SHAPES, draw_sprites
from benchmarks.reliability import commands
from benchmarks.reliability.commands import Command
from benchmarks.reliability.outcome import Bench

__all__ = [
    "CANVAS",
    "batch_flags",
    "batch_inputs",
    "difference",
    "export_flags",
    "exported",
    "inferred",
    "rows",
    "scenes",
    "seconds_of",
    "state",
    "train_flags",
    "trained",
]

CANVAS = (16, 18)  # height, width in pixels
STEPS = 240
_STEPS_PER_REPORT = 8
_NUM_SCENES = 400
_NUM_BATCH_FILES = 4
_IMAGES_A_FILE = 4096

# A model of which a step takes a millisecond, saved at every report.
_GIN = f"""
include 'models/asr.gin'
include 'scenes/image_folder.gin'
COUNTS = (1, 2)
SIDES_PX = (4, 7)
ASRModel.glimpse_size = 6
ASRModel.what_size = 4
ASRModel.recognition = @LSTMRecognition()
LSTMRecognition.rnn_units = 8
LSTMRecognition.head_units = 6
LSTMRecognition.encoder_units = (10,)
MLPDecoder.units = (10,)
AutoregressivePrior.rnn_units = 8
AutoregressivePrior.head_units = 6
train.num_steps = {STEPS}
train.batch_size = 16
train.jit_compile = False
train.steps_per_execution = 4
train.steps_per_report = {_STEPS_PER_REPORT}
train.images_every_reports = 0
train.checkpoint_every_minutes = 1e-6
train.validation_size = 8
train.warmup_steps = 20
"""
# What differs between two runs of the same training.
_TIMES = ("train_seconds", "images_per_second")
_REPORT = "report "  # begins the names of reports among what a run has learned


def scenes(number: int, seed: int = 0) -> np.ndarray:
    """Images uint8 [number, H, W, 1] of one or two squares, ellipses and hearts."""
    angles = np.arange(0.0, 360.0, 15.0)
    bank = np.concatenate([draw_sprites(shape, angles, 4.0) for shape in SHAPES])
    return synthesize(bank, SceneSettings(canvas_size=CANVAS, counts=(1, 2)), number, seed).images


def train_flags(bench: Bench, workdir: pathlib.Path) -> list[str]:
    """Those of the small training."""
    gin = bench.folder / "tiny.gin"
    if not gin.exists():
        images = bench.place("images")
        np.save(images / "scenes.npy", scenes(_NUM_SCENES))
        gin.write_text(f"{_GIN}data.path = {str(images)!r}\n", encoding="utf-8")
    return [f"--workdir={workdir}", f"--gin_files={gin}"]


def export_flags(bench: Bench, export_dir: pathlib.Path) -> list[str]:
    """Those of an export of the small training's run."""
    return [f"--workdir={trained(bench)}", f"--export_dir={export_dir}"]


def batch_flags(bench: Bench, output: pathlib.Path) -> list[str]:
    """Those of a batch job over `batch_inputs`."""
    return [f"--export_dir={exported(bench)}", f"--input={batch_inputs(bench)}/*.npy", f"--output={output}"]


def trained(bench: Bench) -> pathlib.Path:
    """The run of an undisturbed training."""
    return _made(bench, "trained", "train_main", lambda folder: train_flags(bench, folder))


def exported(bench: Bench) -> pathlib.Path:
    """The folder of versions of an undisturbed export, with version 1."""
    return _made(bench, "exported", "export.export_main", lambda folder: export_flags(bench, folder))


def inferred(bench: Bench) -> pathlib.Path:
    """The results of an undisturbed batch job."""
    return _made(bench, "inferred", "export.batch_infer_main", lambda folder: batch_flags(bench, folder))


def batch_inputs(bench: Bench) -> pathlib.Path:
    """A folder of NPY files with many images."""
    folder = bench.folder / "stacks"
    if not folder.exists():
        bench.place("stacks")
        images = scenes(_IMAGES_A_FILE, seed=1)
        for index in range(_NUM_BATCH_FILES):
            np.save(folder / f"{index}.npy", np.roll(images, index, axis=0))
    return folder


def seconds_of(folder: pathlib.Path) -> float:
    """How long the undisturbed command took from its first file to its end."""
    return float(folder.with_suffix(".seconds").read_text(encoding="utf-8"))


def _made(bench: Bench, name: str, module: str, flags: Any) -> pathlib.Path:
    """The folder that a command writes, undisturbed."""
    folder, seconds = bench.folder / name, bench.folder / f"{name}.seconds"
    if not seconds.exists():
        running = Command(module, *flags(folder), scratch=bench.folder / "tmp")
        running.wait_for(folder.exists)
        began = time.monotonic()
        if fault := running.end().fault(module):
            raise RuntimeError(fault)
        seconds.write_text(str(time.monotonic() - began), encoding="utf-8")
    return folder


def state(workdir: pathlib.Path) -> dict[str, bytes]:
    """All that a run has learned, bit for bit: variables of its newest checkpoint and of its result, and its reports.

    Times are left out.
    """
    import tensorflow as tf

    from asr_tf.runs.checkpoints import saved_steps

    found: dict[str, bytes] = {}
    for folder in (workdir / "checkpoints", workdir / "checkpoints" / "result"):
        step = saved_steps(folder)[0]
        reader = tf.train.load_checkpoint(str(folder / f"ckpt-{step}"))
        for name in reader.get_variable_to_shape_map():
            if not name.startswith(("train_seconds", "_CHECKPOINTABLE_OBJECT_GRAPH")):
                found[f"{folder.name}/{step}/{name}"] = np.asarray(reader.get_tensor(name)).tobytes()
    for line in (workdir / "metrics.jsonl").read_text(encoding="utf-8").splitlines():
        row = {name: value for name, value in json.loads(line).items() if name not in _TIMES}
        found[f"{_REPORT}{row['step']}"] = json.dumps(row, sort_keys=True).encode()
    return found


def rows(output: pathlib.Path) -> list[tuple[str, int, int]]:
    """What a batch job found: file, record and count of each image, sorted."""
    table = pyarrow.parquet.read_table(output)
    columns = (table[name].to_pylist() for name in ("file", "record", "count"))
    return sorted(zip(*columns, strict=True))


def difference(workdir: pathlib.Path, whole: pathlib.Path, reports: bool = True) -> list[str]:
    """How a run differs from an undisturbed one: weights, optimizer and reports bit for bit, and files by name.

    Args:
        workdir: of the run.
        whole: of the undisturbed one.
        reports: whether reports are compared, too; those of a training that was interrupted between two reports stand
            at other steps from there on.
    """
    faults = []
    found, wanted = state(workdir), state(whole)
    if not reports:
        found, wanted = (
            {name: value for name, value in parts.items() if not name.startswith(_REPORT)} for parts in (found, wanted)
        )
    if found != wanted:
        other = sorted(name for name in found.keys() | wanted.keys() if found.get(name) != wanted.get(name))
        faults.append(f"{len(other)} of {len(wanted)} parts differ from those of the undisturbed run, {other[0]} first")
    if left := commands.names(workdir) - commands.names(whole):
        faults.append(f"left over: {', '.join(sorted(left))}")
    if missing := commands.names(whole) - commands.names(workdir):
        faults.append(f"missing: {', '.join(sorted(missing))}")
    return faults
