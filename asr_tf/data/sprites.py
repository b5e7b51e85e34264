"""Squares, ellipses and hearts, drawn at any angle: the bank that needs no file.

Contract: binary images (0 and 255), drawn from formulas; the proportions are those of dSprites.  Angles are in degrees
and turn counter-clockwise on a screen.

References:
    Matthey et al., "dSprites", 2017, whose shapes these stand in for.
"""

from __future__ import annotations

import numpy as np

from asr_tf import checks
from asr_tf.data.objects import crop_to_ink
from asr_tf.data.originals import Bank

__all__ = ["SHAPES", "draw_in_crop", "draw_sprites", "sprite_bank"]

SHAPES = ("square", "ellipse", "heart")

# Lengths in units of the square's side.
_ELLIPSE_AXES = (1.34, 0.73)  # along x, along y
_HEART_WIDTH = 1.0
# In units of the heart's width: two discs side by side, each with its tangents to the tip.
_HEART_RADIUS = 0.285
_HEART_HEIGHT = 0.93

_CROP_PX = 18.0
# Multiples of 15 degrees map to multiples of 15 under the symmetries of square and ellipse, so what is held out doesn't
# come back as another angle of the same shape.
_STEP_DEGREES = 3
_HELD_OUT_DEGREES = 15


def _inside(shape: str, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Tells which points (x right, y down, in units of the square's side) lie in the upright shape."""
    if shape == "square":
        return np.maximum(np.abs(x), np.abs(y)) <= 0.5
    if shape == "ellipse":
        return np.hypot(2 * x / _ELLIPSE_AXES[0], 2 * y / _ELLIPSE_AXES[1]) <= 1.0
    # Heart: the hull of a disc and the tip, and its mirror image.  The hull is the disc and the sector around the tip
    # that reaches to the points where the tangents touch.
    radius = _HEART_RADIUS
    x, y = np.abs(x) / _HEART_WIDTH, y / _HEART_WIDTH
    tip_y = _HEART_HEIGHT / 2
    disc_x, disc_y = 0.5 - radius, radius - tip_y
    in_disc = np.hypot(x - disc_x, y - disc_y) <= radius
    distance = np.hypot(disc_x, disc_y - tip_y)
    from_tip = np.hypot(x, y - tip_y)
    towards_disc = (x * disc_x + (y - tip_y) * (disc_y - tip_y)) / distance
    reach = np.sqrt(distance**2 - radius**2)
    in_sector = (from_tip <= reach) & (towards_disc >= from_tip * reach / distance)
    return in_disc | in_sector


def draw_sprites(shape: str, angles: np.ndarray, side_px: float | np.ndarray) -> np.ndarray:
    """Draws one shape at some angles.

    Args:
        shape: one of `SHAPES`.
        angles: float [K], degrees.
        side_px: side of the square in pixels, one or [K]; the others follow in proportion.

    Returns:
        uint8 [K, s, s], 0 or 255: a pixel is set if its middle lies in the shape; s leaves room for any angle.

    Raises:
        ValueError: an unknown shape, or a side that isn't above 0.
    """
    checks.check_choice("shape", shape, SHAPES)
    checks.check_positive("side_px", float(np.min(side_px)))
    # The square's diagonal is its longest line: 1.42 sides.
    size = 2 * int(np.ceil(0.75 * np.max(side_px))) + 2
    middle = np.arange(size) + 0.5 - size / 2
    radians = np.deg2rad(np.asarray(angles, np.float64))[:, None, None]
    sides = np.reshape(np.asarray(side_px, np.float64), [-1, 1, 1])
    across, down = middle[None, None, :] / sides, middle[None, :, None] / sides
    x = np.cos(radians) * across - np.sin(radians) * down
    y = np.sin(radians) * across + np.cos(radians) * down
    return np.where(_inside(shape, x, y), 255, 0).astype(np.uint8)


def draw_in_crop(shape: str, angles: np.ndarray, crop_px: float) -> np.ndarray:
    """Draws one shape at some angles, each as large as fits a square crop.

    Args:
        shape: one of `SHAPES`.
        angles: float [K], degrees.
        crop_px: side of the crop in pixels.

    Returns:
        uint8 [K, 2 crop_px, 2 crop_px], 0 or 255.

    Raises:
        ValueError: as `draw_sprites`.
    """
    large_px = 8.0 * crop_px  # eight times the size tells extents to an eighth of a pixel
    extents = crop_to_ink(draw_sprites(shape, angles, large_px)).sides / large_px
    drawn = draw_sprites(shape, angles, crop_px / extents)
    border = (round(2 * crop_px) - drawn.shape[1]) // 2
    return np.pad(drawn, ((0, 0), (border, border), (border, border)))


def sprite_bank(split: str) -> Bank:
    """Returns all shapes at the angles of a split ('train' or 'test').

    No object is in both, pixel for pixel.  Labels are indices of `SHAPES`; objects are all about the same size, with
    square crops of 18 px, as MNIST's digits all have 20 px.
    """
    checks.check_choice("split", split, ("train", "test"))
    steps = np.arange(0, 360, _STEP_DEGREES)
    held_out = np.tile(steps % _HELD_OUT_DEGREES == 0, len(SHAPES))
    # Half a step away from 0, so that no square lies exactly on the pixel grid.
    angles = steps + _STEP_DEGREES / 2
    images = np.concatenate([draw_in_crop(shape, angles, _CROP_PX) for shape in SHAPES])
    labels = np.repeat(np.arange(len(SHAPES)), len(angles))
    if split == "test":
        return Bank(images[held_out], labels[held_out])
    # A few neighbours 3 degrees apart have the same pixels; what looks like a held-out object is held out too.
    crops = [crop.tobytes() for crop in crop_to_ink(images).images]
    seen_in_test = {crop for crop, held in zip(crops, held_out, strict=True) if held}
    rows = np.array([crop not in seen_in_test for crop in crops])
    return Bank(images[rows], labels[rows])
