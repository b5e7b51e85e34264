"""TFRecords of `tf.train.Example` with the names of the TensorFlow Object Detection API.

    scenes.tfrecord-00000-of-00025    a file for each shard

Boxes are fractions of the canvas, masks PNG images of 0 and 1 (the API's PNG_MASKS).  Beside the API's names an
example has `image/id`, `image/count` and `image/object/window/{ymin,xmin,ymax,xmax}`, the boxes in which the model
draws.

References:
    https://github.com/tensorflow/models/blob/master/research/object_detection/g3doc/using_your_own_dataset.md
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import tensorflow as tf

from asr_tf.labelled.base import scene_file
from asr_tf.labelled.records import RecordsFolder
from asr_tf.labelled.scenes import LabelledScenes, encode_pngs

__all__ = ["TFRecordFolder"]

_CORNERS = ("ymin", "xmin", "ymax", "xmax")


class TFRecordFolder(RecordsFolder):
    """See the module."""

    name = "scenes"

    def examples(self, scenes: LabelledScenes) -> Iterator[bytes]:
        """See the base."""
        height, width, _ = self.image_shape
        objects = scenes.objects
        masks = encode_pngs(objects.masks[..., np.newaxis].view(np.uint8)) if len(objects.masks) else []
        boxes = objects.boxes_px / np.array([height, width] * 2)
        areas = objects.masks.sum(axis=(1, 2))
        for scene in scenes.each():
            rows = scene.rows
            number = rows.stop - rows.start
            feature = {
                "image/encoded": _bytes([scene.image]),
                "image/format": _bytes([b"png"]),
                "image/filename": _bytes([scene_file(scene.id, "png").encode()]),
                "image/source_id": _bytes([str(scene.id).encode()]),
                "image/height": _integers([height]),
                "image/width": _integers([width]),
                "image/id": _integers([scene.id]),
                "image/count": _integers([scene.count]),
                "image/object/class/label": _integers([1] * number),
                "image/object/class/text": _bytes([b"object"] * number),
                "image/object/is_crowd": _integers([0] * number),
                "image/object/area": _floats(areas[rows]),
                "image/object/mask": _bytes(masks[rows]),
            }
            for kind, values in (("bbox", boxes[rows]), ("window", objects.windows[rows])):
                for corner, column in zip(_CORNERS, values.T, strict=True):
                    feature[f"image/object/{kind}/{corner}"] = _floats(column)
            example = tf.train.Example(features=tf.train.Features(feature=feature))
            yield example.SerializeToString(deterministic=True)

    def finish(self, scenes_of_shards: Sequence[int]) -> None:
        """See the base: nothing belongs to the whole."""


def _bytes(values: Sequence[bytes]) -> tf.train.Feature:
    return tf.train.Feature(bytes_list=tf.train.BytesList(value=values))


def _integers(values: Sequence[int]) -> tf.train.Feature:
    return tf.train.Feature(int64_list=tf.train.Int64List(value=values))


def _floats(values: np.ndarray) -> tf.train.Feature:
    return tf.train.Feature(float_list=tf.train.FloatList(value=values))
