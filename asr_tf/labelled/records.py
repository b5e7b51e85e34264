"""TFRecords of labelled scenes that are there whole or not at all."""

from __future__ import annotations

import contextlib
import pathlib
from collections.abc import Iterator

import tensorflow as tf

__all__ = ["replacing_records"]


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
