from __future__ import annotations

import numpy as np
import pyarrow as pa
import tensorflow as tf
from asr_tf.export.batch import writing
from asr_tf.export.batch.chunks import Predictions


def predictions(number, start):
    rng = np.random.default_rng(start)
    return Predictions(
        [f"f{start}"] * number,
        np.arange(number) + start,
        rng.integers(0, 3, number).astype(np.int32),
        rng.random((number, 3), np.float32),
        rng.random((number, 2, 4), np.float32),
        rng.random((number, 2), np.float32),
    )


def test_table_has_a_row_for_each_image():
    blocks = [predictions(3, 0), predictions(2, 10)]
    table = writing.to_table(blocks, num_steps=2)
    assert table.schema == writing.table_schema(2)
    rows = table.to_pylist()
    assert [(row["file"], row["record"]) for row in rows] == [("f0", 0), ("f0", 1), ("f0", 2), ("f10", 10), ("f10", 11)]
    for row, block, index in ((rows[1], blocks[0], 1), (rows[4], blocks[1], 1)):
        assert row["count"] == block.count[index]
        for name in ("count_probs", "boxes", "scores"):
            np.testing.assert_array_equal(np.float32(row[name]), getattr(block, name)[index])
    assert table.schema.field("boxes").type == pa.list_(pa.list_(pa.float32(), 4), 2)


def test_examples_hold_the_same():
    block = predictions(2, 5)
    parsed = [tf.train.Example.FromString(example).features.feature for example in writing.to_examples(block)]
    assert [feature["file"].bytes_list.value[0] for feature in parsed] == [b"f5", b"f5"]
    assert [feature["record"].int64_list.value[0] for feature in parsed] == [5, 6]
    for row, feature in enumerate(parsed):
        assert feature["count"].int64_list.value[0] == block.count[row]
        for name in ("count_probs", "boxes", "scores"):
            np.testing.assert_array_equal(
                np.float32(feature[name].float_list.value), getattr(block, name)[row].ravel()
            )
