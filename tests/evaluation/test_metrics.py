"""Metrics against hand-computed values and brute force."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest

from asr_tf.evaluation import metrics


def _random_boxes(rng: np.random.Generator, *shape: int) -> np.ndarray:
    low = rng.uniform(0.0, 0.6, (*shape, 2))
    return np.concatenate([low, low + rng.uniform(0.1, 0.5, (*shape, 2))], axis=-1)


class _Rule:
    """A rule whose answer is given."""

    def __init__(self, name, answer):
        self.name = name
        self._answer = answer

    def broken(self, scenes):
        return None if self._answer is None else np.asarray(self._answer)


def test_iou_by_hand():
    boxes_a = [[0.0, 0.0, 0.4, 0.4], [0.0, 0.0, 0.0, 0.0]]
    boxes_b = [
        [0.0, 0.0, 0.4, 0.4],
        [0.2, 0.2, 0.6, 0.6],
        [0.4, 0.0, 0.8, 0.4],
        [0.1, 0.1, 0.3, 0.2],
        [0.0, 0.0, 0.0, 0.0],
    ]
    expected = [[1.0, 0.04 / 0.28, 0.0, 0.02 / 0.16, 0.0], [0.0] * 5]
    np.testing.assert_allclose(metrics.box_iou(boxes_a, boxes_b), expected, atol=1e-12)


def test_iou_of_a_box_with_itself_is_exactly_one():
    boxes = _random_boxes(np.random.default_rng(0), 500, 1).astype(np.float32)
    assert (metrics.box_iou(boxes, boxes) == 1.0).all()


def test_iou_beyond_the_canvas_is_not_cut_off():
    np.testing.assert_allclose(
        metrics.box_iou([[-0.5, 0.0, 0.5, 1.0]], [[0.0, 0.0, 0.5, 1.0]]), [[0.5]]
    )


def test_matching_equals_brute_force_over_permutations():
    rng = np.random.default_rng(1)
    num_scenes, most = 60, 4
    inferred, true = _random_boxes(rng, num_scenes, most), _random_boxes(rng, num_scenes, most)
    inferred_counts = rng.integers(0, most + 1, num_scenes)
    true_counts = rng.integers(0, most + 1, num_scenes)
    matching = metrics.match_boxes(inferred, inferred_counts, true, true_counts)
    scores = []
    for scene in range(num_scenes):
        ious = metrics.box_iou(inferred[scene], true[scene])
        few, many = sorted((int(inferred_counts[scene]), int(true_counts[scene])))
        if inferred_counts[scene] > true_counts[scene]:
            ious = ious.T
        best = max(
            sum(ious[row, column] for row, column in enumerate(columns))
            for columns in itertools.permutations(range(many), few)
        )
        np.testing.assert_allclose(matching.ious[scene].sum(), best, atol=1e-12)
        assert (matching.indices[scene] >= 0).sum() == few
        scores.append(best / many if many else 1.0)
    np.testing.assert_allclose(
        metrics.mean_iou(inferred, inferred_counts, true, true_counts), np.mean(scores)
    )


def test_matching_is_not_greedy():
    true = [[[0.0, 0.0, 1.0, 0.4], [0.0, 0.3, 1.0, 0.7]]]
    # The first box overlaps the second truth most, but the second has nowhere else to go.
    inferred = [[[0.0, 0.18, 1.0, 0.58], [0.0, 0.4, 1.0, 0.8]]]
    assert metrics.match_boxes(inferred, [2], true, [2]).indices.tolist() == [[0, 1]]


def test_rows_beyond_the_count_do_not_matter():
    box = [0.1, 0.1, 0.5, 0.5]
    other = [0.6, 0.6, 0.9, 0.9]
    matching = metrics.match_boxes([[other, box]], [1], [[box, other]], [1])
    assert matching.indices.tolist() == [[0, -1]]
    assert matching.ious.tolist() == [[0.0, 0.0]]


def test_mean_iou_divides_by_the_larger_count():
    box, half, absent = [0.0, 0.0, 1.0, 1.0], [0.0, 0.0, 0.5, 1.0], [0.0] * 4
    inferred = [[box, absent], [half, box], [absent, absent], [box, half]]
    true = [[box, half], [box, absent], [absent, absent], [absent, absent]]
    # Missed one of two; surplus one of two; rightly empty; all surplus.
    assert metrics.mean_iou(inferred, [1, 2, 0, 2], true, [2, 1, 0, 0]) == pytest.approx(
        (0.5 + 0.5 + 1.0 + 0.0) / 4
    )


def test_mean_iou_takes_more_steps_than_objects():
    inferred = np.zeros((1, 5, 4))
    inferred[0, 0] = [0.0, 0.0, 0.5, 0.5]
    assert metrics.mean_iou(inferred, [1], inferred[:, :1], [1]) == 1.0


def test_boxes_that_are_not_finite_score_nothing():
    box = [0.0, 0.0, 1.0, 1.0]
    assert metrics.mean_iou([[[np.nan] * 4, box]], [2], [[box, box]], [2]) == 0.5


def test_precision_and_recall_by_hand():
    box = [0.0, 0.0, 1.0, 1.0]
    inferred = [[box, [0.0, 0.0, 0.3, 0.3]], [[0.0, 0.0, 0.6, 1.0], [0.0] * 4]]
    true = [[box, [0.0] * 4, [0.0] * 4], [box, [0.8, 0.8, 1.0, 1.0], box]]
    scores = metrics.precision_recall(inferred, [2, 1], true, [1, 3])
    assert scores["thresholds"] == [0.5, 0.55, 0.6, 0.65, 0.7, 0.75, 0.8, 0.85, 0.9, 0.95, 1.0]
    np.testing.assert_allclose(scores["precision"], [2 / 3] * 3 + [1 / 3] * 8)
    np.testing.assert_allclose(scores["recall"], [2 / 4] * 3 + [1 / 4] * 8)


def test_precision_without_boxes_is_not_a_number():
    nothing = np.zeros((2, 1, 4))
    scores = metrics.precision_recall(nothing, [0, 0], nothing, [0, 1], thresholds=[0.5])
    assert math.isnan(scores["precision"][0])
    assert scores["recall"] == [0.0]


def test_counts_by_hand():
    assert metrics.count_accuracy([1, 3, 2, 0], [1, 3, 3, 1]) == 0.5
    confusion = metrics.count_confusion([1, 3, 2, 0, 3], [1, 3, 3, 1, 3], 4, 3)
    expected = np.zeros((4, 5), int)
    expected[1, 1] = expected[3, 2] = expected[1, 0] = 1
    expected[3, 3] = 2
    np.testing.assert_array_equal(confusion, expected)


def test_broken_rules_names_each_rule():
    rules = [
        _Rule("count", [True, False, False, False]),
        _Rule("aggregate", None),
        _Rule("overlap", [True, True, False, False]),
        _Rule("overlap", [True, True, True, True]),
    ]
    found = metrics.broken_rules(rules, None)
    fractions = {name: float(broken.mean()) for name, broken in found.items()}
    assert fractions == {"count": 0.25, "overlap": 0.5, "overlap_2": 1.0}


def test_ink_boxes_are_tight_on_an_oblong_canvas():
    objects = np.zeros((1, 4, 20, 40, 1), np.float32)
    objects[0, 0, 3:8, 10:30] = 0.3
    objects[0, 0, 2, 5] = 0.05  # halo, under a quarter of 0.3
    objects[0, 1, :, :] = 1.0
    objects[0, 2, 4, 4] = 0.01  # nothing that can be seen
    objects[0, 3, 4:9, 4:9] = 1.0  # absent
    boxes = metrics.ink_boxes_of_objects(objects, [3])
    assert boxes.dtype == np.float32
    expected = [[3 / 20, 10 / 40, 8 / 20, 30 / 40], [0, 0, 1, 1], [0] * 4, [0] * 4]
    np.testing.assert_allclose(boxes[0], expected, atol=1e-6)


@pytest.mark.parametrize("colour", [(1.0, 0.0, 0.0), (0.0, 0.0, 0.06), (0.3, 0.4, 0.2)])
def test_ink_of_a_coloured_object_is_that_of_its_largest_channel(colour):
    objects = np.zeros((1, 1, 20, 40, 3), np.float32)
    objects[0, 0, 3:8, 10:30] = colour
    boxes = metrics.ink_boxes_of_objects(objects, [1])
    np.testing.assert_allclose(boxes[0, 0], [3 / 20, 10 / 40, 8 / 20, 30 / 40], atol=1e-6)


@pytest.mark.parametrize("channels", [1, 3])
def test_ink_boxes_equal_a_loop_over_pixels(channels):
    rng = np.random.default_rng(2)
    # Most pixels are faint in every channel, some are bright in one.
    objects = 0.2 * rng.uniform(size=(4, 3, 7, 9, channels)) * (rng.uniform(size=(4, 3, 7, 9, channels)) < 0.3)
    bright = rng.uniform(size=objects.shape) < 0.03
    objects[bright] = rng.uniform(0.5, 1.0, bright.sum())
    objects[3, 2] *= 0.01
    counts = [3, 0, 2, 3]
    expected = np.zeros((4, 3, 4))
    for scene, count in enumerate(counts):
        for step in range(count):
            brightness = [[max(pixel) for pixel in row] for row in objects[scene, step].tolist()]
            brightest = max(max(row) for row in brightness)
            ink = [(y, x) for y in range(7) for x in range(9) if brightness[y][x] > 0.25 * brightest]
            if brightest > 0.05:
                (top, bottom), (left, right) = ((min(i), max(i) + 1) for i in zip(*ink, strict=True))
                expected[scene, step] = [top / 7, left / 9, bottom / 7, right / 9]
    np.testing.assert_allclose(metrics.ink_boxes_of_objects(objects, counts), expected, atol=1e-6)
    assert not expected[3, 2].any() and expected[0].any(axis=-1).all()


def test_grey_objects_in_three_channels_have_the_ink_of_one():
    objects = np.random.default_rng(3).uniform(size=(5, 2, 6, 8, 1)).astype(np.float32) ** 8
    counts = [2, 1, 2, 0, 2]
    np.testing.assert_array_equal(
        metrics.ink_boxes_of_objects(objects.repeat(3, axis=-1), counts),
        metrics.ink_boxes_of_objects(objects, counts),
    )


def test_bad_input_is_named():
    boxes = np.zeros((2, 3, 4))
    with pytest.raises(ValueError, match=r"true_boxes and true_counts .* \[2, 3, 4\] and \[3\]"):
        metrics.match_boxes(boxes, [1, 1], boxes, [1, 1, 1])
    with pytest.raises(ValueError, match=r"inferred_counts must lie in 0\.\.3.* 1 to 4"):
        metrics.mean_iou(boxes, [1, 4], boxes, [1, 1])
    with pytest.raises(ValueError, match="2 inferred and 1 true scenes"):
        metrics.mean_iou(boxes, [1, 1], boxes[:1], [1])
    with pytest.raises(ValueError, match=r"inferred_counts must lie in 0\.\.3"):
        metrics.count_confusion([4], [1], 3, 3)
    with pytest.raises(ValueError, match=r"one shape \[N\]"):
        metrics.count_accuracy([1, 2], [1])
    for shape in ((1, 2, 5, 5), (1, 2, 5, 5, 4)):
        with pytest.raises(ValueError, match=r"objects must have shape \[N, T, H, W, 1\] or \[N, T, H, W, 3\], got"):
            metrics.ink_boxes_of_objects(np.zeros(shape), [1])
    with pytest.raises(ValueError, match="threshold must lie between 0 and 1"):
        metrics.ink_boxes_of_objects(np.zeros((1, 2, 5, 5, 1)), [1], threshold=1.0)
