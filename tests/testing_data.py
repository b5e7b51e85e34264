"""Where tests find real data: the folder named by ASR_TF_TEST_DATA, else one beside the checkout; skips without it."""

from __future__ import annotations

import gzip
import os
import pathlib
import struct

import numpy as np
import pytest

_ROOT = pathlib.Path(__file__).resolve().parents[1]


def _real(path):
    folder = pathlib.Path(os.environ.get("ASR_TF_TEST_DATA") or _ROOT.parent / "shared" / "data")
    if not (folder / path).exists():
        pytest.skip(f"no {path} in {folder}; set ASR_TF_TEST_DATA to a folder that has it")
    return folder / path


def mnist_dir():
    """The folder with the four original MNIST files; skips the test where there is none."""
    return _real("mnist/train-images-idx3-ubyte.gz").parent


def dsprites_file():
    """A dSprites npz with the largest scale at one position; skips the test where there is none."""
    return _real("dsprites/dsprites_subset.npz")


def originals_dir(name):
    """The folder with the original files of a data set, None where it needs none; skips the test where they miss."""
    if name == "multi_mnist":
        return mnist_dir()
    return dsprites_file().parent if name == "multi_dsprites" else None


def write_idx(path, array):
    """Writes a uint8 array as an idx file, gzip where the name ends in .gz."""
    data = bytes([0, 0, 8, array.ndim]) + struct.pack(f">{array.ndim}i", *array.shape) + array.tobytes()
    path.write_bytes(gzip.compress(data) if path.suffix == ".gz" else data)


def write_tiny_mnist(folder, suffix=".gz", num_digits=20):
    """Writes four idx files of made-up digits: each is a bar as long as its label, training grey 200, test 100."""
    for stem, grey in (("train", 200), ("t10k", 100)):
        labels = (np.arange(num_digits) % 10).astype(np.uint8)
        images = np.zeros((num_digits, 28, 28), np.uint8)
        for image, label in zip(images, labels, strict=True):
            image[5:8, 4 : 5 + label] = grey
        write_idx(folder / f"{stem}-images-idx3-ubyte{suffix}", images)
        write_idx(folder / f"{stem}-labels-idx1-ubyte{suffix}", labels)
