"""The shared edge of the commands, in processes of their own where streams and exit codes matter."""

from __future__ import annotations

import os
import pathlib
import subprocess
import sys

import pytest
from absl import flags

from asr_tf.runs import command_line

ROOT = pathlib.Path(command_line.__file__).resolve().parents[2]


def run_module(module, *arguments, cwd=None):
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    environment.pop("TF_CPP_MIN_LOG_LEVEL", None)
    return subprocess.run(
        [sys.executable, "-m", f"asr_tf.{module}", *arguments],
        capture_output=True,
        text=True,
        cwd=cwd,
        env=environment,
        timeout=120,
        check=False,
    )


@pytest.mark.parametrize(
    ("module", "own", "foreign"),
    [
        ("train_main", ["--workdir", "--gin_files", "--gin_bindings", "--seed", "--max_minutes",
                        "--data_dir", "--manual_dir"], ["--num_samples", "--verbosity", "--tfds"]),
        ("evaluate_main", ["--workdir", "--data_dir", "--manual_dir", "--split"], ["--seed", "--verbosity"]),
        ("sample_main", ["--workdir", "--num_samples", "--seed", "--num_objects", "--format", "--least_share",
                         "--[no]obey", "--output"],
         ["--gin_files", "--verbosity"]),
        ("score_main", ["--truth", "--found", "--output"], ["--workdir", "--verbosity"]),
    ],
)  # fmt: skip
def test_help_shows_own_flags_with_defaults_and_an_example(module, own, foreign):
    result = run_module(module, "--help")
    assert result.returncode == 0
    assert result.stderr == ""
    assert "Example:\n" in result.stdout
    shown = {line.strip() for line in result.stdout.splitlines() if line.startswith("  --")}
    assert shown == {*own, "--[no]debug"}
    assert result.stdout.count("(default: ") + result.stdout.count("(default:\n") == len(shown)
    assert not any(flag in result.stdout for flag in foreign)


@pytest.mark.parametrize(
    ("module", "arguments", "message"),
    [
        ("train_main", [], "asr_train: error: --workdir is needed"),
        ("train_main", ["--workdir=w"], "asr_train: error: --gin_files is needed"),
        ("train_main", ["--wrokdir=w"], "unknown flag --wrokdir; did you mean --workdir?"),
        ("train_main", ["--workdir=w", "stray"], "unexpected argument 'stray'"),
        ("train_main", ["--seed=-1"], "flag --seed=-1"),
        ("train_main", ["--workdir=w", "--gin_files=models/asr.gin", "--max_minutes=0"],
         "--max_minutes must be above 0 and finite, got 0.0"),
        ("train_main", ["--workdir=w", "--gin_files=models/asr.gin", "--max_minutes=inf"],
         "--max_minutes must be above 0 and finite, got inf"),
        ("train_main", ["--workdir=w", "--gin_files=modles/asr.gin"], "did you mean models/asr.gin?"),
        ("train_main", ["--workdir=w", f"--gin_files={'x' * 300}"], "File name too long"),
        ("train_main", ["--workdir=w", "--gin_files=~nobody-here/x.gin"], "Could not determine home directory"),
        ("train_main", ["--verbosity", "1", "--workdir=w"], "asr_train: error: --gin_files is needed"),
        ("train_main", ["stray", "--workdir=w", "--gin_files=models/asr.gin"], "unexpected argument 'stray'"),
        ("evaluate_main", [], "asr_evaluate: error: --workdir is needed"),
        ("sample_main", ["--workdir=w", "--num_samples=0"], "flag --num_samples=0"),
        ("score_main", ["--truth=t.npz", "--output=s.json"], "asr_score: error: --found is needed"),
        ("score_main", ["--truth=t.npz", "--found=f.npz", "--output=no/s.json"], "--output: there is no folder"),
        ("score_main", ["--truth=t.npz", "--found=f.npz", "--output=/"], "--output: / is a folder; give the name of a"),
        ("score_main", ["--truth=t.npz", "--found=f.npz", f"--output={__file__}/s"], "--output: there is no folder"),
        ("sample_main", ["--workdir=w", f"--output={__file__}"],
         f"--output: '{__file__}' can't be a folder, because '{__file__}' is no folder; give another one."),
        ("sample_main", ["--workdir=w", f"--output={__file__}/deep/er"], f"because '{__file__}' is no folder; give"),
        ("sample_main", ["--workdir=w", "--least_share=nan"], "--least_share must be finite, got nan"),
        ("export.export_main", ["--workdir=w", f"--export_dir={__file__}"], f"because '{__file__}' is no folder; give"),
    ],
)  # fmt: skip
def test_wrong_flags_end_in_one_line_before_anything_heavy(module, arguments, message, tmp_path):
    result = run_module(module, *arguments, cwd=tmp_path)
    assert result.returncode == 2
    assert result.stdout == ""
    assert len(result.stderr.splitlines()) == 1
    assert message in result.stderr
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("module", "arguments", "message"),
    [
        ("train_main", ["--workdir=w", "--gin_files=quickstart.gin",
                        "--gin_bindings=trian.batch_size=3"],
         "asr_train: error: no configurable is called 'trian'; did you mean 'train'?"),
        ("evaluate_main", ["--workdir=w"], "asr_evaluate: error: w holds no run"),
    ],
)  # fmt: skip
def test_errors_end_in_one_line_without_noise_from_tensorflow(module, arguments, message, tmp_path):
    result = run_module(module, *arguments, cwd=tmp_path)
    assert result.returncode == 1
    assert len(result.stderr.splitlines()) == 1, result.stderr
    assert result.stderr.startswith(message)


