"""Decoding: from the bytes of PNG and NPY files and of TFRecords to images of the model's shape, or a reason why not.

Contract: a reason says what was wrong and what would be right; no bytes raise anything but `Unreadable`, which carries
one.  What can be read at all is settled in `asr_tf.data.png` and `asr_tf.data.image_files`, for training too; here it
is held against the model.  Images of bytes stay uint8.  The number of channels C is the model's: no image is turned
from grey to RGB or back.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import tensorflow as tf
from asr_tf.export.signatures import describe_channels

from asr_tf.data import image_files
from asr_tf.data.image_files import Unreadable
from asr_tf.data.png import DECODING_ERRORS, Png, check_png, decode_png

__all__ = ["decode_examples", "decode_images", "decode_pngs", "read_npy"]

_FEATURE = "image"
_FEATURES = {_FEATURE: tf.io.FixedLenFeature([], tf.string)}

Groups = list[tuple[list[int], np.ndarray]]
"""Images as (rows, array [n, H, W, C]) for each dtype, uint8 or float32."""


def decode_images(encoded: Sequence[bytes], image_shape: tuple[int, int, int]) -> tuple[Groups, dict[int, str]]:
    """Decodes images as they may stand in TFRecords.

    Args:
        encoded: PNG images, or raw pixels in row order, the channels of a pixel side by side: H W C bytes, or 4 H W C
            bytes of little-endian float32.
        image_shape: (H, W, C).

    Returns:
        (groups, faults): the images, and what is wrong with each row that is in no group.
    """
    height, width, channels = image_shape
    number = height * width * channels
    png: list[int] = []
    raw: dict[str, list[int]] = {"u1": [], "<f4": []}
    faults: dict[int, str] = {}
    for row, data in enumerate(encoded):
        if data.startswith(image_files.PNG_SIGNATURE):
            png.append(row)
        elif (found := _image_format(data)) or len(data) not in (number, 4 * number):
            faults[row] = (
                f"must be a PNG image, or {number} bytes (uint8) or {4 * number} bytes (float32) of "
                f"{height} x {width} pixels that are {describe_channels(channels)}, got {found or f'{len(data)} bytes'}"
            )
        else:
            raw["u1" if len(data) == number else "<f4"].append(row)
    groups = []
    for dtype, rows in raw.items():
        if rows:
            pixels = np.frombuffer(b"".join(encoded[row] for row in rows), dtype)
            groups.append((rows, pixels.astype(dtype[-2:]).reshape(-1, *image_shape)))
    decoded, broken = decode_pngs([encoded[row] for row in png], image_shape)
    groups += [([png[row] for row in rows], images) for rows, images in decoded]
    return groups, faults | {png[row]: reason for row, reason in broken.items()}


def _image_format(data: bytes) -> str | None:
    """The format of what begins as an image of another format does; None where it may be raw pixels."""
    found = image_files.format_of(data)
    return found if found and found.endswith("image") else None


def decode_pngs(encoded: Sequence[bytes], image_shape: tuple[int, int, int]) -> tuple[Groups, dict[int, str]]:
    """Decodes what must be PNG images.

    Args:
        encoded: the content of files.
        image_shape: (H, W, C).

    Returns:
        (groups, faults): the images, one group or none, and what is wrong with each other row.
    """
    whole: dict[int, Png] = {}
    faults: dict[int, str] = {}
    for row, data in enumerate(encoded):
        try:
            png = check_png(data)
        except Unreadable as error:
            faults[row] = str(error)
            continue
        if fault := _other_shape(png.shape, image_shape):
            faults[row] = fault
        else:
            whole[row] = png
    if not whole:
        return [], faults
    try:
        images = _decode_in_graph(tf.constant([png.data for png in whole.values()]), *image_shape).numpy()
        return [(list(whole), images)], faults
    except DECODING_ERRORS:
        pass
    decoded: dict[int, np.ndarray] = {}
    for row, png in whole.items():  # one by one, to know which are broken
        try:
            decoded[row] = decode_png(png)
        except Unreadable as error:
            faults[row] = str(error)
    return [(list(decoded), np.array(list(decoded.values())))] if decoded else [], faults


def _other_shape(shape: tuple[int, int, int], wanted: tuple[int, int, int]) -> str | None:
    """What is wrong with an image's (H, W, C); None where it is what the model takes."""
    if shape[:2] != wanted[:2]:
        return f"must be {wanted[0]} x {wanted[1]} pixels (height x width), got {shape[0]} x {shape[1]}"
    if shape[2] != wanted[2]:
        return (
            f"must be a PNG image that is {describe_channels(wanted[2])}, "
            f"got one that is {describe_channels(shape[2])}"
        )
    return None


@tf.function(reduce_retracing=True, autograph=False)
def _decode_in_graph(encoded: tf.Tensor, height: int, width: int, channels: int) -> tf.Tensor:
    """PNG images of one shape as uint8 [N, H, W, C]: a call for each from Python costs more."""
    pixels = tf.TensorSpec([height, width, channels], tf.uint8)
    return tf.map_fn(
        lambda image: tf.ensure_shape(tf.io.decode_png(image), pixels.shape), encoded, fn_output_signature=pixels
    )


def decode_examples(serialized: Sequence[bytes]) -> tuple[list[bytes], dict[int, str]]:
    """The feature `image` of serialized tf.train.Examples.

    Returns:
        (images, faults): what the feature holds, empty where it can't be had; and what is wrong with such rows.
    """
    if not serialized:
        return [], {}
    try:
        return tf.io.parse_example(serialized, _FEATURES)[_FEATURE].numpy().tolist(), {}
    except DECODING_ERRORS:
        pass
    images, faults = [], {}
    for row, example in enumerate(serialized):
        try:
            images.append(tf.io.parse_single_example(example, _FEATURES)[_FEATURE].numpy())
        except DECODING_ERRORS:
            images.append(b"")
            faults[row] = f"must be a tf.train.Example with one string feature {_FEATURE!r}"
    return images, faults


def read_npy(data: bytes, image_shape: tuple[int, int, int]) -> np.ndarray:
    """The images of an NPY file, uint8 or floating point [N, H, W, C], with the numbers that are in the file.

    Args:
        data: the file, with an array [H, W, C] or [N, H, W, C], grey ones also without the last axis; uint8 or
            floating point.
        image_shape: (H, W, C).

    Raises:
        Unreadable: anything else.
    """
    array = image_files.load_npy(data)
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
    return array.reshape(-1, *image_shape)
