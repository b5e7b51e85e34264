r"""Reads the digits of a scene with an exported model of multi_mnist that was trained without a label.

Example:
  python -m asr_tf.export.examples.classify_digits --export_dir=exports/mnist \
      --manual_dir=/folder/with/the/four/mnist/files

The exported model finds the objects and describes each by `z_what`; what is learned here, with labels, is one small
network from `z_what` to a digit. The SavedModel is used in the two ways that other TensorFlow programs use one:

1. inside of `tf.data.Dataset.map`, which infers the boxes that tell which label belongs to which object;
2. as a frozen layer of a new Keras model, image in and digits out, which can be saved and served by itself.
"""

from __future__ import annotations

import argparse
import pathlib
import sys
from collections.abc import Sequence
from typing import NamedTuple

import keras
import numpy as np
import tensorflow as tf
from asr_tf.export.artifact import version_folder
from asr_tf.export.signatures import image_shape, read_signature

from asr_tf.checks import check_range, check_whole
from asr_tf.data import Scenes, load_scenes
from asr_tf.evaluation.metrics import match_boxes

__all__ = ["Score", "build_classifier", "label_objects", "score", "train_classifier"]

NOT_AN_OBJECT = -1
_BATCH = 256
_LEAST_IOU = 0.3  # a box that covers less of its digit describes something else


class Score(NamedTuple):
    """How well the digits of scenes are read.

    Attributes:
        object_accuracy: fraction of the found digits that are read right.
        scene_accuracy: fraction of all scenes in which each digit is found and read right, and nothing else is found.
        num_objects: digits that were found.
    """

    object_accuracy: float
    scene_accuracy: float
    num_objects: int


def _unit_images(images: tf.Tensor) -> tf.Tensor:
    return tf.cast(images, tf.float32) / 255.0


def label_objects(model_dir: str | pathlib.Path, scenes: Scenes) -> tuple[np.ndarray, np.ndarray]:
    """Gives each inferred object the label of the true object that its box covers best.

    Args:
        model_dir: folder of one version of an export.
        scenes: with counts, boxes and labels.

    Returns:
        (labels, counts): int32 [N, T], `NOT_AN_OBJECT` where there is no object or no match; inferred counts int32 [N].
    """
    model = tf.saved_model.load(str(model_dir))  # held by name: a signature alone doesn't keep the weights
    infer = model.signatures["infer"]

    def find(images: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        found = infer(images=_unit_images(images))
        return found["boxes"], found["count"]

    # One call at a time: its operations use all cores already.
    dataset = tf.data.Dataset.from_tensor_slices(scenes.images).batch(_BATCH).map(find).prefetch(2)
    boxes, counts = (np.concatenate(parts) for parts in zip(*dataset.as_numpy_iterator(), strict=True))
    matching = match_boxes(boxes, counts, scenes.boxes, scenes.counts)
    true_labels = np.take_along_axis(np.asarray(scenes.labels), np.maximum(matching.indices, 0), axis=1)
    labels = np.where(matching.ious >= _LEAST_IOU, true_labels, NOT_AN_OBJECT)
    return labels.astype(np.int32), counts


def _image_shape(model_dir: str | pathlib.Path) -> tuple[int, int, int]:
    """The (H, W, C) of the images that an exported model takes."""
    return image_shape(read_signature(str(model_dir)), str(model_dir))


class _ObjectCodes(keras.layers.Layer):
    """Images uint8 [B, H, W, C] to `z_what` [B, T, Z], by an exported model whose weights stay as they are."""

    def __init__(self, model_dir: str):
        super().__init__(trainable=False)
        self.saved_model = keras.layers.TFSMLayer(model_dir, call_endpoint="infer", trainable=False)

    def call(self, images: tf.Tensor) -> tf.Tensor:
        return self.saved_model(_unit_images(images))["z_what"]


def build_classifier(model_dir: str | pathlib.Path, num_classes: int = 10) -> keras.Model:
    """A Keras model from images uint8 [B, H, W, C] to logits float32 [B, T, classes], one row for each object.

    Args:
        model_dir: folder of one version of an export, whose signature gives H, W and C; its weights are frozen.
        num_classes: number of labels.
    """
    images = keras.Input(_image_shape(model_dir), dtype="uint8", name="images")
    codes = _ObjectCodes(str(model_dir))(images)
    hidden = keras.layers.Dense(128, activation="relu", name="hidden")(keras.layers.LayerNormalization()(codes))
    model = keras.Model(images, keras.layers.Dense(num_classes, name="logits")(hidden), name="digits")
    model.compile(
        optimizer=keras.optimizers.Adam(2e-3),
        loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True, ignore_class=NOT_AN_OBJECT),
    )
    return model


