"""What is saved is found again, whole, whatever happens in between."""

from __future__ import annotations

import errno
import json
import os

import keras
import numpy as np
import pytest
import tensorflow as tf
import testing_export

from asr_tf.models import ImageVAE
from asr_tf.runs import checkpoints as checkpoints_module
from asr_tf.runs.checkpoints import Checkpoints, RunFolderError, read_record


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
    """Earlier versions wrote one."""
    saved_at(tmp_path, 1, 2)
    (tmp_path / "checkpoint").write_text('model_checkpoint_path: "ckp')
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


@pytest.mark.parametrize("name", ["run[1]", "a*b?", "back\\slash", "{a,b}", "two\nlines", os.fsdecode(b"caf\xe9")])
def test_a_folder_may_have_any_name(tmp_path, name):
    (tmp_path / "run1").mkdir()  # what a pattern would match
    folder = tmp_path / name / "checkpoints"
    saved_at(folder, 1, 2)
    assert len(list(folder.glob("ckpt-*.index"))) == 2
    number = tf.Variable(0.0)
    assert Checkpoints(folder, number=number).restore() == str(folder / "ckpt-2")
    assert number.numpy() == 20.0


def test_a_model_restored_from_such_a_folder_can_be_given_an_optimizer(tmp_path):
    """TensorFlow then reads on from where the weights were."""
    trained, restored = testing_export.tiny_model(), testing_export.tiny_model()
    trained.compile(keras.optimizers.Adam(0.125))
    Checkpoints(tmp_path / "run[1]", model=trained, optimizer=trained.optimizer).save(1)
    Checkpoints(tmp_path / "run[1]", model=restored).restore()
    restored.compile(keras.optimizers.Adam(0.25))


def no_space(*_, **__):
    raise OSError(errno.ENOSPC, "No space left on device")


@pytest.mark.parametrize("fails", ["write", "sync", "record"])
@pytest.mark.parametrize("before", [(), (1,)])
def test_a_full_disk_costs_no_earlier_checkpoint_and_keeps_nothing(tmp_path, monkeypatch, before, fails):
    _, number = saved_at(tmp_path, *before)
    files = sorted(tmp_path.rglob("*"))
    checkpoints = Checkpoints(tmp_path, 1, no_space if fails == "record" else None, number=number)
    if fails == "write":
        plain = tf.train.Checkpoint.write

        def full(self, path):
            os.remove(f"{plain(self, path)}.index")
            raise tf.errors.ResourceExhaustedError(None, None, "No space left on device")

        monkeypatch.setattr(tf.train.Checkpoint, "write", full)
    elif fails == "sync":
        monkeypatch.setattr(checkpoints_module, "sync", no_space)
    stays = "ckpt-1, saved before, stays" if before else "none was saved before"
    with pytest.raises(RunFolderError, match=rf"^can't save .*/ckpt-2: No space left on device; {stays}\.$"):
        checkpoints.save(2)
    assert sorted(tmp_path.rglob("*")) == files


def test_a_checkpoint_is_on_disk_before_its_index_names_it(tmp_path, monkeypatch):
    """Files first, then the names of the data, then the index, then its name."""
    checkpoints, _ = saved_at(tmp_path)
    calls = []
    sync, replace = checkpoints_module.sync, checkpoints_module.pathlib.Path.replace
    monkeypatch.setattr(checkpoints_module, "sync", lambda path: (calls.append(("sync", path.name)), sync(path)))
    monkeypatch.setattr(
        checkpoints_module.pathlib.Path,
        "replace",
        lambda self, target: (calls.append(("rename", self.name)), replace(self, target))[1],
    )
    checkpoints.save(3)
    data, index = "ckpt-3.data-00000-of-00001", "ckpt-3.index"
    folder = ("sync", tmp_path.name)
    assert calls == [("sync", data), ("sync", index), ("rename", data), folder, ("rename", index), folder]


