"""Runs on the tiny stand-in of `testing_model`; the real model goes through `test_gin_configs`."""

from __future__ import annotations

import errno
import json
import shutil

import keras
import numpy as np
import pytest
import testing_model

from asr_tf.data import DataSource
from asr_tf.runs import configuration, run_folder
from asr_tf.runs.run_folder import RunFolderError
from asr_tf.training import fit
from asr_tf.training.callbacks import TrainingDiverged
from asr_tf.training.schedule import LearningRate

PLAIN_LOAD = DataSource.load
SPLITS = ("train", "validation", "test")
SETTINGS = (
    "data.name = 'tiny'",
    "train.num_steps = 8",
    "train.batch_size = 4",
    "train.validation_size = 4",
    "train.steps_per_execution = 2",
    "train.steps_per_report = 4",
    "train.warmup_steps = 2",
    "train.images_every_reports = 1",
    "train.jit_compile = False",
)


@pytest.fixture(autouse=True)
def tiny(monkeypatch):
    """Replaces data, model and validation by tiny ones; returns what can replace more."""
    testing_model.install(monkeypatch)
    return monkeypatch


def train(workdir, *bindings, **flags):
    configuration.parse([], [*SETTINGS, *bindings])
    return fit.train(str(workdir), **flags)


def weights(workdir):
    model, _ = run_folder.restore_model(workdir)
    return [keras.ops.convert_to_numpy(variable) for variable in model.variables]


def stop_after(monkeypatch, step):
    """Interrupts, as Ctrl-C does, once so many steps are done."""
    plain = fit.callbacks.Clock.on_train_batch_end

    def interrupted(self, batch, logs=None):
        plain(self, batch, logs)
        if self._state.steps_done == step:
            raise KeyboardInterrupt

    monkeypatch.setattr(fit.callbacks.Clock, "on_train_batch_end", interrupted)


def test_a_run_leaves_everything_that_is_promised(tmp_path):
    info = train(tmp_path / "run")
    assert info["finished"]
    assert info["steps"] == 8
    assert info["seed"] == 0
    assert info["train_seconds"] > 0.0
    assert info["canvas_size"] == [6, 8]
    assert (info["channels"], info["format"]) == (1, run_folder.FORMAT)
    names = {path.name for path in (tmp_path / "run").iterdir()}
    assert {"config.gin", "run.json", "checkpoints", "logs", "metrics.jsonl"} <= names
    rows = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows] == [4, 8]
    assert rows[1]["val_mean_iou"] == 0.25
    assert rows[1]["loss"] < rows[0]["loss"]
    assert info["last_report"] == rows[1]


@pytest.mark.parametrize("jit_compile", [False, True])
def test_stopping_and_resuming_changes_nothing(tmp_path, tiny, jit_compile):
    compiled = f"train.jit_compile = {jit_compile}"
    train(tmp_path / "whole", compiled, seed=5)
    with tiny.context() as interrupted:
        stop_after(interrupted, 4)
        with pytest.raises(KeyboardInterrupt, match="at step 4, which is saved"):
            train(tmp_path / "parts", compiled, seed=5)
    info = train(tmp_path / "parts", compiled, seed=5)
    assert info["steps"] == 8
    for whole, parts in zip(weights(tmp_path / "whole"), weights(tmp_path / "parts"), strict=True):
        np.testing.assert_array_equal(whole, parts)
    other = train(tmp_path / "other", compiled, seed=6)
    assert other["last_report"]["loss"] != info["last_report"]["loss"]


def test_a_folder_with_the_characters_of_a_pattern_is_a_folder(tmp_path, tiny):
    train(tmp_path / "run1")
    with tiny.context() as interrupted:
        stop_after(interrupted, 4)
        with pytest.raises(KeyboardInterrupt):
            train(tmp_path / "run[1]")
    assert train(tmp_path / "run[1]")["steps"] == 8
    for plain, other in zip(weights(tmp_path / "run1"), weights(tmp_path / "run[1]"), strict=True):
        np.testing.assert_array_equal(plain, other)


def rates(workdir):
    """The learning rate of each report, by step."""
    rows = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    return {row["step"]: row["learning_rate"] for row in rows}


