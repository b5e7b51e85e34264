"""The formats of data sets by name."""

from __future__ import annotations

from asr_tf.labelled.base import DatasetFolder
from asr_tf.labelled.coco_folder import CocoFolder
from asr_tf.labelled.tfds_folder import TFDSFolder
from asr_tf.labelled.tfrecord_folder import TFRecordFolder
from asr_tf.labelled.yolo_folder import YoloFolder

__all__ = ["FORMATS"]

FORMATS: dict[str, type[DatasetFolder]] = {
    "coco": CocoFolder,
    "tfds": TFDSFolder,
    "tfrecord": TFRecordFolder,
    "yolo": YoloFolder,
}
"""What `asr_sample --format` takes."""
