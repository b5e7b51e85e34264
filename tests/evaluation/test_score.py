"""Scores of arrays: values, what is left out, and refusals."""

from __future__ import annotations

import json

import numpy as np
import pytest

from asr_tf.evaluation.score import read_arrays, score

BOXES = np.array([[[0, 0, 2, 2], [2, 2, 4, 4]], [[0, 0, 2, 2], [0, 0, 0, 0]]], np.float32)


def _masks(boxes, size=4):
    masks = np.zeros((*boxes.shape[:2], size, size), np.uint8)
    for image, row in np.ndindex(*boxes.shape[:2]):
        ymin, xmin, ymax, xmax = boxes[image, row].astype(int)
        masks[image, row, ymin:ymax, xmin:xmax] = 1
    return masks


def _truth():
    return {"count": np.array([2, 1]), "boxes": BOXES, "masks": _masks(BOXES)}


def _found():
    return {**_truth(), "scores": np.array([[0.9, 0.8], [0.7, 0.1]])}


def test_the_truth_scores_best():
    found = score(_found(), _truth())
    errors = {"num_images": 2, "count_mae": 0.0, "count_relative_error": 0.0, "ari_fg_single": 0.5}
    assert found == {name: errors.get(name, 1.0) for name in found}
    assert set(found) == {
        "num_images", "count_accuracy", "count_mae", "count_relative_error",
        "ari", "ari_fg", "ari_fg_single", "sc", "msc", "mask_miou",
        "ap", "ap50", "ap75", "f1_50", "ap_stardist_50",
        "mask_ap", "mask_ap50", "mask_ap75", "mask_f1_50", "mask_ap_stardist_50",
    }  # fmt: skip


def test_by_hand():
    found = _found() | {"count": np.array([1, 2])}
    found["boxes"] = BOXES[:, ::-1]  # the second object of the first image; nothing, then the object of the second
    del found["masks"]
    scores = score(found, _truth())
    assert scores["count_accuracy"] == 0.0 and scores["count_mae"] == 1.0
    assert scores["count_relative_error"] == pytest.approx((1 / 2 + 1 / 1) / 2)
    assert scores["f1_50"] == pytest.approx(2 * 2 / 6) and scores["ap_stardist_50"] == pytest.approx(2 / 4)
    # Scores .9 right, .7 wrong, .1 right: precision 1 up to recall 1/3, then 2/3 up to 2/3.
    assert scores["ap50"] == pytest.approx((34 * 1.0 + 33 * 2 / 3) / 101)


def test_what_is_missing_is_left_out():
    assert set(score({"count": [1, 2]}, _truth())) == {
        "num_images", "count_accuracy", "count_mae", "count_relative_error",
    }  # fmt: skip
    without_scores = score({name: _found()[name] for name in ("count", "boxes")}, _truth())
    assert "f1_50" in without_scores and "ap" not in without_scores and "ari" not in without_scores


def test_scenes_without_objects():
    empty = {"count": np.zeros(2, int), "boxes": np.zeros((2, 0, 4)), "masks": np.zeros((2, 0, 3, 3), np.uint8)}
    scores = score({**empty, "scores": np.zeros((2, 0))}, empty)
    assert scores["count_accuracy"] == scores["ari"] == scores["mask_miou"] == 1.0
    assert all(np.isnan(scores[name]) for name in ("ari_fg", "sc", "msc", "ap", "f1_50", "mask_ap50"))
    missed = score({**empty, "scores": np.zeros((2, 0))}, {name: v for name, v in _truth().items() if name != "masks"})
    assert missed["ap"] == missed["f1_50"] == 0.0


@pytest.mark.parametrize(
    "side, name, value, message",
    [
        ("found", "count", None, "found arrays must have count"),
        ("true", "count", np.array([1.0, 2.0]), "true count must be integers, got dtype float64"),
        ("found", "count", np.array([1, 2, 1]), "found boxes must have 3 rows as found count has, got 2"),
        ("found", "count", np.array([1, 3]), r"found count must lie in 0..2, the rows of found boxes"),
        ("found", "count", np.array([-1, 1]), r"found count must lie in 0..2"),
        ("found", "boxes", np.zeros((2, 2, 5)), r"found boxes must have shape \[N, rows, 4\], got \[2, 2, 5\]"),
        ("found", "boxes", BOXES[..., [2, 3, 0, 1]], "found boxes must be .* box 0 of image 0 ends before it starts"),
        ("true", "boxes", np.full((2, 2, 4), np.nan), "true boxes must be finite; that of image 0 isn't"),
        ("found", "scores", np.full((2, 2), np.inf), "found scores must be finite"),
        ("found", "scores", np.zeros((2, 3)), "found scores must have 2 rows of objects as found boxes has, got 3"),
        ("true", "masks", np.zeros((2, 2, 4, 4), np.int32), "true masks must be uint8, bool or floating point"),
        ("true", "masks", np.full((2, 2, 4, 4), 1.5), "true masks must lie in"),
        ("true", "masks", np.zeros((2, 2, 4, 5)), "masks must be of one size .* got 4 x 4 and 4 x 5"),
        ("true", "count", np.array(["1", "2"]), "true count must be integers"),
    ],
)
def test_refusals(side, name, value, message):
    sides = {"found": _found(), "true": _truth()}
    sides[side][name] = value
    with pytest.raises((ValueError, TypeError), match=message):
        score(sides["found"], sides["true"])


def test_other_images_are_refused():
    with pytest.raises(ValueError, match="same images, got 2 found and 1 true"):
        score(_found(), {"count": [1]})
    with pytest.raises(ValueError, match="at least one image"):
        score({"count": np.zeros(0, int)}, {"count": np.zeros(0, int)})


def test_files(tmp_path):
    np.savez(tmp_path / "t.npz", **_truth(), other=np.zeros(3))
    assert set(read_arrays(tmp_path / "t.npz")) == {"count", "boxes", "masks"}
    with pytest.raises(ValueError, match="no such file"):
        read_arrays(tmp_path / "u.npz")
    np.save(tmp_path / "v.npy", np.zeros(3))
    (tmp_path / "w.npz").write_text(json.dumps({}))
    np.savez(tmp_path / "x.npz", count=np.array([{}], object))
    (tmp_path / "y.npz").write_bytes((tmp_path / "t.npz").read_bytes()[:-100])
    np.savez_compressed(tmp_path / "z.npz", count=np.arange(10_000))
    damaged = bytearray((tmp_path / "z.npz").read_bytes())
    damaged[1000:1100] = bytes(100)
    (tmp_path / "z.npz").write_bytes(damaged)
    for name in ("v.npy", "w.npz", "x.npz", "y.npz", "z.npz"):
        with pytest.raises(ValueError, match=f"{name} must be an npz file of count, boxes, masks, scores: "):
            read_arrays(tmp_path / name)
