"""Measures scene synthesis: three objects of 20 px on a canvas of 50 x 50 px, ink apart, on one core.

    python -m benchmarks.synthesis [--output=FILE]

Prints the median, the slowest and the fastest of 7 runs, in scenes a second.  The objects are rings of random size and
thickness with about the ink of a digit, so that no file is needed.
"""

from __future__ import annotations

import statistics
import time

import numpy as np

from asr_tf.data import SceneSettings, synthesize
from benchmarks import command

NUM_RUNS = 7
NUM_SCENES = 4096
NUM_OBJECTS = 1000


def ring_bank(seed: int = 0) -> np.ndarray:
    """Returns uint8 [1000, 28, 28]: elliptic rings 20 px high, as MNIST's digits are, with 76 to 180 px of ink."""
    rng = np.random.default_rng(seed)
    half_width = rng.uniform(4, 10, size=(NUM_OBJECTS, 1, 1))
    thickness = rng.uniform(2.0, 3.5, size=(NUM_OBJECTS, 1, 1))
    y = (np.arange(28) - 13.5)[:, None]
    x = (np.arange(28) - 13.5)[None, :]
    outer = np.hypot(y / 10, x / half_width) <= 1
    inner = np.hypot(y / (10 - thickness), x / (half_width - thickness)) <= 1
    return np.where(outer & ~inner, 255, 0).astype(np.uint8)


def measure() -> dict[str, float | int]:
    """Returns the rates of `NUM_RUNS` runs, after one that isn't counted."""
    bank = ring_bank()
    settings = SceneSettings(canvas_size=(50, 50), counts=(3,))
    rates = []
    for run in range(NUM_RUNS + 1):
        start = time.perf_counter()
        synthesize(bank, settings, NUM_SCENES, seed=run)
        rates.append(NUM_SCENES / (time.perf_counter() - start))
    rates = rates[1:]
    return {
        "scenes_per_second_median": round(statistics.median(rates), 1),
        "scenes_per_second_min": round(min(rates), 1),
        "scenes_per_second_max": round(max(rates), 1),
        "scenes_a_run": NUM_SCENES,
        "runs": NUM_RUNS,
    }


if __name__ == "__main__":
    command.run(__doc__, measure)
