"""`multi_mnist`: scenes of MNIST digits, from TFDS's `mnist` or from the original files in `manual_dir`."""

from __future__ import annotations

import pathlib

import numpy as np
import tensorflow as tf
import tensorflow_datasets as tfds

from asr_tf.data.image_files import first_line
from asr_tf.data.multi_object import MultiObjectBuilder, paper_configs
from asr_tf.data.originals import Bank, find_mnist, read_mnist

__all__ = ["MultiMnist"]


class MultiMnist(MultiObjectBuilder):
    """MNIST digits on a canvas of 50 x 50 px; the test split is made of MNIST's test digits."""

    BUILDER_CONFIGS = paper_configs(canvas_size=(50, 50))
    CLASS_NAMES = tuple("0123456789")

    def _bank(self, split: str, manual_dir: pathlib.Path) -> Bank:
        if find_mnist(manual_dir, split) is not None:
            return read_mnist(manual_dir, split)
        bank = _read_prepared_mnist(pathlib.Path(self._data_dir_root), split)
        if bank is None:
            raise ValueError(
                f"multi_mnist needs the digits of MNIST: give manual_dir (--manual_dir), a folder with the four "
                f"original idx files (plain or .gz), or prepare TFDS's mnist in data_dir (`tfds build mnist`); "
                f"neither is in manual_dir={str(manual_dir)!r} and data_dir={str(self._data_dir_root)!r}."
            )
        return bank


def _read_prepared_mnist(data_dir: pathlib.Path, split: str) -> Bank | None:
    """Returns the digits of TFDS's mnist if that is prepared in `data_dir`, without asking the network."""
    versions = sorted((data_dir / "mnist").glob("*/dataset_info.json"))
    if not versions:
        return None
    builder = tfds.builder_from_directory(versions[-1].parent)
    try:
        arrays = builder.as_dataset(split=split, batch_size=-1, shuffle_files=False)
    except tf.errors.OpError as error:
        raise ValueError(
            f"{versions[-1].parent} is damaged ({first_line(error).rstrip('.')}): prepare TFDS's mnist anew, or give "
            "the original files (--manual_dir)."
        ) from error
    images = np.asarray(arrays["image"])[..., 0]
    return Bank(images, np.asarray(arrays["label"], np.int64))
