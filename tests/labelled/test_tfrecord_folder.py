from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf
import testing_labelled

from asr_tf.labelled import shards
from asr_tf.labelled.tfrecord_folder import TFRecordFolder

NUMBER = 40
CORNERS = ("ymin", "xmin", "ymax", "xmax")
# As the decoder of the Object Detection API asks for them, and what is added here.
FEATURES = {
    **dict.fromkeys(
        ("image/encoded", "image/format", "image/filename", "image/source_id"), tf.io.FixedLenFeature([], tf.string)
    ),
    **dict.fromkeys(("image/height", "image/width", "image/id", "image/count"), tf.io.FixedLenFeature([], tf.int64)),
    **{f"image/object/bbox/{corner}": tf.io.VarLenFeature(tf.float32) for corner in CORNERS},
    **{f"image/object/window/{corner}": tf.io.VarLenFeature(tf.float32) for corner in CORNERS},
    "image/object/class/label": tf.io.VarLenFeature(tf.int64),
    "image/object/class/text": tf.io.VarLenFeature(tf.string),
    "image/object/is_crowd": tf.io.VarLenFeature(tf.int64),
    "image/object/area": tf.io.VarLenFeature(tf.float32),
    "image/object/mask": tf.io.VarLenFeature(tf.string),
}


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setattr(shards, "SCENES_OF_A_SHARD", 16)
    testing_labelled.write(TFRecordFolder, tmp_path, NUMBER)
    return tmp_path


def dense(value):
    return tf.sparse.to_dense(value).numpy() if isinstance(value, tf.SparseTensor) else value.numpy()


def test_examples_hold_every_scene_and_object(folder):
    files = sorted(map(str, folder.glob("scenes.tfrecord-*")))
    assert [file.rpartition("-of-")[2] for file in files] == ["00003"] * 3
    parsed = [tf.io.parse_single_example(record, FEATURES) for record in tf.data.TFRecordDataset(files)]
    assert len(parsed) == NUMBER
    known, images = testing_labelled.drawn(0, NUMBER), testing_labelled.levels(NUMBER)
    for row, objects in enumerate(testing_labelled.labels(NUMBER)):
        found = {name.removeprefix("image/"): dense(value) for name, value in parsed[row].items()}
        np.testing.assert_array_equal(tf.io.decode_image(found["encoded"]), images[row])
        assert (found["format"], found["filename"]) == (b"png", f"{row + 1:012d}.png".encode())
        assert (found["id"], found["source_id"]) == (row + 1, str(row + 1).encode())
        assert found["count"] == known["count"][row]
        assert (found["height"], found["width"]) == testing_labelled.CANVAS
        assert found["object/class/label"].tolist() == [1] * len(objects)
        assert found["object/class/text"].tolist() == [b"object"] * len(objects)
        assert found["object/is_crowd"].tolist() == [0] * len(objects)
        for index, (_, mask, box, window) in enumerate(objects):
            # Boxes are fractions, and masks PNG images of 0 and 1.
            decoded = tf.io.decode_png(found["object/mask"][index]).numpy()[..., 0]
            np.testing.assert_array_equal(decoded, mask.astype(np.uint8))
            assert found["object/area"][index] == mask.sum()
            corners = [found[f"object/bbox/{corner}"][index] for corner in CORNERS]
            np.testing.assert_allclose(corners, np.array(box) / [12, 14, 12, 14], rtol=1e-6)
            np.testing.assert_array_equal([found[f"object/window/{corner}"][index] for corner in CORNERS], window)
