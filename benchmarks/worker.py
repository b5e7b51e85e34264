"""One checkout's side of `python -m benchmarks.speed --against=REVISION`: times what `versus.py` tells it to.

    python benchmarks/worker.py CHECKOUT NAME...          gets what is named ready, then times what it is told
    python benchmarks/worker.py CHECKOUT --first-step     takes one training step, answers, and ends

The package and `benchmarks.published` come from CHECKOUT, so that each revision builds its model in its own way; this
file is always that of the checkout that asked.  A command is a line of standard input, `time NAME`, and its answer is a
line of JSON, `{"seconds": ...}`.  The first answer, `{"ready": [NAME, ...]}`, comes before any command.
"""

from __future__ import annotations

import functools
import importlib
import json
import os
import pathlib
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, TextIO

__all__ = ["CALLS", "answer", "use_checkout"]

# Turn -> how many training steps or calls it has.
CALLS = {
    "fit_b64_t6": 60,
    "infer_b256_t6": 24,
    "infer_b256_t6_without_masks": 24,
    "infer_b1_t6": 300,
    "sample_1024": 10,
    "export_infer_b256_t4": 24,
}
_OBJECTS = 3  # found in an image, and drawn in a scene
# Where revisions keep the class that is exported, the newest first.
_SERVED_MODEL_MODULES = ("asr_tf.serving.served_model", "asr_tf.serving")
_PACKAGES = ("asr_tf", "benchmarks")


def use_checkout(folder: pathlib.Path) -> None:
    """Makes imports of the package and of the benchmarks find those of the checkout, and no others."""
    beside = pathlib.Path(__file__).resolve().parent  # where Python looks first when it runs this file
    sys.path[:] = [str(folder), *(entry for entry in sys.path if pathlib.Path(entry).resolve() != beside)]
    # An editable install maps the package's name, and names within it, to the checkout that was installed.
    sys.meta_path[:] = [
        finder for finder in sys.meta_path if not getattr(finder, "__module__", "").startswith("__editable___asr_tf")
    ]


def check_origin(folder: pathlib.Path) -> None:
    """Ends the process where a module of the package or of the benchmarks isn't the checkout's."""
    for name, module in list(sys.modules.items()):
        file = getattr(module, "__file__", None)
        if name.partition(".")[0] in _PACKAGES and file and not pathlib.Path(file).is_relative_to(folder):
            sys.exit(f"benchmarks.worker: error: {name} is {file}, which isn't in {folder}.")


def _export(model: Any) -> Callable[..., Any]:
    """The signature `infer` of the model's export."""
    import tensorflow as tf

    for name in _SERVED_MODEL_MODULES:
        try:
            served_model = importlib.import_module(name).ServedModel
        except (AttributeError, ModuleNotFoundError):
            continue
        with tempfile.TemporaryDirectory() as folder:
            served_model(model).save(folder)
            loaded = tf.saved_model.load(folder)
        return functools.partial(_signature, loaded)
    sys.exit(f"benchmarks.worker: error: no ServedModel in {' or '.join(_SERVED_MODEL_MODULES)}.")


def _signature(loaded: Any, images: Any) -> Any:
    return loaded.signatures["infer"](images=images)  # `loaded` must live as long as its signatures


def _without_masks(infer: Callable[..., Mapping[str, Any]]) -> Callable[..., Mapping[str, Any]]:
    """`infer` as of revisions that gave no masks: TensorFlow computes what a function returns, and no more."""
    import tensorflow as tf

    return tf.function(lambda images: {name: value for name, value in infer(images).items() if name != "masks"})


def _repeated(calls: int, call: Callable[..., Mapping[str, Any]], output: str, *arguments: Any) -> None:
    for _ in range(calls):
        call(*arguments)[output].numpy()


def _turn(published: Any, name: str) -> Callable[[], Any]:
    """What is timed by this name; a call ends when its work is done."""
    import numpy as np
    import tensorflow as tf

    calls = CALLS[name]
    if name == "fit_b64_t6":
        data = published.dataset(64)  # first, as in asr_train
        trained = published.compiled(published.build(6))
        return functools.partial(trained.fit, data, steps_per_epoch=calls, epochs=1, verbose=0, shuffle=False)
    model = published.with_count(published.build(4 if name.endswith("t4") else 6), _OBJECTS)
    if name == "sample_1024":
        return functools.partial(_repeated, calls, model.sample, "images", 1024, tf.constant([0, 1]), _OBJECTS)
    images = tf.constant(published.images(256).astype(np.float32) / 255.0)
    infer = _export(model) if name.startswith("export") else model.infer
    if name.endswith("without_masks"):
        infer = _without_masks(infer)
    return functools.partial(_repeated, calls, infer, "reconstruction", images[:1] if "_b1_" in name else images)


def _first_step(published: Any) -> None:
    """One step in `fit` of a model that was just built, at batch 64 and T = 6."""
    model = published.compiled(published.build(6), steps_per_execution=1)
    model.fit(published.dataset(64, 1000), steps_per_epoch=1, epochs=1, verbose=0, shuffle=False)


def answer(turns: Mapping[str, Callable[[], Any]], commands: Iterable[str], answers: TextIO) -> None:
    """Times a turn for each command, until there are no more.

    Args:
        turns: what can be timed, by name.
        commands: lines, `time NAME` each.
        answers: gets one line of JSON when all is ready, and one for each command.
    """
    print(json.dumps({"ready": list(turns)}), file=answers, flush=True)
    for command in commands:
        verb, _, name = command.strip().partition(" ")
        if verb != "time" or name not in turns:
            sys.exit(f"benchmarks.worker: error: a command is `time NAME` with one of {', '.join(turns)}: {command!r}.")
        start = time.perf_counter()
        turns[name]()
        print(json.dumps({"seconds": time.perf_counter() - start}), file=answers, flush=True)


def _main(folder: pathlib.Path, names: Sequence[str]) -> None:
    # Answers have standard output to themselves: what libraries print goes to the errors.
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    use_checkout(folder)
    published = importlib.import_module("benchmarks.published")
    if list(names) == ["--first-step"]:
        _first_step(published)
        check_origin(folder)
        answer({}, (), answers)
        return
    turns = {name: _turn(published, name) for name in names}
    check_origin(folder)
    answer(turns, sys.stdin, answers)


if __name__ == "__main__":
    _main(pathlib.Path(sys.argv[1]), sys.argv[2:])
