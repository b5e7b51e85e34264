"""What a format of data sets must do: write a shard at a time, and what belongs to the whole at the end."""

from __future__ import annotations

import abc
import contextlib
import pathlib
from collections.abc import Iterable, Iterator, Sequence

from asr_tf.labelled.scenes import LabelledScenes

__all__ = ["WORK", "DatasetFolder", "replacing_folder", "scene_file", "write_images"]

WORK = ".shards"
"""Folder inside a data set's folder for what is needed until the data set is whole."""


class DatasetFolder(abc.ABC):
    """A folder of labelled scenes in one format.

    Contract: a shard's files and folders have their names only when they are whole, and are written as
    `<name>.part` until then; the same scenes give the same bytes.

    Args:
        folder: where the data set lies.
        image_shape: (H, W, C) in pixels and channels.
        num_steps: T, the most objects in a scene.
        num_shards: shards of the whole data set.
    """

    def __init__(
        self, folder: pathlib.Path, image_shape: tuple[int, int, int], num_steps: int, num_shards: int
    ) -> None:
        self.folder = folder
        self.image_shape = image_shape
        self.num_steps = num_steps
        self.num_shards = num_shards

    @classmethod
    def check_installed(cls) -> None:
        """Raises ValueError where a package is missing that only this format needs."""
        return

    @abc.abstractmethod
    def parts(self, shard: int) -> list[pathlib.Path]:
        """The files and folders that a shard consists of.

        Args:
            shard: 0 to num_shards - 1.
        """

    @abc.abstractmethod
    def write_shard(self, shard: int, chunks: Iterable[LabelledScenes]) -> None:
        """Writes the parts of a shard, of which none is there.

        Args:
            shard: 0 to num_shards - 1.
            chunks: its scenes.

        Raises:
            OSError: they can't be written.
        """

    @abc.abstractmethod
    def finish(self, scenes_of_shards: Sequence[int]) -> None:
        """Writes what belongs to the whole data set, over what may be there of it.

        Args:
            scenes_of_shards: number of scenes in each shard, all of which are whole.

        Raises:
            OSError: it can't be written.
        """


def scene_file(number: int, suffix: str) -> str:
    """The name of a scene's own file, twelve digits as in COCO."""
    return f"{number:012d}.{suffix}"


def write_images(folder: pathlib.Path, scenes: LabelledScenes) -> None:
    """Writes each image as a PNG file."""
    for scene in scenes.each():
        (folder / scene_file(scene.id, "png")).write_bytes(scene.image)


@contextlib.contextmanager
def replacing_folder(path: pathlib.Path) -> Iterator[pathlib.Path]:
    """A new folder to fill that takes the name `path` once it is whole."""
    part = path.with_name(path.name + ".part")
    part.mkdir(parents=True)
    yield part
    part.rename(path)
