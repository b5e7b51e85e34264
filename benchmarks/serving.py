"""Measures how fast an exported model answers: in a process with TensorFlow only, from `asr_serve`, and in batches.

    python -m benchmarks.serving [--output=FILE]

The model is that of `scenes/mnist_count13.gin` (canvas 50 x 50, T = 4) with weights by which every image holds 3
objects, the most of those scenes.  It is exported, and measured where this package isn't imported: first answer after
loading, then batches of 256, single images and a matrix product, which tells how fast the machine is, in turns.
`MEASUREMENTS` names what is measured; each entry takes the export folder and returns figures by name.
"""

from __future__ import annotations

import json
import pathlib
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from typing import Any

from benchmarks import batch, command, exported, serving_load

__all__ = ["MEASUREMENTS", "measure", "measure_saved_model"]

BATCH = 256
ROUNDS = 15
SINGLE_CALLS = 40
_PROCESSES = 3
_PRODUCT = (1536, 784, 512)  # rows, inner size and columns of the product


def measure_saved_model(export_dir: pathlib.Path) -> dict[str, Any]:
    """SavedModel `infer`: images/s at batch 256, ms of one image (median), first answer; medians of processes."""
    code = "from benchmarks import serving; import sys; serving.consume(sys.argv[1])"
    folder = export_dir / "1"
    found = []
    for _ in range(_PROCESSES):
        done = subprocess.run([sys.executable, "-c", code, str(folder)], capture_output=True, text=True, check=True)
        found.append(json.loads(done.stdout.splitlines()[-1]))
    return {name: round(statistics.median(run[name] for run in found), 3) for name in found[0]}


def consume(folder: str) -> None:
    """What the process does: loads, answers, and prints its figures as JSON; imports nothing of asr_tf."""
    import numpy as np
    import tensorflow as tf

    rng = np.random.default_rng(0)
    shape = (BATCH, 50, 50, 1)
    images = tf.constant(rng.uniform(size=shape) * (rng.uniform(size=shape) < 0.1), tf.float32)
    single = images[:1]
    loaded = tf.saved_model.load(folder)
    start = time.perf_counter()
    infer = loaded.signatures["infer"]
    answer = infer(images=single)
    assert int(answer["count"][0]) == exported.OBJECTS
    first = time.perf_counter() - start
    rows, inner, columns = _PRODUCT
    factors = tf.ones([rows, inner]), tf.ones([inner, columns])
    batches, singles, products = [], [], []
    for round_number in range(ROUNDS + 2):
        start = time.perf_counter()
        infer(images=images)["reconstruction"].numpy()
        seconds = time.perf_counter() - start
        calls = []
        for _ in range(SINGLE_CALLS):
            start = time.perf_counter()
            infer(images=single)["reconstruction"].numpy()
            calls.append(time.perf_counter() - start)
        start = time.perf_counter()
        tf.matmul(*factors)[0, 0].numpy()
        product = time.perf_counter() - start
        if round_number >= 2:
            products.append(product)
            batches.append(seconds)
            singles += calls
    assert "asr_tf" not in sys.modules
    figures = {
        "saved_model_infer_images_per_s_b256": BATCH / statistics.median(batches),
        "saved_model_infer_images_per_s_b256_best": BATCH / min(batches),
        "saved_model_infer_ms_b1": 1e3 * statistics.median(singles),
        "saved_model_first_answer_s": first,
        "product_gflops": 2e-9 * rows * inner * columns / statistics.median(products),
    }
    print(json.dumps(figures))


def measure_asr_serve(export_dir: pathlib.Path) -> dict[str, Any]:
    """`asr_serve` under load; see `benchmarks.serving_load`."""
    return {f"asr_serve_{name}": value for name, value in serving_load.measure(export_dir).items()}


def measure_batch(export_dir: pathlib.Path) -> dict[str, Any]:
    """`asr_batch_infer` against direct calls; see `benchmarks.batch`."""
    return batch.measure_batch(export_dir)


MEASUREMENTS: tuple[Callable[[pathlib.Path], dict[str, Any]], ...] = (
    measure_saved_model,
    measure_asr_serve,
    measure_batch,
)


def measure() -> dict[str, Any]:
    """All of it, of one export."""
    figures: dict[str, Any] = command.machine()
    with tempfile.TemporaryDirectory() as folder:
        export_dir = pathlib.Path(folder)
        exported.export(export_dir)
        for measurement in MEASUREMENTS:
            figures |= measurement(export_dir)
    return figures


if __name__ == "__main__":
    command.run(__doc__, measure)
