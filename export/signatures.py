"""What a SavedModel's signature says of the images that it takes, read without loading the model.

Contract: nothing but TensorFlow and NumPy is needed, and what can't be used is a `ValueError` of one line.
"""

from __future__ import annotations

from typing import Any

import tensorflow as tf
from asr_tf.export.server.errors import one_line

from asr_tf.checks import CHANNELS

__all__ = ["INFER", "describe_channels", "image_shape", "read_signature"]

INFER = "infer"
"""The signature that counts and boxes the objects of images."""


def read_signature(path: str, name: str = INFER) -> Any:
    """A signature of a SavedModel.

    Args:
        path: folder of the SavedModel, local or of any file system that TensorFlow reads.
        name: of the signature.

    Returns:
        The `SignatureDef` proto.

    Raises:
        ValueError: there is no SavedModel, or it has no such signature.
    """
    from tensorflow.core.protobuf import saved_model_pb2

    file = tf.io.gfile.join(path, "saved_model.pb")
    saved_model = saved_model_pb2.SavedModel()
    try:
        with tf.io.gfile.GFile(file, "rb") as source:
            saved_model.ParseFromString(source.read())
    except tf.errors.OpError as error:
        raise ValueError(f"{file} cannot be read: {one_line(error.message or type(error).__name__)}") from error
    except Exception as error:  # protobuf's DecodeError, whose class depends on its implementation
        raise ValueError(f"{file} is no SavedModel: {one_line(str(error) or type(error).__name__)}") from error
    for graph in saved_model.meta_graphs:
        if name in graph.signature_def and "serve" in graph.meta_info_def.tags:
            return graph.signature_def[name]
    raise ValueError(f"{path} has no signature {name!r}; it must be written by asr_export.")


def image_shape(signature: Any, path: str) -> tuple[int, int, int]:
    """The (H, W, C) of the images that a signature takes.

    Args:
        signature: from `read_signature`, with an input `images`.
        path: folder of the SavedModel, for messages.

    Raises:
        ValueError: the shape isn't [B, H, W, C] with H and W fixed and C = 1 (grey) or 3 (RGB).
    """
    axes = [axis.size for axis in signature.inputs["images"].tensor_shape.dim]
    if len(axes) != 4 or min(axes[1:]) < 1 or axes[3] not in CHANNELS:
        wanted = " or ".join(f"{channels} ({name})" for channels, name in CHANNELS.items())
        raise ValueError(
            f"images of {path} must have shape [B, H, W, C] with H and W fixed and C = {wanted}, "
            f"got {['?' if size < 0 else size for size in axes]}."
        )
    return axes[1], axes[2], axes[3]


def describe_channels(channels: int) -> str:
    """A number of channels in words: "grey (1 channel)", "RGB (3 channels)", "of 2 channels"."""
    number = f"{channels} channel" + ("" if channels == 1 else "s")
    return f"{CHANNELS[channels]} ({number})" if channels in CHANNELS else f"of {number}"
