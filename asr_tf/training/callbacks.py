"""Keras callbacks of a training run: clock, learning rate, reports, pictures, checkpoints, progress bar.

They share one `TrainingState`.  With several optimizer updates an execution of the compiled step
(`steps_per_execution`), Keras calls `on_train_batch_begin` and `on_train_batch_end` once an execution.

Order in the list matters: the clock comes first, so that what the others do isn't taken for training.
"""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Callable, Mapping
from typing import Any

import keras
import numpy as np
import tensorflow as tf
import tqdm

from asr_tf.runs.checkpoints import Checkpoints, nonfinite_weights, shortened
from asr_tf.runs.run_folder import RunFolder
from asr_tf.training.rules import rules_summary
from asr_tf.training.schedule import LearningRate, TrainingBudget

__all__ = [
    "CheckpointSaver",
    "Clock",
    "NonFiniteGuard",
    "ProgressBar",
    "Reporter",
    "Schedule",
    "TrainingDiverged",
    "TrainingState",
]


class TrainingDiverged(ValueError):
    """Too many steps in a row with a non-finite loss or gradient, or weights like that; the message is one line."""


class TrainingState:
    """Where a run stands.  What a resumed run must know lies in variables, the rest in plain numbers.

    Attributes:
        step: int64 variable, optimizer updates tried so far; the model's own.
        train_seconds: float64 variable, seconds of training so far.
        finished: bool variable, whether the budget is spent.
        restarts, started: int64 variables, how often training was begun again, and at which step.
        setbacks: int64 variable, how often training went back to its best weights; each halves the learning rate.
        best: float64 variable [2], rules not held and -ELBO on held-out images of the weights that are kept as the
            result.
        images_per_second: over the last execution; 0 before there is one.
        report: the last report, by metric.
    """

    def __init__(self, step: Any, budget: TrainingBudget) -> None:
        """Starts at zero seconds.

        Args:
            step: the model's counter.
            budget: what the run may spend.
        """
        self.step = step
        self.train_seconds = tf.Variable(0.0, dtype=tf.float64, trainable=False, name="train_seconds")
        self.finished = tf.Variable(False, trainable=False, name="finished")
        self.restarts, self.started, self.setbacks = (
            tf.Variable(0, dtype=tf.int64, trainable=False, name=name) for name in ("restarts", "started", "setbacks")
        )
        self.best = tf.Variable([math.inf, math.inf], dtype=tf.float64, trainable=False, name="best")
        self.images_per_second = 0.0
        self.report: dict[str, float] = {}
        self._budget = budget

    @property
    def steps_done(self) -> int:
        """Optimizer updates so far."""
        return int(keras.ops.convert_to_numpy(self.step))

    @property
    def seconds(self) -> float:
        """Seconds of training so far."""
        return float(self.train_seconds.numpy())

    @property
    def fraction(self) -> float:
        """The part of the budget that is spent, in [0, 1]."""
        return self._budget.fraction(self.steps_done, self.seconds)

    def is_spent(self, next_seconds: float) -> bool:
        """Whether an execution that takes `next_seconds` would overrun the budget."""
        return self._budget.is_spent(self.steps_done, self.seconds, next_seconds)


class Clock(keras.callbacks.Callback):
    """Sums the seconds of training, and ends the run with its budget.

    Only the spans between the begin and the end of an execution count: reports, evaluation, pictures and
    checkpoints lie between executions.  The first execution of a process compiles; it is charged with what the
    second one took.
    """

    def __init__(
        self,
        state: TrainingState,
        images_per_execution: int,
        now: Callable[[], float] = time.perf_counter,
    ) -> None:
        """Sets the clock up.

        Args:
            state: shared; `train_seconds`, `images_per_second` and `finished` are written.
            images_per_execution: batch size times updates an execution.
            now: returns seconds; replaced in tests.
        """
        super().__init__()
        self._state = state
        self._images = images_per_execution
        self._now = now
        self._begin = 0.0
        self._executions = 0
        self._last_span = 0.0

    def on_train_batch_begin(self, batch: int, logs: Mapping[str, Any] | None = None) -> None:
        """Starts the clock."""
        self._begin = self._now()

    def on_train_batch_end(self, batch: int, logs: Mapping[str, Any] | None = None) -> None:
        """Stops the clock; asks Keras to stop where the budget is spent."""
        span = self._now() - self._begin
        self._executions += 1
        if self._executions == 1:  # mostly compilation: its length says nothing yet
            span = 0.0
        elif self._executions == 2:
            self._state.train_seconds.assign_add(span)
        if span > 0.0:
            self._state.train_seconds.assign_add(span)
            self._state.images_per_second = self._images / span
        # The shorter of the last two: one that was held up, as by a suspended machine, says nothing about the next.
        if self._state.is_spent(min(span, self._last_span)):
            self._state.finished.assign(True)
            self.model.stop_training = True
        self._last_span = span


