from __future__ import annotations

import io
import json
import sys

import numpy as np
import pytest
import testing_labelled
from pycocotools import mask

from asr_tf.labelled import coco
from asr_tf.labelled.objects import visible_objects


def test_codes_decode_to_the_masks():
    rng = np.random.default_rng(0)
    masks = rng.random((40, 3, 9, 7, 1)) < rng.random((40, 3, 1, 1, 1)) ** 2
    windows = rng.uniform(-0.2, 1.2, (40, 3, 4)).astype(np.float32)
    objects = visible_objects(masks, windows, np.full(40, 3))
    scores = rng.random(len(objects.images))
    entries = json.loads(json.dumps(list(coco.object_entries(objects, scores))))
    assert len(entries) == len(objects.images) > 50
    for row, entry in enumerate(entries):
        np.testing.assert_array_equal(mask.decode(entry["segmentation"]), objects.masks[row])
        assert entry["area"] == objects.masks[row].sum()
        assert entry["bbox"] == mask.toBbox(entry["segmentation"]).tolist()
        assert entry["score"] == pytest.approx(scores[row], abs=1e-6)
        x, y, width, height = entry["window"]
        box = np.array([y, x, y + height, x + width]) / [9, 7, 9, 7]
        np.testing.assert_allclose(box, objects.windows[row], atol=1e-3)
        assert (entry["category_id"], entry["iscrowd"]) == (1, 0)


def test_labels_have_no_score():
    entries = list(coco.object_entries(testing_labelled.draw(0, 5).objects))
    assert entries
    assert all("score" not in entry for entry in entries)


def test_without_objects():
    objects = visible_objects(np.zeros((2, 3, 4, 5, 1)), np.zeros((2, 3, 4)), np.zeros(2, int))
    assert list(coco.object_entries(objects)) == []


@pytest.mark.parametrize("number", [0, 1, 3])
def test_json_is_whole(number):
    file = io.BytesIO()
    lines = [coco.line({"id": index}) for index in range(number)]
    coco.write_json(file, "what it is", iter(lines), iter(lines))
    entries = [{"id": index} for index in range(number)]
    assert json.loads(file.getvalue()) == {
        "info": {"description": "what it is"},
        "categories": [{"id": 1, "name": "object"}],
        "images": entries,
        "annotations": entries,
    }


def test_a_missing_package_is_told_with_the_command_for_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "pycocotools", None)
    with pytest.raises(ValueError, match=r"needs pycocotools \(.*\): pip install 'asr_tf\[labelled\]'"):
        coco.check_installed()
