"""What was inferred as one JSON of COCO: an image at a time on the workers, joined where the job was started.

Contract: images and objects get their ids when they are joined, because no worker knows of the others; joining takes
constant memory.  An object carries `score`, the probability that there is a first, second, ... object, and an image
`record`, its index in its file.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator

import numpy as np
from apache_beam.io.filesystems import FileSystems
from asr_tf.export.batch.chunks import Predictions

from asr_tf.labelled import coco
from asr_tf.labelled.objects import visible_objects

__all__ = ["join", "to_lines"]


def to_lines(predictions: Predictions) -> Iterator[str]:
    """Each image as a line of JSON, `{"image": {...}, "annotations": [...]}`, in which ids are missing.

    Args:
        predictions: with masks.
    """
    if predictions.masks is None:
        raise ValueError("predictions must have masks.")
    height, width = predictions.masks.shape[2:]
    objects = visible_objects(predictions.masks[..., np.newaxis], predictions.boxes, predictions.count)
    entries = list(coco.object_entries(objects, predictions.scores[objects.images, objects.steps]))
    numbers = zip(predictions.records.tolist(), predictions.count.tolist(), strict=True)
    rows = objects.of_each_image(len(predictions))
    for file, (record, count), own in zip(predictions.files, numbers, rows, strict=True):
        image = {"file_name": file, "width": width, "height": height, "count": count, "record": record}
        yield json.dumps({"image": image, "annotations": entries[own]})


def join(prefix: str) -> None:
    """Joins the lines in `<prefix>-*.jsonl` to `<prefix>.json`, and deletes them; does nothing where there are none.

    Args:
        prefix: a path of any file system that Beam knows.
    """
    (match,) = FileSystems.match([f"{prefix}-*.jsonl"])
    paths = sorted(file.path for file in match.metadata_list)
    if not paths:
        return
    part, whole = f"{prefix}.json.part", f"{prefix}.json"
    with FileSystems.create(part) as file:
        coco.write_json(file, "objects found by asr_batch_infer", _images(paths), _annotations(paths))
    FileSystems.rename([part], [whole])
    FileSystems.delete(paths)


def _scenes(paths: list[str]) -> Iterator[tuple[int, dict]]:
    """The images of all files, numbered from 1 on."""
    number = itertools.count(1)
    for path in paths:
        with FileSystems.open(path) as file:
            for text in file:
                yield next(number), json.loads(text)


def _images(paths: list[str]) -> Iterator[bytes]:
    for image_id, scene in _scenes(paths):
        yield coco.line({"id": image_id, **scene["image"]})


def _annotations(paths: list[str]) -> Iterator[bytes]:
    number = itertools.count(1)
    for image_id, scene in _scenes(paths):
        for entry in scene["annotations"]:
            yield coco.line({"id": next(number), "image_id": image_id, **entry})
