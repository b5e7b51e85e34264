from __future__ import annotations

import numpy as np
import PIL.Image
import pytest
import testing_labelled
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from asr_tf.labelled import shards
from asr_tf.labelled.coco_folder import CocoFolder

NUMBER = 40


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setattr(shards, "SCENES_OF_A_SHARD", 16)
    testing_labelled.write(CocoFolder, tmp_path, NUMBER)
    return tmp_path


def test_pycocotools_finds_every_scene_and_object(folder):
    data = COCO(str(folder / "annotations.json"))
    assert sorted(data.imgs) == list(range(1, NUMBER + 1))
    known = testing_labelled.drawn(0, NUMBER)
    images = testing_labelled.levels(NUMBER)
    for row, objects in enumerate(testing_labelled.labels(NUMBER)):
        image = data.imgs[row + 1]
        assert image["count"] == known["count"][row]
        assert (image["height"], image["width"]) == testing_labelled.CANVAS
        pixels = np.asarray(PIL.Image.open(folder / "images" / image["file_name"]))
        np.testing.assert_array_equal(pixels, images[row, ..., 0])
        entries = data.imgToAnns[row + 1]
        assert len(entries) == len(objects)
        for entry, (_, mask, (ymin, xmin, ymax, xmax), window) in zip(entries, objects, strict=True):
            np.testing.assert_array_equal(data.annToMask(entry), mask)
            assert entry["bbox"] == [xmin, ymin, xmax - xmin, ymax - ymin]
            np.testing.assert_allclose(entry["window"][:2], window[[1, 0]] * [14, 12], atol=1e-3)
    assert len(data.anns) == sum(map(len, testing_labelled.labels(NUMBER)))
    assert min(data.anns) > 0, "pycocotools takes 0 for no match"


@pytest.mark.parametrize("kind", ["bbox", "segm"])
def test_its_own_annotations_are_perfect_detections(folder, kind):
    data = COCO(str(folder / "annotations.json"))
    found = data.loadRes([{**entry, "score": 0.9} for entry in data.dataset["annotations"]])
    evaluation = COCOeval(data, found, kind)
    evaluation.evaluate()
    evaluation.accumulate()
    evaluation.summarize()
    assert evaluation.stats[0] == pytest.approx(1.0)


def test_a_folder_for_each_shard_and_nothing_else(folder):
    assert sorted(path.name for path in folder.iterdir()) == ["annotations.json", "images", "sampling.json"]
    assert {path.name: len(list(path.iterdir())) for path in (folder / "images").iterdir()} == {
        "00000": 16,
        "00001": 16,
        "00002": 8,
    }
