"""RGB scenes for tests: coloured sprites on black, with what is known of them."""

from __future__ import annotations

import numpy as np

from asr_tf.data import Scenes, SceneSettings, synthesize
from asr_tf.data.sprites import SHAPES, draw_sprites

COLOURS = (
    (1.0, 0.0, 0.0),
    (0.0, 1.0, 0.0),
    (0.0, 0.0, 1.0),
    (1.0, 0.8, 0.2),
    (0.6, 0.2, 1.0),
)


def coloured_scenes(
    n: int,
    seed: int,
    canvas_size: tuple[int, int] = (32, 32),
    *,
    counts: tuple[int, ...] = (1, 2),
    colours: tuple[tuple[float, float, float], ...] = COLOURS,
    side_px: float | None = None,
) -> Scenes:
    """Scenes of squares, ellipses and hearts at some angles, each in one colour; their ink doesn't overlap.

    The same arguments give the same scenes.

    Args:
        n: number of scenes, N.
        seed: whole number from 0.
        canvas_size: (H, W) in pixels.
        counts: the allowed numbers of objects, each equally frequent.
        colours: the (red, green, blue) in [0, 1] that objects may have; empty for grey scenes, white on black.
        side_px: side of the square in pixels, a quarter of the shorter canvas side by default; the largest sprite is
            1.42 times as wide.

    Returns:
        `Scenes` with images uint8 [N, H, W, 3] ([N, H, W, 1] without colours), counts, boxes, ink_boxes and labels
        (indices of `asr_tf.data.sprites.SHAPES`).
    """
    angles = np.arange(10.0, 360.0, 60.0)
    side_px = side_px or min(canvas_size) / 4
    bank = np.concatenate([draw_sprites(shape, angles, side_px) for shape in SHAPES])
    labels = np.repeat(np.arange(len(SHAPES)), len(angles))
    settings = SceneSettings(canvas_size=canvas_size, counts=counts, colours=colours)
    return synthesize(bank, settings, n, seed, labels=labels)
