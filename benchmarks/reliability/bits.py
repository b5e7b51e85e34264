"""Flipped bits: in checkpoints, in an export, and in the PNG images and TFRecords of a batch."""

from __future__ import annotations

import io
import json
import math
import pathlib
import shutil
import subprocess
import sys
from collections.abc import Iterator

import keras
import numpy as np
import tensorflow as tf
from absl import logging
from asr_tf.export.batch import reading
from asr_tf.export.batch.chunks import Chunk

from asr_tf.export import artifact
from asr_tf.runs import run_folder
from asr_tf.runs.checkpoints import Checkpoints, RunFolderError, saved_steps
from asr_tf.training.callbacks import TrainingState
from asr_tf.training.schedule import TrainingBudget
from benchmarks import command
from benchmarks.reliability import commands, materials
from benchmarks.reliability.outcome import Bench, Check

__all__ = ["flip", "measure", "read"]

TITLE = "Flipped bits"


def measure(bench: Bench) -> list[Check]:
    """Flips bits, one at a time."""
    return [_checkpoints(bench), _export(bench), _inputs(bench, "PNG"), _inputs(bench, "TFRecord"), _job(bench)]


def flip(data: bytes, rng: np.random.Generator) -> bytes:
    """The same bytes, but for one bit."""
    place = int(rng.integers(8 * len(data)))
    changed = bytearray(data)
    changed[place // 8] ^= 1 << place % 8
    return bytes(changed)


def _checkpoints(bench: Bench) -> Check:
    check = Check(
        "A random bit of the newest of three checkpoints is flipped (weights, optimizer, index), and training restores",
        "noticed, and the checkpoint before it is used; or what is restored is what was saved, bit for bit",
    )
    workdir = bench.folder / "flipped run"
    shutil.copytree(materials.trained(bench), workdir)
    model, _ = run_folder.restore_model(workdir)
    model.compile(optimizer=keras.optimizers.Adam())
    model.optimizer.build(model.trainable_variables)
    state = TrainingState(model.step, TrainingBudget(materials.STEPS, None))
    beside = {name: value for name, value in vars(state).items() if isinstance(value, tf.Variable)}
    folder = workdir / "checkpoints"
    checkpoints = Checkpoints(folder, model=model, optimizer=model.optimizer, **beside)

    def restored() -> tuple[str | None, list[bytes]]:
        for variable in (*model.variables, *model.optimizer.variables, *beside.values()):
            variable.assign(tf.zeros_like(variable))
        path = checkpoints.restore()
        values = (*model.variables, *model.optimizer.variables, *beside.values())
        return path, [keras.ops.convert_to_numpy(value).tobytes() for value in values]

    newest, before = saved_steps(folder)[:2]
    _, wanted = restored()
    files = sorted(path for path in folder.glob(f"ckpt-{newest}.*") if path.suffix != ".json")
    rng = bench.rng("checkpoints")
    logging.set_verbosity(logging.FATAL)  # which of them are damaged is known here
    for _ in range(bench.many(300, 10)):
        file = files[int(rng.integers(len(files)))]
        data = file.read_bytes()
        file.write_bytes(flip(data, rng))
        try:
            path, values = restored()
        except RunFolderError as error:
            check.add("refused", f"{file.name}: none could be read: {error}")
        except Exception as error:
            check.add("another exception", f"{file.name}: {type(error).__name__}: {error}")
        else:
            if path is not None and path.endswith(f"ckpt-{before}"):
                check.add("noticed, and the one before used")
            else:
                wrong = values != wanted
                check.add("restored as saved", f"{file.name}: wrong values restored unnoticed" if wrong else None)
        file.write_bytes(data)
    logging.set_verbosity(logging.ERROR)
    shutil.rmtree(workdir)
    return check


def _export(bench: Bench) -> Check:
    check = Check(
        "A random bit of a random file of an export is flipped (all but its card, which holds the checksums)",
        "asr_check_export's script ends with status 1 and a line that names the file",
    )
    folder = bench.folder / "flipped export"
    shutil.copytree(materials.exported(bench) / "1", folder)
    files = sorted(path for path in folder.rglob("*") if path.is_file() and path.name != artifact.CARD)
    files = [path for path in files if path.stat().st_size]
    script = command.ROOT / "export" / "check_artifact.py"
    rng = bench.rng("export")
    for _ in range(bench.many(100, 10)):
        file = files[int(rng.integers(len(files)))]
        data = file.read_bytes()
        file.write_bytes(flip(data, rng))
        done = subprocess.run([sys.executable, str(script), str(folder)], capture_output=True, text=True, check=False)
        lines = done.stdout.splitlines()
        is_named = done.returncode == 1 and lines[-1:] and lines[-1].startswith("FAIL") and file.name in lines[-1]
        check.add("noticed" if is_named else "not noticed", None if is_named else f"{file.name}: {done.stdout[-200:]}")
        file.write_bytes(data)
    shutil.rmtree(folder)
    return check


def read(files: list[pathlib.Path]) -> tuple[dict[tuple[str, int], bytes], list[tuple[str, int | None, str]]]:
    """What the reader of batch jobs makes of files: pixels by (file, record); (file, record, reason) of the rest."""
    images: dict[tuple[str, int], bytes] = {}
    refused: list[tuple[str, int | None, str]] = []
    for part in reading.read_chunks([str(file) for file in files], (*materials.CANVAS, 1)):
        if isinstance(part, Chunk):
            pixels = part.images if part.images.dtype == np.uint8 else np.rint(255.0 * part.images).astype(np.uint8)
            for file, record, image in zip(part.files, part.records, pixels, strict=True):
                images[pathlib.Path(file).name, int(record)] = image.tobytes()
        else:
            refused.append((pathlib.Path(part.file).name, part.record, part.reason))
    return images, refused


def png(image: np.ndarray) -> bytes:
    """A PNG image of uint8 [H, W, 1]."""
    return tf.io.encode_png(image).numpy()


def npy(images: np.ndarray) -> bytes:
    """An NPY file."""
    file = io.BytesIO()
    np.save(file, images)
    return file.getvalue()


def tfrecord(images: np.ndarray, scratch: pathlib.Path) -> bytes:
    """A TFRecord of Examples with a PNG image each, of uint8 [N, H, W, 1]; `scratch` is a file that is written."""
    with tf.io.TFRecordWriter(str(scratch)) as writer:
        for image in images:
            feature = tf.train.Feature(bytes_list=tf.train.BytesList(value=[png(image)]))
            features = tf.train.Features(feature={"image": feature})
            writer.write(tf.train.Example(features=features).SerializeToString())
    return scratch.read_bytes()


def _inputs(bench: Bench, kind: str) -> Check:
    check = Check(
        f"A random bit of a {kind} file of a batch is flipped, beside a good file",
        "what was flipped is refused with a reason, or read as it was; all else that can be read is there",
    )
    folder = bench.place(f"flipped {kind}")
    images = materials.scenes(8, seed=2)
    good, bad = folder / "good.png", folder / ("bad.png" if kind == "PNG" else "bad.tfrecord")
    good.write_bytes(png(images[0]))
    data = png(images[1]) if kind == "PNG" else tfrecord(images, bad)
    bad.write_bytes(data)
    wanted, _ = read([good, bad])
    rng = bench.rng(kind)
    for _ in range(bench.many(500, 25)):
        bad.write_bytes(flip(data, rng))
        found, refused = read([good, bad])
        check.add("refused" if refused else "read as it was", *_faults(found, refused, wanted))
    shutil.rmtree(folder)
    return check


def _faults(
    found: dict[tuple[str, int], bytes],
    refused: list[tuple[str, int | None, str]],
    wanted: dict[tuple[str, int], bytes],
) -> Iterator[str]:
    """What is wrong with what was read of a good file and of one with a flipped bit."""
    if any(image != wanted[key] for key, image in found.items()):
        yield "other pixels, unnoticed"
    lost = wanted.keys() - found.keys()
    first = min((math.inf if record is None else record for _, record, _ in refused), default=math.inf)
    whole_file = any(record is None for _, record, _ in refused)
    if any(name == "good.png" or (record < first and not whole_file) for name, record in lost):
        yield f"lost without a refusal: {sorted(lost)}"
    if any("\n" in reason or not reason for _, _, reason in refused):
        yield f"not one line: {refused}"


def _job(bench: Bench) -> Check:
    check = Check(
        "asr_batch_infer over as many good PNG images as ones with a flipped bit, as a job",
        "the good ones are done, and each of the others is refused or done",
    )
    folder, output = bench.place("flipped job"), bench.folder / "flipped results"
    rng = bench.rng("job")
    number = bench.many(200, 20)
    images = materials.scenes(2 * number, seed=3)
    for index, image in enumerate(images):
        data = png(image)
        (folder / f"{index}.png").write_bytes(flip(data, rng) if index % 2 else data)
    flags = [f"--export_dir={materials.exported(bench)}", f"--input={folder}/*.png", f"--output={output}"]
    done = commands.run("export.batch_infer_main", *flags, scratch=bench.folder / "tmp")
    if fault := done.fault("asr_batch_infer"):
        check.note(fault, fault=True)
        return check
    there = {int(pathlib.Path(file).stem) for file, _, _ in materials.rows(output)}
    lines = [line for path in output.glob("_refused-*") for line in path.read_text(encoding="utf-8").splitlines()]
    refused = {int(pathlib.Path(json.loads(line)["file"]).stem) for line in lines}
    for index in range(len(images)):
        seen = "done" if index in there else "refused" if index in refused else "lost"
        is_fault = seen == "lost" or (seen == "refused" and index % 2 == 0) or (index in there & refused)
        check.add(f"{'flipped' if index % 2 else 'good'}: {seen}", f"{index}.png: {seen}" if is_fault else None)
    return check
