"""What flows through the batch pipeline: chunks of images, what was inferred of them, and what was refused.

A chunk is one element for Beam, so that its cost for each element is paid once in some hundred images.  N is the number
of images in a chunk; H, W, C and T are those of the model.
"""

from __future__ import annotations

import dataclasses
import json
from typing import NamedTuple

import numpy as np

__all__ = ["CHUNK_SIZE", "Chunk", "ModelSpec", "Predictions", "Refusal"]

CHUNK_SIZE = 256
"""Images in a full chunk: where the rate of inference no longer grows with the batch."""


class ModelSpec(NamedTuple):
    """What the pipeline needs to know of a model before it is loaded.

    Attributes:
        path: folder of the SavedModel, local or of any file system that TensorFlow reads.
        image_shape: (H, W, C), pixels and channels; C = 1 is grey, and C = 3 is RGB.
        num_steps: T, the most objects in a scene.
    """

    path: str
    image_shape: tuple[int, int, int]
    num_steps: int


class Refusal(NamedTuple):
    """An image, or a whole file, that can't be used.

    Attributes:
        file: where it is.
        record: its index in the file; None for the file, or for what of it can't be told apart.
        reason: what was wrong, and what would be right.
    """

    file: str
    record: int | None
    reason: str

    def json(self) -> str:
        """One line of JSON."""
        return json.dumps(self._asdict(), ensure_ascii=False)


@dataclasses.dataclass(frozen=True)
class Chunk:
    """Images that are inferred together.

    Attributes:
        files: the file of each image, N names.
        records: int64 [N], the index of each image in its file.
        images: uint8 in [0, 255] or float32 in [0, 1], [N, H, W, C].
    """

    files: list[str]
    records: np.ndarray
    images: np.ndarray

    def __len__(self) -> int:
        return len(self.files)

    def select(self, rows: slice) -> Chunk:
        """The images of some rows."""
        return Chunk(self.files[rows], self.records[rows], self.images[rows])


@dataclasses.dataclass(frozen=True)
class Predictions:
    """What was inferred of the images of a chunk.

    Attributes:
        files: as in `Chunk`.
        records: as in `Chunk`.
        count: int32 [N], the likeliest number of objects.
        count_probs: float32 [N, T + 1], probability of each number.
        boxes: float32 [N, T, 4], [ymin, xmin, ymax, xmax] in canvas fractions; zeros from row `count` on.
        scores: float32 [N, T], the probability that there is a first, second, ... object: P(count > t).
        masks: bool [N, T, H, W], the pixels of which an object has half or more; None where they aren't asked for.
    """

    files: list[str]
    records: np.ndarray
    count: np.ndarray
    count_probs: np.ndarray
    boxes: np.ndarray
    scores: np.ndarray
    masks: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.files)
