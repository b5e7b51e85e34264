from __future__ import annotations

import io
import json
import types

import pytest
import tensorflow as tf

from asr_tf.runs.run_folder import RunFolder
from asr_tf.training import callbacks
from asr_tf.training.schedule import LearningRate, TrainingBudget


class FakeTime:
    def __init__(self):
        self.now = 0.0

    def __call__(self):
        return self.now


def make_state(num_steps=100, max_seconds=None):
    return callbacks.TrainingState(tf.Variable(0, dtype=tf.int64), TrainingBudget(num_steps, max_seconds))


def with_model(callback, **attributes):
    callback.set_model(types.SimpleNamespace(stop_training=False, **attributes))
    return callback


def execute(clock, time, seconds, pause=0.0):
    clock.on_train_batch_begin(0)
    time.now += seconds
    clock.on_train_batch_end(0)
    time.now += pause


def test_clock_counts_executions_only_and_charges_the_compiling_one_like_the_second():
    time, state = FakeTime(), make_state()
    clock = with_model(callbacks.Clock(state, images_per_execution=30, now=time))
    execute(clock, time, 40.0, pause=7.0)  # compiles
    assert state.seconds == 0.0
    execute(clock, time, 2.0, pause=100.0)  # evaluation, checkpoint, pictures
    assert state.seconds == 4.0
    execute(clock, time, 3.0)
    assert state.seconds == 7.0
    assert state.images_per_second == 10.0


def test_clock_ends_a_run_in_time():
    time, state = FakeTime(), make_state(max_seconds=10.0)
    clock = with_model(callbacks.Clock(state, 1, now=time))
    for _ in range(4):
        assert not clock.model.stop_training
        execute(clock, time, 2.0, pause=5.0)
    assert not clock.model.stop_training  # 8 s; the next execution ends at 10
    execute(clock, time, 2.0)
    assert clock.model.stop_training
    assert bool(state.finished.numpy())
    assert state.seconds == 10.0


def test_an_execution_that_was_held_up_says_nothing_about_the_next():
    time, state = FakeTime(), make_state(max_seconds=10.0)
    clock = with_model(callbacks.Clock(state, 1, now=time))
    for seconds in (1.0, 1.0, 1.0, 4.0):  # the machine was suspended in the last
        execute(clock, time, seconds)
    assert state.seconds == 7.0 and not clock.model.stop_training
    for _ in range(3):
        assert not clock.model.stop_training
        execute(clock, time, 1.0)
    assert clock.model.stop_training and state.seconds == 10.0


def test_clock_ends_a_run_at_its_last_step():
    time, state = FakeTime(), make_state(num_steps=4)
    clock = with_model(callbacks.Clock(state, 1, now=time))
    state.step.assign(3)
    execute(clock, time, 1.0)
    assert not clock.model.stop_training
    state.step.assign(4)
    execute(clock, time, 1.0)
    assert clock.model.stop_training


def test_schedule_sets_the_rate_of_the_execution_that_starts():
    state = make_state(num_steps=100)
    optimizer = types.SimpleNamespace(learning_rate=tf.Variable(9.0))
    rate = LearningRate(peak=1.0, warmup_steps=10, final_fraction=0.0)
    schedule = with_model(callbacks.Schedule(state, rate), optimizer=optimizer)
    state.step.assign(4)
    schedule.on_train_batch_begin(0)
    assert float(optimizer.learning_rate) == pytest.approx(rate(4, 0.04))
    state.step.assign(50)
    schedule.on_train_batch_begin(0)
    assert float(optimizer.learning_rate) == pytest.approx(0.5)


def test_guard_names_the_terms_after_too_many_bad_steps():
    state = make_state()
    state.step.assign(77)
    model = {"nonfinite_terms": lambda: ["kl_scale_nats"], "optimizer": None}
    guard = with_model(callbacks.NonFiniteGuard(state, 3), **model)
    guard.on_train_batch_end(0, {"skipped_in_a_row": 2.0})
    with pytest.raises(callbacks.TrainingDiverged) as caught:
        guard.on_train_batch_end(0, {"skipped_in_a_row": 3.0})
    assert "step 77" in str(caught.value)
    assert "kl_scale_nats" in str(caught.value)
    assert "\n" not in str(caught.value)


