"""Folders of PNG files without labels, trained as a user trains own images: told the folder, the counts, and no more.

    python -m benchmarks.own_folders --folder=digits13 --seed=0 --minutes=5
                                            makes the folder, trains, measures on test scenes, adds a line
    python -m benchmarks.own_folders --list  what the folders hold

The scenes are synthesized, so that true counts and boxes are known; the training sees the files alone.
"""

from __future__ import annotations

import argparse
import json
import os
import pathlib
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from benchmarks import cell_runs
from benchmarks.command import ROOT, machine

__all__ = ["FOLDERS", "LINES", "Folder", "lines", "main", "run_folder", "section", "table"]

LINES = ROOT / "docs" / "results" / "own_folders.jsonl"
_SCENES = {"train": 20_000, "validation": 1_000, "test": 1_000}
_SEEDS = {"train": 11, "validation": 12, "test": 13}
_LARGEST_PX = 24  # square crop of the largest shape
_STEP_DEGREES, _HELD_OUT = 5, 3  # every third angle is in test scenes only
_LEVELS = (155, 185, 220, 255)  # grey values of shapes


class Folder(NamedTuple):
    """What a folder holds, and what is wanted of it.

    Attributes:
        about: its scenes, in words.
        counts: objects an image may hold.
        canvas: height and width in pixels.
        scales: smallest and largest size, as factors on the bank's objects.
        bank: gives the objects of 'train' or 'test', uint8 [K, h, w], from the folder of original files.
        minutes: of training.
        count_accuracy, mean_iou: wanted at least.
    """

    about: str
    counts: tuple[int, ...]
    canvas: int
    scales: tuple[float, float]
    bank: Callable[[str, pathlib.Path], np.ndarray]
    minutes: float
    count_accuracy: float
    mean_iou: float


def _digits(split: str, data: pathlib.Path) -> np.ndarray:
    from asr_tf.data.originals import read_mnist

    return read_mnist(data / "mnist", split).images


