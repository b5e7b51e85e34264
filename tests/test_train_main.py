from __future__ import annotations

import json
import os
import signal
import sys

import gin
import pytest
import testing_model

from asr_tf import train_main
from asr_tf.runs.configuration import ConfigurationError
from asr_tf.runs.run_folder import RunFolder, RunFolderError
from asr_tf.training import fit

TINY = "train.num_steps = 2\ntrain.batch_size = 4\ntrain.jit_compile = False\ndata.name = 'tiny'\n"


@pytest.fixture
def gin_file(tmp_path, monkeypatch):
    testing_model.install(monkeypatch)
    path = tmp_path / "tiny.gin"
    path.write_text(TINY)
    return path


def train(*arguments):
    testing_model.run_command(train_main, *arguments)


def test_training_ends_with_where_things_lie_and_the_headline(gin_file, tmp_path, capsys):
    run = tmp_path / "run"
    arguments = [f"--workdir={run}", f"--gin_files={gin_file}", "--seed=4", "--manual_dir=/originals"]
    train(*arguments)
    output = capsys.readouterr().out
    assert output.startswith("Training finished: 0.0 minutes of training; step 2, loss ")
    assert "count 0.500, IoU 0.250" in output
    assert f"The run lies in {run}: checkpoints/" in output
    info = json.loads((run / "run.json").read_text())
    assert (info["seed"], info["manual_dir"], info["max_minutes"]) == (4, "/originals", None)
    train(*arguments)
    assert capsys.readouterr().out.startswith("Training was finished already: ")


def test_what_is_a_flag_is_no_binding(gin_file, tmp_path):
    run = tmp_path / "run"
    arguments = [f"--workdir={run}", f"--gin_files={gin_file}", "--gin_bindings=train.seed = 3"]
    with pytest.raises(ConfigurationError, match="train.seed is bound to 3, but the flag decides: give --seed=3"):
        train(*arguments)
    assert not run.exists()
    train(*arguments, "--seed=3")
    assert json.loads((run / "run.json").read_text())["seed"] == 3


def test_the_seed_of_a_model_is_a_flag_too(gin_file, tmp_path):
    arguments = [f"--workdir={tmp_path / 'run'}", f"--gin_files={gin_file}", "--gin_bindings=ASRModel.seed = 3"]
    with pytest.raises(ConfigurationError, match="ASRModel.seed is bound to 3, but the flag decides: give --seed=3"):
        train(*arguments)


def test_a_folder_of_images_is_found_again_from_any_folder(gin_file, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    train("--workdir=run", f"--gin_files={gin_file}", "--gin_bindings=data.path = 'images'")
    assert gin.query_parameter("data.path") == f"{tmp_path}/images"


def test_a_saved_configuration_finds_its_modules(gin_file, tmp_path, monkeypatch):
    """`asr_train --gin_files=config.gin`, as the file itself says, of a run with rules of its own."""
    project = tmp_path / "project"
    project.mkdir()
    (project / "rules_of_a_run.py").write_text("")
    (project / "mine.gin").write_text(f"import rules_of_a_run\ninclude '{gin_file}'\n")
    train(f"--workdir={tmp_path / 'run'}", f"--gin_files={project / 'mine.gin'}")
    sys.modules.pop("rules_of_a_run")
    monkeypatch.chdir(tmp_path)
    train(f"--workdir={tmp_path / 'again'}", f"--gin_files={tmp_path / 'run' / 'config.gin'}")
    assert sys.modules.pop("rules_of_a_run").__file__ == str(project / "rules_of_a_run.py")


def test_two_at_once_in_a_folder_are_kept_apart(gin_file, tmp_path):
    run = tmp_path / "run"
    with RunFolder(run).only_one(), pytest.raises(RunFolderError, match="another asr_train is at work in"):
        fit.train(run)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_process_that_is_asked_to_end_saves_and_says_how_to_go_on(gin_file, tmp_path, monkeypatch, number):
    arguments = [f"--workdir={tmp_path / 'run'}", f"--gin_files={gin_file}", "--gin_bindings=train.num_steps = 4"]
    arguments += ["--gin_bindings=train.steps_per_execution = 2"]
    clock, save = fit.callbacks.Clock.on_train_batch_end, fit.callbacks.CheckpointSaver.save
    before = signal.signal(number, signal.SIG_DFL)  # nohup leaves SIGHUP ignored

    def asked(self, batch, logs=None):
        clock(self, batch, logs)
        os.kill(os.getpid(), number)

    def asked_again(self):
        os.kill(os.getpid(), number)
        save(self)

    with monkeypatch.context() as killed:
        killed.setattr(fit.callbacks.Clock, "on_train_batch_end", asked)
        killed.setattr(fit.callbacks.CheckpointSaver, "save", asked_again)
        with pytest.raises(KeyboardInterrupt, match="at step 2, which is saved; the same command goes on from there"):
            train(*arguments)
    assert signal.getsignal(number) == signal.SIG_DFL
    signal.signal(number, before)
    assert json.loads((tmp_path / "run" / "run.json").read_text())["steps"] == 2
    train(*arguments)
    assert json.loads((tmp_path / "run" / "run.json").read_text())["steps"] == 4


def test_a_training_that_is_to_outlive_its_terminal_does(gin_file, tmp_path, monkeypatch):
    """As under `nohup`."""
    clock = fit.callbacks.Clock.on_train_batch_end

    def hung_up(self, batch, logs=None):
        clock(self, batch, logs)
        os.kill(os.getpid(), signal.SIGHUP)

    monkeypatch.setattr(fit.callbacks.Clock, "on_train_batch_end", hung_up)
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        train(f"--workdir={tmp_path / 'run'}", f"--gin_files={gin_file}")
    finally:
        signal.signal(signal.SIGHUP, before)
    assert json.loads((tmp_path / "run" / "run.json").read_text())["finished"]


def test_bindings_win_over_files_and_may_be_repeated(gin_file, tmp_path):
    run = tmp_path / "run"
    bindings = ["--gin_bindings=train.batch_size = 3", "--gin_bindings=train.warmup_steps = 7"]
    train(f"--workdir={run}", f"--gin_files={gin_file}", *bindings)
    settings = (run / "config.gin").read_text()
    assert "train.batch_size = 3\n" in settings
    assert "train.warmup_steps = 7\n" in settings
    with pytest.raises(RunFolderError, match=r"train.batch_size is 3 there and 4 now"):
        train(f"--workdir={run}", f"--gin_files={gin_file}", bindings[1])