def test_debug_shows_the_traceback(tmp_path):
    result = run_module("sample_main", "--workdir=w", "--debug", cwd=tmp_path)
    assert result.returncode == 1
    assert "Traceback" in result.stderr
    assert result.stderr.splitlines()[-1].startswith("asr_sample: error: w holds no run")


def launch(monkeypatch, main, arguments=(), **settings):
    monkeypatch.setenv("TF_CPP_MIN_LOG_LEVEL", "2")
    monkeypatch.setattr(sys, "argv", ["tool", *arguments])
    own = flags.FlagValues()
    command_line.define_debug(own)
    with pytest.raises(SystemExit) as stopped:
        command_line.launch("tool", "Doc.", own, main, lambda: None, **settings)
    return stopped.value.code


def raiser(error):
    def main():
        raise error

    return main


def test_an_interruption_says_where_it_stopped(monkeypatch, capsys):
    code = launch(monkeypatch, raiser(KeyboardInterrupt("at step 3")))
    assert code == 130
    assert capsys.readouterr().err.strip() == "tool: interrupted at step 3."


def test_a_defect_is_named_by_its_type(monkeypatch, capsys):
    code = launch(monkeypatch, raiser(ZeroDivisionError("division by zero")))
    assert code == 1
    assert capsys.readouterr().err == (
        "tool: error: ZeroDivisionError: division by zero (--debug shows where)\n"
    )


def test_success_is_zero(monkeypatch):
    assert not launch(monkeypatch, lambda: None)


def test_a_command_runs_keras_on_tensorflow_whatever_the_user_has_set(monkeypatch):
    monkeypatch.setenv("KERAS_BACKEND", "jax")
    found = []
    assert not launch(monkeypatch, lambda: found.append(os.environ["KERAS_BACKEND"]))
    assert found == ["tensorflow"]


def test_a_command_tunes_its_process_before_it_works_and_help_does_not(monkeypatch):
    calls = []
    monkeypatch.setattr(command_line.fast, "tune_process", lambda: calls.append("tuned"))
    assert not launch(monkeypatch, lambda: calls.append("worked"), ["--help"])
    assert not launch(monkeypatch, lambda: calls.append("worked"))
    assert calls == ["tuned", "worked"]
    assert not launch(monkeypatch, lambda: calls.append("untuned"), tuned=False)
    assert calls[2:] == ["untuned"]


def test_lines_that_gin_adds_are_left_out():
    error = ValueError("wrong value\n  In call to configurable 'train' (<function train>)")
    assert command_line.error_line("tool", error) == "tool: error: wrong value"