def train_classifier(
    model: keras.Model, images: np.ndarray, labels: np.ndarray, epochs: int, seed: int = 0
) -> list[float]:
    """Trains the new layers.

    Args:
        model: from `build_classifier`.
        images: uint8 [N, H, W, C].
        labels: int32 [N, T], from `label_objects`.
        epochs: passes over the images.
        seed: of the order of the images.

    Returns:
        The mean loss of each epoch.
    """
    examples = tf.data.Dataset.from_tensor_slices((images, labels)).shuffle(len(images), seed=seed).batch(_BATCH)
    return model.fit(examples.prefetch(2), epochs=epochs, verbose=0).history["loss"]


def score(model: keras.Model, scenes: Scenes, labels: np.ndarray, counts: np.ndarray) -> Score:
    """Holds what is read against the truth.

    Args:
        model: trained.
        scenes: that were not trained on.
        labels: of the inferred objects, from `label_objects`.
        counts: inferred, likewise.
    """
    read = model.predict(scenes.images, batch_size=_BATCH, verbose=0).argmax(axis=-1)
    is_object = labels != NOT_AN_OBJECT
    right = is_object & (read == labels)
    all_right = (right.sum(axis=1) == scenes.counts) & (counts == scenes.counts)
    return Score(float(right.sum() / max(is_object.sum(), 1)), float(all_right.mean()), int(is_object.sum()))


def _check_images_fit(data_set: str, scenes: Scenes, model_dir: pathlib.Path) -> None:
    """Refuses scenes of another size or with other channels than the model's.

    Raises:
        ValueError: names both shapes.
    """
    wanted, given = _image_shape(model_dir), scenes.images.shape[1:]
    if given != wanted:
        raise ValueError(
            f"images of {data_set} must have shape {list(wanted)} (height, width, channels) "
            f"for the model in {model_dir}, got {list(given)}."
        )


def main(arguments: Sequence[str] | None = None) -> None:
    """Trains and prints what came of it."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--export_dir", required=True, help="folder that asr_export wrote")
    parser.add_argument("--manual_dir", help="folder with the four original MNIST files")
    parser.add_argument("--data_dir", help="folder of prepared data sets")
    parser.add_argument("--data_set", default="multi_mnist/count13", help="what the model was trained on")
    parser.add_argument("--num_scenes", type=int, default=10_000, help="labelled scenes to learn from")
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--seed", type=int, default=0)
    chosen = parser.parse_args(arguments)
    try:
        check_whole("--num_scenes", chosen.num_scenes)
        check_whole("--epochs", chosen.epochs)
        check_range("--seed", chosen.seed, 0, 2**32 - 1)
        keras.utils.set_random_seed(chosen.seed)
        model_dir = version_folder(chosen.export_dir)
        train, test = (
            load_scenes(chosen.data_set, split, chosen.data_dir, chosen.manual_dir) for split in ("train", "test")
        )
        _check_images_fit(chosen.data_set, train, model_dir)
    except (ValueError, OSError) as error:
        sys.exit(f"classify_digits: error: {error}")
    train = train.take(chosen.num_scenes)
    labels, _ = label_objects(model_dir, train)
    model = build_classifier(model_dir)
    losses = train_classifier(model, train.images, labels, chosen.epochs, chosen.seed)
    result = score(model, test, *label_objects(model_dir, test))
    print(
        f"Learned from {(labels != NOT_AN_OBJECT).sum()} digits in {len(train)} scenes; "
        f"loss {losses[0]:.3f} -> {losses[-1]:.3f}."
    )
    print(
        f"{result.object_accuracy:.1%} of {result.num_objects} digits of {len(test)} test scenes are read right; "
        f"{result.scene_accuracy:.1%} of the scenes are right as a whole."
    )


if __name__ == "__main__":
    main()