def _shapes(split: str, data: pathlib.Path) -> np.ndarray:
    """Squares, ellipses and hearts of four grey values, each as large as fits a square crop of `_LARGEST_PX`."""
    from asr_tf.data.sprites import SHAPES, draw_in_crop

    steps = np.arange(0, 360, _STEP_DEGREES)
    angles = steps[(steps // _STEP_DEGREES % _HELD_OUT == 0) == (split == "test")] + 0.5
    images = np.concatenate([draw_in_crop(shape, angles, _LARGEST_PX) for shape in SHAPES])
    return np.concatenate([np.where(images > 0, level, 0).astype(np.uint8) for level in _LEVELS])


FOLDERS = {
    "digits13": Folder("1 or 3 digits of 20 px, canvas 50", (1, 3), 50, (1.0, 1.0), _digits, 5.0, 0.995, 0.87),
    "digits012": Folder("0 to 2 digits of 12 to 22 px, canvas 50", (0, 1, 2), 50, (0.6, 1.1), _digits, 5.0, 0.99, 0.85),
    "shapes96": Folder(
        "2 to 5 bright shapes of 10 to 24 px, canvas 96", (2, 3, 4, 5), 96, (10 / 24, 1.0), _shapes, 10.0, 0.95, 0.7
    ),
}
"""The folders, by name."""


def _make(name: str, path: pathlib.Path, data: pathlib.Path) -> Any:
    """Writes the images of a folder, unless they are there.

    Returns:
        Its test scenes.
    """
    from PIL import Image

    from asr_tf.data.synthesis import SceneSettings, synthesize

    folder = FOLDERS[name]
    settings = SceneSettings(canvas_size=(folder.canvas,) * 2, counts=folder.counts, scale_range=folder.scales)
    for split, number in _SCENES.items():
        scenes = synthesize(folder.bank("test" if split == "test" else "train", data), settings, number, _SEEDS[split])
        if not (path / split / f"{number - 1:05d}.png").is_file():
            (path / split).mkdir(parents=True, exist_ok=True)
            for i, image in enumerate(scenes.images):
                Image.fromarray(image[..., 0]).save(path / split / f"{i:05d}.png")
    return scenes


def run_folder(
    name: str,
    seed: int,
    minutes: float,
    data: pathlib.Path,
    runs: pathlib.Path,
    output: pathlib.Path = LINES,
    bindings: Sequence[str] = (),
) -> dict[str, Any]:
    """Makes a folder, trains on it, measures on its test scenes, and appends a line.

    Args:
        name: of `FOLDERS`.
        seed: of the training.
        minutes: of training.
        data: folder with mnist/ in it.
        runs: where folders of images and of runs lie.
        output: file that the line is appended to.
        bindings: further gin lines, which the line doesn't tell.
    """
    from asr_tf import fast
    from asr_tf.evaluation import measurement
    from asr_tf.runs import configuration
    from asr_tf.runs import run_folder as run_folders
    from asr_tf.training import fit

    fast.tune_process()
    images = runs / f"{name}_images"
    test = _make(name, images, data)
    facts = [f"data.path = '{images}'", f"COUNTS = {FOLDERS[name].counts}"]
    configuration.parse(["models/asr.gin", "scenes/image_folder.gin"], [*facts, *bindings])
    workdir = runs / f"{name}_seed{seed}_{minutes:g}min"
    fit.train(workdir, seed=seed, max_minutes=minutes)
    model, info = run_folders.restore_model(workdir)
    report, _ = measurement.measure(model, test, rules=model.constraints, num_likelihood_images=0)
    kept = ("count_accuracy", "count_mae", "mean_iou", "ap50", "negative_elbo_nats", "broken_rules")
    row = {
        "folder": name,
        "seed": seed,
        "minutes": minutes,
        **{key: report[key] for key in kept},
        "train_steps": info["steps"],
        "train_seconds": info["train_seconds"],
        "machine": machine(),
        "usable_cores": len(os.sched_getaffinity(0)),
    }
    with output.open("a", encoding="utf-8") as file:
        file.write(json.dumps(row) + "\n")
    return row


def table(rows: Sequence[Mapping[str, Any]]) -> str:
    """What was wanted and what was measured, as a Markdown table; of runs of the same seed the last counts."""
    titles = ("folder", "minutes", "seeds", "count accuracy, worst seed", "wanted", "mean IoU, worst seed", "wanted",
              "AP50", "-ELBO, nats", "steps", "reached")  # fmt: skip
    rows_shown = ["| " + " | ".join(titles) + " |", "|---" * len(titles) + "|"]
    for name, folder in FOLDERS.items():
        latest = {row["seed"]: row for row in rows if (row["folder"], row["minutes"]) == (name, folder.minutes)}
        if not latest:
            continue
        values = {key: [row[key] for row in latest.values()] for key in next(iter(latest.values()))}
        accuracy, iou = min(values["count_accuracy"]), min(values["mean_iou"])
        reached = accuracy >= folder.count_accuracy and iou >= folder.mean_iou
        cells = [
            folder.about,
            f"{folder.minutes:g}",
            str(len(latest)),
            f"{accuracy:.3f}",
            f"{folder.count_accuracy:g}",
            f"{iou:.3f}",
            f"{folder.mean_iou:g}",
            f"{np.mean(values['ap50']):.3f}",
            f"{np.mean(values['negative_elbo_nats']):.1f}",
            f"{np.mean(values['train_steps']):,.0f}",
            "yes" if reached else "**no**",
        ]
        rows_shown.append("| " + " | ".join(cells) + " |")
    return "\n".join(rows_shown)


_ABOUT = """## Images of one's own

Folders of 20,000 PNG files for training and 1,000 for validation. `scenes/image_folder.gin` is told where they lie and
how many objects an image may hold, and nothing else; the size of objects is found from the images. True counts and
boxes of 1,000 test images are known to the measurement alone. Digits of test images are those of MNIST's test split,
and shapes of test images stand at angles that no training image shows. The command adds a line to
[results/own_folders.jsonl](results/own_folders.jsonl):

    python -m benchmarks.own_folders --folder=FOLDER --seed=SEED
"""


def lines() -> list[dict[str, Any]]:
    """What was run."""
    text = LINES.read_text(encoding="utf-8") if LINES.is_file() else ""
    return [json.loads(line) for line in text.splitlines()]


def section(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """Of docs/RESULTS.md, as lines of Markdown."""
    return [_ABOUT, table(rows), ""]


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--folder", choices=FOLDERS, help="which")
    what.add_argument("--list", action="store_true", help="what the folders hold")
    parser.add_argument("--seed", type=int, default=0, help="of the training (default: 0)")
    parser.add_argument("--minutes", type=float, help="of training (default: as is wanted of the folder)")
    parser.add_argument("--data", type=pathlib.Path, help="folder with mnist/ in it")
    parser.add_argument("--runs", type=pathlib.Path, default=ROOT / "runs" / "own_folders", help="where runs are kept")
    parser.add_argument("--output", type=pathlib.Path, default=LINES, help="file that the line is added to")
    arguments = parser.parse_args()
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    if arguments.list:
        for name, folder in FOLDERS.items():
            print(f"{name:12}{folder.about}, {folder.minutes:g} minutes")
        return
    minutes = arguments.minutes or FOLDERS[arguments.folder].minutes
    try:
        data = cell_runs.data_folder(arguments.data)
        row = run_folder(arguments.folder, arguments.seed, minutes, data, arguments.runs, arguments.output)
    except ValueError as error:
        sys.exit(f"benchmarks.own_folders: error: {error}")
    print(json.dumps(row))


if __name__ == "__main__":
    main()
