"""TensorFlow's own `saved_model_cli` shows and runs an export."""

import subprocess
import sys

import numpy as np
import testing_export


def _cli(*arguments):
    command = [sys.executable, "-m", "tensorflow.python.tools.saved_model_cli", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_show_names_inputs_and_outputs(tiny_export):
    shown = _cli("show", "--dir", str(tiny_export / "1"), "--tag_set", "serve", "--signature_def", "infer")
    assert "inputs['images'] tensor_info:" in shown
    assert "shape: (-1, 12, 14, 1)" in shown
    for name in ("boxes", "count", "count_probs", "masks", "presence", "reconstruction", "scores", "z_what"):
        assert f"outputs['{name}'] tensor_info:" in shown


def test_run_answers_as_the_model_does(tiny_export, tmp_path):
    images = testing_export.images(4)
    np.save(tmp_path / "images.npy", images)
    _cli(
        *("run", "--dir", str(tiny_export / "1"), "--tag_set", "serve", "--signature_def", "infer"),
        *("--inputs", f"images={tmp_path / 'images.npy'}", "--outdir", str(tmp_path)),
    )
    wanted = testing_export.tiny_model().infer(images)
    for name, value in wanted.items():
        np.testing.assert_allclose(np.load(tmp_path / f"{name}.npy"), value, rtol=0, atol=1e-5, err_msg=name)
