import numpy as np
import pytest
import testing_data

from asr_tf.data.objects import crop_to_ink
from asr_tf.data.originals import read_dsprites
from asr_tf.data.sprites import SHAPES, draw_sprites, sprite_bank

# The side of the dSprites square at the largest scale, turned back and averaged over its orientations.
DSPRITES_SIDE_PX = 19.4


def test_areas_and_extents():
    square, ellipse, heart = (draw_sprites(shape, np.array([0.0, 45.0, 90.0]), 40.0) for shape in SHAPES)
    for images, area in ((square, 1600), (ellipse, np.pi / 4 * 1.34 * 0.73 * 1600)):
        np.testing.assert_allclose((images > 0).sum(axis=(1, 2)), area, rtol=0.02)
    np.testing.assert_allclose(crop_to_ink(square).sides, [40, 40 * np.sqrt(2), 40], atol=1.5)
    np.testing.assert_allclose(crop_to_ink(ellipse).sides[[0, 2]], 53.6, atol=1)
    np.testing.assert_array_equal(heart[0], heart[0][:, ::-1])  # symmetric
    np.testing.assert_array_equal(heart[2], np.rot90(heart[0]))  # counter-clockwise
    assert heart[0, :40].sum() > heart[0, 40:].sum()  # the tip points down


@pytest.mark.parametrize("shape", SHAPES)
def test_shapes_are_those_of_dsprites(shape):
    """Overlap with the real sprites, orientation by orientation, after laying the crops over each other."""
    bank, orientations = read_dsprites(testing_data.dsprites_file().parent)
    rows = bank.labels == SHAPES.index(shape)
    real = crop_to_ink(bank.images[rows])
    drawn = crop_to_ink(draw_sprites(shape, 360 * orientations[rows] / 39, DSPRITES_SIDE_PX))
    size = max(real.images.shape[1], drawn.images.shape[1]) + 1
    real, drawn = (
        np.pad(c.images, ((0, 0), (0, size - c.images.shape[1]), (0, size - c.images.shape[1]))) > 0
        for c in (real, drawn)
    )
    iou = np.zeros(len(real))
    for dy in (-1, 0, 1):
        for dx in (-1, 0, 1):
            moved = np.roll(drawn, (dy, dx), axis=(1, 2))
            iou = np.maximum(iou, (moved & real).sum((1, 2)) / (moved | real).sum((1, 2)))
    assert len(iou) == 40
    assert iou.min() > 0.9
    assert iou.mean() > 0.93


def test_no_object_is_in_both_splits():
    train, test = sprite_bank("train"), sprite_bank("test")
    pixels = [{c.tobytes() for c in crop_to_ink(bank.images).images} for bank in (train, test)]
    assert not pixels[0] & pixels[1]
    assert len(test.images) == 72
    assert len(train.images) > 250
    for bank in (train, test):
        assert set(bank.labels) == {0, 1, 2}
        assert set(np.unique(bank.images)) == {0, 255}
        sides = crop_to_ink(bank.images).sides
        assert sides.min() >= 17
        assert sides.max() <= 19


def test_wrong_arguments():
    with pytest.raises(ValueError, match="shape='hart' is unknown .did you mean 'heart'"):
        draw_sprites("hart", np.zeros(1), 10.0)
    with pytest.raises(ValueError, match="side_px must be a number above 0"):
        draw_sprites("heart", np.zeros(1), -1.0)
    with pytest.raises(ValueError, match="split='val' is unknown"):
        sprite_bank("val")
