"""The tables of docs/PERFORMANCE.md, from the files in docs/performance.

    python -m benchmarks.performance

A test holds the page against the files.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from benchmarks import cells

PAGE = cells.ROOT / "docs" / "PERFORMANCE.md"
FILES = cells.ROOT / "docs" / "performance"

# What the speed table shows: label, key of speed.json, what was asked for.
_RATES = (
    ("training, batch 64, images/s", "train_fit_images_per_s_b64", "1,300"),
    ("training, batch 64, share of the limit", "train_share_of_limit", "0.60"),
    ("training, batch 256, images/s", "train_fit_images_per_s_b256", ""),
    ("training, batch 256, share of the limit", "train_share_of_limit_b256", ""),
    ("infer, batch 1, T = 6, images/s", "infer_images_per_s_b1_t6", ""),
    ("infer, batch 1, T = 4, images/s", "infer_images_per_s_b1_t4", ""),
    ("infer, batch 64, T = 6, images/s", "infer_images_per_s_b64_t6", ""),
    ("infer, batch 256, T = 6, images/s", "infer_images_per_s_b256_t6", "4,500"),
    ("infer, batch 256, T = 4, images/s", "infer_images_per_s_b256_t4", "6,500"),
    ("sample, scenes/s", "sample_scenes_per_s", "9,000"),
    ("the same, all 6 objects present", "sample_scenes_per_s_6_objects", ""),
    ("input pipeline, images/s", "pipeline_images_per_s", ""),
    ("scene synthesis, one core, scenes/s", "synthesis_scenes_per_s", ""),
    ("import asr_tf beyond TensorFlow, s", "import_overhead_s", "0.5"),
    ("the same with the model's class, s", "import_overhead_with_model_s", ""),
    ("first training step, T = 6, s from the process's start", "first_step_s", "15"),
    ("the same, compiled by an earlier process", "first_step_stored_s", ""),
    ("first training step, T = 4, s", "first_step_s_t4", "15"),
    ("the same, compiled by an earlier process", "first_step_stored_s_t4", ""),
)


def _number(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:g}"


def _table(header: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> str:
    lines = ["| " + " | ".join(header) + " |", "|---" * len(header) + "|"]
    return "\n".join(lines + ["| " + " | ".join(row) + " |" for row in rows])


def _speed(figures: dict[str, Any]) -> str:
    rows = [(label, _number(figures[key]), goal) for label, key, goal in _RATES if key in figures]
    text = (
        f"`python -m benchmarks.speed`: one run, medians of {figures['rounds']} ([file](performance/speed.json)).\n"
        f"The limit was {figures['limit_gflops']:.0f} GFLOP/s (float32, {figures['limit_product']}), "
        f"memory {figures['bandwidth_gb_per_s']:.0f} GB/s; a training step of 64 images takes "
        f"{figures['train_gflop_a_step_b64']:.2f} GFLOP.\n"
        "`infer` finds and `sample` draws 3 objects an image.\n\n"
    )
    text += _table(("what", "measured", "wanted"), rows)
    return text if "growth" not in figures else f"{text}\n\n{_growth(figures['growth'])}"


def _growth(figures: dict[str, Any]) -> str:
    keys = ("step_exponent", "step_exponent_large", "peak_exponent", "peak_linear_fit_error")
    rows = [(name, *(f"{axis[key]:.2f}" for key in keys)) for name, axis in figures.items()]
    ranges = (f"{name} {axis['sizes'][0]} to {axis['sizes'][-1]}" for name, axis in figures.items())
    header = ("grows with", "exponent of time", "largest three sizes", "exponent of memory", "distance from a line")
    return (
        f"Growth of a training step ({'; '.join(ranges)}):\n\n{_table(header, rows)}"
        "\n\n![Time and memory against sizes](performance/speed.png)"
    )


def _kernels(before: dict[str, Any], after: dict[str, Any]) -> str:
    keys = [key for key in after if key.endswith(("_ms", ", ms")) or key == "kernels_compiled"]
    rows = [(key.replace("_", " "), f"{before[key]:g}", f"{after[key]:g}") for key in keys]
    return _table(("", "before", "after"), rows)


def _quality(figures: dict[str, Any]) -> str:
    rows = [
        (key.replace("_", " "), *(f"{value:g}" for value in values["runs"]), f"{values['median']:g}")
        for key, values in figures.items()
        if key.startswith("seconds_to")
    ]
    rows += [
        (key.replace("_", " "), *(f"{value:g}" for value in values), "")
        for key, values in figures.items()
        if key.startswith("last_")
    ]
    seeds = (f"seed {seed}" for seed in range(len(figures["last_step"])))
    return _table(("", *seeds, "median"), rows)


def filled(text: str) -> str:
    """The page with its tables made anew from the files."""

    def load(name: str) -> dict[str, Any]:
        return json.loads((FILES / f"{name}.json").read_text())

    blocks = {
        "speed": _speed(load("speed")),
        "kernels": _kernels(load("kernels_before"), load("kernels_after")),
        "quality": _quality(load("quality")),
    }
    for name, block in blocks.items():
        start, end = f"<!-- {name}: start -->", f"<!-- {name}: end -->"
        before, rest = text.split(start, 1)
        text = f"{before}{start}\n{block}\n{end}{rest.split(end, 1)[1]}"
    return text


if __name__ == "__main__":
    PAGE.write_text(filled(PAGE.read_text()))
