from __future__ import annotations

import io
import struct

import numpy as np
import PIL.Image
import pytest
import testing_saved_model as hand_made
from asr_tf.export.batch import decoding

CANVAS = hand_made.CANVAS
GREY, RGB = (*CANVAS, 1), (*CANVAS, 3)


def png(pixels, mode=None):
    data = io.BytesIO()
    image = PIL.Image.fromarray(pixels)
    (image if mode is None else image.convert(mode)).save(data, "PNG")
    return data.getvalue()


def by_row(groups):
    return {row: image for rows, images in groups for row, image in zip(rows, images, strict=True)}


def test_all_encodings_side_by_side():
    pixels = hand_made.pictures(4)
    real = np.random.default_rng(1).random((*CANVAS, 1)).astype(np.float32)
    encoded = [png(pixels[0, ..., 0]), pixels[1].tobytes(), real.astype("<f4").tobytes(), png(pixels[3, ..., 0])]
    groups, faults = decoding.decode_images(encoded, GREY)
    assert not faults
    found = by_row(groups)
    for row in (0, 1, 3):
        assert found[row].dtype == np.uint8
        np.testing.assert_array_equal(found[row], pixels[row])
    np.testing.assert_array_equal(found[2], real)


def test_a_broken_image_is_told_and_the_others_are_decoded():
    pixels = hand_made.pictures(3)
    good = [png(picture[..., 0]) for picture in pixels]
    broken = bytearray(good[1])
    broken[45] ^= 0xFF  # inside of the compressed pixels
    color = png(pixels[0, ..., 0], "RGB")
    groups, faults = decoding.decode_images([good[0], bytes(broken), color, good[2]], GREY)
    found = by_row(groups)
    assert sorted(found) == [0, 3]
    np.testing.assert_array_equal(found[3], pixels[2])
    assert faults[1].startswith("broken PNG image: ")
    assert faults[2] == "must be a PNG image that is grey (1 channel), got one that is RGB (3 channels)"


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (
            b"",
            "must be a PNG image, or 48 bytes (uint8) or 192 bytes (float32) of 6 x 8 pixels that are grey "
            "(1 channel), got 0 bytes",
        ),
        (b"x" * 47, "got 47 bytes"),
        (png(np.zeros((8, 6), np.uint8)), "must be 6 x 8 pixels (height x width), got 8 x 6"),
        (png(np.zeros((6, 8), np.uint8))[:20], "broken PNG image: ends after 20 bytes"),
    ],
)
def test_reasons(data, reason):
    groups, faults = decoding.decode_images([data], GREY)
    assert not groups
    assert reason in faults[0]


def test_a_header_that_claims_a_huge_size_is_not_believed():
    data = bytearray(png(np.zeros(CANVAS, np.uint8)))
    data[16:24] = struct.pack(">II", 2**31 - 1, 2**31 - 1)
    _, faults = decoding.decode_images([bytes(data)], GREY)
    assert faults[0] == "must be 6 x 8 pixels (height x width), got 2147483647 x 2147483647"


def test_examples():
    good = [hand_made.example(image=b"a"), hand_made.example(image=b"bc", name=b"n")]
    assert decoding.decode_examples(good) == ([b"a", b"bc"], {})
    images, faults = decoding.decode_examples([good[0], b"\xff\xffno proto", hand_made.example(picture=b"d"), good[1]])
    assert images == [b"a", b"", b"", b"bc"]
    assert faults == dict.fromkeys([1, 2], "must be a tf.train.Example with one string feature 'image'")


def npy(array):
    data = io.BytesIO()
    np.save(data, array)
    return data.getvalue()


