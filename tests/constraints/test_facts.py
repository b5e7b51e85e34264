"""Facts that can't hold together: refused in one line, with the arithmetic; facts that can: passed."""

import re

import numpy as np
import pytest

from asr_tf.constraints import (
    AggregateCount,
    AtLeastApart,
    AtMost,
    CountDistribution,
    CountInSet,
    DisjointBoxes,
    LeftOf,
    SizeInterval,
    check_rules,
)


@pytest.mark.parametrize(
    ("rules", "exact", "message"),
    [
        (
            [SizeInterval((30, 40)), CountInSet((1, 3)), DisjointBoxes()],
            None,
            "3 objects (CountInSet.counts=(1, 3)) of at least 30 px (DisjointBoxes.slack_px=1) have no room on 50 x 50 "
            "px: floor(49 / 29) * floor(49 / 29) = 1.",
        ),
        (
            [SizeInterval((12, 14)), AtLeastApart(27, slack_px=0)],
            4,
            "4 objects (ASRModel.exact_count=4) of at least 12 px (AtLeastApart.distance_px=27 with slack_px=0) have "
            "no room on 50 x 50 px: floor(77 / 39) * floor(77 / 39) = 1.",
        ),
        (
            [CountInSet((1, 3)), AggregateCount((1, 2))],
            None,
            "CountInSet.counts=(1, 3) and AggregateCount.counts=(1, 2) can't both hold: scenes of 2 objects are none "
            "in the first and a share of 0.5 in the second.",
        ),
        ([CountInSet((1, 3)), CountInSet((2,))], None, "CountInSet.counts=(1, 3) and CountInSet.counts=(2,) can't"),
        ([CountInSet((1, 3))], 2, "ASRModel.exact_count=2 and CountInSet.counts=(1, 3) can't hold together: the"),
        ([AtMost(1), CountInSet((2, 3))], None, "AtMost.count=1 and CountInSet.counts=(2, 3) can't hold"),
        ([AtMost(2), AggregateCount((1, 3))], None, "AtMost.count=2 and AggregateCount.counts=(1, 3) can't"),
        ([AggregateCount((1, 3))], 3, "ASRModel.exact_count=3 and AggregateCount.counts=(1, 3) can't"),
        (
            [AggregateCount((1, 3)), CountDistribution({1: 0.25, 3: 0.75})],
            None,
            "can't both hold: 1 objects are a share of 0.5 of the scenes in the first and of 0.25 in the second.",
        ),
        ([SizeInterval((10, 12)), SizeInterval((13, 15))], None, "can't both hold: 13 > 12."),
        ([SizeInterval((51, 60))], None, "SizeInterval.sides_px=(51.0, 60.0) cannot hold on a canvas of 50 x 50 px"),
        ([CountInSet((1, 5))], None, "CountInSet.counts=(1, 5) cannot hold with num_steps=4"),
        ([LeftOf(3, 4)], None, "LeftOf names step 4, but with num_steps=4"),
    ],
)
def test_contradictions(rules, exact, message):
    with pytest.raises(ValueError, match=re.escape(message)) as error:
        check_rules(rules, 4, (50, 50), exact)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("rules", "exact"),
    [
        ([], None),
        ([CountInSet((1, 3)), AggregateCount((1, 3)), AtMost(3), SizeInterval((20, 25)), DisjointBoxes()], None),
        ([CountInSet((1, 2, 3)), AggregateCount((1, 3))], None),  # two objects may be there, and never are
        ([CountInSet((1, 3)), AtMost(2), SizeInterval((30, 40)), DisjointBoxes()], None),  # one object, then
        ([CountInSet((3,), applies_to="samples"), CountInSet((1, 2))], None),  # of different scenes
        ([AggregateCount((3,)), CountInSet((3,))], 3),
        ([SizeInterval((30, 60)), DisjointBoxes(), AtMost(3)], None),  # nothing says that there are several
        ([DisjointBoxes(), CountInSet((4,))], None),  # of any size
        ([SizeInterval((12, 14)), AtLeastApart(26, slack_px=0)], 4),  # 12 + 26 + 12 = 50
    ],
)
def test_facts_that_can_hold(rules, exact):
    check_rules(rules, 4, (50, 50), exact)


def test_what_is_no_rule():
    with pytest.raises(TypeError, match="ASRModel.constraints must hold Constraint objects, got 'tight'"):
        check_rules(["tight"], 4, (50, 50))


def test_a_lone_object_needs_no_room_beside_it():
    """Where objects are larger than the canvas, which isn't for these rules to say."""
    check_rules([DisjointBoxes(), CountInSet((1,))], 4, (50, 50), sides_px=(51.5, 60.0))
    with pytest.raises(ValueError, match=r"2 objects \(.*\) of at least 51.5 px \(.*\) have no room on 50 x 50 px"):
        check_rules([DisjointBoxes(), CountInSet((2,))], 4, (50, 50), sides_px=(51.5, 60.0))


def test_room_that_is_there_to_the_last_pixel_is_not_lost_to_rounding():
    """Of (22 - 2.6) / (12.3 - 2.6), the 2 comes out as 1.9999999999999996."""
    rules = [SizeInterval((12.3, 14)), DisjointBoxes(slack_px=2.6)]
    check_rules(rules, 5, (22, 22), exact_count=4)
    with pytest.raises(ValueError, match=re.escape("floor(19.4 / 9.7) * floor(19.4 / 9.7) = 4.")):
        check_rules(rules, 5, (22, 22), exact_count=5)


@pytest.mark.parametrize("slack", [0.0, 1.0, 3.0])
def test_room_is_never_underestimated(slack):
    """Squares laid out in rows and columns, each next to the other less the slack, are as many as there is room for."""
    rng = np.random.default_rng(0)
    for _ in range(200):
        side, height, width = rng.uniform(5.0, 20.0), *rng.integers(20, 60, 2)
        rows, columns = (int((size - side) / (side - slack) + 1e-9) + 1 for size in (height, width))
        rules = [SizeInterval((side, 60)), DisjointBoxes(slack_px=slack)]
        check_rules(rules, rows * columns, (height, width), rows * columns)
        with pytest.raises(ValueError, match="have no room"):
            check_rules(rules, rows * columns + 1, (height, width), rows * columns + 1)
