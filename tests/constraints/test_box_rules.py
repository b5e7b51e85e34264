"""The rules about boxes against slow loops over finished scenes, and their gradients against finite differences."""

import itertools

import numpy as np
import pytest
import tensorflow as tf

from asr_tf.constraints import (
    AggregateCount,
    Aligned,
    AtLeastApart,
    AtMost,
    CountDistribution,
    CountInSet,
    DisjointBoxes,
    InsideCanvas,
    LeftOf,
    SceneStatistics,
    SharedSize,
    SizeInterval,
)
from asr_tf.distributions import PresenceCode

HEIGHT, WIDTH = CANVAS = (40, 60)
BOX_RULES = [
    DisjointBoxes(),
    AtLeastApart(4.0, slack_px=0.5),
    InsideCanvas(),
    SharedSize(slack_px=3.0),
    SizeInterval((9.0, 12.0)),
    LeftOf(0, 2, slack_px=1.5),
    Aligned("rows", slack_px=2.0),
    Aligned("columns", slack_px=2.0),
]
COUNT_RULES = [CountInSet((1, 3)), AtMost(2), AggregateCount((1, 3)), CountDistribution({0: 0.1, 2: 0.6, 3: 0.3})]
ALL_RULES = [*BOX_RULES, *COUNT_RULES]


def name(rule):
    return f"{rule.name}_{getattr(rule, 'axis', '')}"


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
        if isinstance(rule, AtLeastApart) and i < j:
            apart = max(abs(ymin[i] + ymax[i] - ymin[j] - ymax[j]), abs(xmin[i] + xmax[i] - xmin[j] - xmax[j])) / 2
            total += max(4.0 - (apart - (side[i] + side[j]) / 2), 0.0)
        if isinstance(rule, LeftOf) and (i, j) == (0, 2):
            total += max((xmin[i] + xmax[i] - xmin[j] - xmax[j]) / 2 - 1.5, 0.0)
        if isinstance(rule, Aligned) and i < j:
            low, high = (ymin, ymax) if rule.axis == "rows" else (xmin, xmax)
            total += max(abs(low[i] + high[i] - low[j] - high[j]) / 2 - 2.0, 0.0)
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
    boxes, logits = random_boxes(seed=8, number=2), np.random.default_rng(4).normal(0.0, 1.0, (2, 4))
    point = np.concatenate([boxes.reshape(-1), logits.reshape(-1)])

    @tf.function
    def value(flat):
        given = statistics(tf.reshape(flat[:32], boxes.shape), tf.reshape(flat[32:], logits.shape))
        return tf.reduce_sum(rule.penalty(given))

    flat = tf.constant(point)
    with tf.GradientTape() as tape:
        tape.watch(flat)
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
        (SizeInterval((11.0, 15.0)), [(10, 10), (30, 30)], (10, 16), 2.0, True),
        (AtLeastApart(5.0), [(10, 10), (10, 25)], (10, 10), 0.0, False),  # 5 px between them
        (AtLeastApart(5.0), [(10, 10), (14, 24.5)], (10, 10), 0.5, False),  # 4.5 px; within the slack
        (AtLeastApart(5.0), [(10, 10), (14, 22)], (10, 10), 3.0, True),
        (AtLeastApart(5.0), [(10, 10), (14, 17)], (10, 10), 8.0, True),  # an overlap of 3 px
        (LeftOf(), [(10, 10), (30, 30)], (10, 10), 0.0, False),
        (LeftOf(), [(10, 30), (30, 10)], (10, 10), 20.0, True),
        (LeftOf(1, 0), [(10, 30), (30, 10)], (10, 10), 0.0, False),
        (LeftOf(slack_px=19.0), [(10, 30), (30, 10)], (10, 10), 1.0, True),
        (Aligned(), [(10, 30), (11, 10)], (10, 12), 0.0, False),
        (Aligned(), [(10, 30), (14, 10)], (10, 12), 3.0, True),
        (Aligned("columns"), [(10, 30), (30, 27)], (10, 12), 2.0, True),
    ],
)
def test_by_hand(rule, centres, sides, expected_px, broken):
    boxes = boxes_of([centres], [sides])
    np.testing.assert_allclose(rule.penalty(statistics(boxes, [[900.0, 900.0]])), [expected_px], atol=1e-9)
    assert rule.broken(SceneStatistics.of_finished([2], boxes, CANVAS)).numpy().tolist() == [broken]
    # The same scene with both objects absent, and one that nothing is known of.
    assert rule.broken(SceneStatistics.of_finished([0], boxes, CANVAS)).numpy().tolist() == [False]
    assert rule.broken(SceneStatistics.of_finished([2], None, CANVAS, num_steps=2)) is None


