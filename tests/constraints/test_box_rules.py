"""The rules about boxes against slow loops over finished scenes, and their gradients against finite differences."""

import itertools

import numpy as np
import pytest
import tensorflow as tf

from asr_tf.constraints import (
    AggregateCount,
    CountInSet,
    DisjointBoxes,
    InsideCanvas,
    SceneStatistics,
    SharedSize,
    SizeInterval,
)
from asr_tf.distributions import PresenceCode

HEIGHT, WIDTH = CANVAS = (40, 60)
BOX_RULES = [DisjointBoxes(), InsideCanvas(), SharedSize(slack_px=3.0), SizeInterval(9.0, 12.0)]
ALL_RULES = [*BOX_RULES, CountInSet((1, 3)), AggregateCount((1, 3))]


def name(rule):
    return rule.name


def boxes_of(centres_px, sides_px):
    """[..., T, 4] from centres (y, x) and sides in pixels."""
    half = np.asarray(sides_px)[..., np.newaxis] / 2.0
    low, high = np.asarray(centres_px) - half, np.asarray(centres_px) + half
    return np.concatenate([low, high], -1) / np.array([HEIGHT, WIDTH, HEIGHT, WIDTH])


def random_boxes(seed=0, number=6, num_steps=4):
    rng = np.random.default_rng(seed)
    centres = rng.uniform([0.0, 0.0], [HEIGHT, WIDTH], (number, num_steps, 2))
    return boxes_of(centres, rng.uniform(6.0, 20.0, (number, num_steps)))


def statistics(boxes, logits):
    code = PresenceCode(tf.convert_to_tensor(logits, tf.float64))
    return SceneStatistics(code.presence_probs(), code.count_probs(), tf.convert_to_tensor(boxes), CANVAS)


def finished_penalty(rule, boxes):
    """What a scene costs in which all of the given boxes [n, 4] are there, by loops."""
    ymin, xmin, ymax, xmax = (boxes * [HEIGHT, WIDTH, HEIGHT, WIDTH]).T
    side, total = ymax - ymin, 0.0
    for i, j in itertools.permutations(range(len(boxes)), 2):
        shared_y = min(ymax[i], ymax[j]) - max(ymin[i], ymin[j])
        shared_x = min(xmax[i], xmax[j]) - max(xmin[i], xmin[j])
        if isinstance(rule, DisjointBoxes):
            # The depth of the published formula is that of the shared rectangle, unless one box is within another.
            depth = (side[i] + side[j]) / 2 - max(
                abs(ymin[i] + ymax[i] - ymin[j] - ymax[j]) / 2, abs(xmin[i] + xmax[i] - xmin[j] - xmax[j]) / 2
            )
            assert (depth > 0) == (min(shared_x, shared_y) > 0)
            total += max(depth, 0.0)
        if isinstance(rule, SharedSize) and i < j:
            total += max(abs(side[i] - side[j]) - 3.0, 0.0)
    for i in range(len(boxes)):
        if isinstance(rule, InsideCanvas):
            total += max(-ymin[i], 0) + max(-xmin[i], 0) + max(ymax[i] - HEIGHT, 0) + max(xmax[i] - WIDTH, 0)
        if isinstance(rule, SizeInterval):
            total += max(9.0 - side[i], side[i] - 12.0, 0.0)
    return total


@pytest.mark.parametrize("rule", BOX_RULES, ids=name)
def test_penalty_is_the_expectation_over_the_count(rule):
    """The unary code makes the weights of pairs exact: E_q[penalty of the scene with n objects]."""
    boxes = random_boxes()
    logits = np.random.default_rng(1).normal(0.5, 2.0, boxes.shape[:2])
    count_probs = PresenceCode(tf.constant(logits)).count_probs().numpy()
    expected = [
        sum(p * finished_penalty(rule, scene[:k]) for k, p in enumerate(probs))
        for scene, probs in zip(boxes, count_probs, strict=True)
    ]
    assert max(expected) > 1.0
    np.testing.assert_allclose(rule.penalty(statistics(boxes, logits)), expected, rtol=1e-9)


