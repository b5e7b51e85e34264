"""The command asr_score."""

from __future__ import annotations

import json

import numpy as np
import pytest
import testing_model

from asr_tf import score_main
from asr_tf.evaluation.score import score


def _arrays(seed):
    rng = np.random.default_rng(seed)
    low = rng.uniform(0.0, 0.5, (6, 3, 2))
    count = rng.integers(0, 4, 6)
    masks = rng.uniform(0.0, 0.5, (6, 3, 8, 9))
    return {"count": count, "boxes": np.concatenate([low, low + 0.3], -1), "masks": masks, "scores": low[..., 0]}


def test_scores_are_written_and_shown(tmp_path, capsys):
    true, found = _arrays(0), _arrays(1)
    np.savez(tmp_path / "t.npz", **true)
    np.savez(tmp_path / "f[1].npz", **found)
    output = tmp_path / "s*[1].json"
    files = [f"--{name}={tmp_path / file}" for name, file in (("truth", "t.npz"), ("found", "f[1].npz"))]
    testing_model.run_command(score_main, *files, f"--output={output}")
    written = json.loads(output.read_text())
    del true["scores"]
    assert written == score(found, true)
    assert f"count_mae: {written['count_mae']:.4f}" in capsys.readouterr().out


def test_wrong_arrays_are_refused_and_leave_the_output(tmp_path):
    output = tmp_path / "s.json"
    output.write_text("before")
    np.savez(tmp_path / "t.npz", **_arrays(0))
    np.savez(tmp_path / "f.npz", boxes=np.zeros((6, 3, 4)))
    flags = f"--truth={tmp_path / 't.npz'}", f"--found={tmp_path / 'f.npz'}", f"--output={output}"
    with pytest.raises(ValueError, match=r"found arrays must have count, int \[N\], got boxes\."):
        testing_model.run_command(score_main, *flags)
    assert output.read_text() == "before"