def test_a_larger_number_of_steps_prolongs_a_finished_run(tmp_path, tiny):
    """It goes on from the last checkpoint, at the rate of the whole new budget."""
    train(tmp_path / "parts")
    short = rates(tmp_path / "parts")
    with tiny.context() as interrupted:
        stop_after(interrupted, 10)
        with pytest.raises(KeyboardInterrupt, match="at step 10"):
            train(tmp_path / "parts", "train.num_steps = 16")
    assert not json.loads((tmp_path / "parts" / "run.json").read_text())["finished"]
    info = train(tmp_path / "parts", "train.num_steps = 16")
    assert (info["steps"], info["finished"]) == (16, True)
    rate = LearningRate(peak=1.5e-3, warmup_steps=2, final_fraction=0.02)
    longer = {step: pytest.approx(rate(step - 2, (step - 2) / 16)) for step in (14, 16)}
    assert rates(tmp_path / "parts") == short | longer
    assert "train.num_steps = 16\n" in (tmp_path / "parts" / "config.gin").read_text()
    assert train(tmp_path / "parts", "train.num_steps = 16")["already_finished"]
    with pytest.raises(RunFolderError, match="train.num_steps is 16 there and 8 now"):
        train(tmp_path / "parts")


def test_a_short_run_is_prolonged_by_executions_that_fit(tmp_path):
    train(tmp_path, "train.num_steps = 3", "train.steps_per_execution = 20")
    info = train(tmp_path, "train.num_steps = 8", "train.steps_per_execution = 20")
    assert (info["steps"], info["finished"]) == (8, True)


def test_more_minutes_prolong_a_finished_run(tmp_path, tiny):
    first = train(tmp_path, max_minutes=0.002)
    assert first["finished"]
    assert train(tmp_path, max_minutes=0.002)["already_finished"]
    with tiny.context() as interrupted:  # before a first step
        interrupted.setattr(fit.callbacks.Clock, "on_train_batch_begin", interrupt)
        with pytest.raises(KeyboardInterrupt, match=f"at step {first['steps']}, which is saved"):
            train(tmp_path, max_minutes=0.004)
    info = train(tmp_path, max_minutes=0.004)
    assert "already_finished" not in info
    assert info["finished"]
    assert info["steps"] > first["steps"]
    assert info["train_seconds"] > first["train_seconds"]


def interrupt(*_, **__):
    raise KeyboardInterrupt


def test_a_lost_result_is_made_again(tmp_path):
    train(tmp_path)
    shutil.rmtree(tmp_path / "checkpoints" / "result")
    train(tmp_path, "train.num_steps = 16")
    assert list((tmp_path / "checkpoints" / "result").glob("ckpt-*.index"))


def test_a_run_whose_small_files_are_lost_goes_on_and_is_read(tmp_path, tiny):
    with tiny.context() as interrupted:
        stop_after(interrupted, 4)
        with pytest.raises(KeyboardInterrupt):
            train(tmp_path)
    before = weights(tmp_path)
    (tmp_path / "run.json").write_text("")
    (tmp_path / "config.gin").unlink()
    for old, new in zip(before, weights(tmp_path), strict=True):
        np.testing.assert_array_equal(old, new)
    (tmp_path / "run.json").unlink()
    (tmp_path / "config.gin").write_text("")
    with pytest.raises(RunFolderError, match="train.batch_size is 4 there and 8 now"):
        train(tmp_path, "train.batch_size = 8")
    assert train(tmp_path)["steps"] == 8


def test_what_a_killed_training_left_goes_at_the_next_start(tmp_path, tiny):
    with tiny.context() as interrupted:
        stop_after(interrupted, 4)
        with pytest.raises(KeyboardInterrupt):
            train(tmp_path)
    left = tmp_path / "checkpoints" / "ckpt-6_temp"
    left.mkdir()
    train(tmp_path)
    assert not left.exists()


def test_a_full_disk_at_the_first_save_is_one_line_and_keeps_nothing(tmp_path, tiny):
    def full(self, path):
        with open(f"{path}.data-00000-of-00001", "wb") as file:
            file.write(b"part")
        raise OSError(errno.ENOSPC, "No space left on device")

    tiny.setattr(fit.tf.train.Checkpoint, "write", full)
    with pytest.raises(RunFolderError, match=r"^can't save .*4: No space left .*; none was saved before\.\n"):  # gin's
        train(tmp_path)
    assert not [path for path in (tmp_path / "checkpoints").rglob("*") if path.is_file()]


