"""The format of Ultralytics YOLO for detection: PNG files, a text file for each, and data.yaml.

    images/00000/000000000001.png    a folder for each shard
    labels/00000/000000000001.txt    a line for each object: class, x and y of the centre, width, height
    data.yaml

Numbers are fractions of the canvas.  The format has no place for masks and counts.

References:
    https://docs.ultralytics.com/datasets/detect
"""

from __future__ import annotations

import pathlib
from collections.abc import Iterable, Sequence

import numpy as np

from asr_tf.labelled.base import DatasetFolder, replacing_folder, scene_file, write_images
from asr_tf.labelled.scenes import LabelledScenes
from asr_tf.runs.files import write_whole

__all__ = ["YoloFolder"]

# Without `path`, the folder of this file is what its paths start from.
_DATA = """\
# Scenes drawn by asr_sample.
train: images
val: images  # the same ones; draw others with another --seed
names:
  0: object
"""


class YoloFolder(DatasetFolder):
    """See the module."""

    def parts(self, shard: int) -> list[pathlib.Path]:
        """See the base."""
        return [self.folder / kind / f"{shard:05d}" for kind in ("images", "labels")]

    def write_shard(self, shard: int, chunks: Iterable[LabelledScenes]) -> None:
        """See the base."""
        images, labels = self.parts(shard)
        with replacing_folder(images) as image_folder, replacing_folder(labels) as label_folder:
            for scenes in chunks:
                write_images(image_folder, scenes)
                lines = self._lines(scenes.objects.boxes_px)
                for scene in scenes.each():
                    file = label_folder / scene_file(scene.id, "txt")
                    file.write_text("".join(lines[scene.rows]), encoding="ascii")

    def _lines(self, boxes_px: np.ndarray) -> list[str]:
        """The line of each box [M, 4]."""
        height, width, _ = self.image_shape
        starts, ends = np.split(boxes_px / np.array([height, width] * 2), 2, axis=1)
        yx, hw = (starts + ends) / 2.0, ends - starts
        return [f"0 {x:.6f} {y:.6f} {w:.6f} {h:.6f}\n" for (y, x), (h, w) in zip(yx.tolist(), hw.tolist(), strict=True)]

    def finish(self, scenes_of_shards: Sequence[int]) -> None:
        """See the base."""
        write_whole(self.folder / "data.yaml", _DATA)
