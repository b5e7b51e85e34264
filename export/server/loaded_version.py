"""One version of a model in memory: a SavedModel's signatures as functions from arrays to arrays."""

from __future__ import annotations

import dataclasses
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf
from asr_tf.export.plain_folder import plain_folder
from asr_tf.export.server.background import Background
from asr_tf.export.server.errors import RequestError
from asr_tf.export.server.predict_json import TensorSpec
from asr_tf.export.server.tensorflow_errors import request_error
from google.protobuf import json_format
from tensorflow.core.protobuf import saved_model_pb2

__all__ = ["LoadedVersion", "Signature"]

WARM_UP_FILE = Path("assets.extra", "tf_serving_warmup_requests")


class Signature:
    """A signature of a SavedModel.

    Attributes:
        name: in the SavedModel.
        inputs, outputs: what each tensor must be or will be, by name.
        is_batchable: whether examples of several requests may share one call: every tensor's first axis counts them.
    """

    def __init__(
        self, name: str, function: Any, defaults: Mapping[str, np.ndarray], background: Background
    ) -> None:
        self.name = name
        self._function = function
        self._background = background
        inputs = _specs(function.structured_input_signature[1])
        self.inputs = {name: dataclasses.replace(spec, default=defaults.get(name)) for name, spec in inputs.items()}
        self.outputs = _specs(function.structured_outputs)
        tensors = [*self.inputs.values(), *self.outputs.values()]
        self.is_batchable = bool(self.inputs) and all(spec.has_batch_axis for spec in tensors)

    def __call__(self, arrays: Mapping[str, np.ndarray], seconds: float | None = None) -> dict[str, np.ndarray]:
        """Computes the outputs by name; in the background, where the signature doesn't batch.

        Args:
            arrays: of the inputs' names, types and shapes; those with a default may be missing.
            seconds: that a call in the background may take, None for any.

        Raises:
            RequestError: what TensorFlow says against the values; a call in the background took too long, or was
                stopped.
        """
        defaults = {name: spec.default for name, spec in self.inputs.items() if spec.default is not None}
        arrays = {**defaults, **arrays}
        if not self.is_batchable:
            return self._background(self.name, arrays, seconds)
        try:
            outputs = self._function(**{name: tf.constant(array) for name, array in arrays.items()})
            return {name: np.asarray(outputs[name].numpy()) for name in self.outputs}
        except tf.errors.OpError as error:
            raise request_error(error) from error

    def stop(self) -> None:
        """Breaks off a call in the background that is under way."""
        self._background.stop()


class LoadedVersion:
    """A version of a model that can be asked.

    Attributes:
        number: of the version.
        signatures: by name.
        signature_defs: the SavedModel's own description of them, as JSON values.
    """

    def __init__(self, folder: Path, number: int) -> None:
        """Loads it.

        Args:
            folder: of the SavedModel.
            number: of the version.

        Raises:
            Exception: whatever TensorFlow says of a folder that it can't load.
        """
        self.number = number
        self._folder = folder
        with plain_folder(folder) as plain:
            self._model = tf.saved_model.load(plain)
        definitions = _signature_defs(folder)
        defaults = {
            name: {key: tf.make_ndarray(value) for key, value in definition.defaults.items()}
            for name, definition in definitions.items()
        }
        background = Background(folder)
        self.signatures = {
            name: Signature(name, function, defaults.get(name, {}), background)
            for name, function in self._model.signatures.items()
        }
        self.signature_defs = {
            name: json_format.MessageToDict(
                definitions[name], preserving_proto_field_name=True, always_print_fields_with_no_presence=True
            )
            for name in sorted(definitions)
        }
        self._in_use = 0
        self._lock = threading.Lock()

    def signature(self, name: str) -> Signature:
        """The signature of that name.

        Raises:
            RequestError: there is none.
        """
        if name not in self.signatures:
            there = ", ".join(sorted(self.signatures))
            raise RequestError(
                400, f'Serving signature name: "{name}" not found in signature def; this version has {there}'
            )
        return self.signatures[name]

    def warm_up(self, batch_sizes: tuple[int, ...]) -> None:
        """Runs the requests that were written beside the model, and each signature that batches on zeros.

        So the first caller doesn't wait for what TensorFlow prepares, and a version that can't compute isn't served.

        Args:
            batch_sizes: numbers of examples to try.

        Raises:
            RequestError, ValueError: a call failed, or gave numbers that aren't finite.
        """
        for name, arrays in _recorded_requests(self._folder / WARM_UP_FILE):
            _check_finite(name, self.signature(name)(arrays))
        for signature in self.signatures.values():
            shapes = {name: spec.example_shape for name, spec in signature.inputs.items()}
            fixed = {name: shape for name, shape in shapes.items() if shape is not None}
            if not signature.is_batchable or len(fixed) < len(shapes):
                continue
            for size in batch_sizes:
                zeros = {name: np.zeros((size, *shape), signature.inputs[name].dtype) for name, shape in fixed.items()}
                _check_finite(signature.name, signature(zeros))

    def acquire(self) -> None:
        """Counts one more request that needs this version."""
        with self._lock:
            self._in_use += 1

    def release(self) -> None:
        """Counts one less."""
        with self._lock:
            self._in_use -= 1

    @property
    def in_use(self) -> int:
        """How many requests need this version."""
        return self._in_use


def _specs(structure: Mapping[str, Any]) -> dict[str, TensorSpec]:
    return {
        name: TensorSpec(
            np.dtype(object) if spec.dtype == tf.string else np.dtype(spec.dtype.as_numpy_dtype),
            None if spec.shape.rank is None else tuple(spec.shape.as_list()),
        )
        for name, spec in sorted(structure.items())
    }


def _signature_defs(folder: Path) -> dict[str, Any]:
    saved = saved_model_pb2.SavedModel.FromString((folder / "saved_model.pb").read_bytes())
    return dict(saved.meta_graphs[0].signature_def)


def _recorded_requests(file: Path) -> Iterator[tuple[str, dict[str, np.ndarray]]]:
    """Signature name and inputs of each predict request in a warm-up file of TensorFlow Serving's."""
    if not file.is_file():
        return
    from tensorflow_serving.apis import prediction_log_pb2

    for record in tf.data.TFRecordDataset(str(file)).as_numpy_iterator():
        request = prediction_log_pb2.PredictionLog.FromString(record).predict_log.request
        if request.inputs:
            arrays = {name: tf.make_ndarray(tensor) for name, tensor in request.inputs.items()}
            yield request.model_spec.signature_name or "serving_default", arrays


def _check_finite(name: str, outputs: Mapping[str, np.ndarray]) -> None:
    for output, array in outputs.items():
        if array.dtype.kind == "f" and not np.isfinite(array).all():
            raise ValueError(f"{name}: {output} isn't finite when warming up")
