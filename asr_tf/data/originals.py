"""Reads the original files that object banks are cut from: the MNIST idx files and the dSprites npz.

Contract: everything comes from files on disk; nothing is downloaded.  A missing or broken file ends in one line that
names it and says what to give.

References:
    LeCun et al., the MNIST database: idx format, big endian.
    Matthey et al., "dSprites", 2017: dsprites_ndarray_co1sh3sc6or40x32y32_64x64.npz.
"""

from __future__ import annotations

import gzip
import pathlib
import zipfile
import zlib
from typing import NamedTuple

import numpy as np

from asr_tf.data.image_files import GZIP, describe, format_of

__all__ = ["DSPRITES_NAMES", "Bank", "find_mnist", "read_dsprites", "read_mnist"]

MNIST_STEMS = {"train": "train", "test": "t10k"}
DSPRITES_NAMES = ("dsprites_ndarray_co1sh3sc6or40x32y32_64x64.npz", "dsprites_subset.npz")
_IDX_UINT8 = 8
_ROWS_A_READ = 4096


class Bank(NamedTuple):
    """Objects to make scenes from.

    Attributes:
        images: uint8 [K, h, w], 0 is ground.
        labels: int64 [K], the class of each.
    """

    images: np.ndarray
    labels: np.ndarray


def find_mnist(folder: pathlib.Path, split: str) -> tuple[pathlib.Path, pathlib.Path] | None:
    """Returns the images and the labels file of a split, plain or .gz; or None.

    Args:
        folder: they are in it, in its subfolder mnist, or where torchvision puts them, in MNIST/raw; also with a dot
            instead of the second hyphen, as some unpack them.
        split: 'train' or 'test'.
    """
    places = [folder, folder / "mnist", folder / "MNIST" / "raw", folder / "raw"]
    found = []
    for kind in ("images-idx3-ubyte", "labels-idx1-ubyte"):
        spellings = (kind, kind.replace("-", ".", 1))
        names = [f"{MNIST_STEMS[split]}-{spelling}{end}" for spelling in spellings for end in ("", ".gz")]
        candidates = (place / name for place in places for name in names)
        found.append(next((path for path in candidates if path.is_file()), None))
    images, labels = found
    return (images, labels) if images and labels else None


def _read_idx(path: pathlib.Path) -> np.ndarray:
    """Returns the uint8 array of an idx file, plain or gzip.

    Raises:
        ValueError: not an idx file of bytes, or cut short.
    """
    try:
        data = path.read_bytes()
        if path.suffix == ".gz" or format_of(data) == GZIP:
            data = gzip.decompress(data)
    except (OSError, EOFError, zlib.error) as error:
        raise ValueError(f"{path} cannot be read: {error}.") from error
    if len(data) < 4 or data[:3] != bytes([0, 0, _IDX_UINT8]):
        raise ValueError(f"{path} is not an idx file of bytes, got {describe(data)}.")
    rank = data[3]
    start = 4 + 4 * rank
    shape = np.frombuffer(data[4:start], ">i4")
    if len(shape) != rank or len(data) - start != np.prod(shape, dtype=np.int64):
        raise ValueError(
            f"{path} is cut short or too long: {len(data) - start} bytes for shape {shape.tolist()}."
        )
    return np.frombuffer(data, np.uint8, offset=start).reshape(shape)


def read_mnist(folder: pathlib.Path, split: str) -> Bank:
    """Reads the digits of a split ('train' or 'test') from the original idx files.

    Raises:
        ValueError: files missing or broken.
    """
    paths = find_mnist(folder, split)
    if paths is None:
        raise ValueError(
            f"manual_dir={str(folder)!r} doesn't hold the MNIST {split} files "
            f"{MNIST_STEMS[split]}-images-idx3-ubyte and {MNIST_STEMS[split]}-labels-idx1-ubyte (plain or .gz)."
        )
    images, labels = (_read_idx(path) for path in paths)
    if images.ndim != 3 or labels.shape != images.shape[:1]:
        raise ValueError(
            f"{paths[0]} and {paths[1]} don't belong together: shapes {list(images.shape)} and {list(labels.shape)}."
        )
    return Bank(images, labels.astype(np.int64))


def read_dsprites(folder: pathlib.Path) -> tuple[Bank, np.ndarray]:
    """Reads the sprites at the largest scale and at one position: 3 shapes times 40 orientations.

    The original file unpacks to 3 GB; it is read in pieces, and only what is wanted is kept.

    Args:
        folder: holds one of `DSPRITES_NAMES`, itself or in its subfolder dsprites.

    Returns:
        The bank (labels: 0 square, 1 ellipse, 2 heart; values 0 and 255) and the orientation of each sprite,
        int64 [K], 0..39.

    Raises:
        ValueError: the file is missing or not what it should be.
    """
    candidates = [place / name for name in DSPRITES_NAMES for place in (folder, folder / "dsprites")]
    path = next((path for path in candidates if path.is_file()), None)
    if path is None:
        raise ValueError(
            f"manual_dir={str(folder)!r} doesn't hold the dSprites file {DSPRITES_NAMES[0]} "
            f"(or a part of it named {DSPRITES_NAMES[1]}); it is at https://github.com/google-deepmind/dsprites-dataset."
        )
    try:
        with open(path, "rb") as stream, np.load(stream, allow_pickle=False) as arrays:
            classes = arrays["latents_classes"]
        # Colour, shape, scale, orientation, x, y.
        wanted = (classes[:, 0] == 0) & (classes[:, 2] == classes[:, 2].max())
        for axis in (4, 5):
            wanted &= classes[:, axis] == classes[:, axis].min()
        images = _read_rows(path, "imgs.npy", np.flatnonzero(wanted))
    except (OSError, EOFError, KeyError, IndexError, ValueError, zipfile.BadZipFile, zlib.error) as error:
        raise ValueError(
            f"{path} is not a dSprites file with the arrays imgs and latents_classes: {error}."
        ) from error
    return Bank(np.where(images > 0, 255, 0).astype(np.uint8), classes[wanted, 1]), classes[wanted, 3]


def _read_rows(path: pathlib.Path, member: str, rows: np.ndarray) -> np.ndarray:
    """Reads some rows of an array in an npz without unpacking the whole of it."""
    with zipfile.ZipFile(path) as archive, archive.open(member) as stream:
        version = np.lib.format.read_magic(stream)
        read_header = {
            (1, 0): np.lib.format.read_array_header_1_0,
            (2, 0): np.lib.format.read_array_header_2_0,
        }[version]
        shape, fortran_order, dtype = read_header(stream)
        if fortran_order or len(shape) != 3 or dtype.itemsize != 1:
            raise ValueError(f"{member} must be uint8 [N, H, W], got {dtype} {list(shape)}")
        row_bytes = shape[1] * shape[2]
        kept = []
        for start in range(0, shape[0], _ROWS_A_READ):
            stop = min(start + _ROWS_A_READ, shape[0])
            data = stream.read((stop - start) * row_bytes)
            block = np.frombuffer(data, np.uint8).reshape(stop - start, *shape[1:])
            kept.append(block[rows[(rows >= start) & (rows < stop)] - start])
    return np.concatenate(kept)
