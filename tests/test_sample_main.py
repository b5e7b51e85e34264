from __future__ import annotations

import shutil
import sys

import numpy as np
import pytest
import testing_export
import testing_model
from pycocotools.coco import COCO
from testing_labelled import contents

from asr_tf import sample_main
from asr_tf.constraints import CountInSet
from asr_tf.labelled import shards
from asr_tf.labelled.formats import FORMATS
from asr_tf.runs import configuration
from asr_tf.runs.checkpoints import Checkpoints
from asr_tf.runs.run_folder import RunFolderError, restore_model
from asr_tf.training import fit


@pytest.fixture
def workdir(tmp_path, monkeypatch):
    """A finished run of the tiny model."""
    testing_model.install(monkeypatch)
    configuration.parse([], ["data.name = 'tiny'", "train.num_steps = 1", "train.jit_compile = False"])
    fit.train(str(tmp_path / "run"))
    return tmp_path / "run"


def sample(*arguments):
    testing_model.run_command(sample_main, *arguments)


def test_samples_are_written_beside_the_run(workdir, capsys):
    sample(f"--workdir={workdir}", "--num_samples=5", "--num_objects=2")
    arrays = np.load(workdir / "samples" / "samples.npz")
    assert arrays["images"].shape == (5, 6, 8, 1)
    assert arrays["boxes"].shape == (5, 2, 4)
    assert arrays["counts"].tolist() == [2] * 5
    assert (workdir / "samples" / "samples.png").read_bytes().startswith(b"\x89PNG")
    output = capsys.readouterr().out
    assert "5 with 2" in output
    assert str(workdir / "samples" / "samples.png") in output


def test_the_same_seed_draws_the_same_scenes(workdir, tmp_path, monkeypatch):
    monkeypatch.setattr(sample_main, "_CHUNK", 2)  # several chunks, each with numbers of its own
    for name, seed in (("a", 1), ("x*[2]", 1), ("c", 2)):
        sample(f"--workdir={workdir}", "--num_samples=5", f"--seed={seed}", f"--output={tmp_path / name}")
    a, b, c = (np.load(tmp_path / name / "samples.npz")["images"] for name in ("a", "x*[2]", "c"))
    np.testing.assert_array_equal(a, b)
    assert np.abs(a - c).max() > 0.1
    assert np.abs(a[:2] - a[2:4]).max() > 0.1


def test_a_folder_without_a_checkpoint_is_told(workdir):
    shutil.rmtree(workdir / "checkpoints")
    (workdir / "checkpoints").mkdir()
    with pytest.raises(RunFolderError, match="holds no checkpoint yet"):
        sample(f"--workdir={workdir}")


def command(monkeypatch, *arguments):
    """What the command does with arguments, in this process: the exit's status."""
    monkeypatch.setattr(sys, "argv", ["asr_sample", *map(str, arguments)])
    for name in sample_main._FLAGS:
        sample_main._FLAGS[name].unparse()
    with pytest.raises(SystemExit) as end:
        sample_main.run()
    return end.value.code or 0


@pytest.fixture
def small_shards(monkeypatch):
    monkeypatch.setattr(shards, "SCENES_OF_A_SHARD", 8)
    monkeypatch.setattr(shards, "_LARGEST_CHUNK", 4)


def test_formats_are_those_that_can_be_written():
    assert sample_main._FLAGS["format"].parser.enum_values == sorted(FORMATS)


