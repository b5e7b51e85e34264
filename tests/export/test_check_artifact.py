"""The check of an export finds what is wrong with it, and says so on one line."""

import json
import os
import shutil
import subprocess
import sys

import numpy as np
import pytest
import testing_export

from asr_tf.export import artifact, check_artifact, check_main, exporter
from asr_tf.networks.prior import AIRPrior


@pytest.fixture
def copy(tiny_export, tmp_path):
    return shutil.copytree(tiny_export / "1", tmp_path / "1")


def verdicts(folder):
    return list(check_artifact._verdicts(folder))


def with_new_checksums(folder):
    """As if the export had been so from the start."""
    card = json.loads((folder / artifact.CARD).read_text())
    card["files"] = artifact.checksums(folder)
    (folder / artifact.CARD).write_text(json.dumps(card))


def test_a_good_export_in_a_process_of_its_own(tiny_export):
    """The command, with its status and all its lines; asr_tf, keras and TFP can't be imported where the model is."""
    command = [sys.executable, "-m", "asr_tf.export.check_main", str(tiny_export)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    lines = done.stdout.splitlines()
    assert done.returncode == 0, done.stdout + done.stderr
    assert all(line.startswith("ok   ") for line in lines)
    assert any("without asr_tf, keras, tf_keras, tensorflow_probability" in line for line in lines)
    for name in ("infer", "refine", "sample", "render", "log_likelihood", "serving_default"):
        assert any(line.startswith(f"ok   {name} gives the golden values in 2 batches") for line in lines)
    assert "ok   infer refuses images with NaN" in lines


@pytest.mark.parametrize("name", ["x*[2]", "a\\b"])
def test_a_folder_may_have_any_name(tiny_export, tmp_path, name):
    folder = shutil.copytree(tiny_export, tmp_path / name) / "1"
    before = os.getcwd()
    assert "infer refuses images with NaN" in verdicts(folder)
    assert os.getcwd() == before


def _given_count():
    parts = {
        "recognition": testing_export.tiny_part("recognition", second_look=2.0),
        "prior": testing_export.tiny_part("prior", placement_grid=9, learn_scale=True),
    }
    return testing_export.tiny_model(exact_count=2, **parts)


MODELS = {
    "AIR": lambda: testing_export.tiny_model(prior=AIRPrior()),
    "given count": _given_count,
    "RGB": lambda: testing_export.tiny_model(channels=3),
}


@pytest.mark.parametrize("name", MODELS)
def test_exports_of_other_models_are_good(name, tmp_path):
    folder = exporter.export_model(MODELS[name](), tmp_path, warmup=False)
    lines = verdicts(folder)
    for name in ("infer", "refine", "sample", "render", "log_likelihood", "serving_default"):
        assert any(line.startswith(f"{name} gives the golden values") for line in lines), lines


def test_refused_packages_can_not_be_imported(tmp_path):
    script = check_main.pathlib.Path(check_artifact.__file__)
    code = (
        f"import sys; sys.path.insert(0, {str(script.parent)!r}); import check_artifact as c;"
        f"status = c.main([{str(tmp_path)!r}]);\n"
        "for name in ('asr_tf', 'keras.src', 'tensorflow_probability'):\n"
        "    try: __import__(name)\n"
        "    except ImportError: print('refused', name)\n"
        "sys.exit(status)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.stdout.splitlines() == [
        f"FAIL model_card.json is missing in {tmp_path}",
        "refused asr_tf",
        "refused keras.src",
        "refused tensorflow_probability",
    ]
    assert done.returncode == 1


def _damage_card(folder):
    (folder / artifact.CARD).write_text('{"files": ')


def _remove_weights(folder):
    (folder / "variables" / "variables.index").unlink()


def _cut_short(folder):
    path = folder / "saved_model.pb"
    path.write_bytes(path.read_bytes()[:1000])


def _change_weights(folder):
    path = folder / "variables" / "variables.data-00000-of-00001"
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 0x40
    path.write_bytes(data)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (_damage_card, "model_card.json is damaged: "),
        (_remove_weights, "variables/variables.index is missing"),
        (_cut_short, r"saved_model.pb has 1000 bytes, not \d+: cut short or replaced"),
        (_change_weights, r"variables.data-00000-of-00001 isn't what was exported \(its SHA-256 differs\)"),
    ],
)
def test_damaged_files_are_named(copy, damage, message):
    damage(copy)
    with pytest.raises(check_artifact._Fault, match=message):
        verdicts(copy)


def test_answers_are_held_against_golden_values(copy):
    """Where the files are whole, but the model isn't the one that it was."""
    with np.load(copy / artifact.GOLDEN) as arrays:
        golden = dict(arrays)
    golden["infer/1/outputs/z_what"] = golden["infer/1/outputs/z_what"] + np.float32(1e-3)
    np.savez(copy / artifact.GOLDEN, **golden)
    with_new_checksums(copy)
    with pytest.raises(check_artifact._Fault, match=r"infer: z_what differs from the golden values by up to 0.001"):
        verdicts(copy)


def test_a_signature_without_golden_values(copy):
    with np.load(copy / artifact.GOLDEN) as arrays:
        kept = {key: value for key, value in arrays.items() if not key.startswith("render/")}
    np.savez(copy / artifact.GOLDEN, **kept)
    with_new_checksums(copy)
    with pytest.raises(check_artifact._Fault, match="signature render is missing in assets.extra/golden.npz"):
        verdicts(copy)


@pytest.mark.parametrize(
    ("answers", "message"),
    [
        ({"a": np.zeros(2, np.float32)}, "gives a instead of a, b"),
        ({"a": np.zeros(3, np.float32), "b": np.int32(1)}, r"a is float32 \(3,\) instead of float32 \(2,\)"),
        ({"a": np.zeros(2, np.float64), "b": np.int32(1)}, "a is float64"),
        ({"a": np.zeros(2, np.float32), "b": np.int32(2)}, "b differs from the golden values by up to 1"),
        ({"a": np.float32([0, np.nan]), "b": np.int32(1)}, "a differs from the golden values by up to nan"),
    ],
)
def test_what_counts_as_different(answers, message):
    wanted = {"a": np.zeros(2, np.float32), "b": np.int32(1)}
    with pytest.raises(check_artifact._Fault, match=message):
        check_artifact._compare(answers, wanted, 1e-5)
    assert check_artifact._compare({"a": np.float32([5e-6, 0]), "b": np.int32(1)}, wanted, 1e-5) == pytest.approx(5e-6)
