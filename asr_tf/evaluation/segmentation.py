"""How well masks tell objects apart: adjusted Rand index, segmentation covering, IoU of masks.

Pure NumPy and SciPy, for any model's arrays.  A pixel belongs to one object or to the ground: to whichever has the
largest share of it, the ground having what the objects leave.  What was found comes first in every signature, what is
true after it.  Axis letters: N images, P found and Q true objects.

References:
    Hubert and Arabie, "Comparing partitions", Journal of Classification 2, 1985 (adjusted Rand index).
    Engelcke et al., "GENESIS", ICLR 2020, arXiv:1907.13052, appendix (segmentation covering).
"""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy import optimize

__all__ = [
    "adjusted_rand_index",
    "mask_iou",
    "mean_mask_iou",
    "pixel_labels",
    "segmentation_covering",
]


def pixel_labels(masks: Any, counts: Any) -> np.ndarray:
    """What each pixel shows.

    Args:
        masks: [N, P, H, W], each object's share of each pixel: floating point in [0, 1], bool, or uint8 that is 0 or 1,
            or 0 to 255.
        counts: int [N], present objects; these come first.

    Returns:
        int32 [N, H, W], 0 for the ground and 1 + its row for an object.  Of equal shares the ground's counts first,
        then the first object's.
    """
    masks, counts = np.asarray(masks), np.asarray(counts)
    largest = 255.0 if masks.dtype == np.uint8 and masks.size and masks.max() > 1 else 1.0
    labels = np.zeros((len(masks), *masks.shape[2:]), np.int32)
    for index, (shares, count) in enumerate(zip(masks, counts, strict=True)):
        shares = shares[:count].astype(np.float64) / largest
        ground = np.maximum(1.0 - shares.sum(axis=0, keepdims=True), 0.0)
        labels[index] = np.concatenate([ground, shares]).argmax(axis=0)
    return labels


def _shared_pixels(found_labels: Any, true_labels: Any) -> np.ndarray:
    """int64 [N, P + 1, Q + 1], pixels of each pair of labels, with P and Q the largest labels there are."""
    found, true = (np.asarray(labels).reshape(len(labels), -1) for labels in (found_labels, true_labels))
    rows, columns = (int(labels.max(initial=0)) + 1 for labels in (found, true))
    image = np.arange(len(found))[:, np.newaxis]
    cells = (image * rows + found) * columns + true
    return np.bincount(cells.ravel(), minlength=len(found) * rows * columns).reshape(-1, rows, columns)


def adjusted_rand_index(found_labels: Any, true_labels: Any, foreground: bool = False) -> np.ndarray:
    """How far two ways of dividing pixels agree, image by image; 0 on average by chance, 1 if they are the same.

    Args:
        found_labels, true_labels: int [N, H, W], as of `pixel_labels`.
        foreground: whether only pixels of true objects count (ARI-FG).  With one true object this is 1 where the object
            was found in one piece, else 0, and says little.

    Returns:
        float64 [N]; NaN for an image without a pixel that counts.
    """
    shared = _shared_pixels(found_labels, true_labels).astype(np.float64)
    if foreground:
        shared = shared[:, :, 1:]
    together = np.square(shared).sum(axis=(1, 2))  # ordered pairs of pixels, each with itself too
    in_found = np.square(shared.sum(axis=2)).sum(axis=1)
    in_true = np.square(shared.sum(axis=1)).sum(axis=1)
    pixels = shared.sum(axis=(1, 2))
    both, only_found, only_true = together - pixels, in_found - together, in_true - together
    neither = pixels**2 - in_found - in_true + together
    with np.errstate(invalid="ignore", divide="ignore"):
        index = (
            2.0
            * (both * neither - only_true * only_found)
            / ((both + only_true) * (only_true + neither) + (both + only_found) * (only_found + neither))
        )
    index = np.where((only_found == 0) & (only_true == 0), 1.0, index)
    return np.where(pixels == 0, np.nan, index)


def mask_iou(found_labels: Any, true_labels: Any) -> np.ndarray:
    """Intersection over union of each pair of found and true objects.

    Args:
        found_labels, true_labels: int [N, H, W], as of `pixel_labels`.

    Returns:
        float64 [N, P, Q] with P and Q the largest labels there are; 0 where both have no pixel.
    """
    shared = _shared_pixels(found_labels, true_labels)
    either = shared.sum(axis=2)[:, 1:, np.newaxis] + shared.sum(axis=1)[:, np.newaxis, 1:] - shared[:, 1:, 1:]
    return shared[:, 1:, 1:] / np.maximum(either, 1)


def segmentation_covering(found_labels: Any, true_labels: Any) -> tuple[np.ndarray, np.ndarray]:
    """How well the best found object covers each true one, image by image.

    Args:
        found_labels, true_labels: int [N, H, W], as of `pixel_labels`.

    Returns:
        SC and mSC, float64 [N] each: the mean over true objects of the best IoU, weighted by their pixels and
        unweighted; NaN for an image without a true object.  An object that no pixel shows doesn't count.
    """
    best = mask_iou(found_labels, true_labels).max(axis=1, initial=0.0)  # [N, Q]
    pixels = _shared_pixels(found_labels, true_labels).sum(axis=1)[:, 1:]
    with np.errstate(invalid="ignore"):
        weighted = (pixels * best).sum(axis=1) / pixels.sum(axis=1)
        unweighted = ((pixels > 0) * best).sum(axis=1) / (pixels > 0).sum(axis=1)
    return weighted, unweighted


def mean_mask_iou(found_labels: Any, true_labels: Any, found_counts: Any, true_counts: Any) -> np.ndarray:
    """IoU of masks that are matched so that its sum is largest, over the larger count, image by image.

    Args:
        found_labels, true_labels: int [N, H, W], as of `pixel_labels`.
        found_counts, true_counts: int [N].

    Returns:
        float64 [N] in [0, 1]; an image that is empty and found empty has 1.
    """
    larger = np.maximum(np.asarray(found_counts), np.asarray(true_counts))
    total = np.zeros(len(larger))
    for index, ious in enumerate(mask_iou(found_labels, true_labels)):
        total[index] = ious[optimize.linear_sum_assignment(ious, maximize=True)].sum()
    return np.where(larger == 0, 1.0, total / np.maximum(larger, 1))
