"""A user's own images: PNG or NPY files in a folder, without labels.

Contract: all images are of one size, and all are grey or all are RGB, of 8 bits a channel.  NPY files may hold one
image, [H, W], [H, W, 1] or [H, W, 3], or many, [N, H, W], [N, H, W, 1] or [N, H, W, 3].  An array [A, B, 3] is one RGB
image, never A images of width 3.  Numbers in floating point are rounded to 8 bits, as 255 levels of [0, 1].  Which PNG
files can be read is said in `asr_tf.data.png`: none that could only be read with a loss.
What isn't known stays None: there are no counts and no boxes.  Every complaint names the file.  How many images were
found is told on stderr, with what lies beside them and isn't read; hidden files count as not there.

Splits: if there are subfolders train and test, they are the splits, and a subfolder validation beside them is the
validation split.  Otherwise each tenth image of a fixed shuffle is for test, and the others are there for training.
Where there is no subfolder validation, the last images for training, in the order of the file names, are for
validation, see `asr_tf.data.splits`.  The same files give the same splits on every machine.
"""

from __future__ import annotations

import os
import pathlib
import sys

import numpy as np

from asr_tf import checks
from asr_tf.data import image_files, splits
from asr_tf.data.image_files import Unreadable, shown
from asr_tf.data.png import check_png, decode_png
from asr_tf.data.scenes import Scenes

__all__ = ["ImageFolder"]

_TEST_EVERY = 10
_FEWEST = 3
_SPLIT_SEED = 0
_BRIGHT = 127
_MOST_NAMED = 3  # folders in a message
_MOST_LOOKED_AT = 100  # images that a ground is judged by


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
            if folder != self.path and not self._read and (beside := image_files.tally(_image_names(self.path))):
                print(f"Left out beside the splits in {shown(self.path)}: {beside}.", file=sys.stderr)
            self._read[folder] = _read_folder(folder)
        return self._read[folder]


def _shuffled_rows(num_images: int) -> tuple[np.ndarray, np.ndarray]:
    """Returns which images are for test and which are for training, int [n] each, ascending."""
    order = np.random.default_rng(_SPLIT_SEED).permutation(num_images)
    is_test = np.zeros(num_images, bool)
    is_test[order[::_TEST_EVERY]] = True
    return np.flatnonzero(is_test), np.flatnonzero(~is_test)


def _contents(folder: pathlib.Path) -> list[pathlib.Path]:
    """Returns what lies in a folder, by name, without what its user didn't put there."""
    return sorted(path for path in folder.iterdir() if not image_files.is_clutter(path.name))


def _image_names(folder: pathlib.Path) -> list[str]:
    """Returns the names of the images in a folder, also of those that aren't read."""
    return [
        path.name
        for path in _contents(folder)
        if image_files.is_image(path.name) and not path.is_dir()
    ]


def _not_read(folder: pathlib.Path) -> str:
    """Says which images in a folder and in the folders in it aren't read; an empty text where all are."""
    others = [name for name in _image_names(folder) if not image_files.is_read(name)]
    below = [
        f"{path.name}/"
        for path in _contents(folder)
        if path.is_dir() and path.name not in splits.SPLITS and _image_names(path)
    ]
    more = [f"and {len(below) - _MOST_NAMED} more"] if len(below) > _MOST_NAMED else []
    parts = [image_files.tally(others), *below[:_MOST_NAMED], *more]
    return shown(", ".join(part for part in parts if part))


def _read_folder(folder: pathlib.Path) -> np.ndarray:
    """Returns all images of a folder as uint8 [N, H, W, C], and tells what was found."""
    files = [folder / name for name in _image_names(folder) if image_files.is_read(name)]
    not_read = _not_read(folder)
    if not files:
        beside = f" itself, but {not_read}" if not_read else ""
        raise ValueError(f"image folder {str(folder)!r} holds no images (*.png or *.npy){beside}.")
    stacks: list[np.ndarray] = []
    for file in files:
        stack = _read_png(file) if file.suffix.lower() == ".png" else _read_npy(file)
        _check_like(files[0], stacks[0] if stacks else stack, file, stack)
        stacks.append(stack)
    images = np.concatenate(stacks)
    if images.max() <= 1:
        raise ValueError(
            f"image folder {str(folder)!r} holds black images only: the brightest pixel is {images.max()} of 255. "
            "Masks of 0 and 1 must be multiplied by 255."
        )
    _tell(folder, images, len(files), not_read)
    return images