def make_reporter(folder, state, **options):
    import numpy as np

    reporter = callbacks.Reporter(
        state,
        folder,
        validate=lambda: {"count_accuracy": 0.75},
        draw=lambda: np.zeros((4, 4, 3), np.uint8),
        images_every_reports=1,
        **options,
    )
    return with_model(reporter, optimizer=types.SimpleNamespace(learning_rate=tf.Variable(0.5)))


def test_reporter_writes_a_line_and_tensorboard(tmp_path):
    folder, state = RunFolder(tmp_path), make_state()
    reporter = make_reporter(folder, state)
    state.step.assign(20)
    reporter.on_train_batch_end(9, {"loss": tf.constant(3.0), "skipped_steps": tf.constant([2.0])})
    reporter.on_train_batch_end(19, {"loss": tf.constant(1.0), "skipped_steps": tf.constant([2.0])})
    reporter.on_epoch_end(0)
    reporter.on_train_end()
    row = json.loads(folder.metrics.read_text())
    assert row == {
        "step": 20,
        "train_seconds": 0.0,
        "learning_rate": 0.5,
        "images_per_second": 0.0,
        "loss": 1.0,
        "skipped_steps": 2.0,
        "val_count_accuracy": 0.75,
    }
    assert state.report == row
    events = [path for path in folder.logs.iterdir() if "tfevents" in path.name]
    tags = {
        value.tag
        for path in events
        for event in tf.compat.v1.train.summary_iterator(str(path))
        for value in event.summary.value
    }
    assert {"training/loss", "validation/count_accuracy", "input_reconstruction_boxes"} <= tags


def test_saver_saves_at_intervals_once_a_step_and_at_the_end():
    time, state = FakeTime(), make_state()
    saved, noted = [], []
    store = types.SimpleNamespace(save=saved.append)
    saver = callbacks.CheckpointSaver(state, store, 2.0, lambda: noted.append(len(saved)), now=time)
    for step, now in ((10, 0.0), (20, 60.0), (30, 121.0)):
        state.step.assign(step)
        time.now = now
        saver.on_epoch_end(0)
    assert saved == [10, 30]
    saver.on_train_end()
    assert saved == [10, 30]
    state.step.assign(35)
    saver.on_train_end()
    assert saved == [10, 30, 35]
    assert noted == [1, 2, 3]


def test_progress_is_one_line_a_report_where_there_is_no_terminal():
    state, stream = make_state(num_steps=10), io.StringIO()
    bar = callbacks.ProgressBar(state, stream)
    held = {"count_in_set": {"held": True}, "tight_windows": {"held": False}}
    bar.set_model(types.SimpleNamespace(rules_held=lambda: held))
    bar.on_train_begin()
    state.step.assign(5)
    state.report = {"step": 5, "loss": 12.345, "val_mean_iou": 0.5, "images_per_second": 99.6, "skipped_steps": 0.0}
    bar.on_train_batch_end(0, {})
    bar.on_epoch_end(0)
    bar.on_train_end()
    line = " 50%  step 5, loss 12.3, IoU 0.500, 100 images/s, rules 1/2 held (not tight_windows)\n"
    assert stream.getvalue() == line


def test_progress_is_a_bar_on_a_terminal():
    class Terminal(io.StringIO):
        def isatty(self):
            return True

    state, stream = make_state(num_steps=10), Terminal()
    bar = callbacks.ProgressBar(state, stream)
    bar.on_train_begin()
    state.step.assign(5)
    bar.on_train_batch_end(0, {"loss": 7.0, "skipped_steps": 3.0})
    bar.on_train_end()
    assert "50%" in stream.getvalue()
    assert "loss 7.0" in stream.getvalue()
    assert "skipped 3" in stream.getvalue()
