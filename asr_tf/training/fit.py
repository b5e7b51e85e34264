"""Training: data, model and optimizer put together, fitted by Keras, saved, resumed.

Contract: the same call on the same folder goes on from the newest intact checkpoint with the same weights,
optimizer state, batches and random numbers as if it had never stopped; a run that has spent its budget is left as
it is.  What a run may spend is a number of optimizer updates or minutes of training; the learning rate follows.
A larger budget prolongs a run: from where it stands, the rate follows the schedule of the whole new budget.
The reports look at validation scenes; the test split isn't read.
"""

from __future__ import annotations

import json
import math
import os
import platform
import sys
from collections.abc import Mapping
from typing import Any

import gin
import keras
import numpy as np
import tensorflow as tf

from asr_tf import checks, fast
from asr_tf.data import DataSource, Scenes, object_sides_px, training_dataset, training_fingerprint
from asr_tf.evaluation import tiles
from asr_tf.models import BoundModel, build_model
from asr_tf.networks.keras_settings import check_fit_is_whole, own_settings
from asr_tf.runs import configuration, run_folder
from asr_tf.runs.checkpoints import Checkpoints, read_record, saved_steps
from asr_tf.runs.evaluate import validation_metrics
from asr_tf.runs.run_folder import RunFolder
from asr_tf.training import callbacks
from asr_tf.training.best import BestKeeper
from asr_tf.training.collapse import CollapseGuard, SetbackGuard
from asr_tf.training.rules import RuleWatcher
from asr_tf.training.schedule import LearningRate, TrainingBudget
from asr_tf.version import __version__

__all__ = ["train"]

_SHOWN_SCENES = 16
# Of the bound on held-out images, the same in every report.
_HELD_OUT_SEED = (0, 0)
# Seeds of initial weights where training begins again.
_SEEDS_APART, _SEEDS = 1_000_003, 2**31
# Beyond them, TensorFlow's own numbers hold no such value.
_LARGEST_FLOAT, _LARGEST_INT = float(np.finfo(np.float32).max), 2**63 - 1


