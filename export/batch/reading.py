"""Reading: from names of files to chunks of images, and a refusal for what can't be used.

Contract: whatever stands in a file, reading goes on with the next image that can be found, and nothing is left out
without a refusal, such as what a file that was cut has lost.  Files are opened through Beam's file systems, so that a
runner's storage works as local files do.
"""

from __future__ import annotations

import contextlib
import gzip
import os
import shutil
import tempfile
import zlib
from collections.abc import Callable, Iterable, Iterator

import numpy as np
import tensorflow as tf
from apache_beam.io.filesystem import BeamIOError, CompressionTypes
from apache_beam.io.filesystems import FileSystems
from asr_tf.export.batch import decoding
from asr_tf.export.batch.chunks import CHUNK_SIZE, Chunk, Refusal
from asr_tf.export.batch.matching import is_local

from asr_tf.data import image_files
from asr_tf.data.image_files import Unreadable
from asr_tf.data.png import DECODING_ERRORS

__all__ = ["kind_of", "read_chunks"]

PNG, NPY, TFRECORD = "PNG", "NPY", "TFRecord"
# Storage has many ways to fail, and Beam has no one class for them.
_STORAGE_ERRORS = (OSError, BeamIOError, tf.errors.OpError)
_GZIP_ERRORS = (OSError, EOFError, zlib.error)
_BLOCK = 1 << 20
_START_BYTES = 64  # tell a format
# What a record takes beside its bytes: their number, and two checksums.
_FRAME_BYTES = 16


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
            except Unreadable as error:
                yield Refusal(file, None, str(error))
        groups, faults = decoding.decode_pngs(encoded, image_shape)
        yield from (Refusal(names[row], 0, reason) for row, reason in faults.items())
        for rows, images in groups:
            yield from _sound([names[row] for row in rows], np.zeros(len(rows), np.int64), images)


def _read_npys(files: list[str], image_shape: tuple[int, int, int]) -> Iterator[Chunk | Refusal]:
    for file in files:
        try:
            images = decoding.read_npy(_read_bytes(file), image_shape)
        except Unreadable as error:
            yield Refusal(file, None, str(error))
        else:
            yield from _sound([file] * len(images), np.arange(len(images)), images)


def _sound(files: list[str], records: np.ndarray, images: np.ndarray) -> Iterator[Chunk | Refusal]:
    """The images [n, H, W, C] whose pixels are numbers in [0, 1], and a refusal for each other one."""
    faults = image_files.row_faults(images)
    yield from (Refusal(files[row], int(records[row]), reason) for row, reason in faults.items())
    if faults:
        kept = np.setdiff1d(np.arange(len(images)), list(faults))
        files, records, images = [files[row] for row in kept], records[kept], images[kept]
    if files:
        yield Chunk(files, records, images if images.dtype == np.uint8 else images.astype(np.float32))


def _read_tfrecords(files: list[str], image_shape: tuple[int, int, int]) -> Iterator[Chunk | Refusal]:
    for file in files:
        try:
            with _local_copy(file) as path:
                yield from _read_tfrecord(file, path, image_shape)
        except (Unreadable, OSError) as error:
            yield Refusal(file, None, str(error))


def _read_tfrecord(file: str, path: str, image_shape: tuple[int, int, int]) -> Iterator[Chunk | Refusal]:
    is_packed = file.lower().endswith(".gz")
    records = tf.data.TFRecordDataset(path, "GZIP" if is_packed else "", buffer_size=_BLOCK)
    done = size = 0
    broken = False
    try:
        for batch in records.batch(CHUNK_SIZE):
            serialized = batch.numpy().tolist()
            yield from _decode_records(file, done, serialized, image_shape)
            done += len(serialized)
            size += sum(map(len, serialized))
    except DECODING_ERRORS:
        # The records before the broken one were lost with their batch: once more, one by one.
        broken = True
        intact: list[bytes] = []
        with contextlib.suppress(*DECODING_ERRORS):
            intact.extend(record.numpy() for record in records.skip(done))
        yield from _decode_records(file, done, intact, image_shape)
        done += len(intact)
        size += sum(map(len, intact))
    if not done and (reason := _no_tfrecord(path, is_packed)):
        yield Refusal(file, None, reason)
    elif broken or not _ends_after(path, is_packed, size + done * _FRAME_BYTES):
        yield Refusal(file, done, "corrupted or truncated record; nothing can be read from here to the end of the file")
    elif not done:
        yield Refusal(file, None, "holds no record")


def _no_tfrecord(path: str, is_packed: bool) -> str | None:
    """Why a file of which no record can be read isn't what its name says; None where it may be."""
    with open(path, "rb") as source:
        found = image_files.format_of(source.read(_START_BYTES))
    if is_packed:
        return None if found == image_files.GZIP else f"must be gzip data, as its name says, got {found or 'none'}"
    if found == image_files.GZIP:
        return "must be a TFRecord, got gzip data, whose name must end in .gz"
    return f"must be a TFRecord, got {found}" if found else None


def _ends_after(path: str, is_packed: bool, size: int) -> bool:
    """Whether a file ends after that many bytes; TensorFlow says nothing where one was cut at the start of a record.

    Args:
        path: a local file.
        is_packed: whether it is gzip data, which counts unpacked.
        size: of all its records, in bytes.
    """
    if not is_packed:
        return os.path.getsize(path) == size
    unpacked = 0
    try:
        with gzip.open(path) as source:
            while block := source.read(_BLOCK):
                unpacked += len(block)
    except _GZIP_ERRORS:
        return False
    return unpacked == size


def _decode_records(
    file: str, start: int, serialized: list[bytes], image_shape: tuple[int, int, int]
) -> Iterator[Chunk | Refusal]:
    """Decodes records that follow one another in a file from the index `start` on."""
    encoded, without = decoding.decode_examples(serialized)
    groups, faults = decoding.decode_images(encoded, image_shape)
    yield from (Refusal(file, start + row, reason) for row, reason in (faults | without).items())
    for rows, images in groups:
        yield from _sound([file] * len(rows), np.array(rows) + start, images)


def _read_bytes(path: str) -> bytes:
    """The content of a file; raises Unreadable."""
    if is_local(path):  # Beam's layers around a local file cost more than decoding a small image
        return image_files.read_bytes(path)
    try:
        with FileSystems.open(path, compression_type=CompressionTypes.UNCOMPRESSED) as source:
            return source.read()
    except _STORAGE_ERRORS as error:
        raise Unreadable(f"cannot be read: {image_files.first_line(error)}") from error


@contextlib.contextmanager
def _local_copy(path: str) -> Iterator[str]:
    """A file's path on this machine: its own, or that of a copy which is deleted at the end; raises Unreadable."""
    if is_local(path):
        image_files.check_file(path)
        yield path
        return
    with tempfile.TemporaryDirectory() as folder:
        copy = os.path.join(folder, "records")
        try:
            with (
                FileSystems.open(path, compression_type=CompressionTypes.UNCOMPRESSED) as source,
                open(copy, "wb") as target,
            ):
                shutil.copyfileobj(source, target, _BLOCK)
        except _STORAGE_ERRORS as error:
            raise Unreadable(f"cannot be read: {image_files.first_line(error)}") from error
        yield copy


_READERS: dict[str | None, Callable[[list[str], tuple[int, int, int]], Iterator[Chunk | Refusal]]] = {
    None: _read_unknown,
    PNG: _read_pngs,
    NPY: _read_npys,
    TFRECORD: _read_tfrecords,
}
