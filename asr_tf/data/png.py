"""The one reader of PNG images: whatever holds them, a folder to train on, files for a batch or TFRecords.

Contract: an image is read without a loss, or refused.  It may be grey of 1, 2, 4 or 8 bits (all are scaled to 0 ..
255), RGB of 8 bits a channel, or have a palette, which counts as RGB.  Refused are 16 bits a channel, transparency,
animations, images that are damaged or cut, even where all pixels could be had, and data of another format, whatever its
file is called.  What doesn't touch the pixels, such as texts and colour profiles, is passed over whatever its size.

References:
    Portable Network Graphics (PNG) Specification (Third Edition), W3C, 2025: chunks in section 5, header in 11.2.1.
"""

from __future__ import annotations

import struct
import zlib
from typing import NamedTuple

import numpy as np
import tensorflow as tf

from asr_tf.data import image_files
from asr_tf.data.image_files import Unreadable

__all__ = ["DECODING_ERRORS", "MOST_PIXELS", "Png", "check_png", "decode_png"]

MOST_PIXELS = 1 << 26
"""Pixels of the largest image that is read, 8,192 x 8,192: a header may claim any number of them."""

# TensorFlow's message may quote the broken bytes, which Python then fails to read as text.
DECODING_ERRORS = (tf.errors.OpError, UnicodeDecodeError)
"""What TensorFlow raises where bytes can't be decoded."""

_HEADER = struct.Struct(">IIBBBBB")  # width, height, bits a channel, colour type, compression, filter, interlacing
_PALETTE = 3
_COLOUR_TYPES = {  # colour type: what it is, its bits a channel, channels as they are read, 0 where they can't be
    0: ("grey", (1, 2, 4, 8, 16), 1),
    2: ("RGB", (8, 16), 3),
    _PALETTE: ("a palette", (1, 2, 4, 8), 3),
    4: ("grey with transparency", (8, 16), 0),
    6: ("RGB with transparency", (8, 16), 0),
}
_LOSSES = {b"tRNS": "with a transparent colour", b"acTL": "of several frames, an animation"}
_NEEDED = (b"IHDR", b"PLTE", b"IDAT", b"IEND")


class Png(NamedTuple):
    """A PNG image that is whole and can be decoded without a loss, unless its compressed pixels are damaged.

    Attributes:
        shape: (H, W, C), pixels and channels; C = 1 (grey) or 3 (RGB).
        data: the image with nothing in it but what its pixels need.
    """

    shape: tuple[int, int, int]
    data: bytes


def check_png(data: bytes) -> Png:
    """Looks at all of a PNG image but its compressed pixels.

    Raises:
        Unreadable: it is none, is damaged or cut, is too large, or could only be read with a loss.
    """
    if not data.startswith(image_files.PNG_SIGNATURE):
        raise Unreadable(f"must be a PNG image, got {image_files.describe(data)}")
    view = memoryview(data)
    needed: list[memoryview] = [view[:8]]
    kind, start = b"", 8
    height = width = channels = 0
    colour_type, loss = -1, ""
    while kind != b"IEND":
        kind = bytes(view[start + 4 : start + 8])
        stop = start + 12 + int.from_bytes(view[start : start + 4], "big")
        if stop > len(data) or len(kind) < 4:
            raise Unreadable(f"broken PNG image: cut short, ends after {len(data)} bytes")
        content = view[start + 8 : stop - 4]
        if start == 8:
            height, width, colour_type, loss = _read_header(kind, content)
            channels = _COLOUR_TYPES[colour_type][2]
        if zlib.crc32(view[start + 4 : stop - 4]) != int.from_bytes(view[stop - 4 : stop], "big"):
            raise Unreadable(f"broken PNG image: the checksum of its part {kind!r} is wrong")
        if kind in _LOSSES:
            loss = loss or _LOSSES[kind]
        elif kind == b"PLTE" and colour_type != _PALETTE:
            pass  # a suggestion for screens of few colours
        elif kind in _NEEDED:
            needed.append(view[start:stop])
        elif not kind[0] & 0x20:  # not even a reader that doesn't know it may pass it over
            raise Unreadable(f"must be a PNG image without extensions, got one with the part {kind!r}")
        start = stop
    if loss:
        raise Unreadable(
            "must be a grey or RGB PNG image of at most 8 bits a channel without transparency, "
            f"got one that is {_COLOUR_TYPES[colour_type][0]} {loss}".rstrip()
        )
    return Png((height, width, channels), b"".join(needed))


def _read_header(kind: bytes, content: memoryview) -> tuple[int, int, int, str]:
    """Returns height, width and colour type, and what of the pixels would be lost; raises Unreadable."""
    if kind != b"IHDR" or len(content) != _HEADER.size:
        raise Unreadable("broken PNG image: it has no header")
    width, height, bits, colour_type, *_ = _HEADER.unpack(content)
    if width * height > MOST_PIXELS:
        raise Unreadable(f"must have at most {MOST_PIXELS} pixels, got {height} x {width} (height x width)")
    if not width * height or bits not in _COLOUR_TYPES.get(colour_type, ("", (), 0))[1]:
        raise Unreadable("broken PNG image: its header makes no sense")
    if bits > 8:
        return height, width, colour_type, f"of {bits} bits a channel"
    return height, width, colour_type, "" if _COLOUR_TYPES[colour_type][2] else "of 8 bits a channel"


def decode_png(png: Png) -> np.ndarray:
    """Returns the pixels, uint8 [H, W, C].

    Raises:
        Unreadable: the compressed pixels are damaged.
    """
    try:
        return tf.io.decode_png(png.data).numpy()
    except DECODING_ERRORS as error:
        raise Unreadable("broken PNG image: its pixels are damaged or incomplete") from error
