"""Start-up in fresh processes: what `import asr_tf` adds to `import tensorflow`, and when the first training step ends.

python -m benchmarks.startup [--output=FILE]
"""

from __future__ import annotations

import json
import pathlib
import statistics
import subprocess
import sys
import time
from typing import Any

from benchmarks import command

ROOT = pathlib.Path(__file__).resolve().parents[1]
IMPORTS = {
    "tensorflow": "import tensorflow",
    "asr_tf": "import tensorflow, asr_tf",
    "model": "import tensorflow, asr_tf; asr_tf.ASRModel",
}
FIRST_STEP_RUNS = 2


def _seconds(code: str) -> float:
    start = time.perf_counter()
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True, capture_output=True)
    return time.perf_counter() - start


def first_step(num_steps: int) -> dict[str, float]:
    """Seconds from the start of a new process, which has nothing compiled, to the end of its first training step.

    The process imports, builds the model, compiles it, and takes one step in `fit`; data are at hand.
    """
    began = time.time()
    process = subprocess.run(
        [sys.executable, "-m", "benchmarks.startup", "--first-step", str(num_steps), str(began)],
        cwd=ROOT,
        check=True,
        capture_output=True,
        text=True,
    )
    return json.loads(process.stdout.splitlines()[-1])


def _first_step(num_steps: int, began: float) -> None:
    """What the process does."""
    import tensorflow  # noqa: F401

    from benchmarks import published

    imported = time.time()
    model = published.compiled(published.build(num_steps), steps_per_execution=1)
    model.fit(published.dataset(64, 1000), steps_per_epoch=1, epochs=1, verbose=0, shuffle=False)
    print(json.dumps({"imports_s": imported - began, "first_step_s": time.time() - began}))


def measure() -> dict[str, Any]:
    """Medians; the imports take turns."""
    seconds = command.interleaved({name: lambda code=code: _seconds(code) for name, code in IMPORTS.items()})
    figures: dict[str, Any] = {
        "import_tensorflow_s": round(seconds["tensorflow"], 2),
        "import_overhead_s": round(seconds["asr_tf"] - seconds["tensorflow"], 2),
        "import_overhead_with_model_s": round(seconds["model"] - seconds["tensorflow"], 2),
    }
    for num_steps in (4, 6):
        runs = [first_step(num_steps) for _ in range(FIRST_STEP_RUNS)]
        for name in runs[0]:
            suffix = "" if num_steps == 6 else "_t4"
            figures[f"{name[:-2]}_s{suffix}"] = round(statistics.median(run[name] for run in runs), 1)
    return figures


if __name__ == "__main__":
    if sys.argv[1:2] == ["--first-step"]:
        _first_step(int(sys.argv[2]), float(sys.argv[3]))
    else:
        command.run(__doc__, measure)
