from __future__ import annotations

import os

import numpy as np
import PIL.Image
import pytest
import testing_labelled
import yaml

from asr_tf.labelled import shards
from asr_tf.labelled.yolo_folder import YoloFolder

NUMBER = 40


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setattr(shards, "SCENES_OF_A_SHARD", 16)
    testing_labelled.write(YoloFolder, tmp_path / "images" / "mine", NUMBER)  # `images` may stand in the path before
    return tmp_path / "images" / "mine"


def test_layout_is_what_ultralytics_documents(folder):
    """data.yaml with `train`, `val`, `names`; a label's path is its image's with the last /images/ as /labels/."""
    data = yaml.safe_load((folder / "data.yaml").read_text())
    assert data == {"train": "images", "val": "images", "names": {0: "object"}}
    images = sorted((folder / data["train"]).rglob("*.*"))
    assert len(images) == NUMBER
    here, there = f"{os.sep}images{os.sep}", f"{os.sep}labels{os.sep}"
    labels = [there.join(str(path).rsplit(here, 1)).rsplit(".", 1)[0] + ".txt" for path in images]
    assert sorted(map(str, (folder / "labels").rglob("*.*"))) == labels


def test_text_holds_the_boxes(folder):
    height, width = testing_labelled.CANVAS
    images = sorted((folder / "images").rglob("*.png"))
    texts = sorted((folder / "labels").rglob("*.txt"))
    pixels = testing_labelled.levels(NUMBER)[..., 0]
    for row, objects in enumerate(testing_labelled.labels(NUMBER)):
        assert images[row].stem == texts[row].stem == f"{row + 1:012d}"
        np.testing.assert_array_equal(np.asarray(PIL.Image.open(images[row])), pixels[row])
        lines = [line.split() for line in texts[row].read_text().splitlines()]
        assert len(lines) == len(objects)
        for (label, *numbers), (_, _, box, _) in zip(lines, objects, strict=True):
            assert label == "0"
            x, y, w, h = map(float, numbers)
            assert all(0.0 <= number <= 1.0 for number in (x, y, w, h))
            found = [(y - h / 2) * height, (x - w / 2) * width, (y + h / 2) * height, (x + w / 2) * width]
            np.testing.assert_allclose(found, box, atol=1e-4)
