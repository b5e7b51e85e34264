"""Start-up in fresh processes: what `import asr_tf` adds to `import tensorflow`, and when the first training step ends.

python -m benchmarks.startup [--output=FILE]
"""

from __future__ import annotations

import functools
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from typing import Any

from asr_tf.fast.compile_cache import VARIABLE, kept_programs
from benchmarks import command

IMPORTS = {
    "tensorflow": "import tensorflow",
    "asr_tf": "import tensorflow, asr_tf",
    "model": "import tensorflow, asr_tf; asr_tf.ASRModel",
}
FIRST_STEP_RUNS = 3


def _seconds(code: str) -> float:
    start = time.perf_counter()
    subprocess.run([sys.executable, "-c", code], cwd=command.ROOT, check=True, capture_output=True)
    return time.perf_counter() - start


def first_step(num_steps: int, compile_cache: str = "") -> dict[str, float]:
    """Seconds from the start of a new process to the end of its first training step.

    The process imports, builds the model, compiles it, and takes one step in `fit`; data are at hand.

    Args:
        num_steps: T.
        compile_cache: folder of programs that earlier processes compiled; none where empty.
    """
    began = time.time()
    process = subprocess.run(
        [sys.executable, "-m", "benchmarks.startup", "--first-step", str(num_steps), str(began)],
        cwd=command.ROOT,
        env={**os.environ, VARIABLE: compile_cache},
        check=True,
        capture_output=True,
        text=True,
    )
    return json.loads(process.stdout.splitlines()[-1])


def _first_step(num_steps: int, began: float) -> None:
    """What the process does."""
    with kept_programs():
        import tensorflow  # noqa: F401

        from benchmarks import published

        imported = time.time()
        model = published.compiled(published.build(num_steps), steps_per_execution=1)
        model.fit(published.dataset(64, 1000), steps_per_epoch=1, epochs=1, verbose=0, shuffle=False)
        print(json.dumps({"imports_s": imported - began, "first_step_s": time.time() - began}))


def measure(rounds: int = command.NUM_ROUNDS) -> dict[str, Any]:
    """Medians; the imports take turns, `rounds` of them."""
    seconds = command.interleaved({name: functools.partial(_seconds, code) for name, code in IMPORTS.items()}, rounds)
    figures: dict[str, Any] = {
        "import_tensorflow_s": round(seconds["tensorflow"], 2),
        "import_overhead_s": round(seconds["asr_tf"] - seconds["tensorflow"], 2),
        "import_overhead_with_model_s": round(seconds["model"] - seconds["tensorflow"], 2),
    }
    for num_steps, suffix in ((4, "_t4"), (6, "")):
        with tempfile.TemporaryDirectory() as folder:
            first_step(num_steps, folder)  # fills the folder
            pairs = [(first_step(num_steps), first_step(num_steps, folder)) for _ in range(FIRST_STEP_RUNS)]
        for name, runs in zip(("", "_stored"), zip(*pairs, strict=True), strict=True):
            seconds_to_step = statistics.median(run["first_step_s"] for run in runs)
            figures[f"first_step{name}_s{suffix}"] = round(seconds_to_step, 1)
        figures[f"imports_s{suffix}"] = round(statistics.median(run["imports_s"] for pair in pairs for run in pair), 1)
    return figures


if __name__ == "__main__":
    if sys.argv[1:2] == ["--first-step"]:
        _first_step(int(sys.argv[2]), float(sys.argv[3]))
    else:
        command.run(__doc__, measure)
