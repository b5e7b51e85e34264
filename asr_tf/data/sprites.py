"""Squares, ellipses and hearts, drawn at any angle: the bank that needs no file.

Contract: binary images (0 and 255), drawn from formulas; the proportions are those of dSprites.  Angles are in degrees
and turn counter-clockwise on a screen.

References:
    Matthey et al., "dSprites", 2017, whose shapes these stand in for.
"""

from __future__ import annotations

import numpy as np

from asr_tf import checks
from asr_tf.data.originals import Bank

__all__ = ["SHAPES", "draw_sprites", "sprite_bank"]

SHAPES = ("square", "ellipse", "heart")

# Lengths in units of the square's side.
_ELLIPSE_AXES = (1.30, 0.71)  # along x, along y
_HEART_WIDTH = 0.98
# In units of the heart's width: two discs side by side, each with its tangents to the tip.
_HEART_RADIUS = 0.285
_HEART_HEIGHT = 0.93

_SQUARE_SIDE_PX = 15.0
# At this size, neighbours 3 degrees apart differ in some pixels.  Multiples of 15 map to multiples of 15 under the
# symmetries of square and ellipse, so what is held out doesn't come back as another angle of the same shape.
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


def draw_sprites(shape: str, angles: np.ndarray, side_px: float) -> np.ndarray:
    """Draws one shape at some angles.

    Args:
        shape: one of `SHAPES`.
        angles: float [K], degrees.
        side_px: side of the square in pixels; the others follow in proportion.

    Returns:
        uint8 [K, s, s], 0 or 255: a pixel is set if its middle lies in the shape; s leaves room for any angle.

    Raises:
        ValueError: an unknown shape, or a side that isn't above 0.
    """
    checks.check_choice("shape", shape, SHAPES)
    checks.check_positive("side_px", side_px)
    size = 2 * int(np.ceil(0.75 * side_px)) + 2  # the square's diagonal is its longest line: 1.42 sides
    middle = (np.arange(size) + 0.5 - size / 2) / side_px
    radians = np.deg2rad(np.asarray(angles, np.float64))[:, None, None]
    across, down = middle[None, None, :], middle[None, :, None]
    x = np.cos(radians) * across - np.sin(radians) * down
    y = np.sin(radians) * across + np.cos(radians) * down
    return np.where(_inside(shape, x, y), 255, 0).astype(np.uint8)


def sprite_bank(split: str) -> Bank:
    """Returns all shapes at the angles of a split ('train' or 'test'); no angle is in both.

    Labels are indices of `SHAPES`.  Square crops are 15 to 21 px wide.
    """
    checks.check_choice("split", split, ("train", "test"))
    angles = np.arange(0, 360, _STEP_DEGREES)
    # Half a step away from 0, so that no square lies exactly on the pixel grid.
    held_out = angles % _HELD_OUT_DEGREES == 0
    angles = angles[held_out if split == "test" else ~held_out] + _STEP_DEGREES / 2
    images = [draw_sprites(shape, angles, _SQUARE_SIDE_PX) for shape in SHAPES]
    return Bank(np.concatenate(images), np.repeat(np.arange(len(SHAPES)), len(angles)))
