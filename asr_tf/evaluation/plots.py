"""Plots of numbers: confusion of counts, calibration, the course of a training run; and how any figure is saved.

Matplotlib's Agg canvas, without its global state.  Axis letters are those of `asr_tf.scene`; nothing here knows the
model.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, BinaryIO

import numpy as np
from matplotlib import ticker
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from asr_tf.evaluation.calibration import Reliability
from asr_tf.evaluation.tiles import STEP_COLOURS

__all__ = ["blank_figure", "calibration", "confusion", "save_figure", "training_curves"]

_DPI = 100


def blank_figure(width_px: int, height_px: int) -> Figure:
    """An empty white figure of that many pixels, without Matplotlib's global state."""
    figure = Figure(figsize=(width_px / _DPI, height_px / _DPI), dpi=_DPI, facecolor="white")
    FigureCanvasAgg(figure)
    return figure


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
    figure = blank_figure(160 + 70 * num_columns, 130 + 60 * num_rows)
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
    figure = blank_figure(860 if coverage else 450, 430)
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
    figure = blank_figure(1350, 760)
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


def save_figure(figure: Figure, file: BinaryIO) -> None:
    """Writes a figure as PNG.

    Args:
        figure: what one of the functions above returned.
        file: open for writing.

    Raises:
        OSError: the file can't be written.
    """
    figure.savefig(file, dpi=_DPI, format="png")


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
