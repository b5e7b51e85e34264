"""Metrics of found objects against pycocotools and hand-computed values."""

from __future__ import annotations

import contextlib
import io

import numpy as np
import pytest
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from asr_tf.evaluation import detection, metrics, segmentation

_SIDE = 100.0  # of a canvas, in pixels: COCO's areas don't matter


def _scenes(seed, images=60, rows=5, jitter=0.02):
    """Boxes in pixels: true ones, and found ones near them, with scores of which some are equal."""
    rng = np.random.default_rng(seed)
    true_counts, found_counts = rng.integers(0, rows + 1, (2, images))
    low = rng.uniform(0.0, 0.6, (images, rows, 2))
    true = np.concatenate([low, low + rng.uniform(0.15, 0.4, (images, rows, 2))], -1)
    found = true + rng.normal(0.0, jitter, true.shape)
    found[..., 2:] = np.maximum(found[..., 2:], found[..., :2] + 0.05)
    scores = rng.integers(1, 12, (images, rows)) / 12
    return _SIDE * found, scores, found_counts, _SIDE * true, true_counts


def _coco(kind, found, scores, found_counts, true, true_counts):
    """AP, AP50 and AP75 by pycocotools; `found` and `true` give annotations' parts for (image, row)."""
    images = [{"id": i + 1, "height": int(_SIDE), "width": int(_SIDE)} for i in range(len(scores))]

    def annotations(part, counts, extra):
        return [
            {"image_id": i + 1, "category_id": 1, **part(i, row), **extra(i, row)}
            for i, count in enumerate(counts)
            for row in range(count)
        ]

    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO()
        labels = annotations(true, true_counts, lambda i, row: {"iscrowd": 0})
        truth.dataset = {
            "info": {},
            "images": images,
            "categories": [{"id": 1, "name": "object"}],
            "annotations": [{"id": k + 1, **label} for k, label in enumerate(labels)],
        }
        truth.createIndex()
        results = truth.loadRes(annotations(found, found_counts, lambda i, row: {"score": float(scores[i, row])}))
        evaluation = COCOeval(truth, results, kind)
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return evaluation.stats[:3]


def _of_box(boxes):
    def part(image, row):
        ymin, xmin, ymax, xmax = boxes[image, row]
        box = [xmin, ymin, xmax - xmin, ymax - ymin]
        return {"bbox": [float(x) for x in box], "area": float(box[2] * box[3])}

    return part


def _of_mask(labels):
    def part(image, row):
        mask = np.asfortranarray((labels[image] == row + 1).astype(np.uint8))
        return {"segmentation": coco_mask.encode(mask), "area": int(mask.sum())}

    return part


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_average_precision_of_boxes_is_that_of_coco(seed):
    found, scores, found_counts, true, true_counts = _scenes(seed)
    precisions = detection.average_precision(metrics.box_iou(found, true), scores, found_counts, true_counts)
    expected = _coco("bbox", _of_box(found), scores, found_counts, _of_box(true), true_counts)
    assert expected[1] > 0.1
    np.testing.assert_allclose([precisions.mean(), precisions[0], precisions[5]], expected, atol=1e-4)


def test_average_precision_of_masks_is_that_of_coco():
    rng = np.random.default_rng(0)
    images, rows = 40, 4
    true = np.kron(rng.integers(0, rows + 1, (images, 5, 5)), np.ones((20, 20), int))
    found = np.where(rng.uniform(size=true.shape) < 0.25, rng.integers(0, rows + 1, true.shape), true)
    present = np.array([[np.any(labels == row + 1) for row in range(rows)] for labels in true])
    counts = np.where(present.all(axis=1), rows, present.argmin(axis=1))
    true, found = (np.where(labels > counts[:, None, None], 0, labels) for labels in (true, found))
    scores = rng.uniform(size=(images, rows))
    precisions = detection.average_precision(segmentation.mask_iou(found, true), scores, counts, counts)
    expected = _coco("segm", _of_mask(found), scores, counts, _of_mask(true), counts)
    assert 0.1 < expected[0] < 0.9
    np.testing.assert_allclose([precisions.mean(), precisions[0], precisions[5]], expected, atol=1e-4)


def test_average_precision_by_hand():
    ious = np.array([[[0.9, 0.0], [0.0, 0.6]], [[0.0, 0.0], [0.7, 0.0]]])
    scores = np.array([[0.9, 0.3], [0.8, 0.7]])
    # In the order of scores: right, wrong, right, right; of four true objects.
    (precision,) = detection.average_precision(ious, scores, [2, 2], [2, 2], [0.5])
    expected = (26 * 1.0 + 50 * 0.75) / 101  # recall 0 to 0.25, then to 0.75, then never
    assert precision == pytest.approx(expected)


def test_without_true_objects_there_is_no_precision_and_without_found_ones_it_is_zero():
    nothing = detection.average_precision(np.zeros((2, 3, 0)), np.zeros((2, 3)), [1, 2], [0, 0], [0.5])
    assert np.isnan(nothing).all()
    missed = detection.average_precision(np.zeros((2, 0, 3)), np.zeros((2, 0)), [0, 0], [1, 2], [0.5])
    assert missed.tolist() == [0.0]


def test_right_objects_are_as_many_as_can_be():
    # Taking the largest IoU first leaves the second found object without one.
    ious = np.array([[[0.8, 0.6], [0.7, 0.0]], [[0.9, 0.9], [0.9, 0.9]]])
    assert detection.right_objects(ious, [2, 1], [2, 2]) == 3
    assert detection.right_objects(ious, [2, 1], [2, 2], threshold=0.75) == 2