def test_the_optimizer_is_restored_too(tmp_path, tiny):
    """Adam's moments matter: with fresh ones, the resumed weights would differ (shown here by dropping them)."""
    train(tmp_path / "whole")
    with tiny.context() as interrupted:
        stop_after(interrupted, 4)
        with pytest.raises(KeyboardInterrupt):
            train(tmp_path / "parts")
    with tiny.context() as forgetful:
        plain = fit.Checkpoints

        class Forgetful(plain):
            def restore(self):
                optimizer = self._checkpoint.optimizer
                path = super().restore()
                for variable in optimizer.variables[2:]:
                    variable.assign(keras.ops.zeros_like(variable))
                return path

        forgetful.setattr(fit, "Checkpoints", Forgetful)
        train(tmp_path / "parts")
    pairs = zip(weights(tmp_path / "whole"), weights(tmp_path / "parts"), strict=True)
    assert max(np.abs(whole - parts).max() for whole, parts in pairs) > 1e-5


def test_freed_memory_is_kept_once_the_scenes_are_read(tmp_path, tiny, monkeypatch):
    calls = []
    load = fit.DataSource.load
    monkeypatch.setattr(fit.DataSource, "load", lambda self, *given: (calls.append("read"), load(self, *given))[1])
    monkeypatch.setattr(fit.fast, "tune_process", lambda: calls.append("tuned"))
    train(tmp_path)
    assert calls[0] == "read" and calls.index("tuned") == len(calls) - 1


