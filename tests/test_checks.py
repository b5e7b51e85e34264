"""Messages of input checks: one line that names what was wrong and what would be right."""

import numpy as np
import pytest

from asr_tf import checks


@pytest.mark.parametrize(
    ("images", "error", "parts"),
    [
        (np.zeros((50, 50)), ValueError, ["[N, H, W, 1]", "[50, 50]"]),
        (np.zeros((2, 50, 50, 4)), ValueError, ["[N, H, W, 1] (grey) or [N, H, W, 3] (RGB)", "[2, 50, 50, 4]"]),
        (np.zeros((0, 50, 50, 1)), ValueError, ["at least one image"]),
        (np.zeros((2, 28, 50, 1)), ValueError, ["50 x 50", "28 x 50"]),
        (np.zeros((2, 50, 50, 1), np.int32), TypeError, ["uint8", "int32"]),
        (np.full((2, 50, 50, 1), np.nan), ValueError, ["NaN", "image 0"]),
        (np.full((2, 50, 50, 1), 7.5), ValueError, ["[0, 1]", "7.5"]),
        (np.full((2, 50, 50, 1), -0.5), ValueError, ["[0, 1]", "-0.5"]),
    ],
)
def test_bad_images(images, error, parts):
    with pytest.raises(error) as caught:
        checks.check_images(images, (50, 50))
    message = str(caught.value)
    assert "\n" not in message
    for part in ("images", *parts):
        assert part in message


def test_numbers_are_told_with_all_digits():
    images = np.float32([0.5, 1.000001]).reshape(1, 1, 2, 1)
    with pytest.raises(ValueError, match=r"images in floating point must .* got values from 0.5 to 1.000001\.$"):
        checks.check_images(images)


def test_good_images_come_back_as_float32():
    bytes_ = np.array([0, 51, 255], np.uint8).reshape(1, 1, 3, 1)
    np.testing.assert_allclose(checks.check_images(bytes_).ravel(), [0.0, 0.2, 1.0], rtol=1e-6)
    floats = checks.check_images(np.full((2, 4, 5, 1), 0.25), (4, 5))
    assert floats.dtype == np.float32


def test_unknown_choice_names_the_nearest():
    with pytest.raises(ValueError, match=r"prior='auto_regressive' is unknown \(did you mean 'autoregressive'"):
        checks.check_choice("prior", "auto_regressive", ("autoregressive", "air"))


@pytest.mark.parametrize("value", [0, -1.5, float("nan"), "3", True, None])
def test_not_positive(value):
    with pytest.raises(ValueError, match="size must be a number above 0, got"):
        checks.check_positive("size", value)


def test_range():
    assert checks.check_range("share", 0.5, 0, 1) == 0.5
    with pytest.raises(ValueError, match="share must be between 0 and 1, got 1.5"):
        checks.check_range("share", 1.5, 0, 1)