@gin.configurable("train")
def train(
    workdir: str | os.PathLike[str],
    seed: int = 0,
    max_minutes: float | None = None,
    data_dir: str | None = None,
    manual_dir: str | None = None,
    *,
    batch_size: int = 64,
    num_steps: int = 20_000,
    peak_learning_rate: float = 1.5e-3,
    warmup_steps: int = 500,
    final_learning_rate_fraction: float = 0.02,
    adam_beta_2: float = 0.999,
    jit_compile: bool = True,
    steps_per_execution: int = 20,
    steps_per_report: int = 500,
    images_every_reports: int = 4,
    checkpoint_every_minutes: float = 1.0,
    checkpoints_to_keep: int = 3,
    validation_size: int = 200,
    max_skipped_in_a_row: int = 20,
    most_restarts: int = 2,
) -> dict[str, Any]:
    """Trains the configured model on the configured data, or goes on with it.

    Args:
        workdir: folder of the run.
        seed: of weights, batches and every random number, at least 0.
        max_minutes: minutes of training (compilation, evaluation and checkpoints left out), or None to
            train for `num_steps`; more than before prolong a run.
        data_dir: prepared data sets; None for TFDS's default.
        manual_dir: original files; None where none are needed.
        batch_size: images an optimizer update.
        num_steps: optimizer updates, where `max_minutes` is None; more than before prolong a run.
        peak_learning_rate: Adam's highest rate.
        warmup_steps: updates of linear warm-up to the peak.
        final_learning_rate_fraction: rate at the end / peak, in [0, 1]; half a cosine leads there.
        adam_beta_2: decay of Adam's second moment.
        jit_compile: whether the step is compiled by XLA.
        steps_per_execution: updates between two returns to Python.
        steps_per_report: updates between reports; rounded up to whole executions.
        images_every_reports: a picture for TensorBoard every that many reports; 0 for none.
        checkpoint_every_minutes: of wall time; also saved at the end and on interruption.
        checkpoints_to_keep: older ones are deleted.
        validation_size: images that the reports look at, the first ones of the validation split.
        max_skipped_in_a_row: non-finite steps in a row that end the run.
        most_restarts: how often a training that shows signs of a collapse begins again, see `CollapseGuard`.

    Keeps freed memory in the whole process, see `asr_tf.fast.tune_process`.

    Returns:
        The contents of run.json; `last_report` holds the last line of metrics.jsonl.

    Raises:
        ValueError: an argument out of range, too few images, a folder that can't be written or
            belongs to another run (`RunFolderError`), or steps that stay non-finite (`TrainingDiverged`).
    """
    _check_numbers({f"train.{name}": value for name, value in locals().items()})
    check_fit_is_whole()
    checks.check_range("seed", seed, 0, 2**31 - 1)
    checks.check_range("train.adam_beta_2", adam_beta_2, 0.0, 1.0 - 1e-6)
    checks.check_whole("train.max_skipped_in_a_row", max_skipped_in_a_row)
    checks.check_whole("train.checkpoints_to_keep", checkpoints_to_keep)
    checks.check_whole("train.most_restarts", most_restarts, 0)
    checks.check_whole("train.batch_size", batch_size)
    checks.check_whole("train.validation_size", validation_size)
    budget = TrainingBudget(num_steps, None if max_minutes is None else 60.0 * max_minutes)
    rate = LearningRate(peak_learning_rate, warmup_steps, final_learning_rate_fraction)
    execution, report_steps = _steps(num_steps, max_minutes, steps_per_execution, steps_per_report)
    data_dir, manual_dir = (
        None if path is None else os.path.abspath(os.path.expanduser(path)) for path in (data_dir, manual_dir)
    )
    folder = RunFolder(workdir)
    with folder.only_one():
        scenes, validation_scenes = _load(data_dir, manual_dir)
        _check_canvas(scenes)
        fingerprint = training_fingerprint(scenes, validation_scenes)
        held_out = validation_scenes.take(validation_size)
        fast.tune_process()  # not before: what reading the scenes frees would be kept, and steps be slower
        sides_px = _sides_px(scenes)

        def build(seed: int) -> BoundModel:
            return build_model(
                canvas_size=scenes.canvas_size, channels=scenes.channels, seed=seed, sides_px=sides_px
            )

        model = build(seed)
        flags = {"seed": seed, "max_minutes": max_minutes}
        config = configuration.merged_config()
        folder.check_same_run(config, flags)
        folder.check_same_images(scenes.canvas_size, fingerprint)
        folder.sweep()

        with own_settings():
            optimizer = keras.optimizers.Adam(peak_learning_rate, beta_2=adam_beta_2)
            model.compile(optimizer=optimizer, jit_compile=jit_compile, steps_per_execution=execution)
            model.optimizer.build(model.trainable_variables)  # its moments must exist before they are restored
        state = callbacks.TrainingState(model.step, budget)

        def current_info() -> dict[str, Any]:
            return {
                **info,
                "steps": state.steps_done,
                "train_seconds": state.seconds,
                "finished": bool(state.finished.numpy()),
                "last_report": state.report,
            }

        def record() -> str:
            return folder.record(current_info())

        checkpoints = Checkpoints(
            folder.checkpoints,
            checkpoints_to_keep,
            record,
            model=model,
            optimizer=model.optimizer,
            train_seconds=state.train_seconds,
            finished=state.finished,
            restarts=state.restarts,
            started=state.started,
            setbacks=state.setbacks,
            best=state.best,
        )
        result = Checkpoints(folder.result, 1, record, model=model)
        restored = checkpoints.restore()
        info = {
            **flags,
            "data_dir": data_dir,
            "manual_dir": manual_dir,
            "canvas_size": list(scenes.canvas_size),
            "channels": scenes.channels,
            "sides_px": sides_px,
            "batch_size": batch_size,
            "images": fingerprint,
            "num_training_images": len(scenes),
            "module_folders": configuration.imported_module_folders(),
            "format": run_folder.FORMAT,
            "versions": _versions(),
        }
        if restored is not None and _is_finished(folder, state, max_minutes):
            return {**_finished_info(folder, state), "already_finished": True}
        state.finished.assign(False)  # where the run is prolonged
        if max_minutes is None:
            execution = math.gcd(execution, num_steps - state.steps_done)  # a shorter run may have had a shorter one
            model.steps_per_execution = execution
        if not saved_steps(folder.result):
            state.best.assign([math.inf, math.inf])
        folder.drop_metrics_after(state.steps_done)
        folder.write_config(config, {**flags, "data_dir": data_dir, "manual_dir": manual_dir})

        def write_info() -> None:
            folder.write_info(current_info())

        write_info()
        held_out_images = held_out.images.astype(np.float32) / 255.0
        objective = tf.function(model.objective)

        def validate() -> dict[str, float]:
            terms = [term for term in objective(held_out_images, seed=_HELD_OUT_SEED) if term is not None]
            return validation_metrics(model, held_out) | {"negative_elbo_nats": float(tf.reduce_mean(sum(terms)))}

        def infer() -> dict[str, np.ndarray]:
            return _found_objects(model, held_out_images)

        def initial_weights(restarts: int) -> list[np.ndarray]:
            fresh = build((seed + restarts * _SEEDS_APART) % _SEEDS)
            return [keras.ops.convert_to_numpy(variable) for variable in fresh.variables]

        guard = [CollapseGuard(state, infer, initial_weights, most_restarts)] if model.finds_objects else []
        bar = callbacks.ProgressBar(state)
        saved_step = -1 if restored is None else state.steps_done
        saver = callbacks.CheckpointSaver(state, checkpoints, checkpoint_every_minutes, write_info, saved_step)
        try:
            model.fit(
                training_dataset(scenes, batch_size, seed, start_step=state.steps_done),
                epochs=_epochs(budget, state.steps_done, report_steps),
                steps_per_epoch=report_steps,
                shuffle=False,  # the data set has its own order
                verbose=0,
                callbacks=[
                    callbacks.Clock(state, execution * batch_size),
                    callbacks.Schedule(state, rate),
                    callbacks.NonFiniteGuard(state, max_skipped_in_a_row),
                    callbacks.Reporter(
                        state,
                        folder,
                        validate=validate,
                        draw=lambda: _picture(model, held_out_images),
                        images_every_reports=images_every_reports,
                    ),
                    *guard,
                    SetbackGuard(state, result.restore),
                    BestKeeper(state, result, model.rules_held),
                    RuleWatcher(),
                    bar,
                    saver,
                ],
            )
        except KeyboardInterrupt:
            saver.save()
            raise KeyboardInterrupt(
                f"at step {state.steps_done}, which is saved; the same command goes on from there"
            ) from None
        finally:
            bar.on_train_end()  # which Keras doesn't call where training ends with an error
        return folder.read_info()


