"""A user's own images: PNG or NPY files in a folder, without labels.

Contract: all images are grey and of one size; NPY files may hold one image, [H, W] or [H, W, 1], or many, [N, H, W] or
[N, H, W, 1].
What isn't known stays None: there are no counts and no boxes.  Every complaint names the file.

Splits: if there are subfolders train and test, they are the splits.  Otherwise each tenth image of a fixed shuffle is
for test; the same files give the same split on every machine.
"""

from __future__ import annotations

import os
import pathlib

import numpy as np

from asr_tf import checks
from asr_tf.data.scenes import Scenes

__all__ = ["has_own_splits", "load_image_folder"]

_SPLITS = ("train", "test")
_SUFFIXES = (".png", ".npy")
_TEST_EVERY = 10
_SPLIT_SEED = 0


def load_image_folder(path: str | os.PathLike, split: str) -> Scenes:
    """Loads the images of a folder, in the order of the file names.

    Args:
        path: the folder, `~` allowed; searched without its subfolders, other than train and test.
        split: 'train' or 'test'.

    Raises:
        ValueError: no folder, no images in it, or a file that can't be used.
    """
    checks.check_choice("split", split, _SPLITS)
    folder = pathlib.Path(path).expanduser()
    if not folder.is_dir():
        raise ValueError(f"image folder {str(folder)!r} is not a folder.")
    if has_own_splits(folder):
        missing = [name for name in _SPLITS if not (folder / name).is_dir()]
        if missing:
            raise ValueError(f"image folder {str(folder)!r} has no subfolder {missing[0]!r} beside the other split's.")
        return Scenes(_read_folder(folder / split))
    images = _read_folder(folder)
    if len(images) < 2:
        raise ValueError(f"image folder {str(folder)!r} must hold at least 2 images to be split, got 1.")
    order = np.random.default_rng(_SPLIT_SEED).permutation(len(images))
    is_test = np.zeros(len(images), bool)
    is_test[order[::_TEST_EVERY]] = True
    return Scenes(images[is_test if split == "test" else ~is_test])


def has_own_splits(path: str | os.PathLike) -> bool:
    """Whether a folder has subfolders train and test, or one of them, so that nothing is split by chance."""
    return any((pathlib.Path(path).expanduser() / name).is_dir() for name in _SPLITS)


def _read_folder(folder: pathlib.Path) -> np.ndarray:
    """Returns all images of a folder as uint8 [N, H, W, 1]."""
    files = sorted(file for file in folder.iterdir() if file.suffix.lower() in _SUFFIXES)
    if not files:
        raise ValueError(f"image folder {str(folder)!r} holds no images (*.png or *.npy).")
    stacks: list[np.ndarray] = []
    for file in files:
        stack = _read_png(file) if file.suffix.lower() == ".png" else _read_npy(file)
        size = stack.shape[1:3]
        first_size = stacks[0].shape[1:3] if stacks else size
        if size != first_size:
            raise ValueError(
                f"images must have one size (height x width): {files[0]} is {first_size[0]} x {first_size[1]} px, "
                f"{file} is {size[0]} x {size[1]} px."
            )
        stacks.append(stack)
    images = np.concatenate(stacks)
    if images.max() <= 1:
        raise ValueError(
            f"image folder {str(folder)!r} holds black images only: the brightest pixel is {images.max()} of 255. "
            "Masks of 0 and 1 must be multiplied by 255."
        )
    return images


def _read_png(file: pathlib.Path) -> np.ndarray:
    """Returns uint8 [1, H, W, 1]."""
    import PIL.Image

    try:
        with PIL.Image.open(file) as image:
            # One bit a pixel is grey too.
            grey = image.convert("L") if image.mode == "1" else image
            mode, pixels = grey.mode, np.asarray(grey)
    except (OSError, SyntaxError, ValueError) as error:
        raise ValueError(f"{file} cannot be read as a PNG image: {error}.") from error
    if mode != "L":
        raise ValueError(f"{file} must be a grey 8-bit image, got PNG mode {mode!r}.")
    return pixels[None, :, :, None]


def _read_npy(file: pathlib.Path) -> np.ndarray:
    """Returns uint8 [N, H, W, 1]."""
    try:
        array = np.load(file, allow_pickle=False)
    except Exception as error:  # damaged headers and archives have errors of their own, such as tokenize.TokenError
        raise ValueError(f"{file} cannot be read as an NPY array: {error}.") from error
    if not isinstance(array, np.ndarray):
        raise ValueError(f"{file} cannot be read as an NPY array: it is an archive of several.")
    if array.ndim == 3 and array.shape[-1] in (3, 4):
        raise ValueError(f"{file} must be grey, [H, W] or [N, H, W], got {list(array.shape)}: is the last axis colour?")
    if array.ndim == 2 or (array.ndim == 3 and array.shape[-1] == 1):
        array = array[None]
    if array.ndim == 3:
        array = array[..., None]
    images = checks.check_images(array, name=str(file))
    return array if array.dtype == np.uint8 else np.rint(images * 255).astype(np.uint8)
