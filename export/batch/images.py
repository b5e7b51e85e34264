"""Decoding: from the bytes of PNG and NPY files and of TFRecords to images of the model's size, or a reason why not.

Contract: a reason says what was wrong and what would be right; no bytes raise anything but `Unreadable`, which carries
one.  Images of bytes stay uint8.
"""

from __future__ import annotations

import io
import struct
from collections.abc import Sequence

import numpy as np
import tensorflow as tf

__all__ = [
    "Unreadable",
    "decode_examples",
    "decode_images",
    "first_line",
    "read_npy",
    "row_faults",
]

_PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_PNG_HEADER_BYTES = 33
_FEATURE = "image"
_FEATURES = {_FEATURE: tf.io.FixedLenFeature([], tf.string)}
# TensorFlow's message may quote the broken bytes, which Python then fails to read as text.
_FAILURES = (tf.errors.OpError, UnicodeDecodeError)


class Unreadable(ValueError):
    """A file that holds no images for this model."""


def decode_images(
    encoded: Sequence[bytes], canvas_size: tuple[int, int]
) -> tuple[list[tuple[list[int], np.ndarray]], dict[int, str]]:
    """Decodes images as they may stand in PNG files and TFRecords.

    Args:
        encoded: PNG images, or raw pixels in row order: H W bytes, or 4 H W of little-endian float32.
        canvas_size: (H, W).

    Returns:
        (groups, faults): the images as (rows, array [n, H, W, 1]) for each dtype, uint8 or float32; and what is wrong
        with each other row.
    """
    height, width = canvas_size
    png: list[int] = []
    raw: dict[str, list[int]] = {"u1": [], "<f4": []}
    faults: dict[int, str] = {}
    for row, data in enumerate(encoded):
        if data.startswith(_PNG_SIGNATURE):
            if fault := _header_fault(data, canvas_size):
                faults[row] = fault
            else:
                png.append(row)
        elif len(data) == height * width:
            raw["u1"].append(row)
        elif len(data) == 4 * height * width:
            raw["<f4"].append(row)
        else:
            faults[row] = (
                f"must be a PNG image, or {height * width} bytes (uint8) or {4 * height * width} bytes (float32) of "
                f"{height} x {width} pixels, got {len(data)} bytes"
            )
    groups = []
    for dtype, rows in raw.items():
        if rows:
            pixels = np.frombuffer(b"".join(encoded[row] for row in rows), dtype)
            groups.append((rows, pixels.astype(dtype[-2:]).reshape(-1, height, width, 1)))
    if png:
        groups.append(_decode_pngs(png, encoded, canvas_size, faults))
    return [group for group in groups if group[0]], faults


def _header_fault(data: bytes, canvas_size: tuple[int, int]) -> str | None:
    """What is wrong with the size in a PNG image's header, which may claim one that would fill the memory."""
    if len(data) < _PNG_HEADER_BYTES:
        return f"broken PNG image: ends after {len(data)} bytes"
    width, height = struct.unpack(">II", data[16:24])
    if (height, width) == canvas_size:
        return None
    return f"must be {canvas_size[0]} x {canvas_size[1]} pixels (height x width), got {height} x {width}"


def _decode_pngs(
    rows: list[int], encoded: Sequence[bytes], canvas_size: tuple[int, int], faults: dict[int, str]
) -> tuple[list[int], np.ndarray]:
    """Decodes rows all at once, or one by one where one is broken; adds to the faults."""
    try:
        return rows, _decode_pngs_in_graph(tf.constant([encoded[row] for row in rows]), *canvas_size).numpy()
    except _FAILURES:
        pass
    kept, images = [], []
    for row in rows:
        try:
            image = tf.io.decode_png(encoded[row]).numpy()
        except _FAILURES as error:
            faults[row] = f"broken PNG image: {first_line(error)}"
            continue
        if image.shape[-1] != 1:
            faults[row] = f"must be a grey PNG image, got {image.shape[-1]} channels"
        else:
            kept.append(row)
            images.append(image)
    return kept, np.array(images)