def _is_finished(folder: RunFolder, state: callbacks.TrainingState, max_minutes: float | None) -> bool:
    """Whether a run that was restored has spent its budget, which may be larger than the one it was saved with."""
    if max_minutes is None:
        return state.is_spent(0.0)
    record = read_record(folder.checkpoints, [state.steps_done])
    info = folder.read_info() if record is None else json.loads(record[folder.info.name])
    return bool(state.finished.numpy()) and max_minutes <= info.get("max_minutes", math.inf)


def _finished_info(folder: RunFolder, state: callbacks.TrainingState) -> dict[str, Any]:
    """The contents of run.json of a run that is finished, mended where the run was cut off right before it wrote it."""
    info = folder.read_info()
    if not info.get("finished"):
        now = {"steps": state.steps_done, "train_seconds": state.seconds, "finished": True}
        info = {**info, **now, "last_report": (folder.read_metrics() or [{}])[-1]}
        folder.write_info(info)
    return info


def _check_numbers(arguments: Mapping[str, Any]) -> None:
    """Raises ValueError for a number that isn't finite, or isn't any more where TensorFlow computes with it."""
    for name, value in arguments.items():
        if isinstance(value, int) and not abs(value) <= _LARGEST_INT:
            raise ValueError(f"{name} must be a whole number below 2**63, got {value}.")
        if isinstance(value, float) and not abs(value) <= _LARGEST_FLOAT:
            raise ValueError(f"{name} must be a finite number, at most {_LARGEST_FLOAT:.3g}, got {value!r}.")


