"""A user's own images: PNG or NPY files in a folder, without labels.

Contract: all images are of one size, and all are grey or all are RGB, of 8 bits a channel.  NPY files may hold one
image, [H, W], [H, W, 1] or [H, W, 3], or many, [N, H, W], [N, H, W, 1] or [N, H, W, 3].  An array [A, B, 3] is one RGB
image, never A images of width 3.  A PNG file that could only be read with a loss is refused, such as one with
transparency, a palette or 16 bits.
What isn't known stays None: there are no counts and no boxes.  Every complaint names the file.

Splits: if there are subfolders train and test, they are the splits, and a subfolder validation beside them is the
validation split.  Otherwise each tenth image of a fixed shuffle is for test, and the others are there for training.
Where there is no subfolder validation, the last images for training, in the order of the file names, are for
validation, see `asr_tf.data.splits`.  The same files give the same splits on every machine.
"""

from __future__ import annotations

import os
import pathlib
from typing import TYPE_CHECKING

import numpy as np

from asr_tf import checks
from asr_tf.data import splits
from asr_tf.data.scenes import Scenes

if TYPE_CHECKING:
    import PIL.Image

__all__ = ["ImageFolder"]

_SUFFIXES = (".png", ".npy")
_TEST_EVERY = 10
_FEWEST = 3
_SPLIT_SEED = 0
_MODES = ("1", "L", "RGB")  # Pillow's names of one bit, grey and RGB
_BIT_DEPTH_AT = 24  # the byte of a PNG file that holds the bits a channel


class ImageFolder:
    """The splits of a folder of images; a file is read once, however many splits are asked for.

    Attributes:
        path: the folder.
    """

    def __init__(self, path: str | os.PathLike) -> None:
        """Looks at nothing.

        Args:
            path: the folder, `~` allowed; searched without its subfolders, other than train, validation and test.
        """
        self.path = pathlib.Path(path).expanduser()
        self._read: dict[pathlib.Path, np.ndarray] = {}  # uint8 [N, H, W, C] by folder

    def has_own(self, split: str) -> bool:
        """Whether there is a subfolder for the split, so that its images aren't taken from those of another one."""
        return (self.path / split).is_dir()

    def load(self, split: str, num_validation: int = splits.NUM_VALIDATION, with_masks: bool = False) -> Scenes:
        """Loads the images of a split, in the order of the file names.

        Args:
            split: 'train', 'validation' or 'test'.
            num_validation: images for validation, where they are cut from those for training; at most a tenth of them.
            with_masks: without effect, as masks aren't known.

        Returns:
            `Scenes` with images uint8 [N, H, W, C], C = 1 where the files are grey and 3 where they are RGB; nothing
            else is known of them.

        Raises:
            ValueError: no folder, too few images in it, or a file that can't be used.
            TypeError: an NPY file of another dtype than uint8 or floating point.
        """
        checks.check_choice("split", split, splits.SPLITS)
        if not self.path.is_dir():
            raise ValueError(f"image folder {str(self.path)!r} is not a folder.")
        if any(self.has_own(name) for name in splits.SPLITS):
            missing = [name for name in ("train", "test") if not self.has_own(name)]
            if missing:
                raise ValueError(
                    f"image folder {str(self.path)!r} has no subfolder {missing[0]!r} beside those of other splits."
                )
            if split == "test" or self.has_own("validation"):
                return Scenes(self._images(self.path / split))
            images = self._images(self.path / "train")
            rows = np.arange(len(images))
        else:
            images = self._images(self.path)
            if len(images) < _FEWEST:
                raise ValueError(
                    f"image folder {str(self.path)!r} must hold at least {_FEWEST} images, one each to train on, for "
                    f"validation and for test, got {len(images)}."
                )
            for_test, rows = _shuffled_rows(len(images))
            if split == "test":
                return Scenes(images[for_test])
        num_training = splits.num_for_training(len(rows), num_validation, repr(str(self.path / "train")))
        return Scenes(images[rows[:num_training] if split == "train" else rows[num_training:]])

    def _images(self, folder: pathlib.Path) -> np.ndarray:
        """Returns all images of a folder, uint8 [N, H, W, C], and remembers them."""
        if folder not in self._read:
            self._read[folder] = _read_folder(folder)
        return self._read[folder]


def _shuffled_rows(num_images: int) -> tuple[np.ndarray, np.ndarray]:
    """Returns which images are for test and which are for training, int [n] each, ascending."""
    order = np.random.default_rng(_SPLIT_SEED).permutation(num_images)
    is_test = np.zeros(num_images, bool)
    is_test[order[::_TEST_EVERY]] = True
    return np.flatnonzero(is_test), np.flatnonzero(~is_test)


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
