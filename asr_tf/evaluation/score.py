"""Scores whatever model's arrays against the truth, so that figures of different programs stand side by side.

Contract: what is missing on either side is left out of the result, never guessed; the same arrays give the same
numbers, whatever found them.
"""

from __future__ import annotations

import os
import zipfile
import zlib
from collections.abc import Mapping
from typing import Any

import numpy as np

from asr_tf.evaluation import detection, metrics, segmentation

__all__ = ["ARRAYS", "read_arrays", "score"]

# Name -> axes; `scores` only of what was found.
ARRAYS = {"count": "[N]", "boxes": "[N, rows, 4]", "masks": "[N, rows, H, W]", "scores": "[N, rows]"}


def read_arrays(path: str | os.PathLike[str]) -> dict[str, np.ndarray]:
    """The arrays of an npz file that `score` knows; others are ignored.

    Raises:
        ValueError: there is no such file, or it isn't an npz archive of numbers.
    """
    try:
        with open(path, "rb") as file:
            archive = np.load(file, allow_pickle=False)
            if not isinstance(archive, np.lib.npyio.NpzFile):
                raise ValueError("it holds one array and no names")
            arrays = {name: archive[name] for name in ARRAYS if name in archive.files}
    except (OSError, ValueError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        reason = "there is no such file" if isinstance(error, FileNotFoundError) else str(error)
        raise ValueError(f"{os.fspath(path)} must be an npz file of {', '.join(ARRAYS)}: {reason}.") from None
    return arrays


def score(found: Mapping[str, Any], true: Mapping[str, Any]) -> dict[str, Any]:
    """Every metric that the arrays allow.

    Args:
        found: what a model found: `count` int [N]; `boxes` float [N, P, 4], `[ymin, xmin, ymax, xmax]` in any unit, the
            same as the truth's; `masks` [N, P, H, W], uint8, bool or float, each object's share of each pixel; `scores`
            float [N, P], how sure it is of each object.  The first `count` rows are present.  All but `count` may be
            missing.
        true: likewise, without `scores`.

    Returns:
        Numbers by name, NaN where there is nothing to measure (no true object, say):

        * `num_images`, `count_accuracy`, `count_mae` (mean absolute error), `count_relative_error` (mean of it over the
          larger of the true count and 1);
        * with masks: `ari`, `ari_fg` and `ari_fg_single`, the share of images with one true object, for which ARI-FG
          says little; `sc`, `msc`; `mask_miou`; means over images;
        * with boxes: `f1_50`, `ap_stardist_50`; with scores too `ap`, `ap50`, `ap75`; with masks the same with `mask_`
          before them.

    Raises:
        ValueError, TypeError: an array is missing, or has another shape, dtype or range.
    """
    found, true = _checked("found", found), _checked("true", true)
    _check_together(found, true)
    counts = found["count"], true["count"]
    error = np.abs(counts[0].astype(np.int64) - counts[1])
    result: dict[str, Any] = {
        "num_images": len(counts[0]),
        "count_accuracy": metrics.count_accuracy(*counts),
        "count_mae": float(error.mean()),
        "count_relative_error": float((error / np.maximum(counts[1], 1)).mean()),
    }
    if "masks" in found and "masks" in true:
        labels = [segmentation.pixel_labels(side["masks"], side["count"]) for side in (found, true)]
        result |= _segmentation(labels[0], labels[1], *counts)
        ious = _padded(segmentation.mask_iou(*labels), found["masks"].shape[1], true["masks"].shape[1])
        result |= {f"mask_{name}": value for name, value in _detection(ious, found, true).items()}
    if "boxes" in found and "boxes" in true:
        result |= _detection(metrics.box_iou(found["boxes"], true["boxes"]), found, true)
    return result


def _segmentation(
    found_labels: np.ndarray, true_labels: np.ndarray, found_counts: np.ndarray, true_counts: np.ndarray
) -> dict[str, float]:
    labels = found_labels, true_labels
    covering = segmentation.segmentation_covering(*labels)
    by_image = {
        "ari": segmentation.adjusted_rand_index(*labels),
        "ari_fg": segmentation.adjusted_rand_index(*labels, foreground=True),
        "ari_fg_single": (true_counts == 1).astype(np.float64),
        "sc": covering[0],
        "msc": covering[1],
        "mask_miou": segmentation.mean_mask_iou(*labels, found_counts, true_counts),
    }
    return {name: _mean(values) for name, values in by_image.items()}


def _mean(values: np.ndarray) -> float:
    """The mean of what isn't NaN; NaN where all is."""
    known = values[~np.isnan(values)]
    return float(known.mean()) if len(known) else float("nan")


def _detection(ious: np.ndarray, found: Mapping[str, np.ndarray], true: Mapping[str, np.ndarray]) -> dict[str, float]:
    counts = found["count"], true["count"]
    right = detection.right_objects(ious, *counts)
    all_found, all_true = (int(count.sum()) for count in counts)
    nothing = all_found + all_true == 0
    result = {
        "f1_50": float("nan") if nothing else 2.0 * right / (all_found + all_true),
        "ap_stardist_50": float("nan") if nothing else right / (all_found + all_true - right),
    }
    if "scores" in found:
        thresholds = detection.COCO_THRESHOLDS
        precisions = detection.average_precision(ious, found["scores"], *counts, thresholds)
        by_threshold = dict(zip(thresholds, precisions.tolist(), strict=True))
        result |= {"ap": float(precisions.mean()), "ap50": by_threshold[0.5], "ap75": by_threshold[0.75]}
    return result


def _padded(ious: np.ndarray, rows: int, columns: int) -> np.ndarray:
    """IoU [N, rows, columns], zeros for objects that no pixel shows."""
    missing = [(0, 0), (0, rows - ious.shape[1]), (0, columns - ious.shape[2])]
    return np.pad(ious, missing)


# Checks.


def _checked(side: str, arrays: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """One side's arrays.

    Raises:
        ValueError, TypeError: see `score`.
    """
    known = {name: np.asarray(arrays[name]) for name in ARRAYS if arrays.get(name) is not None}
    if "count" not in known:
        raise ValueError(f"{side} arrays must have count, int [N], got {', '.join(arrays) or 'none'}.")
    for name, array in known.items():
        label = f"{side} {name}"
        wanted = 1 + ARRAYS[name].count(",")
        if array.ndim != wanted or (name == "boxes" and array.shape[-1] != 4):
            raise ValueError(f"{label} must have shape {ARRAYS[name]}, got {list(array.shape)}.")
        if len(array) != len(known["count"]):
            raise ValueError(f"{label} must have {len(known['count'])} rows as {side} count has, got {len(array)}.")
        kinds = "iu" if name == "count" else "biuf" if name == "masks" else "iuf"
        if array.dtype.kind not in kinds or (name == "masks" and array.dtype.kind in "iu" and array.dtype != np.uint8):
            wanted_dtype = {"count": "integers", "masks": "uint8, bool or floating point"}.get(name, "numbers")
            raise TypeError(f"{label} must be {wanted_dtype}, got dtype {array.dtype}.")
        if array.dtype.kind == "f" and not np.isfinite(array).all():
            index = int(np.argwhere(~np.isfinite(array))[0, 0])
            raise ValueError(f"{label} must be finite; that of image {index} isn't.")
    if not len(known["count"]):
        raise ValueError(f"{side} arrays must hold at least one image, got none.")
    _check_rows(side, known)
    return known


def _check_rows(side: str, known: Mapping[str, np.ndarray]) -> None:
    """Raises ValueError where counts, boxes or masks can't be those of scenes."""
    count = known["count"]
    rows_of = {name: array.shape[1] for name, array in known.items() if name != "count"}
    for name, rows in rows_of.items():
        first, wanted = next(iter(rows_of.items()))
        if rows != wanted:
            raise ValueError(f"{side} {name} must have {wanted} rows of objects as {side} {first} has, got {rows}.")
        if count.min() < 0 or count.max() > rows:
            raise ValueError(
                f"{side} count must lie in 0..{rows}, the rows of {side} {name}, "
                f"got values from {count.min()} to {count.max()}."
            )
    if "boxes" in known:
        boxes = known["boxes"]
        present = np.arange(boxes.shape[1]) < count[:, np.newaxis]
        upside_down = (boxes[..., :2] > boxes[..., 2:]).any(axis=-1) & present
        if upside_down.any():
            image, row = np.argwhere(upside_down)[0]
            raise ValueError(
                f"{side} boxes must be [ymin, xmin, ymax, xmax]; box {row} of image {image} ends before it starts: "
                f"{boxes[image, row].tolist()}."
            )
    if "masks" in known and known["masks"].dtype.kind == "f" and known["masks"].size:
        low, high = float(known["masks"].min()), float(known["masks"].max())
        if low < 0.0 or high > 1.0 + 1e-5:
            raise ValueError(f"{side} masks must lie in [0, 1], got values from {low:g} to {high:g}.")


def _check_together(found: Mapping[str, np.ndarray], true: Mapping[str, np.ndarray]) -> None:
    """Raises ValueError where the two sides aren't about the same images."""
    if len(found["count"]) != len(true["count"]):
        raise ValueError(
            f"found and true arrays must be of the same images, got {len(found['count'])} found and "
            f"{len(true['count'])} true ones."
        )
    if "masks" in found and "masks" in true and found["masks"].shape[2:] != true["masks"].shape[2:]:
        sizes = " and ".join(f"{side['masks'].shape[2]} x {side['masks'].shape[3]}" for side in (found, true))
        raise ValueError(f"found and true masks must be of one size (height x width), got {sizes}.")