@pytest.mark.parametrize("rule", BOX_RULES, ids=name)
def test_absent_objects_cost_nothing_and_pull_nothing(rule):
    boxes = tf.Variable(random_boxes())
    logits = np.full((6, 4), -800.0)
    logits[:, 0] = 800.0  # one object, surely
    with tf.GradientTape() as tape:
        penalty = rule.penalty(statistics(boxes, logits))
    alone = [finished_penalty(rule, scene[:1]) for scene in boxes.numpy()]
    np.testing.assert_allclose(penalty, alone, rtol=1e-9, atol=1e-12)
    gradient = tape.gradient(penalty, boxes)
    np.testing.assert_array_equal(gradient[:, 1:], np.zeros((6, 3, 4)))


@pytest.mark.parametrize("rule", ALL_RULES, ids=name)
def test_gradients_against_finite_differences(rule):
    """With respect to the boxes and to the logits of presence, through the weights."""
    boxes, logits = random_boxes(seed=3, number=2), np.random.default_rng(4).normal(0.0, 1.0, (2, 4))
    point = np.concatenate([boxes.reshape(-1), logits.reshape(-1)])

    def value(flat):
        given = statistics(tf.reshape(flat[:32], boxes.shape), tf.reshape(flat[32:], logits.shape))
        return tf.reduce_sum(rule.penalty(given))

    flat = tf.Variable(point)
    with tf.GradientTape() as tape:
        total = value(flat)
    exact = tf.convert_to_tensor(tape.gradient(total, flat)).numpy()
    step = 1e-6
    numeric = [
        (value(tf.constant(point + step * unit)) - value(tf.constant(point - step * unit))) / (2.0 * step)
        for unit in np.eye(len(point))
    ]
    assert np.abs(exact).max() > 1e-3
    np.testing.assert_allclose(exact, numeric, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("rule", "centres", "sides", "expected_px", "broken"),
    [
        (DisjointBoxes(), [(10, 10), (10, 20)], (10, 10), 0.0, False),  # they touch
        (DisjointBoxes(), [(10, 10), (10, 19.5)], (10, 10), 1.0, False),  # half a pixel, twice; within the tolerance
        (DisjointBoxes(), [(10, 10), (14, 17)], (10, 10), 6.0, True),  # 3 px in x, 6 in y: the smaller, twice
        (DisjointBoxes(), [(10, 10), (10, 10)], (10, 10), 20.0, True),  # the same place
        (InsideCanvas(), [(10, 10), (35, 55)], (10, 10), 0.0, False),
        (InsideCanvas(), [(4.5, 10), (36, 56)], (10, 10), 2.5, False),  # 0.5, and 1 in each direction
        (InsideCanvas(), [(10, 10), (38, 55)], (10, 10), 3.0, True),
        (SharedSize(), [(10, 10), (30, 30)], (10, 13), 0.0, False),
        (SharedSize(), [(10, 10), (30, 30)], (10, 15), 2.0, True),
        (SizeInterval(11.0, 15.0), [(10, 10), (30, 30)], (10, 16), 2.0, True),
    ],
)
def test_by_hand(rule, centres, sides, expected_px, broken):
    boxes = boxes_of([centres], [sides])
    np.testing.assert_allclose(rule.penalty(statistics(boxes, [[900.0, 900.0]])), [expected_px], atol=1e-9)
    assert rule.broken(np.array([2]), boxes, CANVAS).tolist() == [broken]
    # The same scene with its second object absent, and one that nothing is known of.
    assert rule.broken(np.array([0]), boxes, CANVAS).tolist() == [False]
    assert rule.broken(np.array([2]), None, CANVAS) is None


def test_pair_probs_are_those_of_the_later_step():
    probs = tf.constant([[0.9, 0.5, 0.2]])
    pairs = SceneStatistics(probs, None, None, CANVAS).pair_probs
    np.testing.assert_allclose(pairs, [[[0, 0, 0], [0.5, 0, 0], [0.2, 0.2, 0]]])


@pytest.mark.parametrize("make", [lambda: DisjointBoxes(tolerance_px=-1.0), lambda: InsideCanvas(tolerance_px=-1.0),
                                  lambda: SharedSize(slack_px=-1.0)])
def test_negative_slack_is_refused(make):
    with pytest.raises(ValueError, match=r"(tolerance|slack)_px must be between 0.0 and inf, got -1.0"):
        make()
