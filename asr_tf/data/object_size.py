"""How large the objects of unlabelled images are, from the images alone.

What stands out from the ground is cut into connected pieces.  How far apart two pieces of one object may lie isn't
known, but the counts that occur are: of several distances, the one is taken by which most images have as many pieces as
an image may hold objects.  Where objects touch, two of them are one piece; so the images count that have as many pieces
as the largest count, if there are enough of them.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import scipy.ndimage

__all__ = ["object_sides_px"]

_MOST_IMAGES = 500
# Distances up to which two pieces are one object, as shares of the shorter canvas side.
_GAPS = (0.0, 0.02, 0.04, 0.08, 0.12)
# Between the ground and the brightest percent of what stands out: from here on a pixel is an object's.
_LEVEL = 0.3
# A piece with less than that share of the largest one's pixels is a speck.
_SPECK = 0.05
# Quantiles of the sides that are given, and the fewest pieces for them.
_QUANTILES = (0.1, 0.9)
_FEWEST = 20


def object_sides_px(images: np.ndarray, counts: Sequence[int]) -> tuple[float, float] | None:
    """The interval in which most objects' sides lie.

    Args:
        images: uint8 [N, H, W, C]; the ground of an image is its median.
        counts: the numbers of objects that an image may hold.

    Returns:
        (low, high), in pixels: the quantiles 0.1 and 0.9 of the longer side of the pieces' boxes; None where too few
        pieces are found.
    """
    images = images[np.linspace(0, len(images) - 1, min(len(images), _MOST_IMAGES)).astype(int)].astype(np.float32)
    ground = np.median(images, axis=(1, 2), keepdims=True)
    standing_out = np.abs(images - ground).max(axis=-1)  # [N, H, W]
    level = _LEVEL * np.percentile(standing_out[standing_out > 0], 99) if standing_out.any() else 1.0
    occupied = standing_out > level
    best: list[np.ndarray] = []
    most = -1.0
    for gap in sorted({round(share * min(images.shape[1:3])) for share in _GAPS}):
        pieces = [_sides(image, gap) for image in occupied]
        fitting = [sides for sides in pieces if len(sides) in counts and len(sides)]
        share = sum(len(sides) in counts for sides in pieces) / len(pieces)
        if share > most:
            most, best = share, fitting
    apart = [sides for sides in best if len(sides) == max(counts)]
    sides = np.concatenate([*apart, np.zeros(0)])
    if len(sides) < _FEWEST:
        sides = np.concatenate([*best, np.zeros(0)])
    if len(sides) < _FEWEST:
        return None
    low, high = np.quantile(sides, _QUANTILES)
    return float(low), float(high)


def _sides(occupied: np.ndarray, gap: int) -> np.ndarray:
    """The longer sides in pixels of the pieces of one image, bool [H, W]; pieces no more than `gap` apart are one."""
    reach = (gap + 1) // 2
    grown = scipy.ndimage.binary_dilation(occupied, np.ones((2 * reach + 1,) * 2)) if reach else occupied
    labels, _ = scipy.ndimage.label(grown, np.ones((3, 3)))
    labels = np.where(occupied, labels, 0)
    pixels = np.bincount(labels.ravel())[1:]
    boxes = scipy.ndimage.find_objects(labels)
    sides = np.array([0 if box is None else max(axis.stop - axis.start for axis in box) for box in boxes])
    return sides[pixels >= _SPECK * pixels.max()] if len(pixels) else np.zeros(0)
