"""What every rule has, what a rule of one's own gets for free, and gin."""

import subprocess
import sys

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
from asr_tf.constraints.base import ink

RULES = [
    *(counts((1, 3), ramp_steps=(2, 4)) for counts in (CountInSet, AggregateCount, PriorCountInSet)),
    SizeInterval(5, 9.5, ramp_steps=(2, 4)),
    TightWindows(ink=0.3, ramp_steps=(2, 4)),
    SharedSize(slack_px=2, ramp_steps=(2, 4)),
    InsideCanvas(tolerance_px=0.5, ramp_steps=(2, 4)),
    DisjointBoxes(strength=3, ramp_steps=[2, 4]),
    DisjointObjects(ramp_steps=(2, 4)),
]
OF_EVERY_RULE = pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.name)


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


@OF_EVERY_RULE
def test_every_rule_can_come_gradually(rule):
    np.testing.assert_allclose(rule.strength_at(tf.constant(3)), 0.5 * rule.strength)


@OF_EVERY_RULE
def test_every_rule_can_be_made_again(rule):
    config = rule.get_config()
    assert {"strength", "ramp_steps"} <= {*config}
    again = type(rule)(**config)
    assert again.get_config() == config and again.name == rule.name
    assert again.__dict__ == rule.__dict__


def test_configs_hold_what_was_given():
    assert RULES[0].get_config() == {"counts": (1, 3), "strength": 10.0, "ramp_steps": (2, 4)}
    assert RULES[3].get_config() == {"low_px": 5.0, "high_px": 9.5, "strength": 20.0, "ramp_steps": (2, 4)}
    assert TightWindows(ink=0.3).get_config() == {"ink": 0.3, "strength": 2.0, "ramp_steps": (0, 0)}
    assert NearCentre(3).get_config() == {"strength": 3.0, "ramp_steps": (0, 0)}


def test_ink_is_the_brightest_channel():
    pixels = np.random.default_rng(0).uniform(size=(2, 4, 5, 3))
    np.testing.assert_array_equal(ink(tf.constant(pixels)), pixels.max(-1))
    np.testing.assert_array_equal(ink(tf.constant(pixels[..., :1])), pixels[..., 0])


def test_sides_are_in_pixels_of_the_canvas():
    boxes = tf.constant([[[0.1, 0.2, 0.6, 0.45], [0.0, 0.0, 1.5, 0.75]]])  # square on a canvas of 20 x 40
    np.testing.assert_allclose(SceneStatistics(None, None, boxes, (20, 40)).sides_px(), [[10.0, 30.0]], rtol=1e-6)


@pytest.mark.parametrize("size", [(), (3,), (3, 2)])
def test_batch_mean_is_over_the_images(size):
    values = np.random.default_rng(0).normal(size=(5, *size))
    statistics = SceneStatistics(None, None, None, (50, 50))
    for compute in (statistics.batch_mean, tf.function(statistics.batch_mean, jit_compile=True)):
        np.testing.assert_allclose(compute(tf.constant(values)), values.mean(0), rtol=1e-9)


_TWO_REPLICAS = """
import tensorflow as tf
tf.config.set_logical_device_configuration(
    tf.config.list_physical_devices("CPU")[0], [tf.config.LogicalDeviceConfiguration()] * 2
)
from asr_tf.constraints import SceneStatistics
strategy = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
values = strategy.experimental_distribute_values_from_function(
    lambda context: tf.constant([[1.0, 10.0], [3.0, 30.0]]) + 4.0 * context.replica_id_in_sync_group
)
@tf.function
def run():
    return strategy.run(lambda part: SceneStatistics(None, None, None, (50, 50)).batch_mean(part), (values,))
print([part.numpy().tolist() for part in strategy.experimental_local_results(run())])
"""


def test_batch_mean_is_over_the_images_of_all_replicas():
    process = subprocess.run([sys.executable, "-c", _TWO_REPLICAS], capture_output=True, text=True)
    assert process.returncode == 0, process.stderr
    assert process.stdout.splitlines()[-1] == "[[4.0, 22.0], [4.0, 22.0]]"


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
    assert count_in_set.get_config() == {"counts": (1, 3), "strength": 5.0, "ramp_steps": (0, 0)}


def test_gin_says_which_value_is_missing():
    gin.parse_config("collect.rules = [@CountInSet()]")
    with pytest.raises(RuntimeError, match=r"(?s)CountInSet.*counts"):
        collect()
