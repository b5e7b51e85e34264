"""Measures batch inference on Beam's direct runner, end to end, against direct calls of the exported model.

    python -m benchmarks.batch --output=FILE        the model of exported.py
    ASR_TF_EXPORT=D python -m benchmarks.batch      a model of one's own (50 x 50 pixels)

100,000 pictures of bright disks, one kind of file after the other: NPY stacks, TFRecords of raw bytes and of PNG
images, and as many PNG files.  A rate is images over the whole job's time: matching files, loading the model, reading,
inference and writing Parquet; imports of the process are left out.  Direct calls of `infer` at batch 256, all outputs,
come before and after each job; `..._share` is the job's rate over their mean.
"""

from __future__ import annotations

import os
import pathlib
import tempfile
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from benchmarks import command, exported

__all__ = ["measure_batch"]

NUM_IMAGES = 100_000
_NUM_SCENES = 10_000
_NUM_FILES = 10
_BATCH = 256
_DIRECT_CALLS = 60


def _pictures() -> np.ndarray:
    """Images uint8 [_NUM_SCENES, 50, 50, 1], as sparse as scenes are: up to three bright disks on black."""
    rng = np.random.default_rng(0)
    y, x = np.mgrid[:50, :50]
    images = np.zeros((_NUM_SCENES, 50, 50), np.uint8)
    for image in images:
        for _ in range(rng.integers(1, 4)):
            inside = (y - rng.integers(10, 40)) ** 2 + (x - rng.integers(10, 40)) ** 2 < rng.integers(16, 60)
            image[inside] = rng.integers(100, 256, inside.sum())
    return images[..., None]


def _write_records(folder: pathlib.Path, name: str, encoded: list[bytes]) -> str:
    import tensorflow as tf

    def example(data: bytes) -> bytes:
        feature = tf.train.Feature(bytes_list=tf.train.BytesList(value=[data]))
        return tf.train.Example(features=tf.train.Features(feature={"image": feature})).SerializeToString()

    records = [example(data) for data in encoded]
    for index in range(_NUM_FILES):
        with tf.io.TFRecordWriter(str(folder / f"{name}-{index}.tfrecord")) as writer:
            for record in records:
                writer.write(record)
    return f"{folder}/{name}-*.tfrecord"


def _inputs(folder: pathlib.Path) -> Iterator[tuple[str, str]]:
    """Writes each kind of input when it is asked for: (name, pattern)."""
    import tensorflow as tf

    images = _pictures()
    for index in range(_NUM_FILES):
        np.save(folder / f"{index}.npy", images)
    yield "npy", f"{folder}/*.npy"
    yield "tfrecord_raw", _write_records(folder, "raw", [image.tobytes() for image in images])
    encoded = [tf.io.encode_png(image).numpy() for image in images]
    yield "tfrecord_png", _write_records(folder, "png", encoded)
    for index, data in enumerate(encoded * _NUM_FILES):
        (folder / f"{index:06d}.png").write_bytes(data)
    yield "png", f"{folder}/*.png"


def _direct_rate(infer: Callable[..., dict[str, Any]], images: Any) -> float:
    start = time.perf_counter()
    for _ in range(_DIRECT_CALLS):
        for value in infer(images=images).values():
            value.numpy()
    return _DIRECT_CALLS * len(images) / (time.perf_counter() - start)


def measure_batch(export_dir: pathlib.Path) -> dict[str, Any]:
    """Images/s of a job for each kind of input, and its share of the direct calls' rate."""
    import tensorflow as tf
    from asr_tf.export.batch import job

    model = job.find_model(str(export_dir))
    loaded = tf.saved_model.load(model.path)
    infer = loaded.signatures["infer"]
    figures: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        for kind, pattern in _inputs(folder):
            images = tf.constant(np.load(folder / "0.npy")[:_BATCH] / np.float32(255.0))
            _direct_rate(infer, images)
            before = _direct_rate(infer, images)
            start = time.perf_counter()
            written, refused = job.run(model, [pattern], f"{folder}/out-{kind}", "parquet", job.parse_options([]))
            seconds = time.perf_counter() - start
            direct = (before + _direct_rate(infer, images)) / 2.0
            if refused or written != NUM_IMAGES:
                raise RuntimeError(f"{kind}: {written} images written, {refused} refused")
            figures[f"batch_{kind}_images_per_s"] = round(written / seconds, 1)
            figures[f"batch_{kind}_direct_images_per_s"] = round(direct, 1)
            figures[f"batch_{kind}_share"] = round(written / seconds / direct, 3)
    return figures


def measure() -> dict[str, Any]:
    """The figures, with what they were measured on."""
    if export_dir := os.environ.get("ASR_TF_EXPORT"):
        return {**command.machine(), **measure_batch(pathlib.Path(export_dir))}
    with tempfile.TemporaryDirectory() as folder:
        exported.export(pathlib.Path(folder))
        return {**command.machine(), **measure_batch(pathlib.Path(folder))}


if __name__ == "__main__":
    command.run(__doc__, measure)
