from __future__ import annotations

import io

import numpy as np
import PIL.Image
import pytest
import testing_png
import testing_saved_model as hand_made
from asr_tf.export.batch import decoding

from asr_tf.data.image_files import Unreadable

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
    assert faults[1] == "broken PNG image: the checksum of its part b'IDAT' is wrong"
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
        (png(np.zeros((6, 8), np.uint8))[:20], "broken PNG image: cut short, ends after 20 bytes"),
    ],
)
def test_reasons(data, reason):
    groups, faults = decoding.decode_images([data], GREY)
    assert not groups
    assert reason in faults[0]


def test_pixels_that_cannot_be_decoded_are_told_apart():
    """Parts whose checksums are right, around pixels that aren't there: only the decoder notices."""
    good = [png(picture[..., 0]) for picture in hand_made.pictures(3)]
    encoded = [good[0], testing_png.BAD["half of the rows"], good[1], testing_png.BAD["unknown filter"], good[2]]
    groups, faults = decoding.decode_pngs(encoded, GREY)
    assert sorted(by_row(groups)) == [0, 2, 4]
    np.testing.assert_array_equal(by_row(groups)[4], hand_made.pictures(3)[2])
    assert faults == dict.fromkeys([1, 3], "broken PNG image: its pixels are damaged or incomplete")
    assert decoding.decode_pngs(encoded[1:2], GREY) == ([], {0: faults[1]})


def test_images_of_other_formats_are_no_raw_pixels():
    """Raw pixels are told by their number, which a JPEG image may have by chance."""
    jpeg = testing_png.BAD["JPEG"]
    groups, faults = decoding.decode_images([jpeg, bytes(len(jpeg))], (1, len(jpeg), 1))
    assert sorted(by_row(groups)) == [1]
    assert faults[0].endswith("pixels that are grey (1 channel), got a JPEG image")
    _, faults = decoding.decode_pngs([bytes(48)], GREY)  # nor are there raw pixels in PNG files
    assert faults == {0: "must be a PNG image, got 48 bytes of something else"}


def test_examples():
    good = [hand_made.example(image=b"a"), hand_made.example(image=b"bc", name=b"n")]
    assert decoding.decode_examples(good) == ([b"a", b"bc"], {})
    assert decoding.decode_examples([]) == ([], {})
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
    assert images.dtype == dtype
    np.testing.assert_array_equal(images, array.reshape(-1, *CANVAS, 1))


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"junk", "cannot be read as an NPY array, got 4 bytes of something else"),
        (npy(np.zeros((8, 6))), "must hold [6, 8] pixels, or [N, 6, 8], with or without a last axis of 1, that are"),
        (npy(np.zeros((6, 8, 3))), "got shape [6, 8, 3]"),
        (npy(np.zeros((0, 6, 8))), "holds no image, got shape [0, 6, 8]"),
        (npy(np.zeros((6, 8), np.int32)), "must be uint8 or floating point, got dtype int32"),
    ],
)
def test_npy_that_cannot_be_used(data, reason):
    with pytest.raises(Unreadable) as error:
        decoding.read_npy(data, GREY)
    assert reason in str(error.value)


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
    assert sorted(by_row(groups)) == [0, 5]  # a palette holds RGB colours
    wanted = "must be a PNG image that is RGB (3 channels), got one that is"
    lossless = (
        "must be a grey or RGB PNG image of at most 8 bits a channel without transparency, got one that is"
    )
    assert faults == {
        1: f"{wanted} grey (1 channel)",
        2: f"{lossless} grey with transparency of 8 bits a channel",
        3: f"{lossless} RGB with transparency of 8 bits a channel",
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
    with pytest.raises(Unreadable) as error:
        decoding.read_npy(npy(np.zeros(shape, np.uint8)), RGB)
    wanted = "must hold [6, 8, 3] pixels, or [N, 6, 8, 3], that are RGB (3 channels), got shape "
    assert str(error.value) == f"{wanted}{list(shape)}"
