"""Reading: from names of files to chunks of images, and a refusal for what can't be used.

Contract: whatever stands in a file, reading goes on with the next image that can be found.  Files are opened through
Beam's file systems, so that a runner's storage works as local files do.
"""

from __future__ import annotations

import contextlib
import os
import pathlib
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator

import numpy as np
import tensorflow as tf
from apache_beam.io.filesystem import BeamIOError, CompressionTypes
from apache_beam.io.filesystems import FileSystems
from asr_tf.export.batch import decoding
from asr_tf.export.batch.chunks import CHUNK_SIZE, Chunk, Refusal

__all__ = ["kind_of", "read_chunks"]

PNG, NPY, TFRECORD = "PNG", "NPY", "TFRecord"
# Storage has many ways to fail, and Beam has no one class for them.
_STORAGE_ERRORS = (OSError, BeamIOError, tf.errors.OpError)


def kind_of(path: str) -> str | None:
    """What a file's name says that it is: 'PNG', 'NPY', 'TFRecord', or None.

    A TFRecord may carry the number of its shard after the suffix, as `scenes.tfrecord-00000-of-00004`, and `.gz`.
    """
    name = path.rsplit("/", 1)[-1].lower()
    for suffix, kind in ((".png", PNG), (".npy", NPY)):
        if name.endswith(suffix):
            return kind
    return TFRECORD if ".tfrecord" in name else None


def read_chunks(files: Iterable[str], image_shape: tuple[int, int, int]) -> Iterator[Chunk | Refusal]:
    """Reads files into chunks of `CHUNK_SIZE` images, the last one of each kind of file smaller.

    Args:
        files: paths as Beam's file systems know them.
        image_shape: the (H, W, C) that images must have.

    Yields:
        Chunks of images that can be inferred, and a refusal for each image or file that can't be used.
    """
    by_kind: dict[str | None, list[str]] = {}
    for file in files:
        by_kind.setdefault(kind_of(file), []).append(file)
    for kind, found in by_kind.items():
        yield from _full_chunks(_READERS[kind](found, image_shape))


def _full_chunks(parts: Iterable[Chunk | Refusal]) -> Iterator[Chunk | Refusal]:
    """Cuts and joins chunks to `CHUNK_SIZE`; lets refusals through."""
    waiting: list[Chunk] = []
    for part in parts:
        if isinstance(part, Refusal):
            yield part
            continue
        if waiting and waiting[0].images.dtype != part.images.dtype:
            yield _join(waiting)
            waiting = []
        while len(part):
            free = CHUNK_SIZE - sum(map(len, waiting))
            waiting.append(part.select(slice(0, free)))
            part = part.select(slice(free, None))
            if len(waiting[-1]) == free:
                yield _join(waiting)
                waiting = []
    if waiting:
        yield _join(waiting)


def _join(chunks: list[Chunk]) -> Chunk:
    if len(chunks) == 1:
        return chunks[0]
    return Chunk(
        [file for chunk in chunks for file in chunk.files],
        np.concatenate([chunk.records for chunk in chunks]),
        np.concatenate([chunk.images for chunk in chunks]),
    )


def _read_unknown(files: list[str], image_shape: tuple[int, int, int]) -> Iterator[Refusal]:
    del image_shape
    for file in files:
        yield Refusal(file, None, "must be named *.png, *.npy or *.tfrecord*")


def _read_pngs(files: list[str], image_shape: tuple[int, int, int]) -> Iterator[Chunk | Refusal]:
    for start in range(0, len(files), CHUNK_SIZE):
        encoded, names = [], []
        for file in files[start : start + CHUNK_SIZE]:
            try:
                encoded.append(_read_bytes(file))
                names.append(file)
            except _STORAGE_ERRORS as error:
                yield _cannot_read(file, error)
        groups, faults = decoding.decode_images(encoded, image_shape)
        yield from (Refusal(names[row], 0, reason) for row, reason in faults.items())
        for rows, images in groups:
            yield from _sound([names[row] for row in rows], np.zeros(len(rows), np.int64), images)


