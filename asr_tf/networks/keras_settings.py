"""What Keras takes from its user's settings and a model of this package needs otherwise.

Keras reads `~/.keras/keras.json` (or that in `KERAS_HOME`) and `KERAS_BACKEND` when it is imported.

Contract: weights are float32 and images are channels last, whatever is set there; nothing of the process changes for
other code that uses Keras.  A backend that isn't TensorFlow is refused in one line.
"""

from __future__ import annotations

import contextlib
import json
import os
import pathlib
import sys
from collections.abc import Iterator

__all__ = ["check_backend", "check_fit_is_whole", "own_settings"]

_BACKEND, _FLOAT, _FORMAT = "tensorflow", "float32", "channels_last"


def check_backend() -> None:
    """Passes where Keras runs on TensorFlow, or will when it is imported; imports nothing.

    Raises:
        ImportError: it runs on another backend; tells what asks for that.
    """
    backend, origin = _asked_backend()
    if backend != _BACKEND:
        raise ImportError(
            f"asr_tf needs Keras on TensorFlow, but {origin} asks for {backend!r}: set KERAS_BACKEND={_BACKEND} in the "
            "environment before Keras is imported."
        )


def check_fit_is_whole() -> None:
    """Passes where Keras lets a training run to its end.

    Raises:
        ValueError: the environment has a setting, made for debugging, by which `fit` stops early without a word.
    """
    for name in ("KERAS_MAX_EPOCHS", "KERAS_MAX_STEPS_PER_EPOCH"):
        if value := os.environ.get(name):
            raise ValueError(f"{name}={value} in the environment would cut this training short: unset it.")


def _asked_backend() -> tuple[str, str]:
    """The backend, and what asks for it."""
    if "keras" in sys.modules and (asked := getattr(sys.modules["keras"], "backend", None)):
        return asked.backend(), "the Keras that is imported already"
    if asked := os.environ.get("KERAS_BACKEND"):
        return asked, "KERAS_BACKEND"
    file = pathlib.Path(os.environ.get("KERAS_HOME") or "~/.keras").expanduser() / "keras.json"
    try:
        return json.loads(file.read_text(encoding="utf-8")).get("backend", _BACKEND), str(file)
    except (OSError, ValueError, AttributeError):  # Keras, too, does without
        return _BACKEND, str(file)


@contextlib.contextmanager
def own_settings() -> Iterator[None]:
    """Within it, Keras makes layers with float32 weights, channels last; a policy of mixed precision stays as it is."""
    import keras

    config = keras.config
    before = config.floatx(), config.image_data_format(), config.dtype_policy()
    if before[:2] == (_FLOAT, _FORMAT) and before[2].variable_dtype == _FLOAT:
        yield
        return
    try:
        config.set_floatx(_FLOAT)
        config.set_image_data_format(_FORMAT)
        if before[2].variable_dtype != _FLOAT:
            config.set_dtype_policy(_FLOAT)
        yield
    finally:
        config.set_floatx(before[0])
        config.set_image_data_format(before[1])
        config.set_dtype_policy(before[2])
