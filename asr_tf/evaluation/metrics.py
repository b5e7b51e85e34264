"""What is measured on inferred and on sampled scenes: counts, boxes, broken rules.

Pure NumPy and SciPy, on whole data sets; nothing here knows the model or training.  Boxes are
`[ymin, xmin, ymax, xmax]`, of which the first `count` rows of a scene are present.  What was
inferred comes first in every signature, what is true after it.  Axis letters are those of
`asr_tf.scene`; N is the number of scenes, P the number of box rows of the inferred scenes.

References:
    Xu et al., "Multi-object Generation with Amortized Structural Regularization", NeurIPS 2019,
    arXiv:1906.03923: mean IoU, precision and recall of boxes.
    Kuhn, "The Hungarian method for the assignment problem", Naval Research Logistics Quarterly 2,
    1955.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from scipy import optimize

__all__ = [
    "IOU_THRESHOLDS",
    "Matching",
    "box_iou",
    "broken_rules",
    "count_accuracy",
    "count_confusion",
    "ink_boxes_of_objects",
    "match_boxes",
    "mean_iou",
    "precision_recall",
]

IOU_THRESHOLDS = tuple(round(0.5 + 0.05 * index, 2) for index in range(11))
"""0.50, 0.55, ..., 1.00: where precision and recall are reported."""

_FAINTEST_INK = 0.05
"""An object that is nowhere brighter than this (of 1) has no ink."""


class Matching(NamedTuple):
    """Which true box each inferred box stands for.

    Attributes:
        indices: int64 [N, P], row of the matched true box; -1 where the inferred box is absent or
            has no match.
        ious: float64 [N, P], IoU with the matched box; 0 where there is none.
    """

    indices: np.ndarray
    ious: np.ndarray


def box_iou(boxes_a: Any, boxes_b: Any) -> np.ndarray:
    """Intersection over union of all pairs of boxes.

    Args:
        boxes_a: float [..., Na, 4].
        boxes_b: float [..., Nb, 4], leading axes as `boxes_a` or to be broadcast.

    Returns:
        float64 [..., Na, Nb] in [0, 1]; 0 where both boxes are empty.

    >>> box_iou([[0., 0., 1., 1.]], [[0., 0., 1., .5], [0., .5, 1., 1.5]]).round(3).tolist()
    [[0.5, 0.333]]
    """
    boxes_a = np.asarray(boxes_a, np.float64)[..., :, None, :]
    boxes_b = np.asarray(boxes_b, np.float64)[..., None, :, :]
    low = np.maximum(boxes_a[..., :2], boxes_b[..., :2])
    high = np.minimum(boxes_a[..., 2:], boxes_b[..., 2:])
    shared = np.prod(np.maximum(high - low, 0.0), axis=-1)
    either = _areas(boxes_a) + _areas(boxes_b) - shared
    # Two empty boxes share nothing; NaN stays NaN.
    return np.where(either == 0.0, 0.0, shared / np.where(either == 0.0, 1.0, either))


def match_boxes(
    inferred_boxes: Any, inferred_counts: Any, true_boxes: Any, true_counts: Any
) -> Matching:
    """Matches inferred to true boxes one to one, so that the sum of the IoU is largest.

    Args:
        inferred_boxes: float [N, P, 4].
        inferred_counts: int [N], present rows of `inferred_boxes`.
        true_boxes: float [N, M, 4].
        true_counts: int [N], present rows of `true_boxes`.

    Returns:
        The matching.  A box that isn't finite overlaps nothing.

    Raises:
        ValueError: shapes that don't fit together, or a count above the number of rows.
    """
    inferred_boxes, inferred_counts = _checked_scenes("inferred", inferred_boxes, inferred_counts)
    true_boxes, true_counts = _checked_scenes("true", true_boxes, true_counts)
    if len(inferred_counts) != len(true_counts):
        raise ValueError(
            "inferred and true scenes must be as many, "
            f"got {len(inferred_counts)} inferred and {len(true_counts)} true scenes."
        )
    pair_ious = np.nan_to_num(box_iou(inferred_boxes, true_boxes), nan=0.0)
    indices = np.full(inferred_boxes.shape[:2], -1, np.int64)
    ious = np.zeros(inferred_boxes.shape[:2], np.float64)
    for scene, (present, wanted) in enumerate(zip(inferred_counts, true_counts, strict=True)):
        if present and wanted:
            scene_ious = pair_ious[scene, :present, :wanted]
            rows, columns = optimize.linear_sum_assignment(scene_ious, maximize=True)
            indices[scene, rows] = columns
            ious[scene, rows] = scene_ious[rows, columns]
    return Matching(indices, ious)


def mean_iou(
    inferred_boxes: Any, inferred_counts: Any, true_boxes: Any, true_counts: Any
) -> float:
    """Mean over scenes of (sum of matched IoU) / (the larger of the two counts).

    Both missed and surplus boxes cost; a scene that is empty and found empty scores 1.

    Args: as in `match_boxes`.

    Returns:
        A number in [0, 1]; NaN for no scenes.

    Raises:
        ValueError: as `match_boxes`.
    """
    matching = match_boxes(inferred_boxes, inferred_counts, true_boxes, true_counts)
    larger = np.maximum(np.asarray(inferred_counts), np.asarray(true_counts))
    scores = np.where(larger == 0, 1.0, matching.ious.sum(axis=1) / np.maximum(larger, 1))
    return float(scores.mean()) if len(scores) else float("nan")


def precision_recall(
    inferred_boxes: Any,
    inferred_counts: Any,
    true_boxes: Any,
    true_counts: Any,
    thresholds: Sequence[float] = IOU_THRESHOLDS,
) -> dict[str, list[float]]:
    """Precision and recall of the boxes of all scenes together.

    An inferred box is right at a threshold if its match has at least that IoU.

    Args:
        inferred_boxes: as in `match_boxes`.
        inferred_counts: as in `match_boxes`.
        true_boxes: as in `match_boxes`.
        true_counts: as in `match_boxes`.
        thresholds: IoU thresholds in [0, 1].

    Returns:
        `thresholds`, `precision` (right / inferred boxes) and `recall` (right / true boxes), one
        number a threshold; NaN where there are no boxes to divide by.

    Raises:
        ValueError: as `match_boxes`.
    """
    matching = match_boxes(inferred_boxes, inferred_counts, true_boxes, true_counts)
    matched_ious = matching.ious[matching.indices >= 0]
    right = [int(np.sum(matched_ious >= threshold)) for threshold in thresholds]
    num_inferred, num_true = int(np.sum(inferred_counts)), int(np.sum(true_counts))
    return {
        "thresholds": [float(threshold) for threshold in thresholds],
        "precision": [hits / num_inferred if num_inferred else float("nan") for hits in right],
        "recall": [hits / num_true if num_true else float("nan") for hits in right],
    }


def count_accuracy(inferred_counts: Any, true_counts: Any) -> float:
    """Fraction of scenes whose count is right.

    Args:
        inferred_counts: int [N].
        true_counts: int [N].

    Returns:
        A number in [0, 1]; NaN for no scenes.

    Raises:
        ValueError: the shapes differ.
    """
    inferred_counts, true_counts = _checked_counts(inferred_counts, true_counts)
    return float(np.mean(inferred_counts == true_counts)) if len(true_counts) else float("nan")


def count_confusion(
    inferred_counts: Any, true_counts: Any, num_steps: int, max_objects: int
) -> np.ndarray:
    """How often each true count was taken for each count.

    Args:
        inferred_counts: int [N] in 0..num_steps.
        true_counts: int [N] in 0..max_objects.
        num_steps: T.
        max_objects: M.

    Returns:
        int64 [M + 1, T + 1]; row: true count, column: inferred count.

    Raises:
        ValueError: the shapes differ, or a count lies outside its range.
    """
    inferred_counts, true_counts = _checked_counts(inferred_counts, true_counts)
    for name, counts, most in (
        ("inferred_counts", inferred_counts, num_steps),
        ("true_counts", true_counts, max_objects),
    ):
        if len(counts) and not (counts.min() >= 0 and counts.max() <= most):
            raise ValueError(
                f"{name} must lie in 0..{most}, got values from {counts.min()} to {counts.max()}."
            )
    confusion = np.zeros((max_objects + 1, num_steps + 1), np.int64)
    np.add.at(confusion, (true_counts, inferred_counts), 1)
    return confusion


def broken_rules(rules: Sequence[Any], scenes: Any) -> dict[str, np.ndarray]:
    """Which scenes break each rule.

    Args:
        rules: constraints (`asr_tf.constraints`): anything with a `name` and a `broken(scenes) -> bool [N] or None`.
        scenes: finished scenes, as `asr_tf.constraints.SceneStatistics`.

    Returns:
        bool [N] by the rule's name (a second rule of that name is called `<name>_2` and so on).  Rules that say nothing
        of a single scene, or look at what isn't known of these (`broken` gives None), are left out.
    """
    found: dict[str, np.ndarray] = {}
    names: list[str] = []
    for rule in rules:
        names.append(rule.name)
        number = names.count(rule.name)
        broken = rule.broken(scenes)
        if broken is not None:
            found[rule.name if number == 1 else f"{rule.name}_{number}"] = np.asarray(broken, bool)
    return found


def ink_boxes_of_objects(objects: Any, counts: Any, threshold: float = 0.25) -> np.ndarray:
    """Tight rectangles of the ink that each step drew.

    Args:
        objects: float [N, T, H, W, C] in [0, 1], each step's contribution to the canvas, with
            C = 1 (grey) or 3 (RGB); a pixel is as bright as its largest channel.
        counts: int [N], present steps.
        threshold: ink is what is brighter than this fraction of the object's own brightest pixel,
            so that a blurred halo isn't ink while a faint object still has some.

    Returns:
        float32 [N, T, 4], canvas fractions; zeros for absent steps and for steps that drew nothing.

    Raises:
        ValueError: wrong rank or number of channels, or a threshold outside (0, 1).
    """
    objects, counts = np.asarray(objects), np.asarray(counts)
    if objects.ndim != 5 or objects.shape[-1] not in (1, 3):
        raise ValueError(
            "objects must have shape [N, T, H, W, 1] or [N, T, H, W, 3], "
            f"got {list(objects.shape)}."
        )
    if not 0.0 < threshold < 1.0:
        raise ValueError(f"threshold must lie between 0 and 1, got {threshold!r}.")
    num_steps, height, width = objects.shape[1:4]
    brightness = objects.max(axis=4)  # [N, T, H, W]
    brightest = brightness.max(axis=(2, 3))  # [N, T]
    ink = brightness > threshold * brightest[..., None, None]
    rows, columns = ink.any(axis=3), ink.any(axis=2)  # [N, T, H], [N, T, W]
    boxes = np.stack(
        [
            rows.argmax(axis=2) / height,
            columns.argmax(axis=2) / width,
            1.0 - rows[..., ::-1].argmax(axis=2) / height,
            1.0 - columns[..., ::-1].argmax(axis=2) / width,
        ],
        axis=-1,
    )
    seen = (np.arange(num_steps) < counts[:, None]) & (brightest > _FAINTEST_INK)
    return np.where(seen[..., None], boxes, 0.0).astype(np.float32)


def _areas(boxes: np.ndarray) -> np.ndarray:
    return np.prod(np.maximum(boxes[..., 2:] - boxes[..., :2], 0.0), axis=-1)


def _checked_counts(inferred_counts: Any, true_counts: Any) -> tuple[np.ndarray, np.ndarray]:
    inferred_counts, true_counts = np.asarray(inferred_counts), np.asarray(true_counts)
    if inferred_counts.ndim != 1 or inferred_counts.shape != true_counts.shape:
        raise ValueError(
            "inferred_counts and true_counts must have one shape [N], "
            f"got {list(inferred_counts.shape)} and {list(true_counts.shape)}."
        )
    return inferred_counts, true_counts


def _checked_scenes(kind: str, boxes: Any, counts: Any) -> tuple[np.ndarray, np.ndarray]:
    boxes, counts = np.asarray(boxes), np.asarray(counts)
    if boxes.ndim != 3 or boxes.shape[-1] != 4 or counts.shape != boxes.shape[:1]:
        raise ValueError(
            f"{kind}_boxes and {kind}_counts must have shapes [N, rows, 4] and [N], "
            f"got {list(boxes.shape)} and {list(counts.shape)}."
        )
    if len(counts) and not (counts.min() >= 0 and counts.max() <= boxes.shape[1]):
        raise ValueError(
            f"{kind}_counts must lie in 0..{boxes.shape[1]}, the rows of {kind}_boxes, "
            f"got values from {counts.min()} to {counts.max()}."
        )
    return boxes, counts
