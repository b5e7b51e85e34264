"""How well objects are found, whatever shows them: average precision, F1, accuracy of StarDist.

Pure NumPy and SciPy.  Functions take the IoU of every pair of found and true objects, and so serve boxes and masks
alike.  Axis letters: N images, P rows of found and Q rows of true objects, of which the first `count` are present.

References:
    Lin et al., "Microsoft COCO", ECCV 2014, arXiv:1405.0312, and its evaluation code's definition of average precision.
    Schmidt et al., "Cell detection with star-convex polygons", MICCAI 2018, arXiv:1806.03535, section 3.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from scipy import optimize

__all__ = ["COCO_THRESHOLDS", "average_precision", "right_objects"]

COCO_THRESHOLDS = tuple(round(0.5 + 0.05 * index, 2) for index in range(10))
"""0.50, 0.55, ..., 0.95: IoU thresholds whose mean average precision is AP."""

_RECALLS = np.linspace(0.0, 1.0, 101)


def average_precision(
    ious: Any, scores: Any, found_counts: Any, true_counts: Any, thresholds: Sequence[float] = COCO_THRESHOLDS
) -> np.ndarray:
    """COCO's average precision, at 101 recalls, for each IoU threshold.

    The surest found object takes the true one that it overlaps most, of those that are left.  (COCO looks at the 100
    surest objects of an image; here all count.)

    Args:
        ious: float [N, P, Q].
        scores: float [N, P], how sure it is that there is an object.
        found_counts, true_counts: int [N].
        thresholds: IoU from which a found object is right.

    Returns:
        float64 [len(thresholds)] in [0, 1]; NaN where there is no true object.
    """
    ious, scores = np.asarray(ious, np.float64), np.asarray(scores, np.float64)
    found_counts, true_counts = np.asarray(found_counts), np.asarray(true_counts)
    num_true = int(true_counts.sum())
    if not num_true:
        return np.full(len(thresholds), np.nan)
    present = np.arange(scores.shape[1]) < found_counts[:, np.newaxis]
    order = np.argsort(-scores[present], kind="stable")
    precisions = []
    for threshold in thresholds:
        right = np.zeros(scores.shape, bool)
        for index, (found, true) in enumerate(zip(found_counts, true_counts, strict=True)):
            by_score = np.argsort(-scores[index, :found], kind="stable")
            right[index, by_score] = _greedily_matched(ious[index, by_score, :true], threshold)
        hits = np.cumsum(right[present][order])
        recall, precision = hits / num_true, hits / np.arange(1, len(hits) + 1)
        # At each recall the best precision at that recall or a larger one; 0 where that recall isn't reached.
        best = np.append(np.maximum.accumulate(precision[::-1])[::-1], 0.0)
        precisions.append(best[np.searchsorted(recall, _RECALLS, side="left")].mean())
    return np.array(precisions)


def _greedily_matched(ious: np.ndarray, threshold: float) -> list[bool]:
    """Whether each found object, the surest first, gets a true one; IoU [P, Q]."""
    free = list(range(ious.shape[1]))
    matched = []
    for row in ious:
        best, column = min(threshold, 1.0 - 1e-10), None
        for candidate in free:
            if row[candidate] >= best:
                best, column = row[candidate], candidate
        if column is not None:
            free.remove(column)
        matched.append(column is not None)
    return matched


def right_objects(ious: Any, found_counts: Any, true_counts: Any, threshold: float = 0.5) -> int:
    """How many found objects are right, of all images: the most that can be matched one to one.

    With TP of them, P found and Q true objects, F1 is 2 TP / (P + Q), and StarDist's accuracy TP / (P + Q - TP).

    Args:
        ious: float [N, P, Q].
        found_counts, true_counts: int [N].
        threshold: IoU from which a found object is right.
    """
    right = 0
    for pairs, found, true in zip(np.asarray(ious), found_counts, true_counts, strict=True):
        hits = pairs[:found, :true] >= threshold
        right += int(hits[optimize.linear_sum_assignment(hits, maximize=True)].sum())
    return right