def _read_npys(files: list[str], image_shape: tuple[int, int, int]) -> Iterator[Chunk | Refusal]:
    for file in files:
        try:
            images = decoding.read_npy(_read_bytes(file), image_shape)
        except decoding.Unreadable as error:
            yield Refusal(file, None, str(error))
        except _STORAGE_ERRORS as error:
            yield _cannot_read(file, error)
        else:
            yield from _sound([file] * len(images), np.arange(len(images)), images)


def _cannot_read(file: str, error: Exception) -> Refusal:
    return Refusal(file, None, f"cannot be read: {decoding.first_line(error)}")


def _sound(files: list[str], records: np.ndarray, images: np.ndarray) -> Iterator[Chunk | Refusal]:
    """The images [n, H, W, C] whose pixels are numbers in [0, 1], and a refusal for each other one."""
    faults = decoding.row_faults(images)
    yield from (Refusal(files[row], int(records[row]), reason) for row, reason in faults.items())
    if faults:
        kept = np.setdiff1d(np.arange(len(images)), list(faults))
        files, records, images = [files[row] for row in kept], records[kept], images[kept]
    if files:
        yield Chunk(files, records, images)


def _read_tfrecords(files: list[str], image_shape: tuple[int, int, int]) -> Iterator[Chunk | Refusal]:
    for file in files:
        try:
            with _local_copy(file) as path:
                yield from _read_tfrecord(file, path, image_shape)
        except _STORAGE_ERRORS as error:
            yield _cannot_read(file, error)


def _read_tfrecord(file: str, path: str, image_shape: tuple[int, int, int]) -> Iterator[Chunk | Refusal]:
    compression = "GZIP" if file.lower().endswith(".gz") else ""
    records = tf.data.TFRecordDataset(path, compression, buffer_size=1 << 20)
    done = 0
    try:
        for batch in records.batch(CHUNK_SIZE):
            serialized = batch.numpy().tolist()
            yield from _decode_records(file, done, serialized, image_shape)
            done += len(serialized)
    except tf.errors.DataLossError:
        # The records before the broken one were lost with their batch: once more, one by one.
        intact: list[bytes] = []
        with contextlib.suppress(tf.errors.DataLossError):
            intact.extend(record.numpy() for record in records.skip(done))
        yield from _decode_records(file, done, intact, image_shape)
        reason = "corrupted or truncated record; nothing can be read from here to the end of the file"
        yield Refusal(file, done + len(intact), reason)


def _decode_records(
    file: str, start: int, serialized: list[bytes], image_shape: tuple[int, int, int]
) -> Iterator[Chunk | Refusal]:
    """Decodes records that follow one another in a file from the index `start` on."""
    encoded, without = decoding.decode_examples(serialized)
    groups, faults = decoding.decode_images(encoded, image_shape)
    yield from (Refusal(file, start + row, reason) for row, reason in (faults | without).items())
    for rows, images in groups:
        yield from _sound([file] * len(rows), np.array(rows) + start, images)


def _is_local(path: str) -> bool:
    return "://" not in path


def _read_bytes(path: str) -> bytes:
    if _is_local(path):  # Beam's layers around a local file cost more than decoding a small image
        return pathlib.Path(path).read_bytes()
    with FileSystems.open(path, compression_type=CompressionTypes.UNCOMPRESSED) as source:
        return source.read()


@contextlib.contextmanager
def _local_copy(path: str) -> Iterator[str]:
    """A file's path on this machine: its own, or that of a copy which is deleted at the end."""
    if _is_local(path):
        yield path
        return
    with tempfile.TemporaryDirectory() as folder:
        copy = os.path.join(folder, "records")
        with (
            FileSystems.open(path, compression_type=CompressionTypes.UNCOMPRESSED) as source,
            open(copy, "wb") as target,
        ):
            shutil.copyfileobj(source, target, 1 << 20)
        yield copy


_READERS: dict[str | None, Callable[[list[str], tuple[int, int, int]], Iterator[Chunk | Refusal]]] = {
    None: _read_unknown,
    PNG: _read_pngs,
    NPY: _read_npys,
    TFRECORD: _read_tfrecords,
}
