"""The guide to rules of one's own: its files train from an empty folder, and its code runs as it is shown."""

from __future__ import annotations

import os
import re
import subprocess
import sys

import source_tree

TEXT = (source_tree.ROOT / "docs" / "your_own_rules.md").read_text(encoding="utf-8")
TINY = (
    "ASRModel.what_size = 4",
    "ConvRecognition.filters = 4",
    "ConvRecognition.encoder_units = (8,)",
    "MLPDecoder.units = (8,)",
    "AutoregressivePrior.rnn_units = 8",
    "train.num_steps = 2",
    "train.batch_size = 4",
    "train.jit_compile = False",
    "train.validation_size = 4",
    "data.num_train = 32",
)


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", TEXT, re.MULTILINE | re.DOTALL)


def run(command, folder):
    environment = os.environ | {"PYTHONPATH": str(source_tree.ROOT)}
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return done


def test_a_function_named_in_gin_trains(tmp_path):
    """The two files of the guide, from an empty folder, by the command that it gives."""
    function, *_ = blocks("python")
    (gin_file,) = blocks("gin")
    (tmp_path / "my_rules.py").write_text(function)
    (tmp_path / "my_scenes.gin").write_text(gin_file)
    files = re.findall(r"--gin_files=(\S+)", re.search(r"^ +asr_train .*$", TEXT, re.MULTILINE).group())
    arguments = ["--workdir=W", *(f"--gin_files={name}" for name in files), f"--data_dir={tmp_path / 'data'}"]
    bindings = [f"--gin_bindings={line}" for line in TINY]
    run([sys.executable, "-m", "asr_tf.train_main", *arguments, *bindings], tmp_path)
    metrics = (tmp_path / "W" / "metrics.jsonl").read_text()
    assert "multiplier_" in metrics and "in_upper_half" in metrics


def test_a_class_and_its_trial_run(tmp_path):
    _, rule, trial = blocks("python")
    (tmp_path / "trial.py").write_text(rule + trial)
    run([sys.executable, "trial.py"], tmp_path)
