from __future__ import annotations

import sys

import keras
import numpy as np
import pytest
import tensorflow as tf
import testing_export
from asr_tf.export.examples import classify_digits
from testing_served import CANVAS, NUM_STEPS, random_images, write_version

from asr_tf.data import Scenes


@pytest.fixture(scope="module")
def model_dir(tiny_export):
    return tiny_export / "1"


@pytest.fixture(scope="module")
def found(model_dir):
    """Images, and what the model says of them."""
    images = np.rint(255 * testing_export.images(200)).astype(np.uint8)
    loaded = tf.saved_model.load(str(model_dir))
    outputs = loaded.signatures["infer"](images=tf.constant(images.astype(np.float32) / 255))
    return images, {name: value.numpy() for name, value in outputs.items()}


@pytest.fixture(scope="module")
def scenes(found):
    """The truth is what the model finds, in another order, and an object's class is the sign of its first code."""
    images, outputs = found
    counts = outputs["count"]
    boxes, labels = np.zeros_like(outputs["boxes"]), np.full(outputs["boxes"].shape[:2], -1, np.int32)
    classes = (outputs["z_what"][..., 0] > np.median(outputs["z_what"][..., 0][outputs["presence"] > 0])).astype(int)
    for row, count in enumerate(counts):
        boxes[row, :count] = outputs["boxes"][row, :count][::-1]
        labels[row, :count] = classes[row, :count][::-1]
    assert {1, 2} <= set(counts)
    return Scenes(images, counts=counts, boxes=boxes, labels=labels), classes


def test_labels_follow_the_boxes(model_dir, scenes):
    truth, classes = scenes
    labels, counts = classify_digits.label_objects(model_dir, truth)
    np.testing.assert_array_equal(counts, truth.counts)
    distinct = [row for row, count in enumerate(counts) if count == 1]
    np.testing.assert_array_equal(labels[distinct, 0], classes[distinct, 0])
    is_object = np.arange(labels.shape[1]) < counts[:, None]
    assert (labels[~is_object] == classify_digits.NOT_AN_OBJECT).all()
    assert (labels[is_object] != classify_digits.NOT_AN_OBJECT).all()

    away = Scenes(truth.images, counts=truth.counts, boxes=truth.boxes * 0.2 + 0.8, labels=truth.labels)
    elsewhere, _ = classify_digits.label_objects(model_dir, away)
    assert (elsewhere == classify_digits.NOT_AN_OBJECT).mean() > 0.9


def test_the_saved_model_stays_frozen_while_the_classifier_learns(model_dir, scenes, found):
    truth, _ = scenes
    keras.utils.set_random_seed(0)
    labels, counts = classify_digits.label_objects(model_dir, truth)
    model = classify_digits.build_classifier(model_dir, num_classes=2)
    codes = model.layers[1]
    np.testing.assert_allclose(codes(found[0]), found[1]["z_what"], atol=1e-6)
    assert {weight.path.split("/")[0] for weight in model.trainable_variables} == {
        "hidden",
        "logits",
        "layer_normalization",
    }
    frozen = codes.saved_model.weights
    before = [variable.numpy() for variable in frozen]
    assert len(before) > 10
    losses = classify_digits.train_classifier(model, truth.images, labels, epochs=40)
    assert losses[-1] < 0.7 * losses[0]
    for old, variable in zip(before, frozen, strict=True):
        np.testing.assert_array_equal(old, variable.numpy())

    result = classify_digits.score(model, truth, labels, counts)
    assert result.num_objects == truth.counts.sum()
    assert result.object_accuracy > 0.8


def test_score_by_hand():
    class Fixed:
        def predict(self, images, **_):
            logits = np.zeros((3, 2, 2))
            logits[0, :, 1] = 1.0  # reads 1, 1; the others 0, 0
            return logits

    images = np.zeros((3, 4, 4, 1), np.uint8)
    truth = Scenes(images, counts=np.array([2, 1, 2]))
    labels = np.array([[1, 1], [0, -1], [0, -1]])
    result = classify_digits.score(Fixed(), truth, labels, np.array([2, 1, 1]))
    assert result == (1.0, 2 / 3, 4)
    wrong = classify_digits.score(Fixed(), truth, np.array([[1, 0], [1, -1], [0, -1]]), np.array([2, 1, 1]))
    assert wrong == (0.5, 0.0, 4)


def test_what_is_missing_is_told_on_one_line(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["classify_digits", f"--export_dir={tmp_path}"])
    with pytest.raises(SystemExit, match="classify_digits: error: .* holds no exported version"):
        classify_digits.main()


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("--num_scenes=0", "--num_scenes must be a whole number, 1 or more, got 0."),
        ("--epochs=-1", "--epochs must be a whole number, 1 or more, got -1."),
        ("--seed=-1", "--seed must be between 0 and 4294967295, got -1."),
    ],
)
def test_numbers_that_cannot_be(given, message, tmp_path):
    with pytest.raises(SystemExit, match=f"^classify_digits: error: {message}$"):
        classify_digits.main([f"--export_dir={tmp_path}", given])


def test_a_folder_that_cannot_be_written_is_told_on_one_line(model_dir, monkeypatch):
    def load(*_):
        raise OSError("/none cannot be written: Permission denied; give another folder (--data_dir).")

    monkeypatch.setattr(classify_digits, "load_scenes", load)
    with pytest.raises(SystemExit, match=r"^classify_digits: error: /none cannot be written: .* \(--data_dir\)\.$"):
        classify_digits.main([f"--export_dir={model_dir}"])


def test_the_classifier_takes_images_of_the_saved_models_shape(tmp_path):
    model = classify_digits.build_classifier(write_version(tmp_path, 1, channels=3), num_classes=2)
    assert model.input_shape == (None, *CANVAS, 3)
    images = np.rint(255 * random_images(4, channels=3)).astype(np.uint8)
    assert model(images).shape == (4, NUM_STEPS, 2)


def test_a_data_set_of_other_channels_is_refused_on_one_line(tmp_path, monkeypatch):
    write_version(tmp_path, 1, channels=3)
    grey = Scenes(np.zeros((2, *CANVAS, 1), np.uint8))
    monkeypatch.setattr(classify_digits, "load_scenes", lambda *_: grey)
    monkeypatch.setattr(sys, "argv", ["classify_digits", f"--export_dir={tmp_path}", "--data_set=some/scenes"])
    message = (
        r"classify_digits: error: images of some/scenes must have shape \[6, 8, 3\] \(height, width, channels\) "
        r"for the model in .*, got \[6, 8, 1\]\.$"
    )
    with pytest.raises(SystemExit, match=message):
        classify_digits.main()
