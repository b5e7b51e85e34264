"""Scenes of rectangles with known masks, as a model gives them, and data sets of them."""

from __future__ import annotations

import pathlib

import numpy as np

from asr_tf.labelled import scenes, shards

CANVAS = (12, 14)
NUM_STEPS = 3
SETTINGS = {"seed": "0"}


def drawn(start: int, number: int, channels: int = 1) -> dict[str, np.ndarray]:
    """What a model draws as the scenes from an index on; each depends on its own index only.

    Objects are rectangles that share the pixels in which they overlap; about every tenth is too faint to be seen.
    """
    height, width = CANVAS
    images = np.zeros((number, height, width, channels), np.float32)
    count = np.zeros(number, np.int32)
    boxes = np.zeros((number, NUM_STEPS, 4), np.float32)
    masks = np.zeros((number, NUM_STEPS, height, width, 1), np.float32)
    for row in range(number):
        rng = np.random.default_rng(start + row)
        count[row] = rng.integers(NUM_STEPS + 1)
        for step in range(count[row]):
            top, left = rng.integers(height - 3), rng.integers(width - 3)
            bottom, right = rng.integers(top + 1, height + 1), rng.integers(left + 1, width + 1)
            share = 0.3 if rng.random() < 0.1 else rng.uniform(0.6, 1.0)
            masks[row, step, top:bottom, left:right] = share
            box_px = np.array([top - 0.5, left - 0.5, bottom + 0.5, right + 0.5])
            boxes[row, step] = box_px / np.array([height, width] * 2)
        masks[row] /= np.maximum(masks[row].sum(axis=0), 1.0)
        images[row] = np.minimum(masks[row].sum(axis=0), 1.0) * rng.uniform(0.5, 1.0, channels)
    return {"images": images, "count": count, "boxes": boxes, "masks": masks}


def draw(start: int, number: int) -> scenes.LabelledScenes:
    """The same, labelled."""
    return scenes.label(drawn(start, number), start + 1)


def labels(number: int) -> list[list[tuple[int, np.ndarray, list[int], np.ndarray]]]:
    """For each of the first scenes its visible objects in plain loops: step, mask, tight box in pixels, window."""
    known = drawn(0, number)
    found = []
    for row in range(number):
        objects = []
        for step in range(known["count"][row]):
            mask = known["masks"][row, step, ..., 0] >= 0.5
            pixels = [(y, x) for y in range(CANVAS[0]) for x in range(CANVAS[1]) if mask[y, x]]
            if pixels:
                rows, columns = zip(*pixels, strict=True)
                box = [min(rows), min(columns), max(rows) + 1, max(columns) + 1]
                objects.append((step, mask, box, known["boxes"][row, step]))
        found.append(objects)
    return found


def levels(number: int) -> np.ndarray:
    """The images of the first scenes, uint8 [N, H, W, C]."""
    return np.rint(drawn(0, number)["images"] * 255).astype(np.uint8)


def write(kind, folder: pathlib.Path, number: int, draw=draw, settings=SETTINGS) -> shards.Tally:
    """Writes the first scenes into a folder, which may be missing."""
    folder.mkdir(parents=True, exist_ok=True)
    return shards.write_dataset(kind, folder, draw, number, (*CANVAS, 1), NUM_STEPS, settings)


def contents(folder: pathlib.Path) -> dict[str, bytes]:
    """The bytes of all files, by their paths in the folder."""
    files = (path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}