def _steps(
    num_steps: int, max_minutes: float | None, per_execution: int, per_report: int
) -> tuple[int, int]:
    """Updates an execution and a report: whole executions fit into a report and into the run."""
    checks.check_whole("train.steps_per_execution", per_execution)
    checks.check_whole("train.steps_per_report", per_report)
    execution = min(per_execution, per_report)
    if max_minutes is None:
        execution = min(execution, num_steps)
        if num_steps % execution:
            fitting = math.ceil(num_steps / execution) * execution
            raise ValueError(
                f"train.num_steps must be a multiple of train.steps_per_execution ({execution}), "
                f"got {num_steps}; {fitting} would do."
            )
    return execution, math.ceil(per_report / execution) * execution


def _epochs(budget: TrainingBudget, step: int, per_report: int) -> int:
    """Keras epochs (reports) that are enough; the clock ends the run within the last one."""
    if budget.max_seconds is not None:
        return 10**9
    return max(1, math.ceil((budget.num_steps - step) / per_report))


def _load(data_dir: str | None, manual_dir: str | None) -> tuple[Scenes, Scenes]:
    """The training scenes and the validation scenes, of one size and alike grey or RGB.

    Raises:
        ValueError: too few images, or files that are missing or broken.
    """
    source = DataSource()  # which keeps the images of a folder, and goes with the end of this function
    training, validation = (source.load(split, data_dir, manual_dir) for split in ("train", "validation"))
    if training.images.shape[1:] != validation.images.shape[1:]:
        raise ValueError(
            f"validation images must be like those for training, {_kind(training)}, got {_kind(validation)}."
        )
    return training, validation


def _sides_px(scenes: Scenes) -> tuple[float, float] | None:
    """The sides of the objects as found from the images; None where they are stated, or aren't found."""
    counts = configuration.bound("ASRModel.counts")
    stated = ("ASRModel.sides_px", "ASRModel.scale_prior_loc")
    if counts is None or any(configuration.bound(name) is not None for name in stated):
        return None
    sides_px = object_sides_px(scenes.images, checks.check_counts("COUNTS", counts))
    if sides_px is None:
        found = "The objects' size isn't plain from the images"
    else:
        found = f"Objects have sides from {sides_px[0]:.3g} to {sides_px[1]:.3g} px, as found from the images"
    print(f"{found}; SIDES_PX = (low, high) would state it.", file=sys.stderr)
    return sides_px


def _kind(scenes: Scenes) -> str:
    """Size and colour of the images, for messages."""
    height, width = scenes.canvas_size
    return f"{height} x {width} px (height x width) and {checks.CHANNELS[scenes.channels]}"


def _check_canvas(scenes: Scenes) -> None:
    """Raises ValueError where a size is bound that isn't that of the images, which set the model's."""
    bound = configuration.bound("ASRModel.canvas_size", scenes.canvas_size)
    if not isinstance(bound, (tuple, list)):
        raise ValueError(f"ASRModel.canvas_size must be (H, W), got {bound!r}.")
    if tuple(bound) != scenes.canvas_size:
        raise ValueError(
            f"ASRModel.canvas_size is bound to {tuple(bound)}, but the images are "
            f"{scenes.canvas_size[0]} x {scenes.canvas_size[1]} (height x width): "
            f"bind ASRModel.canvas_size = {scenes.canvas_size}."
        )
    channels = configuration.bound("ASRModel.channels", scenes.channels)
    if channels != scenes.channels:
        raise ValueError(
            f"ASRModel.channels is bound to {channels!r}, but the images have {scenes.channels} "
            f"({checks.CHANNELS[scenes.channels]}): bind ASRModel.channels = {scenes.channels}."
        )


def _found_objects(model: Any, images: np.ndarray) -> dict[str, np.ndarray]:
    """What a model of objects finds in images, and how each object looks."""
    found = model.infer(images, with_objects=True)
    return {name: keras.ops.convert_to_numpy(value) for name, value in found.items()}


def _picture(model: Any, images: np.ndarray) -> np.ndarray:
    """Some images with reconstructions and boxes, uint8 [height, width, 3].

    Infers all of them, as the validation does: another batch size would have to be traced.
    """
    inferred = {
        name: keras.ops.convert_to_numpy(value)[:_SHOWN_SCENES]
        for name, value in model.infer(images).items()
    }
    return tiles.reconstruction_grid(images[:_SHOWN_SCENES], inferred)


def _versions() -> dict[str, str]:
    return {
        "asr_tf": __version__,
        "tensorflow": tf.__version__,
        "keras": keras.__version__,
        "python": platform.python_version(),
    }
