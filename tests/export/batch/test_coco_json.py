from __future__ import annotations

import json

import numpy as np
import pytest
from asr_tf.export.batch import coco_json
from asr_tf.export.batch.chunks import Predictions
from pycocotools import mask

SIZE = (5, 4)


def predictions(number, seed=0):
    """Up to 3 objects an image, some of them without a pixel."""
    rng = np.random.default_rng(seed)
    count = rng.integers(0, 4, number)
    masks = rng.random((number, 3, *SIZE)) < rng.choice([0.0, 0.4], (number, 3, 1, 1), p=[0.2, 0.8])
    return Predictions(
        [f"folder/{seed}.npy"] * number,
        np.arange(number) + 7,
        count.astype(np.int32),
        rng.random((number, 4), np.float32),
        rng.random((number, 3, 4), np.float32),
        rng.random((number, 3), np.float32),
        masks & (np.arange(3) < count[:, np.newaxis])[..., np.newaxis, np.newaxis],
    )


def check(image, entries, block, row):
    """An image and its objects are those of a row of predictions."""
    assert (image["height"], image["width"]) == SIZE
    assert (image["file_name"], image["record"]) == (block.files[row], block.records[row])
    assert image["count"] == block.count[row]
    steps = [step for step in range(block.count[row]) if block.masks[row, step].any()]
    assert len(entries) == len(steps)
    for entry, step in zip(entries, steps, strict=True):
        np.testing.assert_array_equal(mask.decode(entry["segmentation"]), block.masks[row, step])
        assert entry["score"] == pytest.approx(block.scores[row, step], abs=1e-6)


def test_a_line_for_each_image():
    block = predictions(40)
    lines = [json.loads(line) for line in coco_json.to_lines(block)]
    assert len(lines) == 40
    for row, line in enumerate(lines):
        check(line["image"], line["annotations"], block, row)


def test_lines_of_all_workers_are_joined(tmp_path):
    blocks = [predictions(30, seed) for seed in range(3)]
    for number, block in enumerate(blocks):
        lines = [f"{line}\n" for line in coco_json.to_lines(block)]
        (tmp_path / f"objects-coco-{number:05d}-of-00003.jsonl").write_text("".join(lines))
    coco_json.join(f"{tmp_path}/objects-coco")
    assert [path.name for path in tmp_path.iterdir()] == ["objects-coco.json"]
    joined = json.loads((tmp_path / "objects-coco.json").read_text())
    assert [image["id"] for image in joined["images"]] == list(range(1, 91))
    assert [entry["id"] for entry in joined["annotations"]] == list(range(1, len(joined["annotations"]) + 1))
    for image in joined["images"]:
        block, row = divmod(image["id"] - 1, 30)
        entries = [entry for entry in joined["annotations"] if entry["image_id"] == image["id"]]
        check(image, entries, blocks[block], row)


def test_where_nothing_was_inferred_nothing_is_joined(tmp_path):
    coco_json.join(f"{tmp_path}/objects-coco")
    assert not list(tmp_path.iterdir())


def test_masks_are_needed():
    block = predictions(3)
    without = Predictions(block.files, block.records, block.count, block.count_probs, block.boxes, block.scores)
    with pytest.raises(ValueError, match="must have masks"):
        list(coco_json.to_lines(without))
