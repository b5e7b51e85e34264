"""What the user of Keras has set for other code changes no model, and a model changes nothing for that code."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import textwrap

import keras
import numpy as np
import pytest
import source_tree
import tensorflow as tf
import testing_asr_model

from asr_tf.networks import keras_settings
from asr_tf.networks.conv_recognition import ConvRecognition


def _in_a_process(code, home, **environment):
    """The process that ran `code` with `home` as Keras's folder."""
    paths = os.pathsep.join([str(source_tree.ROOT), str(source_tree.TESTS)])
    known = {name: value for name, value in os.environ.items() if name != "KERAS_BACKEND"}
    known |= {"KERAS_HOME": str(home), "PYTHONPATH": paths, "TF_CPP_MIN_LOG_LEVEL": "3"} | environment
    return subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)], env=known, capture_output=True, text=True, timeout=300
    )


def numbers_of_a_model():
    """(Dtypes of the variables, numbers) of a model that has learned for a step, and been saved and loaded."""
    recognition = ConvRecognition(filters=4, look_size=4, look_units=6, encoder_units=(8,))
    model = testing_asr_model.tiny(recognition=recognition)
    model.compile("adam")
    images = testing_asr_model.images()
    history = model.fit(tf.data.Dataset.from_tensors({"image": images}), verbose=0).history
    found = model.infer(images)
    variables = [*model.variables, *model.optimizer.variables, *model.metrics[0].variables]
    numbers = [*history["loss"], *(float(np.sum(found[name], dtype=np.float64)) for name in sorted(found))]
    return sorted({variable.dtype for variable in variables}), numbers


def test_floatx_and_data_format_of_the_user_change_no_model(tmp_path):
    wanted = {"floatx": "float64", "image_data_format": "channels_first"}
    (tmp_path / "keras.json").write_text(json.dumps(wanted))
    code = """
        import json, keras
        from networks.test_keras_settings import numbers_of_a_model
        model = numbers_of_a_model()
        user = keras.config.floatx(), keras.config.image_data_format(), keras.layers.Dense(1).dtype
        print(json.dumps([*model, user]))
    """
    done = _in_a_process(code, tmp_path)
    assert done.returncode == 0, done.stderr
    dtypes, numbers, user = json.loads(done.stdout.splitlines()[-1])
    assert dtypes == ["bool", "float32", "int64"]
    assert user == ["float64", "channels_first", "float64"]  # as before
    np.testing.assert_allclose(numbers, numbers_of_a_model()[1], rtol=1e-6)


def test_settings_come_back_after_an_error_and_mixed_precision_stays():
    previous = keras.config.dtype_policy()
    try:
        keras.config.set_dtype_policy("mixed_bfloat16")
        keras.config.set_floatx("float16")
        with pytest.raises(ZeroDivisionError), keras_settings.own_settings():
            assert keras.config.floatx() == "float32"
            assert keras.layers.Dense(1).dtype_policy.name == "mixed_bfloat16"
            raise ZeroDivisionError
        assert keras.config.floatx() == "float16"
    finally:
        keras.config.set_floatx("float32")
        keras.config.set_dtype_policy(previous)


@pytest.mark.parametrize("asked_by", ["KERAS_BACKEND", "keras.json"])
def test_another_backend_ends_in_one_line(tmp_path, asked_by):
    """Before Keras is imported, which would look for JAX; what does without Keras works."""
    code = """
        import asr_tf, sys
        asr_tf.Client, asr_tf.Scenes
        modules = "asr_tf.models", "asr_tf.training.fit"
        uses = [lambda: asr_tf.ASRModel, lambda: asr_tf.restore_model, *(lambda m=m: __import__(m) for m in modules)]
        for use in uses:
            try:
                use()
            except ImportError as error:
                print(error)
        assert "keras" not in sys.modules
    """
    environment = {}
    if asked_by == "KERAS_BACKEND":
        environment["KERAS_BACKEND"] = "jax"
    else:
        asked_by = str(tmp_path / "keras.json")
        (tmp_path / "keras.json").write_text('{"backend": "jax"}')
    done = _in_a_process(code, tmp_path, **environment)
    assert done.returncode == 0, done.stderr
    line = (
        f"asr_tf needs Keras on TensorFlow, but {asked_by} asks for 'jax': set KERAS_BACKEND=tensorflow in the "
        "environment before Keras is imported."
    )
    assert done.stdout.splitlines() == [line] * 4


def test_damaged_settings_are_passed_over_as_keras_does(tmp_path, monkeypatch):
    monkeypatch.delitem(sys.modules, "keras")
    monkeypatch.delenv("KERAS_BACKEND", raising=False)
    monkeypatch.setenv("KERAS_HOME", str(tmp_path))
    keras_settings.check_backend()
    for text in ("{", "[]", "{}"):
        (tmp_path / "keras.json").write_text(text)
        keras_settings.check_backend()


@pytest.mark.parametrize("name", ["KERAS_MAX_EPOCHS", "KERAS_MAX_STEPS_PER_EPOCH"])
def test_a_training_is_not_cut_short_without_a_word(monkeypatch, name):
    keras_settings.check_fit_is_whole()
    monkeypatch.setenv(name, "3")
    with pytest.raises(ValueError, match=f"{name}=3 in the environment would cut this training short: unset it"):
        keras_settings.check_fit_is_whole()
