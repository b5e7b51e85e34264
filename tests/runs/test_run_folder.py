from __future__ import annotations

import json

import keras
import numpy as np
import pytest
import tensorflow as tf
import testing_export
import testing_model

from asr_tf import evaluate_main, sample_main, train_main
from asr_tf.models import ImageVAE
from asr_tf.runs import configuration
from asr_tf.runs.run_folder import FORMAT, Checkpoints, RunFolder, RunFolderError, restore_model
from asr_tf.training import fit
from asr_tf.version import __version__


def saved_at(folder, *steps):
    """Checkpoints of one number, which is 10 times the step."""
    number = tf.Variable(0.0)
    checkpoints = Checkpoints(folder, 3, number=number)
    for step in steps:
        number.assign(10.0 * step)
        checkpoints.save(step)
    return checkpoints, number


def truncate(path, keep):
    data = path.read_bytes()
    path.write_bytes(data[: int(keep * len(data))])


def test_the_newest_checkpoint_is_restored_and_old_ones_go(tmp_path):
    checkpoints, number = saved_at(tmp_path, 1, 2, 3, 10)
    assert [path.rsplit("-", 1)[1] for path in checkpoints.paths()] == ["10", "3", "2"]
    number.assign(0.0)
    assert checkpoints.restore() == str(tmp_path / "ckpt-10")
    assert number.numpy() == 100.0


def test_without_any_checkpoint_there_is_nothing_to_restore(tmp_path):
    assert Checkpoints(tmp_path / "none", number=tf.Variable(0.0)).restore() is None


@pytest.mark.parametrize("part", ["ckpt-2.data-00000-of-00001", "ckpt-2.index"])
@pytest.mark.parametrize("keep", [0.0, 0.5])
def test_a_truncated_checkpoint_is_passed_over_with_a_warning(tmp_path, part, keep, caplog):
    checkpoints, number = saved_at(tmp_path, 1, 2)
    truncate(tmp_path / part, keep)
    number.assign(0.0)
    assert checkpoints.restore() == str(tmp_path / "ckpt-1")
    assert caplog.messages[-1].startswith("damaged: ckpt-2 (")
    assert number.numpy() == 10.0


@pytest.mark.parametrize("max_to_keep", [1, 2])
def test_damaged_checkpoints_take_no_place_of_intact_ones(tmp_path, max_to_keep):
    _, number = saved_at(tmp_path, 1, 4)
    truncate(tmp_path / "ckpt-4.data-00000-of-00001", 0.5)
    checkpoints = Checkpoints(tmp_path, max_to_keep, number=number)
    assert checkpoints.restore() == str(tmp_path / "ckpt-1")
    for step, kept in ((2, [2, 1]), (3, [3, 2])):
        checkpoints.save(step)
        assert [path.rsplit("-", 1)[1] for path in checkpoints.paths()] == [str(k) for k in kept[:max_to_keep]]
    checkpoints.save(4)  # of the damaged one's name, and intact
    number.assign(0.0)
    assert Checkpoints(tmp_path, 1, number=number).restore() == str(tmp_path / "ckpt-4")


def test_a_damaged_list_of_checkpoints_does_no_harm(tmp_path):
    saved_at(tmp_path, 1, 2)
    truncate(tmp_path / "checkpoint", 0.4)
    number = tf.Variable(0.0)
    checkpoints = Checkpoints(tmp_path, 3, number=number)
    assert checkpoints.restore() == str(tmp_path / "ckpt-2")
    checkpoints.save(3)
    assert len(checkpoints.paths()) == 3


def test_where_every_checkpoint_is_damaged_one_line_says_so(tmp_path):
    checkpoints, _ = saved_at(tmp_path, 1)
    truncate(tmp_path / "ckpt-1.data-00000-of-00001", 0.5)
    with pytest.raises(RunFolderError, match=r"no checkpoint in .* can be read, damaged or truncated: ckpt-1"):
        checkpoints.restore()


def test_a_checkpoint_of_another_model_is_told(tmp_path):
    saved_at(tmp_path, 1)
    other = Checkpoints(tmp_path, other=tf.Variable(0.0))
    with pytest.raises(RunFolderError, match="belongs to another model"):
        other.restore()


def test_a_folder_that_cannot_be_written_is_told_before_anything_starts(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(RunFolderError, match=r"can't write in work folder .*file/run: Not a directory"):
        RunFolder(tmp_path / "file" / "run").check_writable()


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
    saved_at(folder.checkpoints, 1)
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
        file.write('{"step": 40, "lo')  # the machine went down
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


def test_a_name_that_looks_like_a_pattern_costs_no_other_run(tmp_path):
    other = Checkpoints(tmp_path / "seed1", weight=tf.Variable(1.0))
    other.save(1)
    own = Checkpoints(tmp_path / "seed[1]", 2, weight=tf.Variable(1.0))
    for step in (1, 2, 3):
        own.save(step)
    assert [path.rpartition("-")[2] for path in own.paths()] == ["3", "2"]
    assert not list((tmp_path / "seed[1]").glob("ckpt-1.*"))
    assert other.restore() is not None


def set_apart(variables):
    """Gives each variable a value of its own."""
    for number, variable in enumerate(variables, 2):
        variable.assign(keras.ops.full(variable.shape, number, variable.dtype))


@pytest.mark.parametrize(
    "make",
    [
        testing_export.tiny_model,
        lambda: ImageVAE(canvas_size=(6, 8), what_size=2, encoder_units=(4,), decoder_units=(4,)),
    ],
    ids=["scenes", "vae"],
)
def test_what_training_saves_restores_every_weight_of_a_model_without_an_optimizer(tmp_path, make):
    trained = make()
    trained.compile(keras.optimizers.Adam())
    set_apart([*trained.trainable_variables, trained.step])
    Checkpoints(tmp_path, model=trained, optimizer=trained.optimizer).save(1)
    restored = make()
    Checkpoints(tmp_path, model=restored).restore()
    pairs = zip(trained.trainable_variables, restored.trainable_variables, strict=True)
    lost = [a.path for a, b in pairs if not np.array_equal(a.numpy(), b.numpy())]
    assert not lost
    assert restored.step.numpy() == trained.step.numpy()


def test_weights_of_another_shape_are_no_damage(tmp_path):
    Checkpoints(tmp_path, weight=tf.Variable([1.0, 2.0])).save(1)
    with pytest.raises(RunFolderError, match="ckpt-1 belongs to another model than its config.gin describes"):
        Checkpoints(tmp_path, weight=tf.Variable([1.0])).restore()
