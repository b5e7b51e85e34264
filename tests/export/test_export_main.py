"""The commands' flags and messages; what they do is tested beside what they call."""

import pytest
from absl import flags
from testing_model import run_command

from asr_tf.export import artifact, check_main, export_main, exporter
from asr_tf.runs.run_folder import RunFolderError


def test_flags_arrive(monkeypatch, tmp_path, capsys):
    calls = []
    monkeypatch.setattr(exporter, "export_run", lambda *arguments: calls.append(arguments) or tmp_path / "7")
    arguments = ("--workdir=W", "--export_dir=D", "--version=7", "--format=tflite", "--nowarmup")
    run_command(export_main, *arguments)
    run_command(export_main, "--workdir=W", "--export_dir=D")
    assert calls == [("W", "D", 7, "tflite", False), ("W", "D", None, "savedmodel", True)]
    assert f"Exported: {tmp_path / '7'}\nNext: asr_check_export D\n" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--export_dir=D"], "--workdir is needed"),
        (["--workdir=W"], "--export_dir is needed"),
        (["--workdir=W", "--export_dir=D", "--version=0"], "version"),
        (["--workdir=W", "--export_dir=D", "--format=onnx"], r"savedmodel\|tflite"),
    ],
)
def test_wrong_flags(arguments, message):
    with pytest.raises(flags.Error, match=message):
        run_command(export_main, *arguments)


def test_a_folder_without_a_run(tmp_path):
    with pytest.raises(RunFolderError, match="holds no run"):
        run_command(export_main, f"--workdir={tmp_path}", f"--export_dir={tmp_path / 'D'}")
    assert not (tmp_path / "D").exists()


def test_check_of_a_folder_without_an_export(tmp_path):
    with pytest.raises(flags.Error, match="--export_dir is needed"):
        run_command(check_main)
    with pytest.raises(artifact.ExportError, match="holds no exported version"):
        run_command(check_main, f"--export_dir={tmp_path}")
