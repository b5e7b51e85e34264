"""Scenes in memory: images and what is known about them.

Contract: images stay uint8 until a batch is made, so 40,000 grey scenes of 50 x 50 pixels take 100 MB, and RGB ones
300 MB.  Masks are as large as a grey image for each object, so they are only loaded where they are asked for.  What
isn't known is None, never a made-up value.
"""

from __future__ import annotations

import dataclasses
import zlib

import numpy as np

from asr_tf import checks

__all__ = ["Scenes"]


@dataclasses.dataclass(frozen=True)
class Scenes:
    """Images with the labels that exist for them; axis letters as in `asr_tf.scene`, N scenes.

    Attributes:
        images: uint8 [N, H, W, C] with C = 1 (grey) or 3 (RGB).
        counts: int32 [N], objects in each scene, or None.
        boxes: float32 [N, M, 4], the square crop of each object as [ymin, xmin, ymax, xmax] in canvas fractions;
            present objects come first, absent ones are zero rows; or None.
        ink_boxes: float32 [N, M, 4], the tight rectangle of each object's ink, likewise; or None.
        labels: int32 [N, M], the class of each object, -1 where absent; or None.
        masks: uint8 [N, M, H, W], each object's share of each pixel (its opacity) times 255, where no share is 0;
            present objects come first, in the order of the boxes, absent ones are zero; or None.

    Raises:
        TypeError: images or masks that aren't uint8.
        ValueError: an array whose shape doesn't fit the images'.
    """

    images: np.ndarray
    counts: np.ndarray | None = None
    boxes: np.ndarray | None = None
    ink_boxes: np.ndarray | None = None
    labels: np.ndarray | None = None
    masks: np.ndarray | None = None

    def __post_init__(self) -> None:
        if self.images.dtype != np.uint8:
            raise TypeError(f"images of scenes must be uint8, got dtype {self.images.dtype}.")
        if self.images.ndim != 4 or self.images.shape[-1] not in checks.CHANNELS:
            wanted = " or ".join(f"[N, H, W, {c}] ({name})" for c, name in checks.CHANNELS.items())
            raise ValueError(f"images of scenes must have shape {wanted}, got {list(self.images.shape)}.")
        if not len(self.images):
            raise ValueError("scenes must hold at least one image, got an empty data set.")
        for name, rank in (("counts", 1), ("boxes", 3), ("ink_boxes", 3), ("labels", 2)):
            array = getattr(self, name)
            if array is None:
                continue
            wrong_axis = rank == 3 and array.shape[-1:] != (4,)
            if array.ndim != rank or wrong_axis or len(array) != len(self.images):
                raise ValueError(
                    f"{name} of scenes must have {rank} axes, {len(self.images)} rows"
                    f"{' and 4 columns' if rank == 3 else ''}, got shape {list(array.shape)}."
                )
        self._check_masks()

    def _check_masks(self) -> None:
        if self.masks is None:
            return
        if self.masks.dtype != np.uint8:
            raise TypeError(f"masks of scenes must be uint8, got dtype {self.masks.dtype}.")
        height, width = self.canvas_size
        if self.masks.ndim != 4 or len(self.masks) != len(self) or self.masks.shape[2:] != (height, width):
            raise ValueError(
                f"masks of scenes must have shape [{len(self)}, M, {height}, {width}], as many rows as there are "
                f"images and their height and width, got {list(self.masks.shape)}."
            )

    def __len__(self) -> int:
        return len(self.images)

    @property
    def canvas_size(self) -> tuple[int, int]:
        """(H, W) in pixels."""
        return int(self.images.shape[1]), int(self.images.shape[2])

    @property
    def channels(self) -> int:
        """C, 1 (grey) or 3 (RGB)."""
        return int(self.images.shape[3])

    def fingerprint(self) -> str:
        """What tells these images, in this order, from others: their number, whether they are RGB, and a checksum."""
        kind = "images" if self.channels == 1 else f"{checks.CHANNELS[self.channels]} images"
        return f"{len(self)} {kind} (checksum {zlib.crc32(np.ascontiguousarray(self.images).data):08x})"

    def select(self, rows: slice | np.ndarray) -> Scenes:
        """Returns the scenes of `rows` (a slice or an integer array [n]), with everything known about them."""
        known = {key: value[rows] for key, value in vars(self).items() if value is not None}
        return Scenes(**known)

    def take(self, n: int) -> Scenes:
        """Returns the first `n` scenes (all of them where there are fewer)."""
        return self.select(slice(0, n))
