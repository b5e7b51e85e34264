"""The one reader of image files: what is an image by its name and by its bytes, and the arrays of NPY files.

A folder to train on and the files of a batch are read by the same functions, here and in `asr_tf.data.png`, so that a
file that trains a model is one that the model can be asked about.

Contract: no bytes raise anything but `Unreadable`, which says what was wrong and what would be right, without the name
of the file: who reads it knows that.  Needs no more than NumPy, because workers of asr_batch_infer import it.
"""

from __future__ import annotations

import collections
import io
import os
import pathlib
import re
import stat
import struct
from collections.abc import Iterable

import numpy as np

__all__ = [
    "GZIP",
    "PNG_SIGNATURE",
    "Unreadable",
    "check_file",
    "describe",
    "first_line",
    "format_of",
    "is_clutter",
    "is_image",
    "is_read",
    "load_npy",
    "read_bytes",
    "row_faults",
    "shown",
    "tally",
    "utf8",
]

PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"

GZIP = "gzip data"
"""What `format_of` calls it."""

# What systems and programs leave beside the files of their users, in lower case; so does what begins with a dot.
_CLUTTER = {
    "__macosx",
    "_success",
    "@eadir",
    "$recycle.bin",
    "desktop.ini",
    "ehthumbs.db",
    "ehthumbs_vista.db",
    "icon\r",
    "lost+found",
    "system volume information",
    "thumbs.db",
}
_READ = (".png", ".npy")
_OTHER_IMAGES = {
    *(".apng", ".avif", ".bmp", ".dib", ".exr", ".gif", ".heic", ".heif", ".j2k", ".jfif", ".jp2", ".jpe", ".jpeg"),
    *(".jpg", ".jxl", ".npz", ".pbm", ".pgm", ".pnm", ".ppm", ".ras", ".svg", ".tga", ".tif", ".tiff", ".webp"),
}
# What TensorFlow's messages hold beside the message.
_INTERNALS = re.compile(r"\{\{[^}]*\}\} ?|\s*\[Op:\w+\].*")
_SIGNATURES = (
    (PNG_SIGNATURE, "a PNG image"),
    (b"\x93NUMPY", "an NPY array"),
    *((b"\xff\xd8\xff" + bytes([marker]), "a JPEG image") for marker in (0xE0, 0xE1, 0xE2, 0xDB, 0xEE)),
    (b"GIF87a", "a GIF image"),
    (b"GIF89a", "a GIF image"),
    (b"II*\0", "a TIFF image"),
    (b"MM\0*", "a TIFF image"),
    (b"\x00\x00\x00\x0cjP  ", "a JPEG 2000 image"),
    (b"\x1f\x8b\x08", GZIP),
    (b"PK\x03\x04", "a zip archive"),
    (b"version https://git-lfs", "a pointer of Git LFS, whose file `git lfs pull` fetches"),
    (b"<!DOCTYPE", "a page of HTML"),
    (b"<html", "a page of HTML"),
)


class Unreadable(ValueError):
    """Bytes that hold no image that can be used; the message is one line."""


def shown(path: str | os.PathLike) -> str:
    """A path for a message: on one line, with escapes for what can't be printed."""
    text = os.fspath(path)
    return text if text.isprintable() else repr(text)[1:-1]


def first_line(error: Exception) -> str:
    """The first line of an exception's message without what is TensorFlow's own, or the exception's type."""
    message = _INTERNALS.sub("", getattr(error, "message", None) or str(error))
    return message.splitlines()[0].strip() if message.strip() else type(error).__name__


def utf8(path: str) -> str:
    """A path as text that can be written as UTF-8: the same, with escapes for bytes of names that are none."""
    return os.fsencode(path).decode("utf-8", "backslashreplace")


def is_clutter(name: str) -> bool:
    """Whether a file or folder of this name is none of its user's: hidden, or left there by a system."""
    return name.startswith(".") or name.lower() in _CLUTTER


def is_read(name: str) -> bool:
    """Whether a file's name says that it holds images in a format that is read, PNG or NPY."""
    return name.lower().endswith(_READ)