def test_a_data_set_holds_what_the_model_draws(tiny_run, tmp_path, small_shards, capsys):
    arguments = [f"--workdir={tiny_run}", "--num_samples=22", "--seed=3", "--format=coco", f"--output={tmp_path}/a"]
    sample(*arguments)
    model, _ = restore_model(tiny_run)
    drawn = [model.sample(min(4, 22 - start), seed=(3, start), with_masks=True) for start in range(0, 22, 4)]
    count = np.concatenate([chunk["count"] for chunk in drawn])
    visible = np.concatenate([(chunk["masks"].numpy() >= 0.5).any(axis=(2, 3, 4)) for chunk in drawn])
    data = COCO(str(tmp_path / "a" / "annotations.json"))
    assert [image["count"] for image in data.imgs.values()] == count.tolist()
    assert [len(data.imgToAnns[number]) for number in range(1, 23)] == visible.sum(axis=1).tolist()
    shares = ", ".join(f"{number} with {n}" for n, number in enumerate(np.bincount(count)) if number)
    output = capsys.readouterr().out
    assert f"22 scenes (objects: {shares}), {visible.sum()} labelled objects.\n" in output
    assert f"Data set: {tmp_path}/a\n" in output
    hidden = count.sum() - visible.sum()
    assert (f"{hidden} more objects can't be seen: they are counted, but not labelled.\n" in output) == (hidden > 0)


@pytest.fixture
def ruled_run(tmp_path):
    """A tiny run with a rule about counts."""
    rules = "ASRModel.constraints = [@CountInSet()]\nCountInSet.counts = (0, 2)\n"
    return testing_export.write_run(tmp_path / "ruled", constraints=[CountInSet((0, 2))], rules=rules)


