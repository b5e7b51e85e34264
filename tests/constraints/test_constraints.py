"""The package's docstring example, what a rule of one's own gets for free, and gin."""


import gin
import numpy as np
import pytest
import tensorflow as tf

from asr_tf.constraints import (
    AggregateCount,
    Constraint,
    CountInSet,
    DisjointBoxes,
    DisjointObjects,
    InsideCanvas,
    PriorCountInSet,
    SceneStatistics,
    SharedSize,
    SizeInterval,
    TightWindows,
)


class NearCentre(Constraint):
    """A rule with nothing but a penalty."""

    def penalty(self, statistics):
        centre = (statistics.boxes[..., :2] + statistics.boxes[..., 2:]) / 2.0
        return tf.reduce_sum(tf.abs(centre - 0.5), axis=[-1, -2])


@gin.configurable
def collect(rules=()):
    return rules


@pytest.fixture(autouse=True)
def clean_gin():
    yield
    gin.clear_config()


def test_a_rule_needs_only_a_penalty():
    rule = NearCentre(strength=2)
    assert rule.name == "near_centre"
    assert rule.strength == 2.0
    rule.check(num_steps=1)
    assert rule.broken(np.array([1]), None, (50, 50)) is None
    statistics = SceneStatistics(
        tf.ones([1, 1]), tf.constant([[0.0, 1.0]]), tf.constant([[[0.0, 0.0, 0.5, 1.0]]]), (50, 50)
    )
    np.testing.assert_allclose(rule.penalty(statistics), [0.25])
    with pytest.raises(TypeError, match="abstract"):
        Constraint()


@pytest.mark.parametrize("strength", [-1.0, float("nan"), float("inf")])
def test_strength_out_of_range(strength):
    with pytest.raises(ValueError, match=r"NearCentre.strength must be a finite number, 0 or more"):
        NearCentre(strength)


def test_strength_of_another_type():
    with pytest.raises(TypeError, match=r"NearCentre.strength must be a number, got 'much'"):
        NearCentre("much")


def test_the_strength_grows_between_two_steps():
    rule = NearCentre(strength=8.0, ramp_steps=(1_000, 3_000))
    steps = [0, 1_000, 1_500, 2_000, 3_000, 50_000]
    found = [float(rule.strength_at(tf.constant(step, tf.int64))) for step in steps]
    np.testing.assert_allclose(found, [0.0, 0.0, 2.0, 4.0, 8.0, 8.0])
    assert NearCentre(strength=8.0).strength_at(tf.constant(0, tf.int64)) == 8.0


@pytest.mark.parametrize(
    "steps", [(3_000, 1_000), (5, 5), (1_000, 0), (-1, 5), (1.5, 3), (1_000,), (1, 2, 3), "12", 1_000, None]
)
def test_bad_steps_of_a_ramp(steps):
    with pytest.raises(ValueError, match=r"^NearCentre.ramp_steps(\[[01]\])? must be .*, got .*\.$"):
        NearCentre(1.0, steps)


@pytest.mark.parametrize(
    "rule",
    [
        *(counts((1, 3), ramp_steps=(2, 4)) for counts in (CountInSet, AggregateCount, PriorCountInSet)),
        SizeInterval(5.0, 9.0, ramp_steps=(2, 4)),
        *(rule(ramp_steps=(2, 4)) for rule in (TightWindows, SharedSize, InsideCanvas, DisjointBoxes, DisjointObjects)),
    ],
    ids=lambda rule: rule.name,
)
def test_every_rule_can_come_gradually(rule):
    np.testing.assert_allclose(rule.strength_at(tf.constant(3)), 0.5 * rule.strength)


def test_absence_probs_keep_small_probabilities():
    counts = tf.constant([[1e-12, 2e-12, 1.0]])
    statistics = SceneStatistics(tf.ones([1, 2]), counts, tf.zeros([1, 2, 4]), (50, 50))
    np.testing.assert_allclose(statistics.absence_probs, [[1e-12, 3e-12]], rtol=1e-6)


def test_rules_are_declared_in_gin():
    gin.parse_config(
        """
        RULES = [@CountInSet(), @AggregateCount()]
        CountInSet.counts = (1, 3)
        CountInSet.strength = 5.0
        AggregateCount.counts = (1, 3)
        collect.rules = %RULES
        """
    )
    count_in_set, aggregate = collect()
    assert isinstance(count_in_set, CountInSet) and isinstance(aggregate, AggregateCount)
    assert (count_in_set.counts, count_in_set.strength) == ((1, 3), 5.0)
    assert (aggregate.counts, aggregate.strength) == ((1, 3), 100.0)
    assert [rule.name for rule in (count_in_set, aggregate)] == ["count_in_set", "aggregate_count"]


def test_gin_says_which_value_is_missing():
    gin.parse_config("collect.rules = [@CountInSet()]")
    with pytest.raises(RuntimeError, match=r"(?s)CountInSet.*counts"):
        collect()
