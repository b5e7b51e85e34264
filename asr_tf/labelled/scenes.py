"""Labelled scenes: what a model has drawn, with the objects that can be seen and the images as PNG."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import tensorflow as tf

from asr_tf.labelled.objects import LEAST_SHARE, VisibleObjects, visible_objects

__all__ = ["LabelledScene", "LabelledScenes", "encode_pngs", "label"]


@dataclasses.dataclass(frozen=True)
class LabelledScene:
    """One scene.

    Attributes:
        id: its number in the data set, from 1 on.
        image: uint8 pixels, grey or RGB, as PNG.
        count: the number of objects that were drawn, those included that can't be seen.
        rows: of its objects among those of its chunk.
    """

    id: int
    image: bytes
    count: int
    rows: slice


@dataclasses.dataclass(frozen=True)
class LabelledScenes:
    """A chunk of N scenes that follow one another in a data set.

    Attributes:
        first_id: the number of the first scene.
        images: N, each as PNG.
        count: int32 [N].
        objects: those of all N scenes that can be seen.
    """

    first_id: int
    images: list[bytes]
    count: np.ndarray
    objects: VisibleObjects

    def each(self) -> Iterator[LabelledScene]:
        """The scenes one by one."""
        numbers = range(self.first_id, self.first_id + len(self.images))
        rows = self.objects.of_each_image(len(self.images))
        yield from map(LabelledScene, numbers, self.images, self.count.tolist(), rows)


def label(drawn: Mapping[str, Any], first_id: int, least_share: float = LEAST_SHARE) -> LabelledScenes:
    """Labels scenes that a model has drawn.

    Args:
        drawn: what `model.sample(..., with_masks=True)` gives, tensors or arrays: `images` float32 [N, H, W, C] in
            [0, 1], `count` int32 [N], `boxes` float32 [N, T, 4], `masks` float32 [N, T, H, W, 1].
        first_id: the number of the first scene.
        least_share: see `visible_objects`.
    """
    images, count, boxes, masks = (np.asarray(drawn[name]) for name in ("images", "count", "boxes", "masks"))
    levels = np.rint(255.0 * np.clip(images, 0.0, 1.0)).astype(np.uint8)
    return LabelledScenes(first_id, encode_pngs(levels), count, visible_objects(masks, boxes, count, least_share))


def encode_pngs(images: np.ndarray) -> list[bytes]:
    """Images uint8 [N, H, W, C] as PNG; one call for all costs half of a call for each."""
    return tf.io.encode_png(images).numpy().tolist()