def is_image(name: str) -> bool:
    """Whether a file's name says that it holds images, in whatever format."""
    return is_read(name) or os.path.splitext(name)[1].lower() in _OTHER_IMAGES


def tally(names: Iterable[str]) -> str:
    """How many names have which suffix: "9 *.jpg, 1 *.JPG"; an empty text where there is no name."""
    suffixes = collections.Counter(os.path.splitext(name)[1] for name in names)
    return ", ".join(f"{number} *{suffix}" for suffix, number in suffixes.most_common())


def format_of(data: bytes) -> str | None:
    """The format that the first bytes of a file tell, in words; None where they tell none."""
    for signature, meaning in _SIGNATURES:
        if data.startswith(signature):
            return meaning
    if data.startswith(b"RIFF") and data[8:12] == b"WEBP":
        return "a WebP image"
    if data.startswith(b"BM") and data[6:10] == bytes(4) and data[2:6] == struct.pack("<I", len(data)):
        return "a BMP image"
    return None


def describe(data: bytes) -> str:
    """What all of a file looks like, for a message."""
    return format_of(data) or (f"{len(data)} bytes of something else" if data else "an empty file")


def check_file(path: str | os.PathLike) -> None:
    """Raises Unreadable where a local path isn't that of a file: a pipe would be waited for without end."""
    try:
        mode = os.stat(path).st_mode
    except OSError as error:
        raise Unreadable(f"cannot be read: {error.strerror or error}") from error
    if not stat.S_ISREG(mode):
        raise Unreadable("cannot be read: it is a folder" if stat.S_ISDIR(mode) else "cannot be read: it is no file")


def read_bytes(path: str | os.PathLike) -> bytes:
    """The content of a local file; raises Unreadable."""
    check_file(path)
    try:
        return pathlib.Path(path).read_bytes()
    except OSError as error:
        raise Unreadable(f"cannot be read: {error.strerror or error}") from error


def load_npy(data: bytes) -> np.ndarray:
    """The array of an NPY file, of any shape; it can't be written to.

    Raises:
        Unreadable: there is none, it isn't whole or not alone, or neither uint8 nor floating point.
    """
    if not data.startswith(np.lib.format.MAGIC_PREFIX):
        raise Unreadable(f"cannot be read as an NPY array, got {describe(data)}")
    stream = io.BytesIO(data)
    try:
        read_header = {
            (1, 0): np.lib.format.read_array_header_1_0,
            (2, 0): np.lib.format.read_array_header_2_0,
        }[np.lib.format.read_magic(stream)]
        shape, fortran_order, dtype = read_header(stream)
        if min(shape, default=0) < 0:
            raise Unreadable("an axis has a negative length")
    except Exception as error:  # damaged headers have errors of their own, such as tokenize.TokenError
        raise Unreadable("cannot be read as an NPY array: its header is damaged") from error
    if dtype != np.uint8 and not np.issubdtype(dtype, np.floating):
        raise Unreadable(f"must be uint8 or floating point, got dtype {dtype}")
    there = len(data) - stream.tell()
    claimed = dtype.itemsize
    for size in shape:  # in Python's numbers, which don't overflow
        claimed *= size
    if there != claimed:
        raise Unreadable(
            f"cannot be read as an NPY array: its header claims {claimed} bytes of numbers, it holds {there}"
        )
    array = np.frombuffer(data, dtype, offset=stream.tell())
    return array.reshape(shape, order="F" if fortran_order else "C")


def row_faults(images: np.ndarray) -> dict[int, str]:
    """What is wrong with the numbers of images.

    Args:
        images: uint8 or floating point [N, H, W, C], not empty; as they are in the file, for a number above 1 may be 1
            once it is rounded.

    Returns:
        row -> reason, for those that can't be used.
    """
    if images.dtype == np.uint8:
        return {}
    low, high = images.min(axis=(1, 2, 3)), images.max(axis=(1, 2, 3))
    faults = {}
    for row in np.flatnonzero(~((low >= 0.0) & (high <= 1.0))):
        if np.isnan(low[row]):
            faults[int(row)] = "must not hold NaN"
        else:
            faults[int(row)] = (
                f"must lie in [0, 1] in floating point, got values from {low[row]!s} to {high[row]!s}"
            )
    return faults
