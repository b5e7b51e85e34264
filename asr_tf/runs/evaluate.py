"""Holds a trained model against scenes that it has not seen: numbers, pictures, `report.json`.

Settings are chosen by the reports of the validation split, `report_validation.json`, so that the test split is read
once, at the end.

Contract: a report is replaced as a whole, holds plain JSON, and leaves out what isn't known.
A number that isn't finite is written as null, is named under `not_finite`, and a warning is logged.
The numbers themselves come from `asr_tf.evaluation.measurement`.
"""

from __future__ import annotations

import json
import os
import pathlib
import platform
import time
from collections.abc import Mapping, Sequence
from typing import Any

import gin
import keras
import matplotlib
import numpy as np
import scipy
import tensorflow as tf
import tensorflow_probability as tfp
from matplotlib.figure import Figure

from asr_tf import checks
from asr_tf.constraints import Constraint
from asr_tf.data import DataSource, Scenes, training_fingerprint
from asr_tf.evaluation import plots, sheets
from asr_tf.evaluation.measurement import measure, validation_metrics
from asr_tf.fast import compile_cache
from asr_tf.runs.files import json_ready, replacing, write_whole
from asr_tf.runs.run_folder import RunFolder, RunFolderError, restore_model
from asr_tf.version import __version__

__all__ = ["evaluate", "validation_metrics"]

_SPLITS = ("validation", "test")
_SHOWN_SCENES, _SHOWN_STEP_BY_STEP, _SHOWN_SAMPLES = 16, 4, 32


def evaluate(
    workdir: str | os.PathLike[str],
    data_dir: str | None = None,
    manual_dir: str | None = None,
    split: str = "test",
    **settings: Any,
) -> dict[str, Any]:
    """Evaluates a run on a split of its data set; writes the report and the figures, see `RunFolder`.

    Replaces the process's gin bindings by those of the run's config.gin, which also set what isn't given here.

    Args:
        workdir: folder of the run.
        data_dir: prepared data sets; None for the run's own.
        manual_dir: original files; None for the run's own.
        split: 'test', or 'validation', which settings are chosen by.
        **settings: of the gin root `evaluate`, see `_evaluate`: `rules`, `batch_size`, `num_samples`, `num_particles`,
            `num_likelihood_images`, `seed`.

    Returns:
        The contents of the report, see `measure`, and on top of that `split`, `train_seconds`, `train_steps`,
        `weights_of_step` (from which step the weights are), `data_set`, `model`, `seeds`, `versions`, `machine` and
        `evaluate_seconds`.

    Raises:
        ValueError: the folder holds no run that can be read, the images aren't those that the run began with, or an
            argument is out of range.
    """
    checks.check_choice("split", split, _SPLITS)
    folder = RunFolder(workdir)
    folder.check_is_run()
    folder.check_writable()
    report_file, figures = folder.evaluation(split)
    _check_place(report_file.is_dir(), report_file, "a folder")
    _check_place(figures.is_file(), figures, "a file")
    start = time.perf_counter()
    model, info = restore_model(folder.path)  # from here on gin holds the run's bindings
    folders = data_dir or info.get("data_dir"), manual_dir or info.get("manual_dir")
    report = _evaluate(folder, figures, split, model, info, *folders, **settings)
    report["evaluate_seconds"] = time.perf_counter() - start
    report = json_ready(report)
    write_whole(report_file, json.dumps(report, indent=2, allow_nan=False) + "\n")
    return report


def _check_place(is_taken: bool, path: pathlib.Path, kind: str) -> None:
    """Raises before anything is computed, where something else has the name of what is going to be written."""
    if is_taken:
        raise RunFolderError(f"{path} is {kind}, and the evaluation writes there: move it away.")


