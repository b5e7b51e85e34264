"""Checks the folder of an exported version; run as a script, in a process that has TensorFlow and NumPy only.

    python check_artifact.py FOLDER

Files are held against the checksums in the model's card, then each signature is called at two batch sizes and its
answers are held against the golden values.  Prints `ok` or `FAIL` and a verdict a line; the status is 1 after a FAIL.
Imports nothing of asr_tf, and sees to it that nothing else does.
"""

from __future__ import annotations

import hashlib
import json
import os
import pathlib
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

__all__ = ["main"]

_REFUSED = ("asr_tf", "keras", "tf_keras", "tensorflow_probability")
_CARD = "model_card.json"
_TFLITE = "model.tflite"
_GOLDEN = "assets.extra/golden.npz"
# A part of a value and an absolute one: sums are taken in another order on another machine.
_TOLERANCE = 1e-5
_TOLERANCE_TFLITE = 1e-4
_TOLERANCE_REFINE = 1e-3  # an ascent magnifies such differences


class _Fault(Exception):
    """Something is wrong with the export; the message is one line."""


def _one_line(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    told = [line for line in lines if line.startswith("assertion failed")]  # by the graph, under TensorFlow's headings
    return (told or lines or [type(error).__name__])[0]


def _read_card(folder: pathlib.Path) -> dict[str, Any]:
    path = folder / _CARD
    if not path.is_file():
        raise _Fault(f"{_CARD} is missing in {folder}")
    try:
        card = json.loads(path.read_text(encoding="utf-8"))
        files, signatures = card["files"], card["signatures"]
    except (ValueError, KeyError, TypeError) as error:
        raise _Fault(f"{_CARD} is damaged: {_one_line(error)}") from error
    return {**card, "files": files, "signatures": signatures}


def _check_files(folder: pathlib.Path, files: dict[str, dict[str, Any]]) -> str:
    for name, wanted in files.items():
        path = folder / name
        if not path.is_file():
            raise _Fault(f"{name} is missing")
        size = path.stat().st_size
        if size != wanted["bytes"]:
            raise _Fault(f"{name} has {size} bytes, not {wanted['bytes']}: cut short or replaced")
        if hashlib.sha256(path.read_bytes()).hexdigest() != wanted["sha256"]:
            raise _Fault(f"{name} isn't what was exported (its SHA-256 differs)")
    return f"{len(files)} files as exported"


def _golden(folder: pathlib.Path) -> dict[str, dict[str, dict[str, dict[str, Any]]]]:
    """signature -> case -> "inputs" or "outputs" -> name -> array."""
    import numpy as np

    found: dict[str, Any] = {}
    with np.load(folder / _GOLDEN) as arrays:
        for key, value in arrays.items():
            signature, case, side, name = key.split("/")
            found.setdefault(signature, {}).setdefault(case, {}).setdefault(side, {})[name] = value
    return found


def _compare(answers: dict[str, Any], wanted: dict[str, Any], tolerance: float) -> float:
    """The largest difference; fails where names, shapes or dtypes differ, or a number by more than the tolerance."""
    import numpy as np

    if set(answers) != set(wanted):
        raise _Fault(f"gives {', '.join(sorted(answers))} instead of {', '.join(sorted(wanted))}")
    largest = 0.0
    for name, value in wanted.items():
        answer = np.asarray(answers[name])
        if (answer.shape, answer.dtype) != (value.shape, value.dtype):
            raise _Fault(f"{name} is {answer.dtype} {answer.shape} instead of {value.dtype} {value.shape}")
        difference = np.abs(answer.astype(np.float64) - value)
        bound = tolerance * (1.0 + np.abs(value)) if np.issubdtype(value.dtype, np.floating) else 0.0
        if not np.all(difference <= bound):
            raise _Fault(f"{name} differs from the golden values by up to {np.max(difference):.2g}")
        largest = max(largest, float(np.max(difference, initial=0.0)))
    return largest


def _load_saved_model(folder: pathlib.Path) -> tuple[Any, dict[str, Callable[..., dict[str, Any]]]]:
    """The model, which must be kept as long as its signatures are used, and these."""
    import tensorflow as tf

    before = os.getcwd()
    os.chdir(folder)  # in a path TensorFlow takes [, * and \ for parts of a pattern
    try:
        loaded = tf.saved_model.load(".")
    finally:
        os.chdir(before)

    def callable_of(signature: Any) -> Callable[..., dict[str, Any]]:
        return lambda **inputs: signature(**{name: tf.constant(value) for name, value in inputs.items()})

    return loaded, {name: callable_of(signature) for name, signature in loaded.signatures.items()}


def _load_tflite(folder: pathlib.Path) -> tuple[Any, dict[str, Callable[..., dict[str, Any]]]]:
    import tensorflow as tf

    interpreter = tf.lite.Interpreter(str(folder / _TFLITE))
    return interpreter, {name: interpreter.get_signature_runner(name) for name in interpreter.get_signature_list()}


def _check_refusal(infer: Callable[..., Any], inputs: dict[str, Any]) -> str:
    import numpy as np
    import tensorflow as tf

    try:
        infer(images=np.full_like(inputs["images"], np.nan))
    except tf.errors.InvalidArgumentError as error:
        if "images must not hold NaN" in str(error):
            return "infer refuses images with NaN"
        raise _Fault(f"infer refuses NaN without saying why: {_one_line(error)}") from error
    raise _Fault("infer answers images with NaN")


def _answer_and_compare(signature: Callable[..., Any], name: str, cases: dict[str, Any], tolerance: float) -> str:
    differences = []
    for case in cases.values():
        try:
            differences.append(_compare(signature(**case["inputs"]), case["outputs"], tolerance))
        except Exception as error:  # of the consumer: TensorFlow raises many types
            raise _Fault(f"{name}: {_one_line(error)}") from error
    return f"{name} gives the golden values in {len(cases)} batches (largest difference {max(differences):.1g})"


def _verdicts(folder: pathlib.Path) -> Iterator[str]:
    """What is good, line by line; raises at the first fault."""
    card = _read_card(folder)
    yield _check_files(folder, card["files"])
    start = time.perf_counter()
    is_tflite = (folder / _TFLITE).is_file()
    kept, signatures = (_load_tflite if is_tflite else _load_saved_model)(folder)
    yield f"loads in {time.perf_counter() - start:.1f} s without {', '.join(_REFUSED)}"
    golden = _golden(folder)
    for name in sorted(card["signatures"]):
        cases = golden.get("infer" if name == "serving_default" else name)
        if cases is None or name not in signatures:
            raise _Fault(f"signature {name} is missing in {_GOLDEN if name in signatures else 'the model'}")
        tolerance = _TOLERANCE_TFLITE if is_tflite else _TOLERANCE_REFINE if name == "refine" else _TOLERANCE
        yield _answer_and_compare(signatures[name], name, cases, tolerance)
    if not is_tflite:
        yield _check_refusal(signatures["infer"], golden["infer"]["0"]["inputs"])
    del kept  # signatures alone don't keep a model's variables alive


def main(arguments: Sequence[str]) -> int:
    """Checks the folder that the one argument names; returns the exit status."""
    # An import of them fails, whether or not they are installed.
    sys.modules.update(dict.fromkeys(_REFUSED))  # type: ignore[arg-type]
    try:
        for verdict in _verdicts(pathlib.Path(arguments[0])):
            print(f"ok   {verdict}", flush=True)
    except Exception as error:  # the last edge of the program
        print(f"FAIL {_one_line(error)}", flush=True)
        return 1
    return 0


if __name__ == "__main__":
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    sys.exit(main(sys.argv[1:]))
