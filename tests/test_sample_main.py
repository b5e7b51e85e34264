from __future__ import annotations

import numpy as np
import pytest
import testing_model

from asr_tf import sample_main
from asr_tf.runs import configuration
from asr_tf.runs.run_folder import RunFolderError
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
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        sample(f"--workdir={workdir}", "--num_samples=5", f"--seed={seed}", f"--output={tmp_path / name}")
    a, b, c = (np.load(tmp_path / name / "samples.npz")["images"] for name in "abc")
    np.testing.assert_array_equal(a, b)
    assert np.abs(a - c).max() > 0.1
    assert np.abs(a[:2] - a[2:4]).max() > 0.1


def test_a_folder_without_a_checkpoint_is_told(workdir):
    for path in (workdir / "checkpoints").iterdir():
        path.unlink()
    with pytest.raises(RunFolderError, match="holds no checkpoint yet"):
        sample(f"--workdir={workdir}")