@tf.function(reduce_retracing=True, autograph=False)
def _decode_pngs_in_graph(encoded: tf.Tensor, height: int, width: int) -> tf.Tensor:
    """Grey PNG images of one size as uint8 [N, H, W, 1]: a call for each from Python costs four times as much."""
    pixels = tf.TensorSpec([height, width, 1], tf.uint8)
    return tf.map_fn(
        lambda image: tf.ensure_shape(tf.io.decode_png(image), pixels.shape), encoded, fn_output_signature=pixels
    )


def decode_examples(serialized: Sequence[bytes]) -> tuple[list[bytes], dict[int, str]]:
    """The feature `image` of serialized tf.train.Examples.

    Returns:
        (images, faults): what the feature holds, empty where it can't be had; and what is wrong with such rows.
    """
    try:
        return tf.io.parse_example(serialized, _FEATURES)[_FEATURE].numpy().tolist(), {}
    except _FAILURES:
        pass
    images, faults = [], {}
    for row, example in enumerate(serialized):
        try:
            images.append(tf.io.parse_single_example(example, _FEATURES)[_FEATURE].numpy())
        except _FAILURES:
            images.append(b"")
            faults[row] = f"must be a tf.train.Example with one string feature {_FEATURE!r}"
    return images, faults


def read_npy(data: bytes, canvas_size: tuple[int, int]) -> np.ndarray:
    """The images of an NPY file as uint8 or float32 [N, H, W, 1].

    Args:
        data: the file, with an array [H, W], [H, W, 1], [N, H, W] or [N, H, W, 1]; uint8 or floating point.
        canvas_size: (H, W).

    Raises:
        Unreadable: anything else.
    """
    try:
        array = np.load(io.BytesIO(data), allow_pickle=False)
    except Exception as error:  # damaged headers and archives have errors of their own, such as tokenize.TokenError
        raise Unreadable(f"cannot be read as an NPY array: {first_line(error)}") from error
    if not isinstance(array, np.ndarray):
        raise Unreadable("cannot be read as an NPY array: it is an archive of several")
    height, width = canvas_size
    shape = array.shape
    if shape in ((height, width), (height, width, 1)):
        array = array.reshape(1, height, width, 1)
    elif shape[1:] in ((height, width), (height, width, 1)):
        array = array.reshape(-1, height, width, 1)
    else:
        raise Unreadable(
            f"must hold [{height}, {width}] pixels, or [N, {height}, {width}], with or without a last axis of 1, "
            f"got shape {list(shape)}"
        )
    if not len(array):
        raise Unreadable(f"holds no image, got shape {list(shape)}")
    if array.dtype == np.uint8:
        return array
    if not np.issubdtype(array.dtype, np.floating):
        raise Unreadable(f"must be uint8 or floating point, got dtype {array.dtype}")
    with np.errstate(over="ignore"):
        return array.astype(np.float32)


def row_faults(images: np.ndarray) -> dict[int, str]:
    """What is wrong with the pixels of images [N, H, W, 1]: row -> reason, for those that can't be used."""
    if images.dtype == np.uint8:
        return {}
    low, high = images.min(axis=(1, 2, 3)), images.max(axis=(1, 2, 3))
    faults = {}
    for row in np.flatnonzero(~((low >= 0.0) & (high <= 1.0))):
        if np.isnan(low[row]):
            faults[int(row)] = "must not hold NaN"
        else:
            faults[int(row)] = (
                f"must lie in [0, 1] in floating point, got values from {low[row]:g} to {high[row]:g}"
            )
    return faults


def first_line(error: Exception) -> str:
    """The first line of an exception's message, or the exception's type."""
    message = getattr(error, "message", None) or str(error)
    return message.splitlines()[0].strip() if message.strip() else type(error).__name__
