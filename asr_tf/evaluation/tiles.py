"""Scenes as pixels: enlarged images with boxes, one colour a step, and grids of them.

Every image pixel becomes a whole square of `zoom` x `zoom`, so that nothing is blurred.  It is pure
NumPy; axis letters are those of `asr_tf.scene`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

__all__ = [
    "STEP_COLOURS",
    "draw_boxes_grid",
    "image_grid",
    "mask_tiles",
    "reconstruction_grid",
    "scene_tiles",
]

STEP_COLOURS = (
    (255, 77, 77),
    (64, 196, 99),
    (77, 148, 255),
    (255, 193, 36),
    (214, 107, 255),
    (38, 208, 206),
    (255, 140, 66),
    (255, 128, 191),
)
"""RGB of the steps, bright enough for a dark canvas; they repeat after the last."""

_TILE_PX = 144  # about how wide a scene is drawn


def image_grid(images: Any, num_columns: int = 8, zoom: int | None = None) -> np.ndarray:
    """Puts images side by side, row by row.

    Args:
        images: [N, H, W, C] with C = 1 (grey) or 3 (RGB), float in [0, 1] or uint8.
        num_columns: images a row.
        zoom: side in pixels of one image pixel; by default images get about 144 pixels wide.

    Returns:
        uint8 [height, width, 3].

    Raises:
        ValueError: wrong rank or number of channels, or no image.
    """
    return draw_boxes_grid(images, num_columns=num_columns, zoom=zoom)


def draw_boxes_grid(
    images: Any,
    boxes: Any = None,
    counts: Any = None,
    num_columns: int = 8,
    zoom: int | None = None,
) -> np.ndarray:
    """Puts images side by side, row by row, with the boxes of each in the colours of the steps.

    Args:
        images: [N, H, W, C] with C = 1 (grey) or 3 (RGB), float in [0, 1] or uint8.
        boxes: float [N, T, 4], `[ymin, xmin, ymax, xmax]` in canvas fractions, or None.
        counts: int [N], present boxes; None draws every box that isn't all zero.
        num_columns: images a row.
        zoom: side in pixels of one image pixel; by default images get about 144 pixels wide.

    Returns:
        uint8 [height, width, 3].

    Raises:
        ValueError: wrong rank or number of channels, or no image.
    """
    tiles = scene_tiles(images, boxes, counts, zoom)
    num_columns = max(1, min(num_columns, len(tiles)))
    num_rows = math.ceil(len(tiles) / num_columns)
    tile_height, tile_width = tiles.shape[1:3]
    gap = 4
    grid = np.full(
        (num_rows * (tile_height + gap) + gap, num_columns * (tile_width + gap) + gap, 3),
        128,
        np.uint8,
    )
    for index, tile in enumerate(tiles):
        top = gap + index // num_columns * (tile_height + gap)
        left = gap + index % num_columns * (tile_width + gap)
        grid[top : top + tile_height, left : left + tile_width] = tile
    return grid


def reconstruction_grid(
    images: Any, inferred: Mapping[str, Any], num_columns: int = 8, zoom: int | None = None
) -> np.ndarray:
    """Rows of images, each above the row of its reconstructions with inferred boxes.

    Args:
        images: [N, H, W, C] with C = 1 (grey) or 3 (RGB), float in [0, 1] or uint8.
        inferred: what `infer` returned for them: `reconstruction`, and where there are objects `boxes`, `count`.
        num_columns: images a row.
        zoom: side in pixels of one image pixel.

    Returns:
        uint8 [height, width, 3].

    Raises:
        ValueError: wrong rank or number of channels, or no image.
    """
    above = scene_tiles(images, zoom=zoom)
    below = scene_tiles(
        inferred["reconstruction"], inferred.get("boxes"), inferred.get("count"), zoom
    )
    num_columns = max(1, min(num_columns, len(above)))
    bands = []
    for start in range(0, len(above), num_columns):
        for tiles in (above, below):
            band = np.full((num_columns, *tiles.shape[1:]), 128, np.uint8)
            band[: len(tiles[start : start + num_columns])] = tiles[start : start + num_columns]
            bands.append(band)
    return draw_boxes_grid(np.concatenate(bands), num_columns=num_columns, zoom=1)


def scene_tiles(
    images: Any,
    boxes: Any = None,
    counts: Any = None,
    zoom: int | None = None,
    colours: Sequence[tuple[int, int, int]] = STEP_COLOURS,
) -> np.ndarray:
    """Enlarges images and draws boxes into them.

    Args:
        images: [N, H, W, C] with C = 1 (grey) or 3 (RGB), float in [0, 1] or uint8; RGB keeps its colours.
        boxes: float [N, T, 4], `[ymin, xmin, ymax, xmax]` in canvas fractions, or None.
        counts: int [N], present boxes; None draws every box that isn't all zero.
        zoom: side in pixels of one image pixel; by default images get about 144 pixels wide.
        colours: RGB of the boxes, which repeat after the last.

    Returns:
        uint8 [N, h, w, 3].

    Raises:
        ValueError: wrong rank or number of channels, or no image.
    """
    images = np.asarray(images)
    if images.ndim != 4 or images.shape[-1] not in (1, 3) or not images.shape[0]:
        raise ValueError(
            "images must have shape [N, H, W, 1] or [N, H, W, 3] with N above 0, "
            f"got {list(images.shape)}."
        )
    if images.dtype != np.uint8:
        images = np.nan_to_num(images.astype(np.float32))
        images = np.round(255.0 * np.clip(images, 0.0, 1.0)).astype(np.uint8)
    zoom = zoom or max(1, round(_TILE_PX / images.shape[2]))
    tiles = images.repeat(zoom, axis=1).repeat(zoom, axis=2)
    tiles = tiles.repeat(3 // images.shape[-1], axis=-1)
    if boxes is not None:
        boxes = np.asarray(boxes, np.float64)
        for index, tile in enumerate(tiles):
            num_boxes = boxes.shape[1] if counts is None else int(np.asarray(counts)[index])
            for step, box in enumerate(boxes[index, :num_boxes]):
                if box.any() and np.isfinite(box).all():
                    _outline(tile, box, colours[step % len(colours)])
    return tiles


def mask_tiles(masks: Any, zoom: int | None = None) -> np.ndarray:
    """Shows which object each pixel belongs to: the mix of the steps' colours by their shares, black for the ground.

    Args:
        masks: float [N, T, H, W, 1] in [0, 1], each object's share of each pixel.
        zoom: side in pixels of one image pixel; by default images get about 144 pixels wide.

    Returns:
        uint8 [N, h, w, 3].
    """
    masks = np.asarray(masks, np.float32)
    colours = np.resize(np.array(STEP_COLOURS, np.float32) / 255.0, (int(masks.shape[1]), 3))
    return scene_tiles(np.einsum("nthwi,tc->nhwc", masks, colours), zoom=zoom)


def _outline(tile: np.ndarray, box: np.ndarray, colour: tuple[int, int, int]) -> None:
    """Draws the edges of a box into uint8 [h, w, 3]; what lies outside isn't drawn."""
    height, width = tile.shape[:2]
    line = 2 if min(height, width) >= 96 else 1
    top, left, bottom, right = np.round(box * [height, width, height, width]).astype(int)
    rows = slice(max(top, 0), max(bottom, 0))
    columns = slice(max(left, 0), max(right, 0))
    for start in (top, bottom - line):
        tile[max(start, 0) : max(start + line, 0), columns] = colour
    for start in (left, right - line):
        tile[rows, max(start, 0) : max(start + line, 0)] = colour
