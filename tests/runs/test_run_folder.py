from __future__ import annotations

import json
import os

import pytest
import tensorflow as tf
import testing_model

from asr_tf import evaluate_main, sample_main, train_main
from asr_tf.runs import configuration
from asr_tf.runs.checkpoints import Checkpoints
from asr_tf.runs.run_folder import FORMAT, RunFolder, RunFolderError, restore_model
from asr_tf.training import fit
from asr_tf.version import __version__


def test_a_folder_that_cannot_be_written_is_told_before_anything_starts(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(RunFolderError, match=r"can't write in work folder .*file/run: Not a directory"):
        RunFolder(tmp_path / "file" / "run").check_writable()


def test_a_name_that_is_not_utf8_is_told(tmp_path):
    with pytest.raises(RunFolderError, match=r"^the path of work folder .*caf\\xe9 isn't UTF-8; rename it"):
        RunFolder(tmp_path / os.fsdecode(b"caf\xe9")).check_writable()
    assert not list(tmp_path.iterdir())


def test_a_read_only_folder_is_told(tmp_path):
    folder = tmp_path / "run"
    folder.mkdir(mode=0o555)
    try:
        (folder / "probe").write_text("")
    except PermissionError:
        pass
    else:
        pytest.skip("this user may write in read-only folders (root)")
    with pytest.raises(RunFolderError, match=r"can't write in work folder .*: Permission denied"):
        RunFolder(folder).check_writable()


def test_the_probe_leaves_nothing_behind(tmp_path):
    folder = RunFolder(tmp_path / "a" / "run")
    folder.check_writable()
    assert list(folder.path.iterdir()) == []


def test_a_folder_without_a_run_is_told(tmp_path):
    with pytest.raises(RunFolderError, match=r"holds no run \(config.gin and run.json missing\)"):
        RunFolder(tmp_path).check_is_run()


def test_a_run_of_another_configuration_is_refused_and_the_same_one_is_not(tmp_path):
    configuration.parse([])  # registers what has defaults
    folder = RunFolder(tmp_path)
    flags = {"seed": 1, "max_minutes": None}
    folder.write_config("train.batch_size = 64\n", flags)
    folder.write_info({**flags, "format": FORMAT})
    folder.check_same_run("train.batch_size = 32\n", flags)  # no checkpoint: nothing to lose
    save(folder)
    folder.check_same_run("train.batch_size = 64\n", flags)
    with pytest.raises(RunFolderError, match=r"train.batch_size is 64 there and 32 now"):
        folder.check_same_run("train.batch_size = 32\n", flags)
    for same in (
        "evaluate.batch_size = 200\ndata.path = '/images'\ntrain.data_dir = None\n",  # beside the training
        "train.warmup_steps = 500\n",  # a setting that its revision didn't have, at its default
    ):
        folder.check_same_run("train.batch_size = 64\n" + same, flags)
    with pytest.raises(RunFolderError, match="train.warmup_steps is not set there and 7 now"):
        folder.check_same_run("train.batch_size = 64\ntrain.warmup_steps = 7\n", flags)
    with pytest.raises(RunFolderError, match="--seed is 1 there and 2 now"):
        folder.check_same_run("train.batch_size = 64\n", {**flags, "seed": 2})


def save(folder, record=None):
    """A checkpoint of nothing."""
    Checkpoints(folder.checkpoints, 3, record, number=tf.Variable(0.0)).save(1)


@pytest.mark.parametrize(
    ("steps", "minutes", "difference"),
    [
        (("8", "16"), (None, None), None),
        (("16", "8"), (None, None), "train.num_steps is 16 there and 8 now"),
        (("8", "8"), (5.0, 15), None),
        (("8", "8"), (5.0, 4.5), "--max_minutes is 5 there and 4.5 now"),
        (("8", "8"), (None, 5.0), "--max_minutes is None there and 5 now"),
        (("8", "8"), (5.0, None), "--max_minutes is 5 there and None now"),
    ],
)
def test_a_larger_budget_is_that_of_the_same_run_and_a_smaller_one_is_not(tmp_path, steps, minutes, difference):
    configuration.parse([])
    folder = RunFolder(tmp_path)
    old_flags, new_flags = ({"seed": 1, "max_minutes": value} for value in minutes)
    folder.write_config(f"train.num_steps = {steps[0]}\n", old_flags)
    folder.write_info({**old_flags, "format": FORMAT})
    save(folder)
    text = f"train.num_steps = {steps[1]}\n"
    if difference is None:
        folder.check_same_run(text, new_flags)
    else:
        with pytest.raises(RunFolderError, match=difference):
            folder.check_same_run(text, new_flags)


@pytest.mark.parametrize("name", ["run.json", "config.gin"])
@pytest.mark.parametrize("damage", ["gone", "empty", "cut"])
def test_small_files_come_back_from_the_record_of_a_checkpoint(tmp_path, name, damage):
    folder = RunFolder(tmp_path)
    info = {"seed": 1, "format": FORMAT, "last_report": {"loss": float("inf")}}
    folder.write_config("train.batch_size = 64\n", {"seed": 1})
    folder.write_info(info)
    save(folder, lambda: folder.record(info))
    file = tmp_path / name
    before = file.read_text()
    if damage == "gone":
        file.unlink()
    elif damage == "empty":
        file.write_text("\n")
    else:
        file.write_text(before[: len(before) // 2])
    again = RunFolder(tmp_path)
    assert again.read_info() == {"seed": 1, "format": FORMAT, "last_report": {"loss": None}}
    again.check_is_run()
    assert file.read_text() == before


def test_checkpoints_whose_run_is_lost_are_not_taken_over(tmp_path):
    configuration.parse([])
    folder = RunFolder(tmp_path)
    save(folder)
    with pytest.raises(RunFolderError, match="but config.gin and run.json of their run can't be found"):
        folder.check_same_run("train.batch_size = 64\n", {"seed": 1})
    assert len(list(folder.checkpoints.glob("*.index"))) == 1


def test_what_killed_trainings_left_is_swept(tmp_path):
    folder = RunFolder(tmp_path)
    folder.write_info({"seed": 1})
    save(folder)
    before = sorted(tmp_path.rglob("*"))
    for name in ("run.json.part", "config.gin.part", "metrics.jsonl.part", "checkpoints/ckpt-9.data-00000-of-00001"):
        (tmp_path / name).write_bytes(b"half")
    (folder.checkpoints / ".saving").mkdir()
    folder.sweep()
    assert sorted(tmp_path.rglob("*")) == before


TINY = "data.name = 'tiny'\ntrain.num_steps = 2\ntrain.batch_size = 4\ntrain.jit_compile = False\n"


@pytest.fixture
def earlier_run(tmp_path, monkeypatch):
    """A folder as version 0.1.0 left it: its run.json names neither the format nor the channels."""
    testing_model.install(monkeypatch)
    (tmp_path / "tiny.gin").write_text(TINY)
    configuration.parse([str(tmp_path / "tiny.gin")])
    fit.train(str(tmp_path / "run"))
    path = tmp_path / "run" / "run.json"
    info = json.loads(path.read_text())
    del info["format"], info["channels"]
    path.write_text(json.dumps({**info, "versions": {**info["versions"], "asr_tf": "0.1.0"}}))
    return tmp_path / "run"


def contents(folder):
    """Bytes and times of all files of a folder."""
    files = [path for path in folder.rglob("*") if path.is_file()]
    return {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in files}


@pytest.mark.parametrize("finished", [True, False])
@pytest.mark.parametrize(
    "use",
    [
        lambda run: testing_model.run_command(
            train_main, f"--workdir={run}", f"--gin_files={run.parent / 'tiny.gin'}"
        ),
        lambda run: testing_model.run_command(evaluate_main, f"--workdir={run}"),
        lambda run: testing_model.run_command(sample_main, f"--workdir={run}", "--num_samples=2"),
        restore_model,
    ],
    ids=["asr_train", "asr_evaluate", "asr_sample", "restore_model"],
)
def test_a_run_of_an_earlier_version_is_refused_and_left_as_it_is(earlier_run, use, finished):
    info = earlier_run / "run.json"
    info.write_text(json.dumps({**json.loads(info.read_text()), "finished": finished}))
    before = contents(earlier_run)
    with pytest.raises(RunFolderError) as caught:
        use(earlier_run)
    assert configuration.one_line(caught.value) == (
        f"{earlier_run} holds a run of asr_tf 0.1.0, whose model {__version__} can't read (nothing was changed): "
        "use that version for it, or train in another --workdir."
    )
    assert contents(earlier_run) == before


def test_the_version_that_cannot_read_runs_of_0_1_0_is_called_otherwise():
    assert __version__ != "0.1.0"


def test_config_tells_how_to_repeat_the_run(tmp_path):
    folder = RunFolder(tmp_path)
    folder.write_config("train.batch_size = 64\n", {"seed": 3, "max_minutes": None})
    text = folder.config.read_text()
    assert "# asr_train --workdir=ANOTHER_FOLDER --gin_files=config.gin --seed=3\n" in text
    assert text.endswith("train.batch_size = 64\n")


def test_metrics_are_json_whatever_the_numbers_are_and_can_be_cut_back(tmp_path):
    folder = RunFolder(tmp_path)
    for step in (10, 20, 30):
        folder.append_metrics({"step": step, "loss": float("nan")})
    with folder.metrics.open("a") as file:
        file.write('{"step": 40, "lo\n7\n\0\0\n')  # the machine went down
    folder.drop_metrics_after(20)
    rows = [json.loads(line) for line in folder.metrics.read_text().splitlines()]
    assert rows == [{"step": 10, "loss": None}, {"step": 20, "loss": None}]


def test_damaged_info_is_told(tmp_path):
    folder = RunFolder(tmp_path)
    assert folder.read_info() == {}
    folder.info.write_text("{")
    with pytest.raises(RunFolderError, match=r"run.json is damaged"):
        folder.read_info()


def test_one_process_at_a_time(tmp_path):
    folder = RunFolder(tmp_path / "run")
    refused = pytest.raises(RunFolderError, match="another asr_train is at work in .*run; wait for its")
    with folder.only_one(), refused, RunFolder(tmp_path / "run").only_one():
        pass
    with folder.only_one():
        pass