def test_samples_obey_if_asked(ruled_run, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(sample_main, "_CHUNK", 20)
    arguments = [f"--workdir={ruled_run}", "--num_samples=50", "--seed=3"]
    for flag in ("--noobey", "--obey"):
        sample(*arguments, flag, f"--output={tmp_path}/{flag}")
    plain, obeying = (np.load(tmp_path / flag / "samples.npz") for flag in ("--noobey", "--obey"))
    assert set(plain) == set(obeying) == {"images", "counts", "boxes"}
    obeys = np.isin(plain["counts"], (0, 2))
    assert 0 < obeys.sum() < 50 and np.isin(obeying["counts"], (0, 2)).all()
    np.testing.assert_array_equal(obeying["images"][obeys], plain["images"][obeys])
    model, _ = restore_model(ruled_run)
    sizes = {0: 20, 20: 20, 40: 10}
    rates = [model.sample(n, (3, start), obey=True)["acceptance_rate"].numpy() for start, n in sizes.items()]
    draws = sum(n / rate for n, rate in zip(sizes.values(), rates, strict=True))
    assert f"None breaks a rule: {50 / draws:.1%} of {draws:.0f} scenes drawn obeyed." in capsys.readouterr().out


def test_a_data_set_obeys_if_asked(ruled_run, tmp_path, small_shards, monkeypatch, capfd):
    arguments = [f"--workdir={ruled_run}", "--num_samples=22", "--format=coco", f"--output={tmp_path}/a"]
    sample(*arguments, "--obey")
    data = COCO(str(tmp_path / "a" / "annotations.json"))
    counts = [image["count"] for image in data.imgs.values()]
    assert len(counts) == 22 and set(counts) == {0, 2}
    assert command(monkeypatch, *arguments) == 1
    assert "obey is True there and not set now" in capfd.readouterr().err


def test_scenes_that_can_not_obey_are_told(ruled_run, monkeypatch, capfd):
    for options in ([], ["--format=coco"]):
        assert command(monkeypatch, f"--workdir={ruled_run}", "--obey", "--num_objects=1", *options) == 1
        (line,) = capfd.readouterr().err.splitlines()
        assert line.startswith("asr_sample: error: 64 of 64 scenes still break a rule after 100 tries each: of all dra")


def test_the_same_command_goes_on_to_the_same_bytes(tiny_run, tmp_path, small_shards, monkeypatch):
    arguments = [f"--workdir={tiny_run}", "--num_samples=22", "--format=yolo", "--num_objects=2"]
    sample(*arguments, f"--output={tmp_path}/once")
    with monkeypatch.context() as interrupted:
        interrupted.setattr(FORMATS["yolo"], "finish", lambda *_: sys.exit(1))
        with pytest.raises(SystemExit):
            sample(*arguments, f"--output={tmp_path}/parts")
    sample(*arguments, f"--output={tmp_path}/parts")
    assert contents(tmp_path / "parts") == contents(tmp_path / "once")


def test_data_sets_lie_beside_the_run(tiny_run, tmp_path, capsys):
    shutil.copytree(tiny_run, tmp_path / "run")
    for name in FORMATS:
        sample(f"--workdir={tmp_path}/run", "--num_samples=3", f"--format={name}")
        assert f"Data set: {tmp_path}/run/samples/{name}\n" in capsys.readouterr().out


def test_other_flags_than_those_of_the_data_set_are_told(tiny_run, tmp_path, monkeypatch, capfd):
    arguments = [f"--workdir={tiny_run}", f"--output={tmp_path}/a", "--format=coco", "--num_samples=5"]
    assert command(monkeypatch, *arguments) == 0
    before = contents(tmp_path / "a")
    for flag, message in (
        ("--num_samples=6", "num_samples is 5 there and 6 now"),
        ("--seed=1", "seed is 0 there and 1 now"),
        ("--format=yolo", "format is coco there and yolo now"),
        ("--num_objects=2", "num_objects is not set there and 2 now"),
        ("--least_share=0.2", "least_share is 0.5 there and 0.2 now"),
    ):
        assert command(monkeypatch, *arguments, flag) == 1
        (line,) = capfd.readouterr().err.splitlines()
        assert line.startswith(f"asr_sample: error: {tmp_path}/a holds scenes of other settings: {message};")
    assert contents(tmp_path / "a") == before


def test_another_model_is_told(tiny_run, tmp_path, monkeypatch, capfd):
    arguments = [f"--output={tmp_path}/a", "--format=coco", "--num_samples=5"]
    assert command(monkeypatch, f"--workdir={tiny_run}", *arguments) == 0
    shutil.copytree(tiny_run, tmp_path / "run")
    model, _ = restore_model(tmp_path / "run")
    model.weights[0].assign(model.weights[0] + 1.0)
    Checkpoints(tmp_path / "run" / "checkpoints", model=model).save(1)
    assert command(monkeypatch, f"--workdir={tmp_path}/run", *arguments) == 1
    assert "holds scenes of other settings: the model is " in capfd.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        (["--format=voc"], 2, "flag --format=voc: value should be one of <coco|tfds|tfrecord|yolo>"),
        (["--format=coco", "--num_objects=9"], 1, "num_objects must be between 0 and 3, got 9."),
        (["--format=coco", "--output=/proc/none"], 1, "can't write in work folder /proc/none"),
    ],
)
def test_wrong_flags_are_told_on_one_line(tiny_run, tmp_path, monkeypatch, capfd, arguments, status, message):
    assert command(monkeypatch, f"--workdir={tiny_run}", f"--output={tmp_path}/a", *arguments) == status
    (line,) = capfd.readouterr().err.splitlines()
    assert line.startswith("asr_sample: error: ")
    assert message in line


@pytest.mark.parametrize("flag", ["--format=coco", "--num_objects=1", "--obey"])
def test_a_plain_autoencoder_has_no_objects(workdir, monkeypatch, capfd, flag):
    monkeypatch.setattr(testing_model.TinyModel, "finds_objects", False)
    assert command(monkeypatch, f"--workdir={workdir}", flag) == 1
    (line,) = capfd.readouterr().err.splitlines()
    name = flag.partition("=")[0]
    assert line == (
        f"asr_sample: error: {name} needs a model of objects; {workdir} holds a plain autoencoder: leave the flag out."
    )


def test_without_pycocotools_it_says_what_to_install(tiny_run, tmp_path, monkeypatch, capfd):
    monkeypatch.setitem(sys.modules, "pycocotools", None)
    arguments = [f"--workdir={tiny_run}", f"--output={tmp_path}/a", "--num_samples=3"]
    assert command(monkeypatch, *arguments, "--format=coco") == 1
    assert capfd.readouterr().err.splitlines()[0].endswith("pip install 'asr_tf[labelled]'")
    assert command(monkeypatch, *arguments, "--format=yolo") == 0
