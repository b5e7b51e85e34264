r"""The pipeline: match files, read chunks of images, infer, write rows, and write what was refused.

    patterns -> groups of files -> chunks of images -> predictions -> rows
                     \____________________\_______________\_________ refusals

Names of files are spread over the workers; from there to a row everything happens in one place, so that no image
travels between workers.  A file is the smallest piece of work: many files of moderate size use many workers.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Sequence
from typing import Any, cast

import apache_beam as beam
from apache_beam.metrics import Metrics
from apache_beam.ml.inference.base import PredictionResult, RunInference
from apache_beam.pvalue import TaggedOutput
from asr_tf.export.batch import coco_json, matching, reading, writing
from asr_tf.export.batch.chunks import CHUNK_SIZE, Chunk, ModelSpec, Predictions, Refusal
from asr_tf.export.batch.model_handler import SavedModelHandler
from asr_tf.export.batch.output import REFUSED_PREFIX, RESULT_PREFIX

from asr_tf.data.image_files import utf8

__all__ = ["COCO", "COCO_PREFIX", "FORMATS", "build", "written_and_refused"]

COCO = "coco"
FORMATS = ("parquet", "tfrecord", COCO)
COCO_PREFIX = f"{RESULT_PREFIX}-coco"

_NAMESPACE = "asr_tf.batch"
_FOUND, _WRITTEN, _REFUSED = "found", "written", "refused"
_GROUP_BYTES = 8 << 20  # small files are read in groups of this size, of CHUNK_SIZE files at most
_ROW_GROUP = 1 << 16  # rows of a Parquet row group


def build(
    pipeline: beam.Pipeline,
    patterns: Sequence[str],
    model: ModelSpec,
    folder: str,
    output_format: str = FORMATS[0],
) -> None:
    """Adds all steps to a pipeline.

    Args:
        pipeline: an empty pipeline.
        patterns: paths, or patterns as `matching` has them.
        model: what to infer with.
        folder: from `output.writing`; the lines of COCO are to be joined, see `coco_json`.
        output_format: one of `FORMATS`.
    """
    # As bytes: Beam sends text as UTF-8, which names of files needn't be.
    named = [os.fsencode(pattern) for pattern in patterns]
    matched = beam.ParDo(_Match()).with_outputs(_REFUSED, main=_FOUND)
    found = pipeline | "Patterns" >> beam.Create([named]) | "Match" >> matched
    groups = found[_FOUND] | "Spread" >> beam.Reshuffle()
    read = groups | "Read" >> beam.ParDo(_Read(model.image_shape)).with_outputs(_REFUSED, main=_WRITTEN)
    inferred = (
        read[_WRITTEN]
        | "Infer" >> RunInference(SavedModelHandler(model.path, with_masks=output_format == COCO))
        | "Separate" >> beam.ParDo(_Separate()).with_outputs(_REFUSED, main=_WRITTEN)
    )
    _write(inferred[_WRITTEN], model.num_steps, folder, output_format)
    (
        (found[_REFUSED], read[_REFUSED], inferred[_REFUSED])
        | "All refused" >> beam.Flatten()
        | "As JSON" >> beam.Map(_counted_json).with_output_types(str)
        | "Write refused" >> beam.io.WriteToText(f"{folder}/{REFUSED_PREFIX}", ".jsonl", skip_if_empty=True)
    )


def written_and_refused(result: Any) -> tuple[int, int]:
    """How many images were written and how many images or files refused, from the result of a pipeline that ended."""
    counters = result.metrics().query(beam.metrics.MetricsFilter().with_namespace(_NAMESPACE))["counters"]
    found = {counter.key.metric.name: counter.result or 0 for counter in counters}
    return found.get(_WRITTEN, 0), found.get(_REFUSED, 0)


class _Match(beam.DoFn):
    """Patterns to groups of the files that they mean: a small one alone would cost as much as a large one."""

    def process(self, element: list[bytes]) -> Iterator[list[str] | TaggedOutput]:
        group: list[str] = []
        size = 0
        for file in matching.match([os.fsdecode(pattern) for pattern in element]):
            name = utf8(file.path)
            if name != file.path:
                yield TaggedOutput(_REFUSED, Refusal(name, None, "must have a name in UTF-8; rename it"))
                continue
            group.append(name)
            size += _size(file)
            if len(group) == CHUNK_SIZE or size >= _GROUP_BYTES:
                yield group
                group, size = [], 0
        if group:
            yield group


def _size(file: matching.File) -> int:
    """In bytes; 0 where it can't be had, which is told when the file is read."""
    if file.size is not None:
        return file.size
    with contextlib.suppress(OSError):
        return os.path.getsize(file.path)
    return 0


class _Read(beam.DoFn):
    """Groups of files to chunks of images."""

    def __init__(self, image_shape: tuple[int, int, int]) -> None:
        super().__init__()
        self._image_shape = image_shape

    def process(self, element: list[str]) -> Iterator[Chunk | TaggedOutput]:
        for part in reading.read_chunks(element, self._image_shape):
            yield TaggedOutput(_REFUSED, part) if isinstance(part, Refusal) else part


class _Separate(beam.DoFn):
    """Results of the model to predictions and refusals."""

    def process(self, element: PredictionResult) -> Iterator[Predictions | TaggedOutput]:
        for part in cast("list[Predictions | Refusal]", element.inference):
            yield TaggedOutput(_REFUSED, part) if isinstance(part, Refusal) else part


def _write(predictions: beam.PCollection, num_steps: int, folder: str, output_format: str) -> None:
    prefix = f"{folder}/{RESULT_PREFIX}"
    counted = predictions | "Count" >> beam.Map(_counted)
    if output_format == COCO:
        (
            counted
            | "As COCO" >> beam.FlatMap(coco_json.to_lines).with_output_types(str)
            | "Write lines" >> beam.io.WriteToText(f"{folder}/{COCO_PREFIX}", ".jsonl", skip_if_empty=True)
        )
        return
    if output_format == "tfrecord":
        (
            counted
            | "As examples" >> beam.FlatMap(writing.to_examples).with_output_types(bytes)
            | "Write TFRecord" >> beam.io.WriteToTFRecord(prefix, file_name_suffix=".tfrecord")
        )
        return
    (
        counted
        | "Row groups" >> beam.BatchElements(_ROW_GROUP, _ROW_GROUP, element_size_fn=len)
        | "As tables" >> beam.Map(writing.to_table, num_steps)
        | "Write Parquet"
        >> beam.io.WriteToParquetBatched(prefix, writing.table_schema(num_steps), file_name_suffix=".parquet")
    )


def _counted(predictions: Predictions) -> Predictions:
    Metrics.counter(_NAMESPACE, _WRITTEN).inc(len(predictions))
    return predictions


def _counted_json(refusal: Refusal) -> str:
    Metrics.counter(_NAMESPACE, _REFUSED).inc()
    return refusal.json()
