"""PNG images made by hand, good and bad ones, with what a reader that loses nothing makes of them."""

from __future__ import annotations

import io
import struct
import zlib
from typing import NamedTuple

import numpy as np
import PIL.Image

SIZE = (6, 8)
GREY = np.random.default_rng(5).integers(0, 254, SIZE, dtype=np.uint8)
RGB = np.random.default_rng(6).integers(0, 254, (*SIZE, 3), dtype=np.uint8)
SIGNATURE = b"\x89PNG\r\n\x1a\n"
# The passes of interlacing: first row and column, and their steps.
_ADAM7 = ((0, 0, 8, 8), (0, 4, 8, 8), (4, 0, 8, 4), (0, 2, 4, 4), (2, 0, 4, 2), (0, 1, 2, 2), (1, 0, 2, 1))


class Case(NamedTuple):
    """A file, and the pixels [H, W] or [H, W, 3] that are in it; None where it must be refused."""

    data: bytes
    pixels: np.ndarray | None = None


def chunk(kind, content):
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def header(height=SIZE[0], width=SIZE[1], bits=8, colour_type=0, interlaced=0):
    return chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, bits, colour_type, 0, 0, interlaced))


def rows(pixels):
    """Rows of bytes, each with its filter (none) before it."""
    return b"".join(b"\0" + row.tobytes() for row in pixels)


def png(scanlines, head=None, extra=b"", end=True):
    """A PNG image of rows of bytes; `extra` comes before the pixels."""
    body = (head or header()) + extra + chunk(b"IDAT", zlib.compress(scanlines))
    return SIGNATURE + body + (chunk(b"IEND", b"") if end else b"")


def written(pixels, kind="PNG", mode=None, **options):
    """What Pillow writes."""
    image = PIL.Image.fromarray(pixels)
    data = io.BytesIO()
    (image if mode is None else image.convert(mode)).save(data, kind, **options)
    return data.getvalue()


def _packed(levels, bits):
    """Levels [H, W] below 2^bits as rows of bytes."""
    spread = (levels[..., np.newaxis] >> np.arange(bits)[::-1]) & 1
    return rows(np.packbits(spread.reshape(len(levels), -1).astype(np.uint8), axis=1))


def _interlaced():
    parts = [GREY[top::down, left::right] for top, left, down, right in _ADAM7]
    return png(b"".join(rows(part) for part in parts if part.size), header(interlaced=1))


_PALETTE = np.random.default_rng(7).integers(0, 256, (4, 3), dtype=np.uint8)
_PLTE = chunk(b"PLTE", _PALETTE.tobytes())
_INDICES = np.random.default_rng(8).integers(0, 4, SIZE)
_PLAIN = png(rows(GREY))
_HALVES = chunk(b"IDAT", zlib.compress(rows(GREY))[:20]) + chunk(b"IDAT", zlib.compress(rows(GREY))[20:])

GOOD = {
    "grey": Case(written(GREY), GREY),
    "RGB": Case(written(RGB), RGB),
    "interlaced": Case(_interlaced(), GREY),
    "in two parts": Case(SIGNATURE + header() + _HALVES + chunk(b"IEND", b""), GREY),
    "palette": Case(png(_packed(_INDICES, 8), header(colour_type=3), _PLTE), _PALETTE[_INDICES]),
    "palette of 2 bits": Case(png(_packed(_INDICES, 2), header(bits=2, colour_type=3), _PLTE), _PALETTE[_INDICES]),
    "suggested palette": Case(png(rows(RGB), header(colour_type=2), _PLTE), RGB),
    "large text": Case(png(rows(GREY), extra=chunk(b"tEXt", b"key\0" + b"x" * 9_000_000)), GREY),
    "large packed text": Case(
        png(rows(GREY), extra=chunk(b"zTXt", b"key\0\0" + zlib.compress(b"x" * 70_000_000))), GREY
    ),
    "broken colour profile": Case(png(rows(GREY), extra=chunk(b"iCCP", b"name\0\0xxx")), GREY),
    "gamma": Case(png(rows(GREY), extra=chunk(b"gAMA", struct.pack(">I", 20_000))), GREY),
    "more behind its end": Case(_PLAIN + b"something else", GREY),
} | {
    f"grey of {bits} bits": Case(
        png(_packed(GREY >> (8 - bits), bits), header(bits=bits)), (GREY >> (8 - bits)) * (255 // (2**bits - 1))
    )
    for bits in (1, 2, 4)
}

_DEEP = np.full(SIZE, 0x0FFF, ">u2")  # 12 bits of 16: an image that looks black where the high byte alone is kept
_DEEP_RGB = np.repeat(_DEEP[..., np.newaxis], 3, axis=2)
BAD = {
    "16 bits": png(rows(_DEEP), header(bits=16)),
    "16 bits by Pillow": written(_DEEP.astype(np.uint16)),
    "16 bits of RGB": png(rows(_DEEP_RGB), header(bits=16, colour_type=2)),
    "grey with transparency": written(GREY, mode="LA"),
    "RGB with transparency": written(RGB, mode="RGBA"),
    "transparent grey": written(GREY, transparency=9),
    "transparent RGB": written(RGB, transparency=(1, 2, 3)),
    "palette with transparency": png(
        _packed(_INDICES, 8), header(colour_type=3), _PLTE + chunk(b"tRNS", bytes([0, 255]))
    ),
    "animation": written(GREY, save_all=True, append_images=[PIL.Image.fromarray(GREY // 2)]),
    "JPEG": written(GREY, "JPEG"),
    "BMP": written(GREY, "BMP"),
    "TIFF": written(GREY, "TIFF"),
    "GIF": written(GREY, "GIF"),
    "WebP": written(RGB, "WEBP"),
    "empty": b"",
    "text": b"no image",
    "Git LFS": b"version https://git-lfs.github.com/spec/v1\noid sha256:ab\nsize 12\n",
    "raw pixels": GREY.tobytes(),
    "cut in half": _PLAIN[: len(_PLAIN) // 2],
    "half of the rows": png(rows(GREY[:3])),
    "one byte short": png(rows(GREY)[:-1]),
    "no end": png(rows(GREY), end=False),
    "signature only": SIGNATURE,
    "cut header": SIGNATURE + header()[:-6],
    "no header": SIGNATURE + chunk(b"IDAT", zlib.compress(rows(GREY))) + chunk(b"IEND", b""),
    "no pixels": SIGNATURE + header() + chunk(b"IEND", b""),
    "wrong checksum": _PLAIN[:-20] + bytes([_PLAIN[-20] ^ 1]) + _PLAIN[-19:],
    "damaged pixels": SIGNATURE + header() + chunk(b"IDAT", b"x" * 50) + chunk(b"IEND", b""),
    "unknown filter": png(b"\7" + rows(GREY)[1:]),
    "palette without its colours": png(_packed(_INDICES, 8), header(colour_type=3)),
    "extension": png(rows(GREY), extra=chunk(b"CgBI", b"\0\1\2\3")),
    "no width": png(rows(GREY), header(width=0)),
    "unknown colour type": png(rows(GREY), header(colour_type=5)),
    "unknown bits": png(rows(GREY), header(bits=3)),
    "huge": png(rows(GREY), header(60_000, 60_000)),
    "hugest": png(rows(GREY), header(2**31 - 1, 2**31 - 1)),
}
CASES = GOOD | {name: Case(data) for name, data in BAD.items()}