@gin.configurable("evaluate", denylist=["folder", "figures", "split", "model", "info", "data_dir", "manual_dir"])
def _evaluate(
    folder: RunFolder,
    figures: pathlib.Path,
    split: str,
    model: Any,
    info: Mapping[str, Any],
    data_dir: str | None,
    manual_dir: str | None,
    *,
    rules: Sequence[Constraint] = (),
    batch_size: int = 200,
    num_samples: int = 1000,
    num_particles: int = 20,
    num_likelihood_images: int = 200,
    seed: int = 0,
) -> dict[str, Any]:
    """What gin configures of `evaluate`.

    Args:
        folder: of the run, whose configuration is parsed.
        figures: where they are written.
        split: 'validation' or 'test'.
        model, info: as `restore_model` gives them.
        data_dir: prepared data sets; None for TFDS's default.
        manual_dir: original files; None where none are needed.
        rules: what sampled scenes are held against.
        batch_size: images at once, which bounds the memory.
        num_samples: scenes to sample.
        num_particles: K of the importance-weighted log-likelihood.
        num_likelihood_images: the first so many images of the split take part in that; 0 for none.
        seed: of every random number.
    """
    data_set, scenes = _load(folder, split, data_dir, manual_dir)
    report, outputs = measure(
        model,
        scenes,
        rules=rules,
        batch_size=batch_size,
        num_samples=num_samples,
        num_particles=num_particles,
        num_likelihood_images=num_likelihood_images,
        seed=seed,
    )
    # The result may be of an earlier step than the last.
    steps = int(keras.ops.convert_to_numpy(model.step))
    history = folder.read_metrics()
    _draw_figures(figures, model, scenes, report, outputs, history)
    report.update(
        {
            "split": split,
            "train_seconds": info["train_seconds"],
            "train_steps": info["steps"],
            "weights_of_step": steps,
            "data_set": data_set,
            "model": model.description(),
            "seeds": {"train": info["seed"], "evaluate": seed},
            "versions": _versions(),
            "machine": {"cpu_count": compile_cache.usable_cpus(), "platform": platform.platform()},
        }
    )
    return report


def _load(folder: RunFolder, split: str, data_dir: str | None, manual_dir: str | None) -> tuple[str, Scenes]:
    """The name of the run's data set, and the scenes of a split with all that is known of them.

    Raises:
        ValueError: files that are missing or broken, or images that aren't those that the run began with, so that it
            may have been trained on some of the split.
    """
    source = DataSource()  # which keeps the images of a folder, and goes with the end of this function
    if source.depends_on_training_images(split):
        training, validation = (source.load(part, data_dir, manual_dir) for part in ("train", "validation"))
        folder.check_same_images(training.canvas_size, training_fingerprint(training, validation))
    return source.name, source.load(split, data_dir, manual_dir, with_masks=True)


def _draw_figures(
    folder: pathlib.Path,
    model: Any,
    scenes: Scenes,
    report: Mapping[str, Any],
    outputs: Mapping[str, Mapping[str, np.ndarray]],
    history: Sequence[Mapping[str, Any]],
) -> None:
    """Writes the figures as PNG files; those of an earlier evaluation go, also where there is no new one."""
    folder.mkdir(exist_ok=True)

    def reconstructions(rows: np.ndarray) -> Figure:
        inferred = {name: values[rows] for name, values in outputs["inferred"].items()}
        if model.finds_objects:
            inferred["masks"] = np.asarray(model.infer(checks.check_images(scenes.images[rows]))["masks"])
        return sheets.reconstructions(
            scenes.images[rows] / 255.0,
            inferred,
            None if scenes.counts is None else scenes.counts[rows],
            None if scenes.boxes is None else scenes.boxes[rows],
        )

    # Test splits may be sorted by count: scenes from all over it are shown.
    spread = np.unique(np.linspace(0, len(scenes) - 1, _SHOWN_SCENES).astype(int))
    shown = {name: values[:_SHOWN_SAMPLES] for name, values in outputs["sampled"].items()}
    figures = {
        "reconstructions": reconstructions(spread),
        "samples": sheets.samples(shown["images"], shown.get("boxes"), shown.get("count")),
    }
    if model.finds_objects:
        images = checks.check_images(scenes.images[spread[:: _SHOWN_SCENES // _SHOWN_STEP_BY_STEP]])
        in_detail = model.infer(images, with_objects=True)
        in_detail = {name: np.asarray(value) for name, value in in_detail.items()}
        figures["step_by_step"] = sheets.step_by_step(images, in_detail)
    if "count_confusion" in report:
        figures["count_confusion"] = plots.confusion(report["count_confusion"])
        figures["calibration"] = plots.calibration(report["count_reliability"], report.get("box_coverage", {}))
        wrong = np.flatnonzero(outputs["inferred"]["count"] != scenes.counts)[:_SHOWN_SCENES]
        if len(wrong):
            figures["wrong_counts"] = reconstructions(wrong)
    if history:
        figures["training_curves"] = plots.training_curves(history)
    for name in ("step_by_step", "count_confusion", "calibration", "wrong_counts", "training_curves"):
        if name not in figures:
            (folder / f"{name}.png").unlink(missing_ok=True)
    for name, figure in figures.items():
        with replacing(folder / f"{name}.png") as file:
            plots.save_figure(figure, file)


def _versions() -> dict[str, str]:
    return {
        "python": platform.python_version(),
        "asr_tf": __version__,
        "tensorflow": tf.__version__,
        "keras": keras.__version__,
        "tensorflow_probability": tfp.__version__,
        "numpy": np.__version__,
        "scipy": scipy.__version__,
        "matplotlib": matplotlib.__version__,
    }
