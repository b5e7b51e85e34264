"""A user's own images: PNG or NPY files in a folder, without labels.

Contract: all images are of one size, and all are grey or all are RGB, of 8 bits a channel.  NPY files may hold one
image, [H, W], [H, W, 1] or [H, W, 3], or many, [N, H, W], [N, H, W, 1] or [N, H, W, 3].  An array [A, B, 3] is one RGB
image, never A images of width 3.  A PNG file that could only be read with a loss is refused, such as one with
transparency, a palette or 16 bits.
What isn't known stays None: there are no counts and no boxes.  Every complaint names the file.

Splits: if there are subfolders train and test, they are the splits.  Otherwise each tenth image of a fixed shuffle is
for test; the same files give the same split on every machine.
"""

from __future__ import annotations

import os
import pathlib
from typing import TYPE_CHECKING

import numpy as np

from asr_tf import checks
from asr_tf.data.scenes import Scenes

if TYPE_CHECKING:
    import PIL.Image

__all__ = ["has_own_splits", "load_image_folder"]

_SPLITS = ("train", "test")
_SUFFIXES = (".png", ".npy")
_TEST_EVERY = 10
_SPLIT_SEED = 0
_MODES = ("1", "L", "RGB")  # Pillow's names of one bit, grey and RGB
_BIT_DEPTH_AT = 24  # the byte of a PNG file that holds the bits a channel


def load_image_folder(path: str | os.PathLike, split: str) -> Scenes:
    """Loads the images of a folder, in the order of the file names.

    Args:
        path: the folder, `~` allowed; searched without its subfolders, other than train and test.
        split: 'train' or 'test'.

    Returns:
        `Scenes` with images uint8 [N, H, W, C], C = 1 where the files are grey and 3 where they are RGB.

    Raises:
        ValueError: no folder, no images in it, or a file that can't be used.
        TypeError: an NPY file of another dtype than uint8 or floating point.
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
    """Returns all images of a folder as uint8 [N, H, W, C]."""
    files = sorted(file for file in folder.iterdir() if file.suffix.lower() in _SUFFIXES)
    if not files:
        raise ValueError(f"image folder {str(folder)!r} holds no images (*.png or *.npy).")
    stacks: list[np.ndarray] = []
    for file in files:
        stack = _read_png(file) if file.suffix.lower() == ".png" else _read_npy(file)
        first = stacks[0] if stacks else stack
        channels, first_channels = stack.shape[3], first.shape[3]
        if channels != first_channels:
            raise ValueError(
                f"images must be all grey or all RGB: {files[0]} is {checks.CHANNELS[first_channels]}, "
                f"{file} is {checks.CHANNELS[channels]}."
            )
        size, first_size = stack.shape[1:3], first.shape[1:3]
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
    """Returns uint8 [1, H, W, C]."""
    import PIL.Image

    try:
        with PIL.Image.open(file, formats=("PNG",)) as image:
            obstacle = _what_would_be_lost(image, file)
            # One bit a pixel is grey too.
            pixels = np.asarray(image.convert("L") if image.mode == "1" else image)
    except (OSError, SyntaxError, ValueError) as error:
        raise ValueError(f"{file} cannot be read as a PNG image: {error}.") from error
    if obstacle:
        raise ValueError(f"{file} must be a grey or RGB 8-bit image, got {obstacle}.")
    return pixels[None, :, :, None] if pixels.ndim == 2 else pixels[None]


def _what_would_be_lost(image: PIL.Image.Image, file: pathlib.Path) -> str:
    """Says why the pixels of a PNG image aren't all that the file holds; an empty text where they are."""
    if image.mode not in _MODES:
        return f"PNG mode {image.mode!r}"
    with file.open("rb") as stream:
        bits = stream.read(_BIT_DEPTH_AT + 1)[_BIT_DEPTH_AT]
    if bits > 8:  # Pillow cuts RGB of 16 bits down to 8
        return f"PNG mode {image.mode!r} of {bits} bits a channel"
    if "transparency" in image.info:
        return f"PNG mode {image.mode!r} with a transparent colour"
    if getattr(image, "n_frames", 1) > 1:
        return "an animation"
    return ""


def _read_npy(file: pathlib.Path) -> np.ndarray:
    """Returns uint8 [N, H, W, C].

    An array [A, B, 3] could be one RGB image or a stack of A grey images that are 3 pixels wide.  It is taken for an
    RGB image if A and B are larger than 3.  A smaller one is refused, and so is [A, B, 4], which could hold
    transparency.
    """
    try:
        array = np.load(file, allow_pickle=False)
    except Exception as error:  # damaged headers and archives have errors of their own, such as tokenize.TokenError
        raise ValueError(f"{file} cannot be read as an NPY array: {error}.") from error
    if not isinstance(array, np.ndarray):
        raise ValueError(f"{file} cannot be read as an NPY array: it is an archive of several.")
    last = array.shape[-1] if array.ndim == 3 else None
    if last == 4:
        raise ValueError(
            f"{file} must be grey, [H, W] or [N, H, W], or RGB, [H, W, 3], got {list(array.shape)}: "
            "is the last axis colour and transparency?"
        )
    if last == 3 and min(array.shape[:2]) <= 3:
        raise ValueError(
            f"{file} must have shape [N, H, W, 1] (grey) or [N, H, W, 3] (RGB), got {list(array.shape)}: "
            "is the last axis colour or width?"
        )
    if array.ndim == 2:
        array = array[None, :, :, None]
    elif last in checks.CHANNELS:
        array = array[None]
    elif array.ndim == 3:
        array = array[..., None]
    images = checks.check_images(array, name=str(file))
    return array if array.dtype == np.uint8 else np.rint(images * 255).astype(np.uint8)
