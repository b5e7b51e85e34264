"""The model in the pipeline: what of an export is looked at before a job starts, and the handler for `RunInference`.

Contract: nothing but TensorFlow and Beam is needed to load and run the model.  Beam's own TensorFlow handlers load
through Keras, which no longer reads SavedModels (Beam issue 30616), so the handler here is built on their base class.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
import tensorflow as tf
from apache_beam.ml.inference.base import ModelHandler, PredictionResult
from asr_tf.export.batch.chunks import Chunk, ModelSpec, Predictions, Refusal
from asr_tf.export.batch.output import plain_path
from asr_tf.export.server.tensorflow_errors import plain_words
from asr_tf.export.signatures import INFER, image_shape, read_signature

from asr_tf.labelled.objects import LEAST_SHARE

__all__ = ["SavedModelHandler", "check_masks", "inspect_model"]

_WANTED = ("count", "count_probs", "boxes")
_MASKS = "masks"

Infer = Callable[[tf.Tensor], dict[str, tf.Tensor]]


def inspect_model(path: str) -> ModelSpec:
    """Reads the sizes of a model from its signature, without loading it.

    Args:
        path: folder of the SavedModel.

    Raises:
        ValueError: no SavedModel, or none with the signature of a model of scenes.
    """
    signature = read_signature(path)
    missing = {"images"} - set(signature.inputs) | set(_WANTED) - set(signature.outputs)
    if missing:
        raise ValueError(f"signature {INFER!r} of {path} lacks {sorted(missing)}.")
    *_, counts = (axis.size for axis in signature.outputs["count_probs"].tensor_shape.dim)
    return ModelSpec(path, image_shape(signature, path), counts - 1)


def check_masks(path: str) -> None:
    """Raises ValueError where the SavedModel in a folder gives no masks, as those of earlier versions."""
    if _MASKS not in read_signature(path).outputs:
        raise ValueError(f"{path} gives no masks, which the format coco needs: export the model anew with asr_export.")


class SavedModelHandler(ModelHandler[Chunk, PredictionResult, Infer]):
    """Infers chunks of images; an image that the model refuses is told apart from the others of its chunk.

    The result's `inference` is a list of `Predictions` and `Refusal`.  One model is loaded in a process, and its
    threads are TensorFlow's.

    Args:
        path: folder of the SavedModel, which every worker can read.
        with_masks: whether the predictions have masks.
    """

    def __init__(self, path: str, with_masks: bool = False) -> None:
        super().__init__()
        self._path = path
        self._wanted = (*_WANTED, _MASKS) if with_masks else _WANTED

    def load_model(self) -> Infer:
        """The signature `infer`, without the outputs that aren't written: TensorFlow drops what only they need."""
        with plain_path(self._path) as path:
            loaded = tf.saved_model.load(path)
        signature = loaded.signatures[INFER]
        wanted = self._wanted

        @tf.function(input_signature=[signature.structured_input_signature[1]["images"]], autograph=False)
        def infer(images: tf.Tensor) -> dict[str, tf.Tensor]:
            outputs = signature(images=images)
            return {name: outputs[name] for name in wanted}

        infer.keeps = loaded  # the signature alone doesn't keep the model's variables
        return infer

    def run_inference(
        self, batch: Sequence[Chunk], model: Infer, inference_args: dict[str, Any] | None = None
    ) -> Iterable[PredictionResult]:
        """Infers each chunk by itself: a chunk is a batch already."""
        del inference_args  # part of Beam's interface; there are none
        for chunk in batch:
            yield PredictionResult(chunk, _infer_chunk(model, chunk), self._path)

    def batch_elements_kwargs(self) -> dict[str, int]:
        """Chunks aren't put together any further."""
        return {"min_batch_size": 1, "max_batch_size": 1}

    def get_num_bytes(self, batch: Sequence[Chunk]) -> int:
        """Size of the images, for Beam's metrics."""
        return sum(chunk.images.nbytes for chunk in batch)

    def get_metrics_namespace(self) -> str:
        """Where Beam's metrics of the inference stand."""
        return "asr_tf"


def _infer_chunk(model: Infer, chunk: Chunk) -> list[Predictions | Refusal]:
    images = chunk.images
    if images.dtype == np.uint8:
        images = images.astype(np.float32) / np.float32(255.0)
    try:
        outputs = {name: value.numpy() for name, value in model(tf.constant(images)).items()}
    except tf.errors.InvalidArgumentError as error:
        if len(chunk) == 1:
            return [Refusal(chunk.files[0], int(chunk.records[0]), f"refused by the model: {plain_words(error)}")]
        rows = (chunk.select(slice(row, row + 1)) for row in range(len(chunk)))
        return [result for row in rows for result in _infer_chunk(model, row)]
    # P(count > t) for t = 0 .. T - 1
    scores = np.cumsum(outputs["count_probs"][:, :0:-1], axis=1)[:, ::-1]
    if _MASKS in outputs:
        outputs[_MASKS] = outputs[_MASKS][..., 0] >= LEAST_SHARE
    return [Predictions(chunk.files, chunk.records, scores=np.minimum(scores, 1.0), **outputs)]