class Schedule(keras.callbacks.Callback):
    """Sets the optimizer's learning rate before each execution."""

    def __init__(self, state: TrainingState, rate: LearningRate) -> None:
        """Binds the schedule.

        Args:
            state: shared; only read.
            rate: function of step and spent fraction.
        """
        super().__init__()
        self._state = state
        self._rate = rate

    def on_train_batch_begin(self, batch: int, logs: Mapping[str, Any] | None = None) -> None:
        """Assigns the rate of the execution that starts."""
        rate = self._rate(self._state.steps_done, self._state.fraction) * 0.5 ** int(self._state.setbacks.numpy())
        self.model.optimizer.learning_rate.assign(rate)


class NonFiniteGuard(keras.callbacks.Callback):
    """Ends training when too many steps in a row had a non-finite loss or gradient, or a weight isn't finite."""

    def __init__(self, state: TrainingState, max_skipped_in_a_row: int) -> None:
        """Sets the limit.

        Args:
            state: shared; only read.
            max_skipped_in_a_row: steps without any change of a weight that are tolerated.
        """
        super().__init__()
        self._state = state
        self._limit = max_skipped_in_a_row

    def on_train_batch_end(self, batch: int, logs: Mapping[str, Any] | None = None) -> None:
        """Raises TrainingDiverged, which names the terms that went bad."""
        in_a_row = int((logs or {}).get("skipped_in_a_row", 0))
        if in_a_row >= self._limit:
            self.on_epoch_end(0)
            bad = ", ".join(self.model.nonfinite_terms()) or "the gradient"
            raise TrainingDiverged(
                f"training stopped at step {self._state.steps_done}: {in_a_row} steps in a row were not finite "
                f"(in {bad}) and changed no weight; a lower train.peak_learning_rate may help."
            )


    def on_epoch_end(self, epoch: int, logs: Mapping[str, Any] | None = None) -> None:
        """Raises TrainingDiverged where a weight isn't finite, before anything is reported or saved."""
        bad = nonfinite_weights(self.model, self.model.optimizer)
        if bad:
            raise TrainingDiverged(
                f"training stopped at step {self._state.steps_done}: weights are not finite ({shortened(bad)}); what "
                "was saved before stays, and a lower train.peak_learning_rate may help."
            )


class Reporter(keras.callbacks.Callback):
    """Once a Keras epoch: gathers the terms, validates, and writes metrics.jsonl, scalars and pictures.

    `state.report` holds the last report.
    """

    def __init__(
        self,
        state: TrainingState,
        folder: RunFolder,
        validate: Callable[[], Mapping[str, float]],
        draw: Callable[[], np.ndarray],
        images_every_reports: int,
    ) -> None:
        """Binds files and functions.

        Args:
            state: shared; `report` is written.
            folder: of the run.
            validate: returns metrics on held-out images, by name.
            draw: returns a picture of scenes, uint8 [height, width, 3].
            images_every_reports: a picture goes to TensorBoard every that many reports; 0 for never.
        """
        super().__init__()
        self._state = state
        self._folder = folder
        self._validate = validate
        self._draw = draw
        self._images_every = images_every_reports
        self._writer: tf.summary.SummaryWriter | None = None
        self._terms: dict[str, Any] = {}
        self._reports = 0

    def on_train_batch_end(self, batch: int, logs: Mapping[str, Any] | None = None) -> None:
        """Keeps the terms, which the model averages over the steps of a Keras epoch."""
        self._terms = dict(logs or {})

    def on_epoch_end(self, epoch: int, logs: Mapping[str, Any] | None = None) -> None:
        """Writes a report."""
        report: dict[str, float] = {
            "step": self._state.steps_done,
            "train_seconds": self._state.seconds,
            "learning_rate": float(keras.ops.convert_to_numpy(self.model.optimizer.learning_rate)),
            "images_per_second": self._state.images_per_second,
        }
        report.update({name: float(np.mean(value)) for name, value in self._terms.items()})
        report.update({f"val_{name}": float(value) for name, value in self._validate().items()})
        self._state.report = report
        self._folder.append_metrics(report)
        self._write_summaries(report)

    def on_train_end(self, logs: Mapping[str, Any] | None = None) -> None:
        """Closes TensorBoard's file."""
        if self._writer is not None:
            self._writer.close()

    def _write_summaries(self, report: Mapping[str, float]) -> None:
        if self._writer is None:
            self._writer = tf.summary.create_file_writer(str(self._folder.logs))
        step = int(report["step"])
        with self._writer.as_default():
            for name, value in report.items():
                if name != "step":
                    group = "validation" if name.startswith("val_") else "training"
                    tf.summary.scalar(f"{group}/{name.removeprefix('val_')}", value, step=step)
            if self._images_every and self._reports % self._images_every == 0:
                tf.summary.image("input_reconstruction_boxes", self._draw()[np.newaxis], step=step)
        self._writer.flush()
        self._reports += 1


