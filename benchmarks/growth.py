"""How time and memory of training and inference grow with T, canvas, batch, Z and the widths of the networks.

    python -m benchmarks.growth [--output=FILE]     also draws FILE's plot beside it, as a PNG

Each setting runs in a process of its own.  Time is the median of a compiled training step; memory is the highest
resident size while steps are taken, less what the process had before it built the model, after the compiler's own
memory has been given back.  An exponent is the slope of a straight line through log(time) against log(size).
"""

from __future__ import annotations

import ctypes
import json
import pathlib
import subprocess
import sys
import time
from typing import Any

import numpy as np

from benchmarks import command

AXES: dict[str, tuple[int, ...]] = {
    "T": (1, 3, 6, 12),
    "canvas": (32, 64, 128, 256),
    "batch": (1, 16, 128, 1024),
    "Z": (10, 50, 250),
    "width": (64, 256, 512),  # of both LSTMs; the perceptrons' hidden layers in proportion
}
_DEFAULT = {"T": 6, "canvas": 50, "batch": 64, "Z": 50, "width": 256}
_STEPS = 9


def _status(field: str) -> float:
    """A size from the kernel's account of this process, MiB."""
    lines = pathlib.Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith(field + ":"))


def _measure_one(setting: dict[str, int]) -> dict[str, float]:
    """What the process of one setting measures."""
    import tensorflow as tf

    from asr_tf.networks.decoder import MLPDecoder
    from asr_tf.networks.prior import AutoregressivePrior
    from asr_tf.networks.recognition import LSTMRecognition
    from benchmarks import published

    width, canvas = setting["width"], (setting["canvas"],) * 2
    before = _status("VmRSS")
    model = published.build(
        setting["T"],
        canvas_size=canvas,
        what_size=setting["Z"],
        recognition=LSTMRecognition(width, width // 4, encoder_units=(2 * width, width)),
        decoder=MLPDecoder((width, 2 * width)),
        prior=AutoregressivePrior(width, width // 4),
    )
    published.compiled(model)
    images = tf.constant(published.images(setting["batch"], canvas).astype(np.float32) / 255.0)
    step = tf.function(lambda: model.train_step({"image": images})["loss"], jit_compile=True, autograph=False)
    step().numpy()
    ctypes.CDLL(None).malloc_trim(0)
    pathlib.Path("/proc/self/clear_refs").write_text("5")  # the highest resident size starts anew
    seconds = []
    for _ in range(_STEPS):
        start = time.perf_counter()
        step().numpy()
        seconds.append(time.perf_counter() - start)
    return {"step_s": float(np.median(seconds[1:])), "peak_mib": _status("VmHWM") - before}


def exponent(sizes: list[float], values: list[float]) -> float:
    """Slope of a straight line through the logarithms."""
    return float(np.polyfit(np.log(sizes), np.log(values), 1)[0])


def draw(figures: dict[str, Any], path: pathlib.Path) -> None:
    """The log-log plot of what `measure` returned."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    chart, axes = plt.subplots(2, len(figures), figsize=(3 * len(figures), 6), sharey="row")
    for column, (name, growth) in enumerate(figures.items()):
        for row, (key, label) in enumerate((("step_s", "seconds a step"), ("peak_mib", "peak memory, MiB"))):
            ax = axes[row, column]
            ax.loglog(growth["sizes"], growth[key], "o-")
            ax.set_title(f"{name}: exponent {growth[key.split('_')[0] + '_exponent']:.2f}")
            ax.set_xlabel(name)
            ax.set_xticks(growth["sizes"], [str(size) for size in growth["sizes"]])
            ax.minorticks_off()
            if column == 0:
                ax.set_ylabel(label)
    chart.tight_layout()
    chart.savefig(path, dpi=100)
    plt.close(chart)


def measure() -> dict[str, Any]:
    """For each axis its sizes, seconds a step, memory and exponents."""
    figures: dict[str, Any] = {}
    for name, sizes in AXES.items():
        runs = []
        for size in sizes:
            setting = json.dumps({**_DEFAULT, name: size})
            process = subprocess.run(
                [sys.executable, "-m", "benchmarks.growth", "--one", setting],
                cwd=command.ROOT,
                check=True,
                capture_output=True,
                text=True,
            )
            runs.append(json.loads(process.stdout.splitlines()[-1]))
            print(f"{name} = {size}: {runs[-1]}", file=sys.stderr, flush=True)
        values = {key: [round(run[key], 5) for run in runs] for key in runs[0]}
        memory = np.polyfit(sizes, values["peak_mib"], 1)
        figures[name] = {
            "sizes": list(sizes),
            **values,
            "step_exponent": round(exponent(list(sizes), values["step_s"]), 3),
            # Slope at the large end, where fixed costs weigh least.
            "step_exponent_large": round(exponent(list(sizes[-3:]), values["step_s"][-3:]), 3),
            "peak_exponent": round(exponent(list(sizes), values["peak_mib"]), 3),
            "peak_mib_per_unit": round(float(memory[0]), 3),
            "peak_linear_fit_error": round(
                float(np.max(np.abs(np.polyval(memory, sizes) - values["peak_mib"])) / max(values["peak_mib"])), 3
            ),
        }
    return figures


def main() -> None:
    """Measures; writes and draws where `--output` says."""
    command.run(__doc__, measure, draw)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--one"]:
        print(json.dumps(_measure_one(json.loads(sys.argv[2]))))
    else:
        main()
