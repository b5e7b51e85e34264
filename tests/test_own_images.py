"""A folder of PNG files, trained as the README says, must end with the right counts and boxes."""

from __future__ import annotations

import numpy as np
import PIL.Image
import pytest
import testing_data

from asr_tf.data import load_scenes
from asr_tf.evaluation import metrics
from asr_tf.runs import configuration, run_folder
from asr_tf.training import fit

NUM_TEST = 500


def _write_images(folder, images):
    folder.mkdir(parents=True)
    for i, image in enumerate(images):
        PIL.Image.fromarray(image[..., 0]).save(folder / f"{i:05d}.png")


@pytest.mark.slow
def test_digits_as_png_files_with_known_counts(tmp_path):
    """Scenes of one or three digits; the scene file is the one for own images, and nothing but the counts is given."""
    manual_dir = testing_data.mnist_dir()
    data = {"data_dir": tmp_path / "tfds", "manual_dir": manual_dir}
    train, validation, test = (
        load_scenes("multi_mnist/count13", split, **data) for split in ("train", "validation", "test")
    )
    # Test scenes are sorted by count: some from all over the split.
    test = test.select(np.linspace(0, len(test) - 1, NUM_TEST).astype(int))
    _write_images(tmp_path / "images" / "train", train.images)
    _write_images(tmp_path / "images" / "validation", validation.images)
    _write_images(tmp_path / "images" / "test", test.images)

    configuration.parse(
        ["models/asr.gin", "scenes/image_folder.gin"],
        [
            f"data.path = '{tmp_path / 'images'}'",
            "COUNTS = (1, 3)",
            "train.num_steps = 3_000",
        ],
    )
    fit.train(tmp_path / "run", seed=0)

    model, _ = run_folder.restore_model(tmp_path / "run")
    found = {name: np.asarray(value) for name, value in model.infer(test.images).items()}
    assert metrics.count_accuracy(found["count"], test.counts) >= 0.99
    assert metrics.mean_iou(found["boxes"], found["count"], test.boxes, test.counts) >= 0.85