class CheckpointSaver(keras.callbacks.Callback):
    """Saves at the first report, then every so many minutes of wall time, and at the end."""

    def __init__(
        self,
        state: TrainingState,
        checkpoints: Checkpoints,
        every_minutes: float,
        on_save: Callable[[], None],
        saved_step: int = -1,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        """Sets the interval.

        Args:
            state: shared; only read.
            checkpoints: where to save.
            every_minutes: of wall time, at least; reports are the occasions.
            on_save: called after each save.
            saved_step: the step that was restored, which isn't saved again; -1 where training begins.
            now: returns seconds; replaced in tests.
        """
        super().__init__()
        self._state = state
        self._checkpoints = checkpoints
        self._every_seconds = 60.0 * every_minutes
        self._on_save = on_save
        self._now = now
        self._last = -math.inf
        self._saved_step = saved_step

    def on_epoch_end(self, epoch: int, logs: Mapping[str, Any] | None = None) -> None:
        """Saves where it is time."""
        if self._now() - self._last >= self._every_seconds:
            self.save()

    def on_train_end(self, logs: Mapping[str, Any] | None = None) -> None:
        """Saves the last state."""
        self.save()

    def save(self) -> None:
        """Saves now, unless this step is saved already."""
        step = self._state.steps_done
        if step != self._saved_step:
            self._checkpoints.save(step)
            self._on_save()
            self._saved_step = step
            self._last = self._now()


class ProgressBar(keras.callbacks.Callback):
    """The headline metrics: a bar on a terminal, one line a report elsewhere (a log file)."""

    def __init__(self, state: TrainingState, stream: Any = None) -> None:
        """Binds the stream.

        Args:
            state: shared; only read.
            stream: where to write; stderr if None.
        """
        super().__init__()
        self._state = state
        self._stream = stream or sys.stderr
        self._bar: tqdm.tqdm | None = None

    def on_train_begin(self, logs: Mapping[str, Any] | None = None) -> None:
        """Opens the bar."""
        if self._stream.isatty():
            self._bar = tqdm.tqdm(
                total=100.0,
                initial=round(100.0 * self._state.fraction, 1),
                file=self._stream,
                bar_format="{percentage:3.0f}%|{bar}| {elapsed}<{remaining}{postfix}",
            )

    def on_train_batch_end(self, batch: int, logs: Mapping[str, Any] | None = None) -> None:
        """Moves the bar."""
        if self._bar is not None:
            self._bar.update(round(100.0 * self._state.fraction, 1) - self._bar.n)
            now = {**self._state.report, **(logs or {})}
            now["images_per_second"] = self._state.images_per_second
            now["step"] = self._state.steps_done
            self._bar.set_postfix_str(headline(now))

    def on_epoch_end(self, epoch: int, logs: Mapping[str, Any] | None = None) -> None:
        """Writes a line where there is no bar."""
        if self._bar is None:
            percent = 100.0 * self._state.fraction
            rules = rules_summary(self.model.rules_held())
            line = ", ".join(part for part in (headline(self._state.report), rules) if part)
            print(f"{percent:3.0f}%  {line}", file=self._stream, flush=True)

    def on_train_end(self, logs: Mapping[str, Any] | None = None) -> None:
        """Closes the bar."""
        if self._bar is not None:
            self._bar.close()


# Metric, how it is shown: the few numbers by which a run is judged while it runs.
_HEADLINE = (
    ("step", "step {:.0f}"),
    ("loss", "loss {:.1f}"),
    ("negative_elbo_nats", "-ELBO {:.1f} nats"),
    ("val_count_accuracy", "count {:.3f}"),
    ("val_mean_iou", "IoU {:.3f}"),
    ("images_per_second", "{:.0f} images/s"),
    ("skipped_steps", "skipped {:.0f}"),
)


def headline(metrics: Mapping[str, Any]) -> str:
    """The headline metrics on one line; without what isn't known or measured yet."""
    shown = [
        form.format(float(metrics[name]))
        for name, form in _HEADLINE
        if metrics.get(name) is not None
        and not (name in ("skipped_steps", "images_per_second") and float(metrics[name]) == 0.0)
    ]
    return ", ".join(shown)