def test_a_finished_run_is_left_alone(tmp_path, tiny):
    first = train(tmp_path)
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*") if path.is_file()}
    again = train(tmp_path)
    assert again["already_finished"]
    assert again["train_seconds"] == first["train_seconds"]
    assert before == {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*") if path.is_file()}


def test_another_configuration_or_seed_is_refused_and_nothing_is_lost(tmp_path):
    train(tmp_path)
    before = weights(tmp_path)
    with pytest.raises(RunFolderError, match=r"train.batch_size is 4 there and 8 now"):
        train(tmp_path, "train.batch_size = 8")
    with pytest.raises(RunFolderError, match="--seed is 0 there and 1 now"):
        train(tmp_path, seed=1)
    for old, new in zip(before, weights(tmp_path), strict=True):
        np.testing.assert_array_equal(old, new)


def test_a_run_can_be_repeated_from_its_config_alone(tmp_path):
    train(tmp_path / "first", "train.peak_learning_rate = 0.01", seed=3)
    configuration.parse([str(tmp_path / "first" / "config.gin")])
    fit.train(str(tmp_path / "second"), seed=3)
    for first, second in zip(weights(tmp_path / "first"), weights(tmp_path / "second"), strict=True):
        np.testing.assert_array_equal(first, second)


def test_a_truncated_checkpoint_costs_only_what_came_after_the_one_before(tmp_path):
    train(tmp_path, "train.checkpoint_every_minutes = 0.0")
    whole = weights(tmp_path)
    data = tmp_path / "checkpoints" / "ckpt-8.data-00000-of-00001"
    data.write_bytes(data.read_bytes()[:100])
    info = train(tmp_path, "train.checkpoint_every_minutes = 0.0")
    assert "already_finished" not in info
    for before, after in zip(whole, weights(tmp_path), strict=True):
        np.testing.assert_array_equal(before, after)
    steps = [json.loads(line)["step"] for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert steps == [4, 8]


def test_a_run_that_was_cut_off_as_it_ended_takes_no_further_step(tmp_path):
    """Its last checkpoint is there, but neither the mark that it is finished nor the last run.json."""
    train(tmp_path)
    path = tmp_path / "run.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "steps": 4, "finished": False, "last_report": {}}))
    info = train(tmp_path)
    assert info["already_finished"] and info["finished"] and info["steps"] == 8
    assert json.loads(path.read_text())["steps"] == 8
    assert info["last_report"] == json.loads((tmp_path / "metrics.jsonl").read_text().splitlines()[-1])


def test_images_that_are_not_those_of_the_run_are_refused(tmp_path):
    train(tmp_path)
    path = tmp_path / "run.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "images": "20 images, 01234567"}))
    with pytest.raises(RunFolderError, match="began with other images"):
        train(tmp_path)


def test_minutes_bound_a_run_and_reach_the_end_of_the_schedule(tmp_path):
    info = train(tmp_path, "train.steps_per_report = 50", max_minutes=0.01)
    assert info["finished"]
    assert info["train_seconds"] > 0.3
    assert info["last_report"]["learning_rate"] < 0.1 * 1.5e-3


def test_steps_that_stay_bad_end_the_run_with_the_term(tmp_path, tiny):
    def poisoned(**arguments):
        return testing_model.TinyModel(poison_from=4, **arguments)

    tiny.setattr(fit, "build_model", poisoned)
    with pytest.raises(TrainingDiverged, match=r"at step 8: 4 steps in a row were not finite \(in nll_nats\)"):
        train(tmp_path, "train.max_skipped_in_a_row = 3")
    # What was saved before is still there, and finite.
    tiny.setattr(fit, "build_model", testing_model.TinyModel)
    assert all(np.isfinite(value).all() for value in weights(tmp_path))


def test_weights_that_are_not_finite_end_the_run_and_what_was_saved_stays(tmp_path, tiny):
    """Where a step was finite, but not the weights after it."""
    plain = fit.callbacks.Schedule.on_train_batch_begin

    def too_high(self, batch, logs=None):
        plain(self, batch, logs)
        if self._state.steps_done >= 4:
            self.model.optimizer.learning_rate.assign(np.inf)

    with tiny.context() as high:
        high.setattr(fit.callbacks.Schedule, "on_train_batch_begin", too_high)
        with pytest.raises(TrainingDiverged, match=r"at step 8: weights are not finite \(.* and 2 more\); what"):
            train(tmp_path, "train.checkpoint_every_minutes = 0.0")
    assert [path.name for path in (tmp_path / "checkpoints").glob("*.index")] == ["ckpt-4.index"]
    assert all(np.isfinite(value).all() for value in weights(tmp_path))
    assert train(tmp_path, "train.checkpoint_every_minutes = 0.0")["steps"] == 8


@pytest.mark.parametrize(
    ("binding", "message"),
    [
        ("train.peak_learning_rate = 1e400", r"train.peak_learning_rate must be finite, got inf"),
        ("train.peak_learning_rate = 1e39", "train.peak_learning_rate must be a finite number, at most .*, got 1e.39"),
        (f"train.num_steps = {2**63}", f"train.num_steps must be a whole number below 2..63, got {2**63}"),
    ],
)
def test_numbers_that_are_not_finite_are_refused_before_anything_is_written(tmp_path, binding, message):
    with pytest.raises(ValueError, match=message):
        train(tmp_path / "run", binding)
    assert not (tmp_path / "run").exists()


def test_so_are_those_of_a_caller(tmp_path):
    with pytest.raises(ValueError, match=r"train.max_minutes must be a finite number, at most 3.4e.38, got inf"):
        train(tmp_path / "run", max_minutes=float("inf"))


@pytest.mark.parametrize(
    ("binding", "message"),
    [
        ("train.num_steps = 7", "train.num_steps must be a multiple of train.steps_per_execution .2.*8 would do"),
        ("train.validation_size = 0", "train.validation_size must be a whole number, 1 or more, got 0"),
        ("train.batch_size = 0", "train.batch_size must be a whole number, 1 or more, got 0"),
        ("train.batch_size = 64.5", "train.batch_size must be a whole number, 1 or more, got 64.5"),
        ("train.adam_beta_2 = 1.0", "train.adam_beta_2 must be between 0.0 and 0.999999, got 1.0"),
        ("train.max_skipped_in_a_row = 0", "train.max_skipped_in_a_row must be a whole number, 1 or more, got 0"),
        ("train.checkpoints_to_keep = 0", "train.checkpoints_to_keep must be a whole number, 1 or more, got 0"),
        ("train.peak_learning_rate = 0.0", "peak_learning_rate must be a number above 0"),
    ],
)
def test_arguments_out_of_range_are_named(tmp_path, binding, message):
    with pytest.raises(ValueError, match=message):
        train(tmp_path, binding)


@pytest.mark.parametrize(
    ("binding", "message"),
    [
        ("ASRModel.canvas_size = (6, 9)", r"is bound to \(6, 9\), but the images are 6 x 8 .*: bind .* = \(6, 8\)"),
        ("ASRModel.channels = 3", r"is bound to 3, but the images have 1 \(grey.*\): bind ASRModel.channels = 1"),
    ],
)
def test_a_bound_size_that_is_not_that_of_the_images_is_refused(tmp_path, binding, message):
    with pytest.raises(ValueError, match=message):
        train(tmp_path, binding)
    assert not (tmp_path / "run.json").exists()


def write_images(folder, number):
    """NPY files of one image each, which differ, as `data.path`; returns the bindings."""
    folder.mkdir()
    for i in range(number):
        np.save(folder / f"{i:02d}.npy", np.full((6, 8), 3 * i + 2, np.uint8))
    return "data.name = 'image_folder'", f"data.path = '{folder}'"


def values(scenes):
    return scenes.images[:, 0, 0, 0].tolist()


@pytest.fixture
def seen(tiny, monkeypatch):
    """What a training looks at: images of the batches, of the reports, and the names of the splits that are loaded."""
    monkeypatch.setattr(fit.DataSource, "load", PLAIN_LOAD)
    found = {"batches": [], "reports": [], "splits": []}

    def load(self, split, *arguments, **options):
        found["splits"].append(split)
        return PLAIN_LOAD(self, split, *arguments, **options)

    def training_dataset(scenes, *arguments, plain=fit.training_dataset, **options):
        found["batches"] = values(scenes)
        return plain(scenes, *arguments, **options)

    def validation_metrics(model, scenes):
        found["reports"] = values(scenes)
        return {"squared_error": 0.0}

    for owner, name, stand_in in (
        (fit.DataSource, "load", load),
        (fit, "training_dataset", training_dataset),
        (fit, "validation_metrics", validation_metrics),
    ):
        monkeypatch.setattr(owner, name, stand_in)
    return found


def test_reports_look_at_the_validation_split_and_batches_at_the_rest(tmp_path, seen):
    bindings = write_images(tmp_path / "images", 80)
    info = train(tmp_path / "run", *bindings, "train.validation_size = 3")
    assert seen["splits"] == ["train", "validation"]
    parts = [values(DataSource(name="image_folder", path=str(tmp_path / "images")).load(split)) for split in SPLITS]
    assert [len(part) for part in parts] == [65, 7, 8]
    assert seen["batches"] == parts[0]
    assert seen["reports"] == parts[1][:3]
    assert not set(parts[0]) & set(parts[1])
    assert info["num_training_images"] == 65
    assert info["images"].startswith("65 images (checksum ") and ", held out 7 images (checksum " in info["images"]


def test_more_validation_images_than_there_are_is_all_of_them(tmp_path, seen):
    train(tmp_path / "run", *write_images(tmp_path / "images", 80), "data.num_train = 9", "data.num_validation = 2")
    assert (len(seen["batches"]), len(seen["reports"])) == (9, 2)


def test_an_image_that_is_another_is_noticed_in_either_split(tmp_path, seen):
    bindings = write_images(tmp_path / "images", 40)
    train(tmp_path / "run", *bindings)
    for value in (seen["batches"][3], seen["reports"][0]):
        file = tmp_path / "images" / f"{(value - 2) // 3:02d}.npy"
        before = file.read_bytes()
        np.save(file, np.full((6, 8), 255, np.uint8))
        with pytest.raises(RunFolderError, match=r"began with other images for training: 33 images .*, held out 3 im"):
            train(tmp_path / "run", *bindings)
        file.write_bytes(before)
    assert train(tmp_path / "run", *bindings)["already_finished"]


def test_too_few_images_are_told(tmp_path, seen):
    bindings = write_images(tmp_path / "images", 2)
    with pytest.raises(ValueError, match=r"must hold at least 3 images, one each .*, got 2\.\n"):  # gin adds a line
        train(tmp_path / "run", *bindings)
    for split in ("train", "test"):
        (tmp_path / "images" / split).mkdir()
        np.save(tmp_path / "images" / split / "one.npy", np.full((6, 8), 9, np.uint8))
    with pytest.raises(ValueError, match=r"^training needs at least 2 images \(one is held out\), got 1 in '.*train'"):
        train(tmp_path / "run", *bindings)


def test_validation_images_of_another_kind_are_refused(tmp_path, seen):
    bindings = write_images(tmp_path / "images", 0)
    for split, shape in (("train", (9, 6, 8)), ("validation", (9, 8, 6)), ("test", (9, 6, 8))):
        (tmp_path / "images" / split).mkdir()
        np.save(tmp_path / "images" / split / "all.npy", np.full(shape, 9, np.uint8))
    message = (
        r"^validation images must be like those for training, 6 x 8 px \(height x width\) and grey, "
        r"got 8 x 6 px \(height x width\) and grey\."
    )
    with pytest.raises(ValueError, match=message):
        train(tmp_path / "run", *bindings)


def test_a_folder_that_cannot_be_written_ends_before_the_data_is_loaded(tmp_path, tiny):
    tiny.setattr(fit.DataSource, "load", lambda *_, **__: pytest.fail("loaded"))
    (tmp_path / "file").write_text("")
    with pytest.raises(RunFolderError, match="can't write in work folder"):
        train(tmp_path / "file" / "run")
