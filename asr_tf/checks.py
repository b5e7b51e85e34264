"""Checks of what comes from outside, with one style of message.

Every message is one line: what was checked, what was expected, what came.  Nothing here knows the model.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

__all__ = [
    "CHANNELS",
    "check_canvas_size",
    "check_choice",
    "check_counts",
    "check_images",
    "check_interval",
    "check_positive",
    "check_range",
    "check_whole",
]

CHANNELS = {1: "grey", 3: "RGB"}
"""What images may be: number of channels C to what they hold."""


def check_choice(name: str, value: Any, choices: Iterable[Any]) -> Any:
    """Returns `value` if it is one of `choices`.

    Raises:
        ValueError: names the argument, the value, the nearest choice if there is one, and all choices.
    """
    choices = list(choices)
    if value in choices:
        return value
    near = difflib.get_close_matches(str(value), [str(choice) for choice in choices], n=1)
    hint = f" (did you mean {near[0]!r}?)" if near else ""
    raise ValueError(f"{name}={value!r} is unknown{hint}; choose one of {choices}.")


def check_positive(name: str, value: Any) -> Any:
    """Returns `value` if it is a number above zero.

    Raises:
        ValueError: names the argument and the value.
    """
    if isinstance(value, bool) or not isinstance(value, (int, float, np.number)) or not value > 0:
        raise ValueError(f"{name} must be a number above 0, got {value!r}.")
    return value


def check_range(name: str, value: Any, low: float, high: float) -> Any:
    """Returns `value` if `low <= value <= high`.

    Raises:
        ValueError: names the argument, the range and the value.
    """
    if not low <= value <= high:
        raise ValueError(f"{name} must be between {low} and {high}, got {value!r}.")
    return value


def check_whole(name: str, value: Any, low: int = 1) -> Any:
    """Returns `value` if it is a whole number, `low` or more.

    Raises:
        ValueError: names the argument and the value.
    """
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or value < low:
        raise ValueError(f"{name} must be a whole number, {low} or more, got {value!r}.")
    return value


def check_counts(name: str, counts: Any) -> tuple[int, ...]:
    """Returns numbers of objects as a sorted tuple of different integers, none negative.

    Raises:
        ValueError: no count, a negative one or one given twice.
        TypeError: a count that is not an integer.
    """
    if isinstance(counts, (str, bytes)) or not isinstance(counts, Iterable):
        raise TypeError(f"{name} must be a list of integers such as (1, 3), got {counts!r}.")
    values = tuple(counts)
    for value in values:
        if isinstance(value, bool) or not isinstance(value, (int, np.integer)):
            raise TypeError(f"{name} must hold integers, got {value!r} in {values!r}.")
        if value < 0:
            raise ValueError(f"{name} must hold counts of 0 or more, got {value!r} in {values!r}.")
    if not values:
        raise ValueError(f"{name} must name at least one count, got {values!r}.")
    if len(set(values)) != len(values):
        raise ValueError(f"{name} must name each count once, got {values!r}.")
    return tuple(sorted(int(value) for value in values))


def check_canvas_size(name: str, canvas_size: Any) -> tuple[int, int]:
    """Returns (H, W), two whole numbers, 1 or more.

    Raises:
        ValueError: names the argument and the value.
    """
    if isinstance(canvas_size, str) or not isinstance(canvas_size, Sequence) or len(canvas_size) != 2:
        raise ValueError(f"{name} must be (H, W), got {canvas_size!r}.")
    height, width = (int(check_whole(f"{name}[{i}]", size)) for i, size in enumerate(canvas_size))
    return height, width


def check_interval(name: str, ends: Any) -> tuple[float, float]:
    """Returns (low, high), two numbers above 0 in order.

    Raises:
        ValueError: names the argument and the value.
    """
    if isinstance(ends, str) or not isinstance(ends, Sequence) or len(ends) != 2:
        raise ValueError(f"{name} must be (low, high), got {ends!r}.")
    low, high = (float(check_positive(name, end)) for end in ends)
    if low > high:
        raise ValueError(f"{name} must be (low, high) with low at most high, got {ends!r}.")
    return low, high


def check_images(
    images: Any, canvas_size: Sequence[int] | None = None, name: str = "images", channels: int | None = None
) -> np.ndarray:
    """Returns images as float32 [N, H, W, C] in [0, 1], the same array where they are such already.

    Args:
        images: array [N, H, W, C] with C = 1 (grey) or 3 (RGB); uint8 in [0, 255] or floating point in [0, 1].
        canvas_size: the (H, W) that is wanted, or None for any.
        name: what the messages call the array.
        channels: the C that is wanted, or None for either.

    Raises:
        TypeError: wrong dtype.
        ValueError: wrong rank, channel count or size, no image, NaN, or values outside the range.
    """
    images = np.asarray(images)
    if images.ndim != 4 or images.shape[-1] not in (CHANNELS if channels is None else (channels,)):
        wanted = " or ".join(f"[N, H, W, {c}] ({CHANNELS[c]})" for c in CHANNELS if channels in (None, c))
        raise ValueError(f"{name} must have shape {wanted}, got {list(images.shape)}.")
    if images.size == 0:
        raise ValueError(f"{name} must hold at least one image of one pixel or more, got shape {list(images.shape)}.")
    if canvas_size is not None and tuple(images.shape[1:3]) != tuple(canvas_size):
        raise ValueError(
            f"{name} must be {canvas_size[0]} x {canvas_size[1]} pixels (height x width), "
            f"got {images.shape[1]} x {images.shape[2]}."
        )
    if images.dtype == np.uint8:
        return images.astype(np.float32) / 255.0
    if not np.issubdtype(images.dtype, np.floating):
        raise TypeError(f"{name} must be uint8 or floating point, got dtype {images.dtype}.")
    low, high = images.min(), images.max()
    if np.isnan(low):
        index = int(np.argwhere(np.isnan(images))[0, 0])
        raise ValueError(f"{name} must not hold NaN; image {index} does.")
    if low < 0.0 or high > 1.0:
        raise ValueError(f"{name} in floating point must lie in [0, 1], got values from {low!s} to {high!s}.")
    return images.astype(np.float32, copy=False)
