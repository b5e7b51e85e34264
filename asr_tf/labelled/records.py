"""What the formats of TFRecords share: a file for each shard, there whole or not at all, an example for each scene."""

from __future__ import annotations

import abc
import contextlib
import pathlib
from collections.abc import Iterable, Iterator

import tensorflow as tf

from asr_tf.labelled.base import DatasetFolder
from asr_tf.labelled.scenes import LabelledScenes

__all__ = ["RecordsFolder", "replacing_records"]


class RecordsFolder(DatasetFolder):
    """A data set of TFRecords.

    Attributes:
        name: of the files, before their numbers.
    """

    name: str

    @abc.abstractmethod
    def examples(self, scenes: LabelledScenes) -> Iterator[bytes]:
        """Each scene as a serialized example; the same bytes for the same scene."""

    def parts(self, shard: int) -> list[pathlib.Path]:
        """See the base."""
        return [self.folder / f"{self.name}.tfrecord-{shard:05d}-of-{self.num_shards:05d}"]

    def write_shard(self, shard: int, chunks: Iterable[LabelledScenes]) -> None:
        """See the base."""
        (path,) = self.parts(shard)
        with replacing_records(path) as writer:
            for scenes in chunks:
                for example in self.examples(scenes):
                    writer.write(example)


@contextlib.contextmanager
def replacing_records(path: pathlib.Path) -> Iterator[tf.io.TFRecordWriter]:
    """A TFRecord to write that takes the place of `path` once it is whole.

    Raises:
        OSError: it can't be written.
    """
    part = path.with_name(path.name + ".part")
    try:
        with tf.io.TFRecordWriter(str(part)) as writer:
            yield writer
    except tf.errors.OpError as error:
        raise OSError(error.message) from error
    part.replace(path)
