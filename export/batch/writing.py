"""Writing: what was inferred as Arrow tables or tf.train.Examples, a row for each image."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import pyarrow as pa
import tensorflow as tf
from asr_tf.export.batch.chunks import Predictions

__all__ = ["table_schema", "to_examples", "to_table"]


def table_schema(num_steps: int) -> pa.Schema:
    """The columns of a row.

    Args:
        num_steps: T.
    """
    real = pa.float32()
    return pa.schema(
        [
            pa.field("file", pa.string(), nullable=False),
            pa.field("record", pa.int64(), nullable=False),
            pa.field("count", pa.int32(), nullable=False),
            pa.field("count_probs", pa.list_(real, num_steps + 1), nullable=False),
            pa.field("boxes", pa.list_(pa.list_(real, 4), num_steps), nullable=False),
            pa.field("scores", pa.list_(real, num_steps), nullable=False),
        ]
    )


def to_table(predictions: Sequence[Predictions], num_steps: int) -> pa.Table:
    """Predictions of several chunks as one table, see `table_schema`.

    Args:
        predictions: of one chunk or more.
        num_steps: T.
    """
    joined = {
        name: np.concatenate([getattr(part, name) for part in predictions])
        for name in ("records", "count", "count_probs", "boxes", "scores")
    }
    files = [file for part in predictions for file in part.files]
    schema = table_schema(num_steps)
    columns = [pa.array(files, pa.string()), pa.array(joined["records"]), pa.array(joined["count"])]
    columns += [_lists(joined[name], schema.field(name).type) for name in ("count_probs", "boxes", "scores")]
    return pa.Table.from_arrays(columns, schema=schema)


def _lists(values: np.ndarray, kind: pa.DataType) -> pa.Array:
    """An array [N, ...] as a column of lists of a fixed size, nested as deeply as it has axes after the first."""
    if values.ndim == 1:
        return pa.array(values, kind)
    inner = _lists(values.reshape(-1, *values.shape[2:]), kind.value_type)
    return pa.FixedSizeListArray.from_arrays(inner, type=kind)


def to_examples(predictions: Predictions) -> Iterator[bytes]:
    """Each row as a serialized tf.train.Example with the columns of `table_schema`; boxes are 4 T numbers."""
    for row, file in enumerate(predictions.files):
        feature = {
            "file": tf.train.Feature(bytes_list=tf.train.BytesList(value=[file.encode()])),
            "record": _integers(predictions.records[row]),
            "count": _integers(predictions.count[row]),
            "count_probs": _floats(predictions.count_probs[row]),
            "boxes": _floats(predictions.boxes[row].ravel()),
            "scores": _floats(predictions.scores[row]),
        }
        yield tf.train.Example(features=tf.train.Features(feature=feature)).SerializeToString()


def _integers(value: np.integer) -> tf.train.Feature:
    return tf.train.Feature(int64_list=tf.train.Int64List(value=[int(value)]))


def _floats(values: np.ndarray) -> tf.train.Feature:
    return tf.train.Feature(float_list=tf.train.FloatList(value=values))