@pytest.mark.parametrize("shape", [(6, 8), (6, 8, 1), (3, 6, 8), (3, 6, 8, 1)])
@pytest.mark.parametrize("dtype", [np.uint8, np.float32, np.float64, np.float16])
def test_npy_of_all_shapes(shape, dtype):
    array = (np.random.default_rng(0).random(shape) * (255 if dtype == np.uint8 else 1)).astype(dtype)
    images = decoding.read_npy(npy(array), GREY)
    assert images.dtype == (np.uint8 if dtype == np.uint8 else np.float32)
    np.testing.assert_array_equal(images, array.reshape(-1, *CANVAS, 1).astype(images.dtype))


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"junk", "cannot be read as an NPY array"),
        (b"PK\x03\x04junk", "cannot be read as an NPY array"),  # a damaged archive
        (npy(np.zeros((6, 8))).replace(b"}", b" "), "cannot be read as an NPY array"),  # a damaged header
        (npy(np.zeros((6, 8)))[:-3], "cannot be read as an NPY array"),
        (npy(np.array([{}], object)), "cannot be read as an NPY array"),
        (npy(np.zeros((8, 6))), "must hold [6, 8] pixels, or [N, 6, 8], with or without a last axis of 1, that are"),
        (npy(np.zeros((6, 8, 3))), "got shape [6, 8, 3]"),
        (npy(np.zeros((0, 6, 8))), "holds no image, got shape [0, 6, 8]"),
        (npy(np.zeros((6, 8), np.int32)), "must be uint8 or floating point, got dtype int32"),
    ],
)
def test_npy_that_cannot_be_used(data, reason):
    with pytest.raises(decoding.Unreadable) as error:
        decoding.read_npy(data, GREY)
    assert reason in str(error.value)


def test_faults_of_pixels():
    images = np.full((5, *CANVAS, 1), 0.5, np.float32)
    images[1, 2, 3] = np.nan
    images[2, 0, 0] = 1.5
    images[3, 0, 0] = -np.inf
    assert decoding.row_faults(images) == {
        1: "must not hold NaN",
        2: "must lie in [0, 1] in floating point, got values from 0.5 to 1.5",
        3: "must lie in [0, 1] in floating point, got values from -inf to 0.5",
    }
    assert decoding.row_faults(np.full((1, *CANVAS, 1), 255, np.uint8)) == {}


def test_rgb_images_of_all_encodings():
    pixels = hand_made.pictures(4, channels=3)
    real = np.random.default_rng(1).random(RGB).astype(np.float32)
    encoded = [png(pixels[0]), pixels[1].tobytes(), real.astype("<f4").tobytes(), png(pixels[3])]
    groups, faults = decoding.decode_images(encoded, RGB)
    assert not faults
    found = by_row(groups)
    for row in (0, 1, 3):
        np.testing.assert_array_equal(found[row], pixels[row])
    np.testing.assert_array_equal(found[2], real)


def test_no_image_is_turned_into_one_with_other_channels():
    grey, rgb = hand_made.pictures(1)[0, ..., 0], hand_made.pictures(1, channels=3)[0]
    encoded = [png(rgb), png(grey), png(grey, "LA"), png(rgb, "RGBA"), grey.tobytes(), png(rgb, "P")]
    groups, faults = decoding.decode_images(encoded, RGB)
    assert sorted(by_row(groups)) == [0, 5]  # a palette holds RGB colors
    wanted = "must be a PNG image that is RGB (3 channels), got one that is"
    assert faults == {
        1: f"{wanted} grey (1 channel)",
        2: f"{wanted} of 2 channels",
        3: f"{wanted} of 4 channels",
        4: "must be a PNG image, or 144 bytes (uint8) or 576 bytes (float32) of 6 x 8 pixels that are RGB "
        "(3 channels), got 48 bytes",
    }
    groups, faults = decoding.decode_images(encoded, GREY)
    assert sorted(by_row(groups)) == [1, 4]
    assert sorted(faults) == [0, 2, 3, 5]


@pytest.mark.parametrize("shape", [RGB, (2, *RGB)])
def test_npy_of_rgb(shape):
    array = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    np.testing.assert_array_equal(decoding.read_npy(npy(array), RGB), array.reshape(-1, *RGB))


@pytest.mark.parametrize("shape", [CANVAS, GREY, (2, *CANVAS), (2, *GREY), (*CANVAS, 4)])
def test_npy_of_other_channels_than_rgb(shape):
    with pytest.raises(decoding.Unreadable) as error:
        decoding.read_npy(npy(np.zeros(shape, np.uint8)), RGB)
    wanted = "must hold [6, 8, 3] pixels, or [N, 6, 8, 3], that are RGB (3 channels), got shape "
    assert str(error.value) == f"{wanted}{list(shape)}"
