"""Where the time of a training step goes, by kind of kernel: published sizes, batch 64, compiled by XLA.

    python -m benchmarks.kernels [--output=FILE]

Kernels run side by side on the cores, so that their times add up to more than the step's.
"""

from __future__ import annotations

import collections
import pathlib
import re
import tempfile
import time
from typing import Any

import numpy as np
import tensorflow as tf

from benchmarks import command, published

_STEPS = 20
# The first pattern that is found in a kernel's name or result says what kind it is.
_KINDS = (
    ("products, batched (read, write, sums of canvases)", r"^(?:MatMul|dot).*\[\d+,\d+,\d+"),
    ("products, two-dimensional", r"^(?:MatMul|dot|ynn)"),
    ("running sums and reductions", r"reduce-window|wrapped_reduce|reduce_"),
    ("random numbers", r"u32\["),
    ("copies", r"concat|copy|transpose|pad"),
    ("elementwise, half a million numbers and more", r"\[(?:2500|625),1024|\[64,[67],50,50|,(?:2500|160000)\]"),
    ("elementwise, smaller", r"fusion|wrapped"),
)


def kind(kernel: str, result: str) -> str | None:
    """The kind of a kernel by its name and the shape of what it computes; None for what isn't a kernel."""
    return next((name for name, pattern in _KINDS if re.search(pattern, f"{kernel} {result}")), None)


def count_kernels(program: str) -> int:
    """Kernels in a program and in the bodies of its loops, each counted once."""
    computations = re.split(r"\n(?=(?:ENTRY )?%?[\w.\-]+ \()", program)
    scopes = [text for text in computations if re.match(r"ENTRY |%?[\w.\-]*(?:body|cond)", text)]
    return sum(len(re.findall(r"\b(?:fusion|dot|custom-call)\(", text)) for text in scopes)


def _events(folder: str) -> dict[str, float]:
    """Milliseconds of each event on the CPU, by name, from the profiler's protocol buffer."""
    from tensorflow.tsl.profiler.protobuf import xplane_pb2  # only there while profiling

    (path,) = pathlib.Path(folder).rglob("*.xplane.pb")
    space = xplane_pb2.XSpace.FromString(path.read_bytes())
    total: dict[str, float] = collections.defaultdict(float)
    for plane in space.planes:
        for line in plane.lines if "CPU" in plane.name else ():
            for event in line.events:
                total[plane.event_metadata[event.metadata_id].name] += event.duration_ps / 1e9
    return total


def measure() -> dict[str, Any]:
    """Milliseconds a step by kind, and of the whole step with and without the profiler."""
    model = published.compiled(published.build())
    batch = {"image": tf.constant(published.images(64).astype(np.float32) / 255.0)}
    step = tf.function(lambda: model.train_step(batch)["loss"], jit_compile=True, autograph=False)

    def run() -> float:
        start = time.perf_counter()
        for _ in range(_STEPS):
            step().numpy()
        return 1e3 * (time.perf_counter() - start) / _STEPS

    run()
    program = step.experimental_get_compiler_ir()(stage="optimized_hlo")
    results = dict(re.findall(r"^\s*(?:ROOT )?%?([\w.\-]+) = (\S+) ", program, re.MULTILINE))
    plain = run()
    with tempfile.TemporaryDirectory() as folder:
        tf.profiler.experimental.start(folder)
        profiled = run()
        tf.profiler.experimental.stop()
        events = _events(folder)
    by_kind: dict[str, float] = collections.defaultdict(float)
    for name, milliseconds in events.items():
        label = kind(name, results[name]) if name in results else None
        if label is not None:
            by_kind[label] += milliseconds / _STEPS
    return {
        **command.machine(),
        "step_ms": round(plain, 1),
        "step_with_profiler_ms": round(profiled, 1),
        "kernels_compiled": count_kernels(program),
        **{f"{label}, ms": round(by_kind[label], 2) for label, _ in _KINDS},
    }


if __name__ == "__main__":
    command.run(__doc__, measure)
