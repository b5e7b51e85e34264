"""The JSON of COCO: images, and objects with tight boxes and run-length encoded masks.

Every object is of the one category "object".  Beside COCO's own keys an image carries `count`, and an object `window`:
the box in which the model draws it, as `[x, y, width, height]` in pixels like `bbox`, not cut off at the canvas.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from typing import Any, BinaryIO

import numpy as np

from asr_tf.labelled.objects import VisibleObjects

__all__ = ["check_installed", "line", "object_entries", "write_json"]

_CATEGORY = {"id": 1, "name": "object"}


def check_installed() -> None:
    """Raises ValueError where pycocotools, which encodes the masks, is missing."""
    try:
        from pycocotools import mask
    except ImportError as error:
        raise ValueError(f"the format coco needs pycocotools ({error}): pip install 'asr_tf[labelled]'") from error
    del mask


def object_entries(objects: VisibleObjects, scores: np.ndarray | None = None) -> Iterator[dict[str, Any]]:
    """The entries of objects, in their order, without `id` and `image_id`.

    Args:
        objects: M of them.
        scores: float [M], how sure each is; None for labels, which have no score.
    """
    from pycocotools import mask

    height, width = objects.masks.shape[1:]
    # Column by column, as COCO counts runs: [H, W, M] in Fortran's order.
    columns = np.ascontiguousarray(objects.masks.transpose(0, 2, 1)).view(np.uint8).T
    codes = mask.encode(columns)
    areas = objects.masks.sum(axis=(1, 2)).tolist()
    boxes = _xywh(objects.boxes_px).tolist()
    windows = np.round(_xywh(objects.windows * np.array([height, width] * 2)), 3).tolist()
    for row, code in enumerate(codes):
        entry = {
            "category_id": _CATEGORY["id"],
            "bbox": boxes[row],
            "area": areas[row],
            "segmentation": {"size": [height, width], "counts": code["counts"].decode("ascii")},
            "iscrowd": 0,
            "window": windows[row],
        }
        if scores is not None:
            entry["score"] = round(float(scores[row]), 6)
        yield entry


def _xywh(boxes: np.ndarray) -> np.ndarray:
    """`[x, y, width, height]` of boxes [M, 4] `[ymin, xmin, ymax, xmax]`."""
    ymin, xmin, ymax, xmax = boxes.T
    return np.stack([xmin, ymin, xmax - xmin, ymax - ymin], axis=1)


def line(entry: dict[str, Any]) -> bytes:
    """An entry as a line of JSON."""
    return json.dumps(entry).encode() + b"\n"


def write_json(
    file: BinaryIO, description: str, image_lines: Iterable[bytes], annotation_lines: Iterable[bytes]
) -> None:
    """Writes the whole JSON from entries in constant memory.

    Args:
        file: to write to.
        description: what the data set is.
        image_lines: entries as `line` makes them.
        annotation_lines: likewise; taken after all images.
    """
    head = {"info": {"description": description}, "categories": [_CATEGORY]}
    file.write(json.dumps(head)[:-1].encode())
    for name, lines in (("images", image_lines), ("annotations", annotation_lines)):
        file.write(b', "%s": [' % name.encode())
        _write_joined(file, lines)
        file.write(b"\n]")
    file.write(b"}\n")


def _write_joined(file: BinaryIO, lines: Iterable[bytes]) -> None:
    separator = b"\n"
    for text in lines:
        file.write(separator + text.rstrip())
        separator = b",\n"
