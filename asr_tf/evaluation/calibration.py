"""Whether a model is as sure as it should be: of counts, and of where objects are.

Pure NumPy and SciPy.

References:
    Guo et al., "On calibration of modern neural networks", ICML 2017, arXiv:1706.04599 (reliability, ECE).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from scipy import special, stats

__all__ = ["LEVELS", "Reliability", "coverage", "expected_calibration_error", "reliability", "window_latents"]

Reliability = list[dict[str, float]]

LEVELS = (0.5, 0.8, 0.9, 0.95)
"""Probabilities whose central intervals are held against the truth."""

_NUM_BINS = 15  # as Guo et al. have it
_EDGE = 1e-6


def reliability(confidence: Any, correct: Any, num_bins: int = _NUM_BINS) -> Reliability:
    """How often answers are right, by how sure the model was.

    Args:
        confidence: float [N] in [0, 1], the probability that the model gives its answer.
        correct: bool [N], whether the answer is right.
        num_bins: intervals of confidence, of equal width.

    Returns:
        For each interval that holds an answer: `confidence` and `accuracy`, means over its answers, and their `number`.
    """
    confidence, correct = np.asarray(confidence, np.float64), np.asarray(correct, bool)
    interval = np.clip(np.ceil(confidence * num_bins).astype(int) - 1, 0, num_bins - 1)
    bins = []
    for index in np.unique(interval):
        rows = interval == index
        means = float(confidence[rows].mean()), float(correct[rows].mean())
        bins.append({"confidence": means[0], "accuracy": means[1], "number": int(rows.sum())})
    return bins


def expected_calibration_error(bins: Reliability) -> float:
    """ECE, the mean over answers of |accuracy - confidence| of their interval (Guo et al., equation 3)."""
    number = sum(entry["number"] for entry in bins)
    return sum(entry["number"] * abs(entry["accuracy"] - entry["confidence"]) for entry in bins) / number


def window_latents(boxes: Any, canvas_size: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """The latents of the windows that boxes are; the inverse of `asr_tf.scene.window_boxes`.

    Args:
        boxes: float [..., 4], `[ymin, xmin, ymax, xmax]` as fractions of the canvas; of one that isn't square in
            pixels, the longer side counts.
        canvas_size: (H, W) in pixels.

    Returns:
        Shift latent float64 [..., 2], (x, y), and scale latent [..., 1].  What is on the edge or beyond is finite.
    """
    boxes = np.asarray(boxes, np.float64)
    centre = (boxes[..., :2] + boxes[..., 2:])[..., ::-1] - 1.0  # (x, y) in [-1, 1]
    side = ((boxes[..., 2:] - boxes[..., :2]) * canvas_size).max(axis=-1, keepdims=True) / min(canvas_size)
    return np.arctanh(np.clip(centre, -1.0 + _EDGE, 1.0 - _EDGE)), special.logit(np.clip(side, _EDGE, 1.0 - _EDGE))


def coverage(errors: Any, levels: Sequence[float] = LEVELS) -> list[float]:
    """How often the truth lies in a normal's central interval of a probability; of a calibrated model, that often.

    Args:
        errors: float [N], (truth - mean) / standard deviation.
        levels: probabilities in (0, 1).

    Returns:
        A share for each level, NaN where N is 0.
    """
    errors = np.abs(np.asarray(errors, np.float64))
    if not len(errors):
        return [float("nan")] * len(levels)
    return [float(np.mean(errors <= stats.norm.ppf(0.5 + level / 2.0))) for level in levels]
