"""The format of COCO: PNG files and one JSON.

    images/00000/000000000001.png    a folder for each shard
    annotations.json

The JSON names images relative to `images/`; `coco` says what it holds.
"""

from __future__ import annotations

import pathlib
from collections.abc import Iterable, Iterator, Sequence

from asr_tf.labelled import coco
from asr_tf.labelled.base import WORK, DatasetFolder, replacing_folder, scene_file, write_images
from asr_tf.labelled.scenes import LabelledScenes
from asr_tf.runs.files import replacing

__all__ = ["CocoFolder"]


class CocoFolder(DatasetFolder):
    """See the module.  Until all shards are there, the entries of each wait in files of its own."""

    @classmethod
    def check_installed(cls) -> None:
        """See the base."""
        coco.check_installed()

    def parts(self, shard: int) -> list[pathlib.Path]:
        """See the base."""
        return [self._images(shard), self._entries("images", shard), self._entries("annotations", shard)]

    def _images(self, shard: int) -> pathlib.Path:
        return self.folder / "images" / f"{shard:05d}"

    def _entries(self, kind: str, shard: int) -> pathlib.Path:
        return self.folder / WORK / f"{kind}-{shard:05d}.jsonl"

    def write_shard(self, shard: int, chunks: Iterable[LabelledScenes]) -> None:
        """See the base."""
        height, width, _ = self.image_shape
        with (
            replacing_folder(self._images(shard)) as folder,
            replacing(self._entries("images", shard)) as image_lines,
            replacing(self._entries("annotations", shard)) as annotation_lines,
        ):
            for scenes in chunks:
                write_images(folder, scenes)
                for scene in scenes.each():
                    name = f"{self._images(shard).name}/{scene_file(scene.id, 'png')}"
                    size = {"width": width, "height": height}
                    entry = {"id": scene.id, "file_name": name, **size, "count": scene.count}
                    image_lines.write(coco.line(entry))
                objects = scenes.objects
                places = zip(objects.images.tolist(), objects.steps.tolist(), strict=True)
                for (row, step), entry in zip(places, coco.object_entries(objects), strict=True):
                    scene_id = scenes.first_id + row
                    # Of a number that doesn't depend on the scenes before, and not 0, which pycocotools can't match.
                    number = (scene_id - 1) * self.num_steps + step + 1
                    annotation_lines.write(coco.line({"id": number, "image_id": scene_id, **entry}))

    def finish(self, scenes_of_shards: Sequence[int]) -> None:
        """See the base."""
        with replacing(self.folder / "annotations.json") as file:
            lines = (self._lines(kind, len(scenes_of_shards)) for kind in ("images", "annotations"))
            coco.write_json(file, "scenes drawn by asr_sample", *lines)

    def _lines(self, kind: str, num_shards: int) -> Iterator[bytes]:
        for shard in range(num_shards):
            with self._entries(kind, shard).open("rb") as file:
                yield from file
