"""The objects of scenes that can be seen: their masks, and the tight boxes around these.

Contract: an object's mask holds the pixels of which it has a least share; with half, masks don't overlap but where two
objects share a pixel evenly.  An object without such a pixel can't be learned from the image: it is left out, and
counted.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

__all__ = ["LEAST_SHARE", "VisibleObjects", "visible_objects"]

LEAST_SHARE = 0.5
"""Share of a pixel from which on it belongs to an object's mask, where nothing else is said."""


class VisibleObjects(NamedTuple):
    """The M objects of N images that can be seen, in the order of their images and steps.

    Attributes:
        images: int64 [M], the row of each object's image, 0 to N - 1.
        steps: int64 [M], the step that draws it, 0 to T - 1.
        masks: bool [M, H, W].
        boxes_px: int64 [M, 4], `[ymin, xmin, ymax, xmax]` of the tight box around the mask, in pixels; the last row and
            column lie outside.
        windows: float32 [M, 4], the windows in which the model draws, `[ymin, xmin, ymax, xmax]` as fractions of the
            canvas; they may reach beyond it.
        left_out: present objects without a pixel in their mask.
    """

    images: np.ndarray
    steps: np.ndarray
    masks: np.ndarray
    boxes_px: np.ndarray
    windows: np.ndarray
    left_out: int

    def of_each_image(self, num_images: int) -> list[slice]:
        """The rows of each image's objects.

        Args:
            num_images: N.
        """
        ends = np.searchsorted(self.images, np.arange(num_images), side="right").tolist()
        return [slice(start, end) for start, end in zip([0, *ends], ends, strict=False)]


def visible_objects(
    shares: np.ndarray, windows: np.ndarray, count: np.ndarray, least_share: float = LEAST_SHARE
) -> VisibleObjects:
    """Finds the objects that can be seen.

    Args:
        shares: float [N, T, H, W, 1] in [0, 1], each object's share of each pixel; or bool, the masks.
        windows: float32 [N, T, 4], `[ymin, xmin, ymax, xmax]` as fractions of the canvas.
        count: int [N]; the first `count` steps are present.
        least_share: from which on a pixel belongs to an object's mask, above 0, up to 1.
    """
    masks = shares[..., 0] >= least_share
    present = np.arange(masks.shape[1]) < count[:, np.newaxis]
    visible = present & masks.any(axis=(2, 3))
    images, steps = np.nonzero(visible)
    kept = masks[visible]
    return VisibleObjects(
        images, steps, kept, _tight_boxes(kept), windows[visible], int(present.sum() - visible.sum())
    )


def _tight_boxes(masks: np.ndarray) -> np.ndarray:
    """int64 [M, 4], see `VisibleObjects.boxes_px`, of masks [M, H, W] that are nowhere empty."""
    (ymin, ymax), (xmin, xmax) = (_extent(np.logical_or.reduce(masks, axis=axis)) for axis in (2, 1))
    return np.stack([ymin, xmin, ymax, xmax], axis=1)


def _extent(filled: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """int64 [M] each, of rows bool [M, L]: where the first true element stands, and behind the last one."""
    return filled.argmax(axis=1), filled.shape[1] - filled[:, ::-1].argmax(axis=1)
