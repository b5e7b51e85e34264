"""Sizes of objects found from images: squares whose sides are known."""

import numpy as np
import pytest

from asr_tf.data.object_size import object_sides_px


def scenes(number, counts, low, high, *, gap=2, ground=0, ink=255, holes=False, channels=1, seed=0):
    """Squares of sides from `low` to `high` on 60 x 80 px, at least `gap` px apart."""
    rng = np.random.default_rng(seed)
    images = np.full((number, 60, 80, channels), ground, np.uint8)
    for image in images:
        taken = np.zeros((60, 80), bool)
        for _ in range(rng.choice(counts)):
            while True:
                side = rng.integers(low, high + 1)
                y, x = rng.integers(0, 61 - side), rng.integers(0, 81 - side)
                around = (slice(max(y - gap, 0), y + side + gap), slice(max(x - gap, 0), x + side + gap))
                if not taken[around].any():
                    break
            taken[y : y + side, x : x + side] = True
            image[y : y + side, x : x + side] = ink
            if holes:  # an object of two pieces
                image[y + side // 2, x : x + side] = ground
    return images


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"ground": 200, "ink": 40},
        {"channels": 3, "ground": 90, "ink": (90, 90, 250)},
        {"gap": 6, "holes": True},
    ],
)
def test_the_quantiles_of_squares_apart_are_found(settings):
    images = scenes(300, (1, 3), 10, 20, **settings)
    low, high = object_sides_px(images, (1, 3))
    assert abs(low - 11) <= 1 and abs(high - 19) <= 1


def test_objects_that_touch_in_some_images_do_not_count_as_one():
    images = scenes(300, (1, 3), 12, 12)
    images[::3] = 0
    images[::3, 10:22, 10:34] = 255  # two that touch
    images[::3, 40:52, 40:52] = 255
    assert object_sides_px(images, (1, 3)) == (12.0, 12.0)


def test_nothing_is_made_up_where_nothing_is_seen():
    assert object_sides_px(np.zeros((50, 20, 20, 1), np.uint8), (1, 2)) is None
    assert object_sides_px(scenes(4, (1,), 10, 12), (1,)) is None  # four pieces are too few
