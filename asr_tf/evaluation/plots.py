"""Pictures of scenes, inference and training.

Scenes are composed in whole pixels (`asr_tf.evaluation.tiles`), captioned by Matplotlib's Agg canvas, without
its global state.  Each inference step has one colour everywhere, each true box is white.  Functions
that end in `_grid` return arrays for image summaries; the others return a `Figure`, which
`save_figure` writes.  Axis letters are those of `asr_tf.scene`; nothing here knows the model.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from matplotlib import ticker
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from asr_tf.evaluation.calibration import Reliability
from asr_tf.evaluation.tiles import (
    STEP_COLOURS,
    draw_boxes_grid,
    image_grid,
    mask_tiles,
    reconstruction_grid,
    scene_tiles,
)

__all__ = [
    "STEP_COLOURS",
    "calibration",
    "confusion",
    "draw_boxes_grid",
    "image_grid",
    "reconstruction_grid",
    "reconstructions",
    "samples",
    "save_figure",
    "step_by_step",
    "training_curves",
]

_TRUE_COLOUR = (255, 255, 255)
_WRONG_COLOUR = "#c8102e"
_DPI = 100
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


def confusion(matrix: Any) -> Figure:
    """The count confusion matrix, with its numbers.

    Args:
        matrix: int [M + 1, T + 1]; row: true count, column: inferred count.

    Returns:
        The figure; colours are shares of the row, so that rare counts are seen too.
    """
    matrix = np.asarray(matrix)
    shares = matrix / np.maximum(matrix.sum(axis=1, keepdims=True), 1)
    num_rows, num_columns = matrix.shape
    figure = _figure(160 + 70 * num_columns, 130 + 60 * num_rows)
    axes = figure.add_subplot()
    axes.imshow(shares, cmap="Blues", vmin=0.0, vmax=1.0, aspect="auto")
    for row in range(num_rows):
        for column in range(num_columns):
            axes.text(
                column,
                row,
                str(matrix[row, column]),
                ha="center",
                va="center",
                color="white" if shares[row, column] > 0.5 else "black",
            )
    axes.set_xticks(range(num_columns))
    axes.set_yticks(range(num_rows))
    axes.set_xlabel("inferred count")
    axes.set_ylabel("true count")
    axes.set_title("Scenes by count", fontsize=11)
    figure.set_layout_engine("constrained")
    return figure


def calibration(bins: Reliability, coverage: Mapping[str, Sequence[float]]) -> Figure:
    """Whether the model is as sure as it should be: are counts right, and windows where it says, as often?

    Args:
        bins: as `asr_tf.evaluation.calibration.reliability` gives them.
        coverage: `level`, and by latent the share of true windows in the intervals of that level; may be empty.

    Returns:
        The figure; on the diagonal, a model is as sure as it should be.
    """
    figure = _figure(860 if coverage else 450, 430)
    panels = figure.subplots(1, 2 if coverage else 1, squeeze=False)[0]
    number = sum(entry["number"] for entry in bins)
    panels[0].scatter(
        [entry["confidence"] for entry in bins],
        [entry["accuracy"] for entry in bins],
        [20.0 + 200.0 * entry["number"] / number for entry in bins],
        color=_series_colour(0),
    )
    panels[0].set_title("Counts (larger: more images)", fontsize=11)
    panels[0].set_xlabel("probability of the inferred count")
    panels[0].set_ylabel("share of right counts")
    if coverage:
        levels = coverage["level"]
        for index, (name, shares) in enumerate(item for item in coverage.items() if item[0] != "level"):
            panels[1].plot(levels, shares, "o-", color=_series_colour(index), label=name)
        panels[1].set_title("Windows of objects", fontsize=11)
        panels[1].set_xlabel("probability of the interval")
        panels[1].set_ylabel("share of true windows in it")
        panels[1].legend(fontsize=8)
    for axes in panels:
        axes.plot([0.0, 1.0], [0.0, 1.0], ":", color="grey", zorder=0)
        axes.set_xlim(-0.03, 1.03)
        axes.set_ylim(-0.03, 1.03)
        axes.grid(alpha=0.3)
    figure.set_layout_engine("constrained", w_pad=0.12, h_pad=0.12)
    return figure


def _series_colour(index: int) -> tuple[float, ...]:
    """Step colours, darker, for lines on white."""
    return tuple(0.85 * part / 255 for part in STEP_COLOURS[(index + 2) % len(STEP_COLOURS)])


_PANELS: tuple[tuple[str, tuple[tuple[str, str], ...]], ...] = (
    ("Bound, nats an image", (("negative_elbo_nats", "-ELBO"), ("nll_nats", "-log p(x | z)"))),
    (
        "Divergences, nats an image",
        (
            ("kl_count_nats", "count"),
            ("kl_shift_nats", "shift"),
            ("kl_scale_nats", "scale"),
            ("kl_what_nats", "appearance"),
        ),
    ),
    ("Count accuracy", (("count_accuracy", "count accuracy"),)),
    ("Mean IoU of boxes", (("mean_iou", "mean IoU"),)),
    ("Penalties, unweighted", ()),
    ("Learning rate", (("learning_rate", "learning rate"),)),
)


def training_curves(rows: Sequence[Mapping[str, Any]]) -> Figure:
    """The course of a training run over steps (below) and minutes of training (above).

    Args:
        rows: lines of `metrics.jsonl`, in order, each with `step` and with whichever of these it
            knows: `train_seconds`, the objective terms, `count_accuracy`, `mean_iou`, `penalty_*`,
            `learning_rate`; those of the validation split with the prefix `val_`.

    Returns:
        The figure; validation values are drawn with dots.

    Raises:
        ValueError: no rows.
    """
    if not rows:
        raise ValueError("rows must hold at least one line of metrics, got none.")
    keys = sorted({key for row in rows for key in row})
    penalties = tuple(
        (key, key.removeprefix("penalty_").replace("_", " "))
        for key in dict.fromkeys(key.removeprefix("val_") for key in keys)
        if key.startswith("penalty_")
    )
    figure = _figure(1350, 760)
    all_axes = figure.subplots(2, 3)
    for axes, (title, lines) in zip(all_axes.flat, _PANELS, strict=True):
        lines = lines or penalties
        highest = []
        for index, (key, label) in enumerate(lines):
            colour = _series_colour(index)
            for prefix, style in (("", "o-" if len(rows) < 5 else "-"), ("val_", "o--")):
                steps, values = _series(rows, prefix + key)
                if not len(values):
                    continue
                axes.plot(
                    steps,
                    values,
                    style,
                    color=colour,
                    linewidth=1.3,
                    markersize=3,
                    label=label + (", validation" if prefix else ""),
                )
                # The first steps of a run would press all the rest into a line.
                highest.append(values[len(values) // 20 :].max())
        axes.set_title(title, fontsize=11, pad=22)
        axes.set_xlabel("steps")
        axes.grid(alpha=0.3)
        if not highest:
            axes.text(0.5, 0.5, "none", transform=axes.transAxes, ha="center", color="grey")
            continue
        axes.yaxis.set_major_formatter(ticker.StrMethodFormatter("{x:.4g}"))
        if title in ("Count accuracy", "Mean IoU of boxes"):
            axes.set_ylim(-0.02, 1.02)
        else:
            low = axes.get_ylim()[0]
            axes.set_ylim(low, max(highest) + 0.05 * max(max(highest) - low, 1e-12))
        axes.set_xlim(0, 1.02 * max(row["step"] for row in rows))
        axes.xaxis.set_major_locator(ticker.MaxNLocator(5, integer=True))
        axes.legend(fontsize=8, framealpha=0.8)
        _add_minutes(axes, rows)
    figure.set_layout_engine("constrained", w_pad=0.12, h_pad=0.12)
    return figure


def save_figure(figure: Figure, path: str | os.PathLike[str]) -> None:
    """Writes a figure as a PNG file, whole or not at all.

    Args:
        figure: what one of the functions above returned.
        path: file to write; its folder must exist.

    Raises:
        OSError: the file can't be written.
    """
    partial = f"{os.fspath(path)}.partial"
    figure.savefig(partial, dpi=_DPI, format="png")
    os.replace(partial, path)


def _objects(count: int) -> str:
    return "1 object" if count == 1 else f"{count} objects"


def _columns_that_fit(tiles: np.ndarray) -> int:
    return max(1, min(8, (_SHEET_PX - 2 * _MARGIN_PX) // (tiles.shape[2] + _GAP_PX)))


def _figure(width_px: int, height_px: int) -> Figure:
    figure = Figure(figsize=(width_px / _DPI, height_px / _DPI), dpi=_DPI, facecolor="white")
    FigureCanvasAgg(figure)
    return figure


def _sheet(
    rows: Sequence[Sequence[_Cell]], title: str, num_steps: int, has_true_boxes: bool = False
) -> Figure:
    """Captioned scenes on white, below a title and the key of colours."""
    tile_height, tile_width = rows[0][0].pixels.shape[:2]
    num_columns = max(len(row) for row in rows)
    width = max(520, 2 * _MARGIN_PX + num_columns * (tile_width + _GAP_PX) - _GAP_PX)
    height = _HEADER_PX + len(rows) * (_CAPTION_PX + tile_height + _GAP_PX) + _MARGIN_PX
    figure = _figure(width, height)
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


def _series(rows: Sequence[Mapping[str, Any]], key: str) -> tuple[np.ndarray, np.ndarray]:
    """Steps and finite values of one metric."""
    pairs = [(row["step"], row[key]) for row in rows if row.get(key) is not None]
    pairs = [pair for pair in pairs if np.isfinite(pair[1])]
    return np.array([step for step, _ in pairs]), np.array([value for _, value in pairs])


def _add_minutes(axes: Any, rows: Sequence[Mapping[str, Any]]) -> None:
    """Marks the minutes of training along the upper edge."""
    steps, seconds = _series(rows, "train_seconds")
    if len(steps) < 2:
        return
    first, last = axes.get_xlim()
    wanted = ticker.MaxNLocator(6).tick_values(0.0, seconds[-1] / 60.0)
    marks = [
        (float(np.interp(60.0 * minutes, seconds, steps)), minutes)
        for minutes in wanted
        if seconds[0] <= 60.0 * minutes <= seconds[-1]
    ]
    upper = axes.secondary_xaxis("top")
    upper.set_xticks([step for step, _ in marks if first <= step <= last])
    upper.set_xticklabels([f"{minutes:g} min" for _, minutes in marks], fontsize=8)
