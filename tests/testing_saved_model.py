"""A SavedModel with the signature of an exported model and answers that can be computed by hand."""

from __future__ import annotations

import pathlib

import numpy as np
import tensorflow as tf

CANVAS = (6, 8)
NUM_STEPS = 2


class _HandMade(tf.Module):
    """Counts by the three pixels of the first row's start; refuses a picture whose last number is 1.

    Of a pixel the last channel counts, but for the boxes' y, which is of the first one.
    """

    def __init__(self, channels):
        super().__init__()
        self.scale = tf.Variable(4.0)
        images = tf.TensorSpec([None, *CANVAS, channels], tf.float32, "images")
        self.infer = tf.function(self._infer, input_signature=[images])

    def _infer(self, images):
        check = tf.debugging.assert_less(images[:, -1, -1, -1], 1.0, "images must not end in white.")
        with tf.control_dependencies([check]):
            probs = tf.nn.softmax(self.scale * images[:, 0, :3, -1])
        count = tf.argmax(probs, axis=-1, output_type=tf.int32)
        presence = tf.sequence_mask(count, NUM_STEPS, tf.float32)
        corner = tf.stack([images[:, 1, 0, 0], images[:, 1, 1, -1]], axis=-1)
        boxes = tf.tile(tf.concat([corner, corner + 0.25], axis=-1)[:, tf.newaxis], [1, NUM_STEPS, 1])
        return {
            "count": count,
            "count_probs": probs,
            "presence": presence,
            "boxes": presence[..., tf.newaxis] * boxes,
            "z_what": tf.zeros([tf.shape(images)[0], NUM_STEPS, 3]),
            "reconstruction": images,
        }


def write(folder: pathlib.Path, channels: int = 1) -> pathlib.Path:
    """Writes the model of images with C channels as a version's folder."""
    model = _HandMade(channels)
    tf.saved_model.save(model, str(folder), signatures={"infer": model.infer, "serving_default": model.infer})
    return folder


def answers(images: np.ndarray) -> dict[str, np.ndarray]:
    """What the model answers for float images [N, H, W, C], in NumPy."""
    weights = np.exp(4.0 * images[:, 0, :3, -1])
    probs = weights / weights.sum(axis=1, keepdims=True)
    count = probs.argmax(axis=1)
    boxes = np.zeros([len(images), NUM_STEPS, 4])
    for row, image in enumerate(images):
        y, x = image[1, 0, 0], image[1, 1, -1]
        boxes[row, : count[row]] = [y, x, y + 0.25, x + 0.25]
    scores = np.stack([probs[:, 1] + probs[:, 2], probs[:, 2]], axis=1)
    return {"count": count, "count_probs": probs, "boxes": boxes, "scores": scores}


def pictures(number: int, seed: int = 0, channels: int = 1) -> np.ndarray:
    """Random images, uint8 [N, H, W, C], of which the model refuses none."""
    return np.random.default_rng(seed).integers(0, 255, (number, *CANVAS, channels), dtype=np.uint8)


def write_records(path: pathlib.Path, images: list[bytes], compression: str = "") -> None:
    """Writes a TFRecord of Examples with the feature `image`."""
    with tf.io.TFRecordWriter(str(path), compression) as writer:
        for image in images:
            writer.write(example(image=image))


def example(**features: bytes) -> bytes:
    """A serialized Example of string features."""
    parts = {
        name: tf.train.Feature(bytes_list=tf.train.BytesList(value=[value])) for name, value in features.items()
    }
    return tf.train.Example(features=tf.train.Features(feature=parts)).SerializeToString()
