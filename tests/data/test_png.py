from __future__ import annotations

import numpy as np
import pytest
import testing_png

from asr_tf.data import png
from asr_tf.data.image_files import Unreadable


def read(data):
    return png.decode_png(png.check_png(data))


@pytest.mark.parametrize("name", testing_png.GOOD)
def test_what_is_whole_is_read_without_a_loss(name):
    case = testing_png.GOOD[name]
    pixels = case.pixels if case.pixels.ndim == 3 else case.pixels[..., np.newaxis]
    checked = png.check_png(case.data)
    assert checked.shape == pixels.shape
    assert len(checked.data) < 500  # texts and the like are left out
    np.testing.assert_array_equal(png.decode_png(checked), pixels)


_DEPTH = "must be a grey or RGB PNG image of at most 8 bits a channel without transparency, got one that is "
REASONS = {
    "16 bits": f"{_DEPTH}grey of 16 bits a channel",
    "16 bits of RGB": f"{_DEPTH}RGB of 16 bits a channel",
    "grey with transparency": f"{_DEPTH}grey with transparency of 8 bits a channel",
    "transparent RGB": f"{_DEPTH}RGB with a transparent colour",
    "palette with transparency": f"{_DEPTH}a palette with a transparent colour",
    "animation": f"{_DEPTH}grey of several frames, an animation",
    "JPEG": "must be a PNG image, got a JPEG image",
    "BMP": "must be a PNG image, got a BMP image",
    "TIFF": "must be a PNG image, got a TIFF image",
    "GIF": "must be a PNG image, got a GIF image",
    "WebP": "must be a PNG image, got a WebP image",
    "empty": "must be a PNG image, got an empty file",
    "raw pixels": "must be a PNG image, got 48 bytes of something else",
    "Git LFS": "must be a PNG image, got a pointer of Git LFS, whose file `git lfs pull` fetches",
    "half of the rows": "broken PNG image: its pixels are damaged or incomplete",
    "no end": f"broken PNG image: cut short, ends after {len(testing_png.BAD['no end'])} bytes",
    "wrong checksum": "broken PNG image: the checksum of its part b'IDAT' is wrong",
    "extension": "must be a PNG image without extensions, got one with the part b'CgBI'",
    "no width": "broken PNG image: its header makes no sense",
    "huge": "must have at most 67108864 pixels, got 60000 x 60000 (height x width)",
}


@pytest.mark.parametrize("name", testing_png.BAD)
def test_what_is_damaged_or_would_lose_something_is_refused(name):
    with pytest.raises(Unreadable) as error:
        read(testing_png.BAD[name])
    assert "\n" not in str(error.value)
    assert "{{" not in str(error.value)
    if name in REASONS:
        assert str(error.value) == REASONS[name]


def test_any_flipped_bit_or_cut_is_noticed():
    """Each part has a checksum; what is flipped is refused, unless it makes no part of the image."""
    data = testing_png.GOOD["RGB"].data
    for position in range(len(data)):
        for damaged in (data[:position], data[:position] + bytes([data[position] ^ 4]) + data[position + 1 :]):
            with pytest.raises(Unreadable):
                read(damaged)
