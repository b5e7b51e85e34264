"""The package's docstring example, what a rule of one's own gets for free, and gin."""


import gin
import numpy as np
import pytest
import tensorflow as tf

from asr_tf.constraints import AggregateCount, Constraint, CountInSet, SceneStatistics


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
