"""Sheets of scenes: images, reconstructions, masks and samples, side by side and captioned.

Scenes are composed in whole pixels (`asr_tf.evaluation.tiles`), captioned by Matplotlib's Agg canvas.  Each inference
step has one colour everywhere, each true box is white.  Axis letters are those of `asr_tf.scene`; nothing here knows
the model.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from matplotlib.figure import Figure

from asr_tf.evaluation.plots import blank_figure
from asr_tf.evaluation.tiles import STEP_COLOURS, mask_tiles, scene_tiles

__all__ = ["reconstructions", "samples", "step_by_step"]

_TRUE_COLOUR = (255, 255, 255)
_WRONG_COLOUR = "#c8102e"
_SHEET_PX = 1320  # about how wide a sheet of scenes may get
_MARGIN_PX, _GAP_PX, _CAPTION_PX, _HEADER_PX = 14, 10, 21, 58


class _Cell(NamedTuple):
    """One scene of a sheet: uint8 [h, w, 3], what stands above it, and whether that is bad news."""

    pixels: np.ndarray
    caption: str
    is_wrong: bool = False


def reconstructions(
    images: Any,
    inferred: Mapping[str, Any],
    true_counts: Any = None,
    true_boxes: Any = None,
) -> Figure:
    """Images above their reconstructions, with true and inferred boxes, and above the masks of objects.

    Args:
        images: [N, H, W, C] with C = 1 (grey) or 3 (RGB), float in [0, 1] or uint8.
        inferred: what `infer` returned for them: `reconstruction`, and where there are objects `boxes`, `count` and,
            for a row more, `masks`.
        true_counts: int [N], or None if they aren't known.
        true_boxes: float [N, M, 4], or None if they aren't known.

    Returns:
        The figure.  A count that is wrong is captioned in red.

    Raises:
        ValueError: wrong rank or number of channels, or no image.
    """
    images = np.asarray(images)
    counts, boxes = inferred.get("count"), inferred.get("boxes")
    above = scene_tiles(images, true_boxes, true_counts, colours=(_TRUE_COLOUR,))
    below = scene_tiles(inferred["reconstruction"], boxes, counts)
    shares = mask_tiles(inferred["masks"]) if "masks" in inferred else None
    num_columns = min(len(images), _columns_that_fit(above))
    rows: list[list[_Cell]] = []
    for start in range(0, len(images), num_columns):
        scenes = range(start, min(start + num_columns, len(images)))
        known = true_counts is not None
        rows.append(
            [
                _Cell(above[scene], f"true count {true_counts[scene]}" if known else "input")
                for scene in scenes
            ]
        )
        rows.append(
            [
                _Cell(below[scene], "reconstruction")
                if counts is None
                else _Cell(
                    below[scene],
                    f"found {counts[scene]}",
                    known and int(counts[scene]) != int(true_counts[scene]),
                )
                for scene in scenes
            ]
        )
        if shares is not None:
            rows.append([_Cell(shares[scene], "masks") for scene in scenes])
    title = "Input, reconstruction" + ("" if shares is None else " and masks")
    return _sheet(rows, title, 0 if boxes is None else np.shape(boxes)[1], true_boxes is not None)


def step_by_step(images: Any, inferred: Mapping[str, Any]) -> Figure:
    """How a scene is taken apart: the canvas after each step, and what each step drew.

    Args:
        images: [N, H, W, C] with C = 1 (grey) or 3 (RGB), float in [0, 1] or uint8.
        inferred: what `infer` returned for them: `boxes`, `count`, `scores`, `objects`.

    Returns:
        The figure, two rows an image: the canvas after each step, below it the object of that step
        alone.

    Raises:
        ValueError: wrong rank or number of channels, or no image.
    """
    counts = np.asarray(inferred["count"])
    boxes = np.asarray(inferred["boxes"])
    objects = np.asarray(inferred["objects"])
    num_steps = boxes.shape[1]
    present = np.arange(num_steps) < counts[:, None]  # [N, T]
    objects = objects * present[..., None, None, None]
    canvases = np.clip(np.cumsum(objects, axis=1), 0.0, 1.0)
    step_probs = np.asarray(inferred["scores"])
    inputs = scene_tiles(images)
    redrawn = scene_tiles(canvases[:, -1])
    rows: list[list[_Cell]] = []
    for scene in range(len(inputs)):
        upper, lower = [_Cell(inputs[scene], "input")], [_Cell(redrawn[scene], "reconstruction")]
        for step in range(num_steps):
            shown = min(step + 1, int(counts[scene]))
            upper.append(
                _Cell(
                    scene_tiles(canvases[scene, step][None], boxes[scene][None], [shown])[0],
                    f"after step {step + 1}",
                )
            )
            is_present = bool(present[scene, step])
            lower.append(
                _Cell(
                    scene_tiles(
                        objects[scene, step][None],
                        boxes[scene, step][None, None],
                        [int(is_present)],
                        colours=(STEP_COLOURS[step % len(STEP_COLOURS)],),
                    )[0],
                    ("" if is_present else "none, ") + f"p = {step_probs[scene, step]:.3f}",
                )
            )
        rows += [upper, lower]
    return _sheet(rows, "Inference step by step (p: probability of an object)", num_steps)


def samples(
    images: Any, boxes: Any = None, counts: Any = None, title: str = "Sampled scenes"
) -> Figure:
    """Sampled scenes with the windows in which their objects were drawn, captioned by count.

    Args:
        images: [N, H, W, C] with C = 1 (grey) or 3 (RGB), float in [0, 1] or uint8.
        boxes: float [N, T, 4], or None where there are no objects.
        counts: int [N], or None likewise.
        title: heading of the sheet.

    Returns:
        The figure.

    Raises:
        ValueError: wrong rank or number of channels, or no image.
    """
    tiles = scene_tiles(images, boxes, counts)
    num_columns = _columns_that_fit(tiles)
    captions = [""] * len(tiles) if counts is None else [_objects(n) for n in counts]
    cells = [_Cell(tile, caption) for tile, caption in zip(tiles, captions, strict=True)]
    rows = [cells[start : start + num_columns] for start in range(0, len(cells), num_columns)]
    return _sheet(rows, title, 0 if boxes is None else np.shape(boxes)[1])


def _objects(count: int) -> str:
    return "1 object" if count == 1 else f"{count} objects"


def _columns_that_fit(tiles: np.ndarray) -> int:
    return max(1, min(8, (_SHEET_PX - 2 * _MARGIN_PX) // (tiles.shape[2] + _GAP_PX)))


def _sheet(
    rows: Sequence[Sequence[_Cell]], title: str, num_steps: int, has_true_boxes: bool = False
) -> Figure:
    """Captioned scenes on white, below a title and the key of colours."""
    tile_height, tile_width = rows[0][0].pixels.shape[:2]
    num_columns = max(len(row) for row in rows)
    width = max(520, 2 * _MARGIN_PX + num_columns * (tile_width + _GAP_PX) - _GAP_PX)
    height = _HEADER_PX + len(rows) * (_CAPTION_PX + tile_height + _GAP_PX) + _MARGIN_PX
    figure = blank_figure(width, height)
    sheet = np.full((height, width, 3), 255, np.uint8)

    def write(x_px: float, y_px: float, text: str, **style: Any) -> None:
        figure.text(x_px / width, 1.0 - y_px / height, text, va="center", **style)

    write(_MARGIN_PX, 18, title, fontsize=12, fontweight="bold")
    key = [(f"step {step + 1}", STEP_COLOURS[step % 8]) for step in range(num_steps)]
    if has_true_boxes:
        key.append(("true", _TRUE_COLOUR))
    for index, (label, colour) in enumerate(key):
        left = _MARGIN_PX + index * 68
        sheet[37:50, left : left + 13] = 0
        sheet[39:48, left + 2 : left + 11] = colour
        write(left + 18, 43, label, fontsize=9)
    for row_index, row in enumerate(rows):
        top = _HEADER_PX + row_index * (_CAPTION_PX + tile_height + _GAP_PX) + _CAPTION_PX
        for column, cell in enumerate(row):
            left = _MARGIN_PX + column * (tile_width + _GAP_PX)
            sheet[top : top + tile_height, left : left + tile_width] = cell.pixels
            write(
                left + tile_width / 2,
                top - _CAPTION_PX / 2,
                cell.caption,
                ha="center",
                fontsize=9,
                color=_WRONG_COLOUR if cell.is_wrong else "black",
                fontweight="bold" if cell.is_wrong else "normal",
            )
    # Drawn at the figure's own resolution, so that no pixel is resampled.
    figure.figimage(sheet, 0, 0, origin="upper", zorder=-1)
    return figure