@pytest.mark.parametrize(
    ("rule", "low", "high"),
    [
        (DisjointBoxes(slack_px=2.0), (8, 14), (16, 22)),
        (InsideCanvas(slack_px=2.0), (8, 26), (16, 34)),
        (AtLeastApart(4.0, slack_px=2.0), (8, 18), (16, 26)),
    ],
    ids=lambda value: getattr(value, "name", None),
)
def test_what_is_at_the_slack_still_passes(rule, low, high):
    """Windows on one line, from `low` to `high`, on a canvas by which fractions are exact."""
    for beyond, expected in ((0.0, False), (-0.25 if isinstance(rule, (DisjointBoxes, AtLeastApart)) else 0.25, True)):
        ends = np.array([[low[0], high[0]], [low[1] + beyond, high[1] + beyond]])
        boxes = np.stack([[8.0, 8.0], ends[:, 0], [16.0, 16.0], ends[:, 1]], -1) / 32.0
        scenes = SceneStatistics.of_finished([2], boxes[np.newaxis], (32, 32))
        assert rule.broken(scenes).numpy().tolist() == [expected]


@pytest.mark.parametrize("rule", BOX_RULES, ids=name)
def test_broken_scenes_are_those_that_a_loop_finds(rule):
    """In a graph that XLA compiles, too; rules that have no slack of their own for it break by their penalty."""
    boxes = random_boxes(seed=5, number=60)
    counts = np.random.default_rng(6).integers(0, 5, 60)
    expected = [is_broken(rule, scene[:count]) for scene, count in zip(boxes, counts, strict=True)]
    assert 5 < sum(expected) < 55

    def broken(counts, boxes):
        return rule.broken(SceneStatistics.of_finished(counts, boxes, CANVAS))

    for compute in (broken, tf.function(broken, jit_compile=True)):
        np.testing.assert_array_equal(compute(tf.constant(counts), tf.constant(boxes)), expected)
    # What is asked of the posterior's likeliest scene.
    logits = np.where(np.arange(4) < counts[:, None], 5.0, -5.0)
    np.testing.assert_array_equal(rule.broken_probs(statistics(boxes, logits)), expected)


def is_broken(rule, boxes):
    """Whether a finished scene with all of these boxes [n, 4] breaks a rule, by loops."""
    if not isinstance(rule, (DisjointBoxes, AtLeastApart, InsideCanvas)):
        return finished_penalty(rule, boxes) > 1e-3
    low, high = boxes[:, :2] * [HEIGHT, WIDTH], boxes[:, 2:] * [HEIGHT, WIDTH]
    if isinstance(rule, InsideCanvas):
        return any((-x > 1.0).any() for x in low) or any((x - [HEIGHT, WIDTH] > 1.0).any() for x in high)
    for i, j in itertools.combinations(range(len(boxes)), 2):
        shared = np.minimum(high[i], high[j]) - np.maximum(low[i], low[j])
        if isinstance(rule, DisjointBoxes) and min(shared) > 1.0:
            return True
        if isinstance(rule, AtLeastApart) and max(-shared) < 3.5:
            return True
    return False


def test_pair_probs_are_those_of_the_later_step():
    probs = tf.constant([[0.9, 0.5, 0.2]])
    pairs = SceneStatistics(probs, None, None, CANVAS).pair_probs
    np.testing.assert_allclose(pairs, [[[0, 0, 0], [0.5, 0, 0], [0.2, 0.2, 0]]])


@pytest.mark.parametrize("cls", [DisjointBoxes, InsideCanvas, SharedSize, LeftOf, Aligned])
def test_negative_slack_is_refused(cls):
    with pytest.raises(ValueError, match=rf"{cls.__name__}.slack_px must be between 0.0 and inf, got -1.0"):
        cls(slack_px=-1.0)


def test_bad_relations():
    with pytest.raises(ValueError, match="LeftOf.first must be a whole number, 0 or more, got -1"):
        LeftOf(-1, 0)
    with pytest.raises(ValueError, match="LeftOf.first and LeftOf.second must be two different steps, got 1 twice"):
        LeftOf(1, 1)
    with pytest.raises(ValueError, match="LeftOf names step 3, but with num_steps=3 there are the steps 0 to 2"):
        LeftOf(0, 3).check(3, CANVAS)
    LeftOf(0, 2).check(3, CANVAS)
    with pytest.raises(ValueError, match=r"Aligned.axis='row' is unknown \(did you mean 'rows'\?\)"):
        Aligned("row")
    with pytest.raises(ValueError, match="AtLeastApart.distance_px must be a number above 0, got 0"):
        AtLeastApart(0)