def _check_like(first_file: pathlib.Path, first: np.ndarray, file: pathlib.Path, stack: np.ndarray) -> None:
    """Refuses images [N, H, W, C] of other channels or of another size than the first ones."""
    channels, first_channels = stack.shape[3], first.shape[3]
    if channels != first_channels:
        raise ValueError(
            f"images must be all grey or all RGB: {shown(first_file)} is {checks.CHANNELS[first_channels]}, "
            f"{shown(file)} is {checks.CHANNELS[channels]}."
        )
    size, first_size = stack.shape[1:3], first.shape[1:3]
    if size != first_size:
        raise ValueError(
            f"images must have one size (height x width): {shown(first_file)} is {first_size[0]} x {first_size[1]} px, "
            f"{shown(file)} is {size[0]} x {size[1]} px."
        )


def _tell(folder: pathlib.Path, images: np.ndarray, num_files: int, not_read: str) -> None:
    """Tells on stderr what was found in a folder: images [N, H, W, C] of some files."""
    num_images, height, width, channels = images.shape
    plural = "" if num_images == 1 else "s"
    files = "1 file" if num_files == 1 else f"{num_files} files"
    found = f"{num_images} {checks.CHANNELS[channels]} image{plural} of {height} x {width} px in {files}"
    beside = f"; left out: {not_read} (only *.png and *.npy in the folder itself are read)" if not_read else ""
    print(f"Image folder {shown(folder)}: {found}{beside}.", file=sys.stderr)
    ground = np.median(images[:: max(1, num_images // _MOST_LOOKED_AT)])
    if ground > _BRIGHT:
        print(
            f"Most pixels in {shown(folder)} are bright (the median is {ground:g} of 255): where objects are darker "
            "than the ground, invert the images, for a model expects a black ground.",
            file=sys.stderr,
        )


def _read_png(file: pathlib.Path) -> np.ndarray:
    """Returns uint8 [1, H, W, C]."""
    try:
        return decode_png(check_png(image_files.read_bytes(file)))[None]
    except Unreadable as error:
        raise ValueError(f"{shown(file)} {error}.") from error


def _read_npy(file: pathlib.Path) -> np.ndarray:
    """Returns uint8 [N, H, W, C]."""
    try:
        return _levels(_stacked(image_files.load_npy(image_files.read_bytes(file))))
    except Unreadable as error:
        raise ValueError(f"{shown(file)} {error}.") from error


def _stacked(array: np.ndarray) -> np.ndarray:
    """Returns an array of any shape as images [N, H, W, C].

    An array [A, B, 3] could be one RGB image or a stack of A grey images that are 3 pixels wide.  It is taken for an
    RGB image if A and B are larger than 3.  A smaller one is refused, and so is [A, B, 4], which could hold
    transparency.
    """
    shape = list(array.shape)
    last = shape[-1] if array.ndim == 3 else None
    if last == 4:
        raise Unreadable(
            f"must be grey, [H, W] or [N, H, W], or RGB, [H, W, 3], got {shape}: is the last axis colour and "
            "transparency?"
        )
    if last == 3 and min(shape[:2]) <= 3:
        raise Unreadable(
            f"must have shape [N, H, W, 1] (grey) or [N, H, W, 3] (RGB), got {shape}: is the last axis colour or width?"
        )
    if array.ndim == 2:
        array = array[None, :, :, None]
    elif last in checks.CHANNELS:
        array = array[None]
    elif array.ndim == 3:
        array = array[..., None]
    if array.ndim != 4 or array.shape[-1] not in checks.CHANNELS:
        raise Unreadable(f"must have shape [N, H, W, 1] (grey) or [N, H, W, 3] (RGB), got {shape}")
    if not array.size:
        raise Unreadable(f"must hold at least one image of one pixel or more, got shape {shape}")
    return array


def _levels(images: np.ndarray) -> np.ndarray:
    """Returns images [N, H, W, C] of uint8, or of floating point in [0, 1], as uint8."""
    faults = image_files.row_faults(images)
    if faults:
        row = min(faults)
        raise Unreadable(f"{faults[row]} (image {row})")
    return images if images.dtype == np.uint8 else np.rint(images * 255).astype(np.uint8)