def test_what_killed_saves_left_is_swept_and_nothing_else(tmp_path):
    saved_at(tmp_path, 1)
    (tmp_path / "ckpt-1.json").write_text("{}")
    (tmp_path / "notes.txt").write_text("of the user")
    before = sorted(tmp_path.iterdir())
    for folder in (".saving", "ckpt-2_temp"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "part-00000-of-00001.data-00000-of-00001").write_bytes(b"half")
    for name in ("ckpt-2.data-00000-of-00001", "ckpt-2.json", "ckpt-1.index.tempstate7", "checkpoint"):
        (tmp_path / name).write_bytes(b"half")
    Checkpoints(tmp_path).sweep()
    assert sorted(tmp_path.iterdir()) == before
    Checkpoints(tmp_path / "none").sweep()


class Weighted(keras.Model):
    """One weight."""

    def __init__(self, value):
        super().__init__()
        self.weight = self.add_weight(shape=(), initializer=keras.initializers.Constant(value), name="w")


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_weights_that_are_not_finite_are_never_saved(tmp_path, bad):
    model = Weighted(1.0)
    checkpoints = Checkpoints(tmp_path, model=model)
    checkpoints.save(1)
    model.weight.assign(bad)
    message = r"weights are not finite at step 2 \(w.*\) and were not saved \(ckpt-1, saved before, stays\)"
    with pytest.raises(RunFolderError, match=message):
        checkpoints.save(2)
    assert checkpoints.restore() == str(tmp_path / "ckpt-1")
    assert model.weight.numpy() == 1.0


def test_an_earlier_save_of_weights_that_are_not_finite_is_passed_over(tmp_path, monkeypatch):
    model = Weighted(1.0)
    checkpoints = Checkpoints(tmp_path, model=model)
    checkpoints.save(1)
    model.weight.assign(np.nan)
    with monkeypatch.context() as earlier:
        earlier.setattr(checkpoints_module, "nonfinite_weights", lambda *_: [])
        checkpoints.save(2)
    assert checkpoints.restore() == str(tmp_path / "ckpt-1")


def test_files_that_cannot_be_read_now_are_not_taken_for_damaged(tmp_path, monkeypatch):
    checkpoints, _ = saved_at(tmp_path, 1, 2)

    def opened(path, *_, **__):
        raise PermissionError(errno.EACCES, "Permission denied", str(path))

    with monkeypatch.context() as forbidden:
        forbidden.setattr(checkpoints_module.pathlib.Path, "open", opened)
        with pytest.raises(RunFolderError, match=r"^can't read .*/ckpt-2\.[-\w]+: Permission denied\.$"):
            checkpoints.restore()
    checkpoints.save(3)
    assert len(checkpoints.paths()) == 3


def test_after_a_step_back_the_result_is_the_newly_saved_one(tmp_path):
    """A training that was killed goes on from an earlier step than its result is of."""
    _, number = saved_at(tmp_path, 8)
    number.assign(50.0)
    assert Checkpoints(tmp_path, 1, number=number).save(5) == str(tmp_path / "ckpt-5")
    number.assign(0.0)
    assert Checkpoints(tmp_path, 1, number=number).restore() == str(tmp_path / "ckpt-5")
    assert number.numpy() == 50.0


def test_the_record_of_the_newest_checkpoint_that_has_one_is_found(tmp_path):
    number = tf.Variable(0.0)
    steps = iter((1, 2, 3))
    checkpoints = Checkpoints(tmp_path, 3, lambda: json.dumps({"step": next(steps)}), number=number)
    for step in (1, 2, 3):
        checkpoints.save(step)
    (tmp_path / "ckpt-3.json").write_text("")
    assert read_record(tmp_path) == {"step": 2}
    assert read_record(tmp_path, [1]) == {"step": 1}
    assert read_record(tmp_path, [3]) is None
    assert read_record(tmp_path / "none") is None
