"""Decoding: from the bytes of PNG and NPY files and of TFRecords to images of the model's shape, or a reason why not.

Contract: a reason says what was wrong and what would be right; no bytes raise anything but `Unreadable`, which carries
one.  Images of bytes stay uint8.  The number of channels C is the model's: no image is turned from grey to
RGB or back.
"""

from __future__ import annotations

import io
import struct
from collections.abc import Sequence

import numpy as np
import tensorflow as tf
from asr_tf.export.signatures import describe_channels

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
    encoded: Sequence[bytes], image_shape: tuple[int, int, int]
) -> tuple[list[tuple[list[int], np.ndarray]], dict[int, str]]:
    """Decodes images as they may stand in PNG files and TFRecords.

    Args:
        encoded: PNG images, or raw pixels in row order, the channels of a pixel side by side: H W C bytes, or 4 H W C
            bytes of little-endian float32.
        image_shape: (H, W, C).

    Returns:
        (groups, faults): the images as (rows, array [n, H, W, C]) for each dtype, uint8 or float32; and what is wrong
        with each other row.
    """
    height, width, channels = image_shape
    number = height * width * channels
    png: list[int] = []
    raw: dict[str, list[int]] = {"u1": [], "<f4": []}
    faults: dict[int, str] = {}
    for row, data in enumerate(encoded):
        if data.startswith(_PNG_SIGNATURE):
            if fault := _header_fault(data, height, width):
                faults[row] = fault
            else:
                png.append(row)
        elif len(data) == number:
            raw["u1"].append(row)
        elif len(data) == 4 * number:
            raw["<f4"].append(row)
        else:
            faults[row] = (
                f"must be a PNG image, or {number} bytes (uint8) or {4 * number} bytes (float32) of "
                f"{height} x {width} pixels that are {describe_channels(channels)}, got {len(data)} bytes"
            )
    groups = []
    for dtype, rows in raw.items():
        if rows:
            pixels = np.frombuffer(b"".join(encoded[row] for row in rows), dtype)
            groups.append((rows, pixels.astype(dtype[-2:]).reshape(-1, *image_shape)))
    if png:
        groups.append(_decode_pngs(png, encoded, image_shape, faults))
    return [group for group in groups if group[0]], faults


def _header_fault(data: bytes, height: int, width: int) -> str | None:
    """What is wrong with the size in a PNG image's header, which may claim one that would fill the memory."""
    if len(data) < _PNG_HEADER_BYTES:
        return f"broken PNG image: ends after {len(data)} bytes"
    columns, rows = struct.unpack(">II", data[16:24])
    if (rows, columns) == (height, width):
        return None
    return f"must be {height} x {width} pixels (height x width), got {rows} x {columns}"


def _decode_pngs(
    rows: list[int], encoded: Sequence[bytes], image_shape: tuple[int, int, int], faults: dict[int, str]
) -> tuple[list[int], np.ndarray]:
    """Decodes rows all at once, or one by one where one is broken; adds to the faults."""
    try:
        return rows, _decode_pngs_in_graph(tf.constant([encoded[row] for row in rows]), *image_shape).numpy()
    except _FAILURES:
        pass
    kept, images = [], []
    for row in rows:
        try:
            image = tf.io.decode_png(encoded[row]).numpy()
        except _FAILURES as error:
            faults[row] = f"broken PNG image: {first_line(error)}"
            continue
        if image.shape != image_shape:  # the header was right about the size
            faults[row] = (
                f"must be a PNG image that is {describe_channels(image_shape[-1])}, "
                f"got one that is {describe_channels(image.shape[-1])}"
            )
        else:
            kept.append(row)
            images.append(image)
    return kept, np.array(images)


@tf.function(reduce_retracing=True, autograph=False)
def _decode_pngs_in_graph(encoded: tf.Tensor, height: int, width: int, channels: int) -> tf.Tensor:
    """PNG images of one shape as uint8 [N, H, W, C]: a call for each from Python costs four times as much."""
    pixels = tf.TensorSpec([height, width, channels], tf.uint8)
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


def read_npy(data: bytes, image_shape: tuple[int, int, int]) -> np.ndarray:
    """The images of an NPY file as uint8 or float32 [N, H, W, C].

    Args:
        data: the file, with an array [H, W, C] or [N, H, W, C], grey ones also without the last axis; uint8 or
            floating point.
        image_shape: (H, W, C).

    Raises:
        Unreadable: anything else.
    """
    try:
        array = np.load(io.BytesIO(data), allow_pickle=False)
    except Exception as error:  # damaged headers and archives have errors of their own, such as tokenize.TokenError
        raise Unreadable(f"cannot be read as an NPY array: {first_line(error)}") from error
    if not isinstance(array, np.ndarray):
        raise Unreadable("cannot be read as an NPY array: it is an archive of several")
    height, width, channels = image_shape
    fitting: list[tuple[int, ...]] = [image_shape] if channels > 1 else [image_shape, (height, width)]
    if array.shape not in fitting and array.shape[1:] not in fitting:
        pixels = f"{height}, {width}" if channels == 1 else f"{height}, {width}, {channels}"
        hint = ", with or without a last axis of 1" if channels == 1 else ""
        raise Unreadable(
            f"must hold [{pixels}] pixels, or [N, {pixels}]{hint}, that are {describe_channels(channels)}, "
            f"got shape {list(array.shape)}"
        )
    if not array.size:
        raise Unreadable(f"holds no image, got shape {list(array.shape)}")
    array = array.reshape(-1, *image_shape)
    if array.dtype == np.uint8:
        return array
    if not np.issubdtype(array.dtype, np.floating):
        raise Unreadable(f"must be uint8 or floating point, got dtype {array.dtype}")
    with np.errstate(over="ignore"):
        return array.astype(np.float32)


def row_faults(images: np.ndarray) -> dict[int, str]:
    """What is wrong with the pixels of images [N, H, W, C]: row -> reason, for those that can't be used."""
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
