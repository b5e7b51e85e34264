"""Pictures: pixels by hand, sizes, and what must be seen in them."""

from __future__ import annotations

import io
import subprocess
import sys

import numpy as np
import pytest
from matplotlib import image as mpl_image

from asr_tf.evaluation import plots, sheets, tiles


def _pixels(figure) -> np.ndarray:
    """uint8 [h, w, 3] of a figure as it is saved."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=100)
    buffer.seek(0)
    return np.round(255 * mpl_image.imread(buffer)[..., :3]).astype(np.uint8)


def _scenes(num_scenes=3, num_steps=4, height=50, width=50, channels=1):
    """Images and what `infer` would return: step t draws a pixel of its own, which in RGB is red, green, blue, red."""
    boxes = np.zeros((num_scenes, num_steps, 4), np.float32)
    objects = np.zeros((num_scenes, num_steps, height, width, channels), np.float32)
    for step in range(num_steps):
        boxes[:, step] = [0.1, 0.2 * step, 0.3, 0.2 * step + 0.1]
        objects[:, step, height // 5, round(0.2 * step * width) + 1, step % channels] = 1.0
    counts = np.arange(num_scenes) % (num_steps + 1)
    present = (np.arange(num_steps) < counts[:, None])[..., None, None, None]
    images = (objects * present).sum(axis=1)
    inferred = {
        "count": counts,
        "scores": (np.arange(num_steps) < counts[:, None]).astype(np.float32),
        "boxes": boxes,
        "objects": objects,
        "reconstruction": images,
    }
    return images, inferred


def _rows(num_rows):
    return [
        {
            "step": 10 * (row + 1),
            "train_seconds": 2.0 * row,
            "negative_elbo_nats": 500.0 - row,
            "nll_nats": None if row == 1 else 400.0,
            "penalty_count_in_set": 0.1,
            "val_mean_iou": 0.5,
        }
        for row in range(num_rows)
    ]


def test_no_metrics_are_named():
    with pytest.raises(ValueError, match="at least one line of metrics"):
        plots.training_curves([])


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("canvas", [(50, 50), (20, 64), (300, 300)])
def test_figures_show_scenes_without_resampling(canvas, channels):
    images, inferred = _scenes(3, 4, *canvas, channels)
    pixels = _pixels(sheets.samples(images, np.zeros_like(inferred["boxes"]), inferred["count"]))
    tile = tiles.image_grid(images[2:], zoom=None)[4:-4, 4:-4]
    height, width = tile.shape[:2]
    # The third scene, wherever the sheet's margins put it.
    columns = min(8, (1320 - 28) // (width + 10))
    top = 58 + 21 + (2 // columns) * (21 + height + 10)
    left = 14 + (2 % columns) * (width + 10)
    np.testing.assert_array_equal(pixels[top : top + height, left : left + width], tile)


def test_a_wrong_count_is_captioned_in_red():
    images, inferred = _scenes(2)
    red = [200, 16, 46]
    right = _pixels(sheets.reconstructions(images, inferred, inferred["count"], inferred["boxes"]))
    wrong = _pixels(sheets.reconstructions(images, inferred, inferred["count"] + 1))
    unknown = _pixels(sheets.reconstructions(images, inferred))
    assert [bool((p == red).all(-1).any()) for p in (right, wrong, unknown)] == [False, True, False]


def test_masks_are_a_row_in_the_colours_of_the_steps():
    images, inferred = _scenes(num_scenes=5)
    inferred["masks"] = np.zeros((5, 4, 50, 50, 1), np.float32)
    inferred["masks"][4, 0, :, :25] = 1.0
    inferred["masks"][4, 1, :, 25:] = 0.5
    with_masks = _pixels(sheets.reconstructions(images, inferred))
    del inferred["masks"]
    without = _pixels(sheets.reconstructions(images, inferred))
    assert with_masks.shape[0] > without.shape[0] and with_masks.shape[1] == without.shape[1]
    for step, share in ((0, 1.0), (1, 0.5)):
        wanted = share * np.array(tiles.STEP_COLOURS[step])
        numbers = [np.sum(np.abs(picture - wanted).max(axis=-1) <= 1) for picture in (with_masks, without)]
        assert numbers[0] - numbers[1] == 150 * 75, step  # a scene is drawn 150 pixels wide


def test_calibration_shows_counts_and_windows():
    bins = [{"confidence": 0.55, "accuracy": 0.5, "number": 10}, {"confidence": 0.95, "accuracy": 0.9, "number": 90}]
    counts_alone = plots.calibration(bins, {})
    assert len(counts_alone.axes) == 1
    both = plots.calibration(bins, {"level": [0.5, 0.9], "shift": [0.4, 0.8], "scale": [0.5, 0.95]})
    points = both.axes[0].collections[0].get_offsets()
    np.testing.assert_allclose(points, [[0.55, 0.5], [0.95, 0.9]])
    lines = {line.get_label(): line.get_xydata() for line in both.axes[1].lines}
    np.testing.assert_allclose(lines["shift"], [[0.5, 0.4], [0.9, 0.8]])
    assert _pixels(both).shape[0] > 400


def test_step_by_step_has_two_rows_an_image():
    images, inferred = _scenes(3, 4)
    figure = sheets.step_by_step(images, inferred)
    captions = [text.get_text() for text in figure.texts]
    assert captions.count("input") == 3
    assert captions.count("after step 4") == 3
    assert captions.count("none, p = 0.000") == 4 + 3 + 2
    assert captions.count("p = 1.000") == 0 + 1 + 2


def test_step_by_step_is_in_colour():
    """Cell by cell: canvases add up the colours of the steps, objects have their own."""
    images, inferred = _scenes(1, 3, channels=3)
    inferred["count"] = np.array([2])
    inferred["boxes"] = np.zeros((1, 3, 4))  # no outlines
    images = inferred["objects"][:, :2].sum(axis=1)
    pixels = _pixels(sheets.step_by_step(images, inferred))
    side = 150  # 50 pixels, each a square of 3
    red, green = [255, 0, 0], [0, 255, 0]

    def colours_of(row, column):
        top, left = 58 + row * (21 + side + 10) + 21, 14 + column * (side + 10)
        cell = pixels[top : top + side, left : left + side]
        # The pixels that the three steps draw, in the middle of their squares.
        return [cell[31, 3 * (10 * step + 1) + 1].tolist() for step in range(3)]

    black = [0, 0, 0]
    assert colours_of(0, 0) == [red, green, black]  # input
    assert colours_of(0, 1) == [red, black, black]  # after step 1
    assert colours_of(0, 2) == colours_of(0, 3) == [red, green, black]
    assert colours_of(1, 0) == [red, green, black]  # reconstruction
    assert colours_of(1, 1) == [red, black, black]  # the object of step 1
    assert colours_of(1, 2) == [black, green, black]
    assert colours_of(1, 3) == [black, black, black]  # no third object


def test_reconstructions_are_in_colour():
    images = np.zeros((1, 50, 50, 3), np.float32)
    images[..., :] = [1.0, 0.0, 0.2]
    pixels = _pixels(sheets.reconstructions(images, {"reconstruction": images[..., ::-1]}))
    top = 58 + 21
    assert (pixels[top : top + 150, 14:164] == [255, 0, 51]).all()
    top += 150 + 10 + 21
    assert (pixels[top : top + 150, 14:164] == [51, 0, 255]).all()


def test_confusion_shows_each_number():
    figure = plots.confusion([[0, 0, 1], [7, 123, 4]])
    texts = [text.get_text() for text in figure.axes[0].texts]
    assert texts == ["0", "0", "1", "7", "123", "4"]


@pytest.mark.parametrize("num_rows", [1, 2, 30])
def test_training_curves_take_short_and_long_runs(num_rows):
    figure = plots.training_curves(_rows(num_rows))
    lines = {line.get_label(): line for axes in figure.axes[:6] for line in axes.lines}
    assert set(lines) == {"-ELBO", "-log p(x | z)", "mean IoU, validation", "count in set"}
    assert len(lines["-log p(x | z)"].get_xdata()) == num_rows - (num_rows > 1)
    file = io.BytesIO()
    plots.save_figure(figure, file)
    assert file.getvalue().startswith(b"\x89PNG")


def test_minutes_stand_at_their_steps():
    rows = [{"step": s, "train_seconds": 6.0 * s, "nll_nats": 1.0} for s in range(0, 101, 10)]
    upper = plots.training_curves(rows).axes[0].child_axes[0]
    labels = [label.get_text() for label in upper.get_xticklabels()]
    marks = dict(zip(labels, upper.get_xticks(), strict=True))
    assert marks["2 min"] == 20 and marks["10 min"] == 100


def test_no_global_state_is_touched():
    code = "import sys, asr_tf.evaluation.sheets; sys.exit('matplotlib.pyplot' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
