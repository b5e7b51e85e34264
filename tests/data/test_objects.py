import numpy as np
import pytest

from asr_tf.data.objects import crop_to_ink, transform


def _bar(top, left, height, width, value=255, size=28):
    image = np.zeros((size, size), np.uint8)
    image[top : top + height, left : left + width] = value
    return image


def test_crop_is_the_centred_square_around_the_ink():
    crops = crop_to_ink(np.stack([_bar(3, 5, 4, 9, 70), _bar(20, 0, 8, 2, 90), _bar(0, 0, 6, 6, 10)]))
    np.testing.assert_array_equal(crops.sides, [9, 8, 6])
    # 9 - 4 = 5 rows of padding: 2 above, 3 below; 8 - 2 = 6 columns: 3 on either side.
    np.testing.assert_array_equal(crops.ink, [[2, 0, 6, 9], [0, 3, 8, 5], [0, 0, 6, 6]])
    assert crops.images.shape == (3, 9, 9)
    for crop, (y0, x0, y1, x1), value in zip(crops.images, crops.ink, (70, 90, 10), strict=True):
        expected = np.zeros((9, 9), np.uint8)
        expected[y0:y1, x0:x1] = value
        np.testing.assert_array_equal(crop, expected)


def test_object_without_ink_is_named():
    with pytest.raises(ValueError, match="object 1 has no ink"):
        crop_to_ink(np.stack([_bar(0, 0, 2, 2), _bar(0, 0, 0, 0)]))


def test_unit_scale_and_no_turn_keep_a_binary_object():
    crops = crop_to_ink(np.stack([_bar(3, 5, 4, 9), _bar(2, 2, 12, 12)]))
    same = transform(crops, np.ones(2), np.zeros(2))
    np.testing.assert_array_equal(same.sides, crops.sides)
    np.testing.assert_array_equal(same.images, crops.images)


def test_quarter_turn_is_counter_clockwise():
    image = np.zeros((9, 9), np.uint8)
    image[1:8, 1] = 255
    image[7, 1:8] = 255  # an L
    turned = transform(crop_to_ink(image[None]), np.ones(1), np.array([90.0]))
    np.testing.assert_array_equal(turned.images[0], np.rot90(crop_to_ink(image[None]).images[0]))


@pytest.mark.parametrize("scale", [0.5, 0.6, 1.5])
@pytest.mark.parametrize("value", [180, 255])
def test_scale_is_the_factor_on_the_size(scale, value):
    scaled = transform(crop_to_ink(_bar(2, 2, 20, 10, value)[None]), np.array([scale]), np.zeros(1))
    assert abs(scaled.sides[0] - 20 * scale) <= 1
    _, x0, _, x1 = scaled.ink[0]
    assert abs((x1 - x0) - 10 * scale) <= 1
    ink = scaled.images.astype(float).sum() / value
    assert abs(ink - 200 * scale**2) < 0.05 * 200 * scale**2
    if value == 255:
        assert set(np.unique(scaled.images)) == {0, 255}


def test_square_turned_by_45_degrees_is_as_wide_as_its_diagonal():
    turned = transform(crop_to_ink(_bar(2, 2, 20, 20)[None]), np.ones(1), np.array([45.0]))
    assert abs(turned.sides[0] - 20 * np.sqrt(2)) <= 1.5  # a tip covers less than half of its pixel
    assert abs((turned.images > 0).sum() - 400) < 24
