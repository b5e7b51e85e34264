from __future__ import annotations

import pytest
import testing_model
from absl import flags

from asr_tf import evaluate_main
from asr_tf.runs import configuration
from asr_tf.runs import evaluate as evaluation
from asr_tf.runs.run_folder import RunFolderError
from asr_tf.training import fit


@pytest.fixture
def run(tmp_path, monkeypatch):
    """A finished run of the tiny model, and an evaluation that tells how it was called."""
    testing_model.install(monkeypatch)
    configuration.parse([], ["data.name = 'tiny'", "train.num_steps = 1", "train.jit_compile = False"])
    fit.train(str(tmp_path / "run"), manual_dir="/originals", data_dir="/prepared")
    calls = []

    def evaluate(workdir, data_dir, manual_dir, split):
        calls.append((workdir, data_dir, manual_dir, split))
        return {"count_accuracy": 0.98, "mean_iou": None, "negative_elbo_nats": 280.04, "train_seconds": 17.0}

    monkeypatch.setattr(evaluation, "evaluate", evaluate)
    return tmp_path / "run", calls


def test_headline_and_places_are_printed_without_what_is_not_known(run, capsys):
    workdir, calls = run
    testing_model.run_command(evaluate_main, f"--workdir={workdir}")
    assert capsys.readouterr().out.splitlines()[-5:] == [
        "count accuracy: 0.9800",
        "-ELBO: 280.0 nats an image",
        "training: 17 s",
        f"Report: {workdir / 'report.json'}",
        f"Figures: {workdir / 'figures'}",
    ]
    assert calls == [(str(workdir), None, None, "test")]  # folders are those of the training, see test_evaluation


def test_the_validation_split_is_read_instead_and_its_places_are_printed(run, capsys):
    workdir, calls = run
    testing_model.run_command(evaluate_main, f"--workdir={workdir}", "--split=validation")
    assert calls == [(str(workdir), None, None, "validation")]
    assert capsys.readouterr().out.splitlines()[-2:] == [
        f"Report: {workdir / 'report_validation.json'}",
        f"Figures: {workdir / 'figures_validation'}",
    ]


def test_there_is_no_evaluation_on_training_scenes(run):
    workdir, calls = run
    with pytest.raises(flags.IllegalFlagValueError, match=r"flag --split=train: .*validation\|test"):
        testing_model.run_command(evaluate_main, f"--workdir={workdir}", "--split=train")
    assert calls == []


def test_folders_of_data_can_be_given_anew(run):
    workdir, calls = run
    testing_model.run_command(evaluate_main, f"--workdir={workdir}", "--data_dir=/a", "--manual_dir=/b")
    assert calls == [(str(workdir), "/a", "/b", "test")]


def test_a_folder_without_a_run_is_told(tmp_path):
    with pytest.raises(RunFolderError, match=r"holds no run \(config.gin and run.json missing\)"):
        testing_model.run_command(evaluate_main, f"--workdir={tmp_path}")
