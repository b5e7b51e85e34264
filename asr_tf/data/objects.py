"""Object images: crop to the ink, scale and turn.  Whole banks at once, in NumPy.

Contract: ink is what is above 0.  The square crop of an object has the longer ink side as its side and the ink in its
middle (half a pixel up or left where the difference is odd).
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

__all__ = ["Crops", "crop_to_ink", "transform"]

# Resampling smears a faint fringe around the ink; below this it is no ink, and boxes stay tight.
_FRINGE = 32
_SUBPIXELS = (-0.25, 0.25)


class Crops(NamedTuple):
    """Objects cropped to their ink, each in the upper left corner of a common square.

    Attributes:
        images: uint8 [K, S, S]; S is the largest side.
        sides: int [K], side of the square crop in pixels.
        ink: int [K, 4], the ink's rectangle within the square: ymin, xmin, ymax, xmax; the last two exclusive.
    """

    images: np.ndarray
    sides: np.ndarray
    ink: np.ndarray

    def select(self, rows: np.ndarray) -> Crops:
        """Returns the objects of `rows`, int [n]."""
        return Crops(self.images[rows], self.sides[rows], self.ink[rows])


def crop_to_ink(images: np.ndarray) -> Crops:
    """Crops objects to the centred square around their ink.

    Args:
        images: uint8 [K, h, w], dark ground.

    Raises:
        ValueError: an image without ink.
    """
    num_objects, height, width = images.shape
    ink_pixels = images > 0
    rows = np.any(ink_pixels, axis=2)
    columns = np.any(ink_pixels, axis=1)
    if not rows.any(axis=1).all():
        raise ValueError(f"object {int(np.argmin(rows.any(axis=1)))} has no ink (no pixel above 0).")
    top, left = rows.argmax(axis=1), columns.argmax(axis=1)
    ink_height = height - rows[:, ::-1].argmax(axis=1) - top
    ink_width = width - columns[:, ::-1].argmax(axis=1) - left
    sides = np.maximum(ink_height, ink_width)
    pad_y, pad_x = (sides - ink_height) // 2, (sides - ink_width) // 2

    span = np.arange(sides.max())
    y = (top - pad_y)[:, None] + span
    x = (left - pad_x)[:, None] + span
    inside_y = (span >= pad_y[:, None]) & (span < (pad_y + ink_height)[:, None])
    inside_x = (span >= pad_x[:, None]) & (span < (pad_x + ink_width)[:, None])
    crops = images[
        np.arange(num_objects)[:, None, None],
        np.clip(y, 0, height - 1)[:, :, None],
        np.clip(x, 0, width - 1)[:, None, :],
    ]
    crops[~(inside_y[:, :, None] & inside_x[:, None, :])] = 0
    ink = np.stack([pad_y, pad_x, pad_y + ink_height, pad_x + ink_width], axis=1)
    return Crops(crops, sides, ink)


def transform(crops: Crops, scales: np.ndarray, angles: np.ndarray) -> Crops:
    """Scales and turns objects about their middle and crops them anew.

    A pixel is the mean of four bilinear samples, so that shrinking doesn't skip thin strokes.  Binary objects (0 and
    255 only) stay binary.

    Args:
        crops: K objects.
        scales: float [K], factor on the size.
        angles: float [K], degrees, counter-clockwise.

    Raises:
        ValueError: an object that vanishes.
    """
    num_objects, size, _ = crops.images.shape
    radians = np.deg2rad(angles)
    # Height and width that the ink's rectangle takes once it is turned and scaled, and a pixel around it.
    extent = crops.ink[:, 2:] - crops.ink[:, :2]
    spread = np.abs(np.sin(radians))[:, None] * extent[:, ::-1]
    extent = scales[:, None] * (np.abs(np.cos(radians))[:, None] * extent + spread)
    out_size = int(np.ceil(extent.max())) + 3
    # Odd extents are laid around the middle of a pixel and even ones around an edge, so that their own edges fall on
    # pixel edges: upright objects at scale 1 come out as they were.
    middle = out_size // 2 + (np.rint(extent) % 2) / 2.0  # [K, 2]
    offsets = np.arange(out_size) + 0.5 - middle[:, :, None]  # [K, 2, out]
    centre = (crops.ink[:, :2] + crops.ink[:, 2:])[:, :, None, None] / 2.0 - 0.5  # in pixel indices
    cosine = (np.cos(radians) / scales)[:, None, None]
    sine = (np.sin(radians) / scales)[:, None, None]
    padded = np.pad(crops.images, ((0, 0), (1, 1), (1, 1)))
    index = np.arange(num_objects)[:, None, None]

    total = np.zeros((num_objects, out_size, out_size), np.float32)
    for sub_y in _SUBPIXELS:
        for sub_x in _SUBPIXELS:
            dy, dx = offsets[:, 0, :, None] + sub_y, offsets[:, 1, None, :] + sub_x
            y = centre[:, 0] + cosine * dy + sine * dx
            x = centre[:, 1] - sine * dy + cosine * dx
            total += _bilinear(padded, index, y + 1.0, x + 1.0, size)
    values = total / len(_SUBPIXELS) ** 2
    if np.isin(crops.images, (0, 255)).all():
        resampled = np.where(values >= 127.5, 255, 0).astype(np.uint8)
    else:
        resampled = np.where(values >= _FRINGE, np.rint(values), 0).astype(np.uint8)
    return crop_to_ink(resampled)


def _bilinear(
    padded: np.ndarray, index: np.ndarray, y: np.ndarray, x: np.ndarray, size: int
) -> np.ndarray:
    """Samples [K, size + 2, size + 2] at (y, x) [K, o, o]; beyond the padding everything is 0."""
    y = np.clip(y, 0.0, size + 1.0)
    x = np.clip(x, 0.0, size + 1.0)
    y0 = np.minimum(y.astype(np.int64), size)
    x0 = np.minimum(x.astype(np.int64), size)
    wy, wx = y - y0, x - x0
    upper = padded[index, y0, x0] * (1 - wx) + padded[index, y0, x0 + 1] * wx
    lower = padded[index, y0 + 1, x0] * (1 - wx) + padded[index, y0 + 1, x0 + 1] * wx
    return upper * (1 - wy) + lower * wy
