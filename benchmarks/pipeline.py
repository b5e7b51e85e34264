"""Measures the input pipeline alone against training, in one run so that the ratio holds on a noisy machine.

    python -m benchmarks.pipeline [--output=FILE]

Batches of 64 images of 50 x 50 px; training is the compiled step of the published model with T = 4 on a batch that is
already there.  Seven turns of each, one after the other, after one that isn't counted; medians are printed.
"""

from __future__ import annotations

import statistics
import time

import numpy as np
import tensorflow as tf

from asr_tf.data import Scenes, training_dataset
from benchmarks import command, published

NUM_RUNS = 7
BATCH_SIZE = 64
PIPELINE_BATCHES = 500
TRAINING_STEPS = 20


def measure() -> dict[str, float | int]:
    """Returns images a second of both, and their ratio."""
    rng = np.random.default_rng(0)
    scenes = Scenes(
        images=rng.integers(0, 256, (40_000, 50, 50, 1), dtype=np.uint8),
        counts=rng.integers(1, 4, 40_000).astype(np.int32),
        boxes=np.zeros((40_000, 3, 4), np.float32),
    )
    batches = iter(training_dataset(scenes, BATCH_SIZE, seed=0))
    batch = next(batches)
    model = published.compiled(published.build(num_steps=4))
    model.optimizer.build(model.trainable_variables)
    step = tf.function(lambda: model.train_step(batch)["loss"], jit_compile=True)
    rates: dict[str, list[float]] = {"pipeline": [], "training": []}
    for _ in range(NUM_RUNS + 1):
        start = time.perf_counter()
        for _ in range(PIPELINE_BATCHES):
            next(batches)
        rates["pipeline"].append(PIPELINE_BATCHES * BATCH_SIZE / (time.perf_counter() - start))
        start = time.perf_counter()
        for _ in range(TRAINING_STEPS):
            step().numpy()
        rates["training"].append(TRAINING_STEPS * BATCH_SIZE / (time.perf_counter() - start))
    pipeline, training = (statistics.median(values[1:]) for values in rates.values())
    return {
        "pipeline_images_per_s": round(pipeline, 1),
        "training_images_per_s": round(training, 1),
        "ratio": round(pipeline / training, 2),
        "runs": NUM_RUNS,
    }


if __name__ == "__main__":
    command.run(__doc__, measure)
