"""Bodies that hold one list of numbers and little else, read without making a list of every pixel.

That is what requests for `infer` are.  For a body of another form, or with a fault, this module says None, and
`predict_json` reads it the long way, which names the fault.
"""

from __future__ import annotations

import functools
import math
import re
from typing import NamedTuple

import numpy as np
import orjson

__all__ = ["PlainBody", "read_numbers", "split_body"]

_SPACE = b" \t\r\n"
_HEAD = re.compile(
    rb'[ \t\r\n]*\{[ \t\r\n]*(?:"signature_name"[ \t\r\n]*:[ \t\r\n]*"(?P<signature>\w+)"[ \t\r\n]*,[ \t\r\n]*)?'
    rb'"(?P<key>instances|inputs)"[ \t\r\n]*:[ \t\r\n]*(?:\{[ \t\r\n]*"(?P<name>\w+)"[ \t\r\n]*:[ \t\r\n]*)?(?=\[)'
)
# Part of a number before a list or behind one.
_ASTRAY = re.compile(rb"[0-9.eE+-][ \t\r\n]*\[|\][ \t\r\n]*[0-9.eE+-]")


class PlainBody(NamedTuple):
    """The parts of a body that looks plain; the list is looked into later.

    Attributes:
        signature_name: empty where there is none.
        by_row: whether it says `instances`.
        name: of the input, None where it has none.
        text: the list.
    """

    signature_name: str
    by_row: bool
    name: str | None
    text: bytes


def split_body(body: bytes) -> PlainBody | None:
    """Takes a body apart, or says None where it isn't plain."""
    head = _HEAD.match(body)
    if head is None or (head["name"] is not None and head["key"] == b"instances"):  # rows are a list
        return None
    text = body[head.end() :]
    for _ in range(1 if head["name"] is None else 2):
        text = text.rstrip(_SPACE)
        if not text.endswith(b"}"):
            return None
        text = text[:-1]
    if b'"' in text:  # something comes after the list, or it doesn't hold numbers
        return None
    name = None if head["name"] is None else head["name"].decode()
    return PlainBody((head["signature"] or b"").decode(), head["key"] == b"instances", name, text)


def read_numbers(text: bytes, dtype: np.dtype, sizes: tuple[int, ...]) -> np.ndarray | None:
    """A nested list of numbers as an array [B, *sizes]; None where it isn't exactly that.

    Args:
        text: JSON.
        dtype: of floating point.
        sizes: of every axis but the first.
    """
    # What is left without the numbers must be the brackets and commas of B examples.
    skeleton = text.translate(None, b"0123456789.eE+-" + _SPACE)
    example = _skeleton(sizes)
    number, rest = divmod(len(skeleton) - 1, len(example) + 1)
    if rest or number < 1 or skeleton != b"[" + b",".join([example] * number) + b"]" or _ASTRAY.search(text):
        return None
    try:
        values = orjson.loads(b"[" + text.translate(None, b"[]") + b"]")
        if len(values) != number * math.prod(sizes):
            return None
        with np.errstate(over="ignore"):  # what becomes infinite is named by the check of numbers
            return np.array(values, dtype).reshape(number, *sizes)
    except (orjson.JSONDecodeError, OverflowError):
        return None


@functools.lru_cache(maxsize=32)
def _skeleton(sizes: tuple[int, ...]) -> bytes:
    """Brackets and commas of one example: `[[,],[,]]` for sizes 2 and 2; nothing for a number."""
    if not sizes:
        return b""
    return b"[" + b",".join([_skeleton(sizes[1:])] * sizes[0]) + b"]"
