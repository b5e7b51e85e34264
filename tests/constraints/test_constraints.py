"""What every rule has, what a rule of one's own gets for free, and gin."""

import inspect
import subprocess
import sys

import gin
import numpy as np
import pytest
import tensorflow as tf

from asr_tf import constraints
from asr_tf.constraints import (
    AggregateCount,
    Aligned,
    AtLeastApart,
    AtMost,
    Constraint,
    CountDistribution,
    CountInSet,
    DisjointBoxes,
    DisjointObjects,
    InsideCanvas,
    LeftOf,
    SameAppearance,
    SceneStatistics,
    SharedSize,
    SizeInterval,
    TightWindows,
)
from asr_tf.constraints.statistics import ink

RULES = [
    *(counts((1, 3), tolerance=0.25) for counts in (CountInSet, AggregateCount)),
    AtMost(2, applies_to="both"),
    CountDistribution({1: 0.25, 3: 0.75}, strength=3),
    SizeInterval((5, 9.5), broken_share=0.25),
    TightWindows(ink=0.3, slack_px=1, broken_share=0.25),
    SharedSize(slack_px=2, applies_to="samples"),
    InsideCanvas(slack_px=0.5),
    DisjointBoxes(strength=3),
    DisjointObjects(slack_px=4, tolerance=0),
    AtLeastApart(3, slack_px=0.5),
    LeftOf(1, 0, slack_px=0.5),
    Aligned("columns", slack_px=0.5),
    SameAppearance(slack=0.2),
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
    rule = NearCentre(tolerance=2)
    assert rule.name == "near_centre"
    assert (rule.limit, rule.limit_unit, rule.strength) == (2.0, "px", None)
    assert (rule.start, rule.highest, rule.floor, NearCentre().limit) == (0.5, None, 1e-3, 0.5)
    rule.check(num_steps=1, canvas_size=(50, 50))
    boxes = tf.constant([[[0.0, 0.0, 0.5, 1.0]], [[0.25, 0.25, 0.75, 0.75]]])
    scenes = SceneStatistics.of_finished([1, 1], boxes, (50, 50))
    np.testing.assert_allclose(rule.penalty(scenes), [0.25, 0.0])
    assert rule.broken(scenes).numpy().tolist() == [True, False]
    assert rule.broken(scenes._replace(boxes=None)) is None
    np.testing.assert_array_equal(rule.measured(scenes, rule.penalty(scenes)), [0.25, 0.0])
    by_share = NearCentre(broken_share=0.1)
    assert (by_share.limit, by_share.limit_unit) == (0.1, "share of scenes")
    np.testing.assert_array_equal(by_share.measured(scenes, by_share.penalty(scenes)), [1.0, 0.0])
    with pytest.raises(TypeError, match="abstract"):
        Constraint()


def test_naming_a_rule_is_enough():
    limits = {type(rule): (rule.limit, rule.limit_unit) for rule in (
        CountInSet((1,)), AtMost(1), AggregateCount((1,)), DisjointBoxes(), AtLeastApart(1), TightWindows(),
        SizeInterval((1, 2)), SharedSize(), InsideCanvas(), DisjointObjects(),
    )}  # fmt: skip
    share = "share of scenes"
    assert limits == {
        CountInSet: (0.01, share),
        AtMost: (0.01, share),
        AggregateCount: (0.05, "nats"),
        DisjointBoxes: (0.03, share),
        AtLeastApart: (0.03, share),
        TightWindows: (1.2, "px"),
        SizeInterval: (0.2, "px"),
        SharedSize: (0.5, "px"),
        InsideCanvas: (0.2, "px"),
        DisjointObjects: (2.0, "pixels drawn twice"),
    }
    assert all(rule.start > 0.0 and rule.floor > 0.0 and rule.limit >= 0.0 for rule in RULES)


def test_what_is_given_goes_before_defaults():
    assert CountInSet((1,), tolerance=0.5).limit == 0.5 and not CountInSet((1,), tolerance=0.5).limits_share
    assert CountInSet((1,), tolerance=0.0).limit == 0.0
    assert SizeInterval((1, 2), broken_share=0.0).limit == 0.0 and SizeInterval((1, 2), broken_share=0.0).limits_share


@pytest.mark.parametrize("name", ["tolerance", "broken_share", "strength"])
@pytest.mark.parametrize("value", [-1.0, float("nan"), float("inf")])
def test_numbers_out_of_range(name, value):
    with pytest.raises(ValueError, match=rf"^NearCentre.{name} must be a finite number, 0 or more, got {value}\.$"):
        NearCentre(**{name: value})


@pytest.mark.parametrize("name", ["tolerance", "broken_share", "strength"])
@pytest.mark.parametrize("value", ["much", True, (1,)])
def test_numbers_of_another_type(name, value):
    with pytest.raises(TypeError, match=rf"^NearCentre.{name} must be a number, got "):
        NearCentre(**{name: value})


@pytest.mark.parametrize("share", [1.0, 3])
def test_a_share_is_below_one(share):
    message = rf"NearCentre.broken_share must be a share of scenes, in \[0, 1\), got {share}"
    with pytest.raises(ValueError, match=message):
        NearCentre(broken_share=share)


@pytest.mark.parametrize(
    "given",
    [{"tolerance": 1, "broken_share": 0.1}, {"tolerance": 1, "strength": 1}, {"broken_share": 0, "strength": 0}],
)
def test_one_of_three_is_given(given):
    one, other = given
    message = rf"^NearCentre.{one} and NearCentre.{other} are both given: give one of tolerance, broken_share and str"
    with pytest.raises(ValueError, match=message):
        NearCentre(**given)


def test_a_share_of_scenes_can_be_meant_only_where_one_scene_breaks_the_rule():
    message = r"AggregateCount.broken_share=0.1 can't be meant: .* give AggregateCount.tolerance, in nats\."
    with pytest.raises(ValueError, match=message):
        AggregateCount((1, 3), broken_share=0.1)

    class Mute(NearCentre):
        def broken(self, scenes):
            return None

    rule, scenes = Mute(broken_share=0.1), SceneStatistics.of_finished([1], tf.zeros([1, 1, 4]), (50, 50))
    with pytest.raises(ValueError, match="Mute.broken doesn't say which scenes break the rule: give Mute.tolerance"):
        rule.measured(scenes, rule.penalty(scenes))


def test_what_a_rule_is_asked_of():
    asked = {to: [NearCentre(applies_to=to).asks(on_samples) for on_samples in (False, True)]
             for to in ("posterior", "samples", "both")}  # fmt: skip
    assert asked == {"posterior": [True, False], "samples": [False, True], "both": [True, True]}
    with pytest.raises(ValueError, match=r"NearCentre.applies_to='prior' is unknown .*; choose one of \['posterior', "):
        NearCentre(applies_to="prior")

    class MeanPlace(NearCentre):
        of_one_scene = False

    with pytest.raises(ValueError, match="MeanPlace.applies_to='samples' can't be meant: .* only those about counts"):
        MeanPlace(applies_to="samples")


@OF_EVERY_RULE
def test_every_rule_can_be_made_again(rule):
    config = rule.get_config()
    assert {"tolerance", "broken_share", "strength", "applies_to"} <= {*config}
    again = type(rule)(**config)
    assert again.get_config() == config and again.name == rule.name and again.limit == rule.limit
    assert again.__dict__ == rule.__dict__


def test_configs_hold_what_was_given():
    usual = {"tolerance": None, "broken_share": None, "strength": None, "applies_to": "posterior"}
    assert RULES[0].get_config() == usual | {"counts": (1, 3), "tolerance": 0.25}
    assert RULES[4].get_config() == usual | {"sides_px": (5.0, 9.5), "broken_share": 0.25}
    assert RULES[3].get_config() == usual | {"probabilities": (0.0, 0.25, 0.0, 0.75), "strength": 3.0}
    assert NearCentre(3).get_config() == usual | {"tolerance": 3.0}


@OF_EVERY_RULE
def test_finished_scenes_that_keep_a_rule_have_no_penalty(rule):
    """One object in the middle of the canvas, as large as may be, is not much of an offence."""
    objects = tf.ones([1, 3, 4, 4, 1])
    boxes = tf.tile(tf.constant([[[0.43, 0.43, 0.57, 0.57]]]), [1, 3, 1])
    scenes = SceneStatistics.of_finished(
        [1], boxes, (50, 50), objects=objects, glimpses=objects, drawn=tf.zeros([1, 3, 50, 50, 1])
    )
    if rule.of_one_scene:
        np.testing.assert_allclose(rule.penalty(scenes), [0.0], atol=0.05)
        assert not rule.broken(scenes).numpy().any()
    else:
        assert rule.broken(scenes) is None


def test_ink_is_the_brightest_channel():
    pixels = np.random.default_rng(0).uniform(size=(2, 4, 5, 3))
    np.testing.assert_array_equal(ink(tf.constant(pixels)), pixels.max(-1))
    np.testing.assert_array_equal(ink(tf.constant(pixels[..., :1])), pixels[..., 0])


def test_statistics_of_finished_scenes():
    boxes = np.random.default_rng(0).uniform(size=(3, 2, 4))
    scenes = SceneStatistics.of_finished(np.array([0, 1, 2]), tf.constant(boxes), (20, 40), drawn="pixels")
    np.testing.assert_array_equal(scenes.presence_probs, [[0, 0], [1, 0], [1, 1]])
    np.testing.assert_array_equal(scenes.count_probs, np.eye(3))
    np.testing.assert_array_equal(scenes.absence_probs, [[1, 1], [0, 1], [0, 0]])
    np.testing.assert_array_equal(scenes.boxes, boxes)
    assert (scenes.canvas_size, scenes.drawn, scenes.objects, scenes.num_steps) == ((20, 40), "pixels", None, 2)
    alone = SceneStatistics.of_finished([1], None, (20, 40), num_steps=3)
    np.testing.assert_array_equal(alone.presence_probs, [[1, 0, 0]])


@pytest.mark.parametrize("jit_compile", [False, True])
def test_the_likeliest_scene_of_each_image(jit_compile):
    probs = tf.constant([[0.1, 0.2, 0.7], [0.4, 0.35, 0.25]])

    @tf.function(jit_compile=jit_compile)
    def likeliest(probs):
        return SceneStatistics(tf.zeros([2, 2]), probs, "boxes", (50, 50)).likeliest()[:2]

    presence, certain = likeliest(probs)
    np.testing.assert_array_equal(presence, [[1, 1], [0, 0]])
    np.testing.assert_array_equal(certain, [[0, 0, 1], [1, 0, 0]])


def test_sides_are_in_pixels_of_the_canvas():
    boxes = tf.constant([[[0.1, 0.2, 0.6, 0.45], [0.0, 0.0, 1.5, 0.75]]])  # square on a canvas of 20 x 40
    statistics = SceneStatistics(None, None, boxes, (20, 40))
    np.testing.assert_allclose(statistics.sides_px(), [[10.0, 30.0]], rtol=1e-6)
    np.testing.assert_allclose(statistics.centres_px(), [[[7.0, 15.0]], [[13.0, 15.0]]], rtol=1e-6)


@pytest.mark.parametrize("size", [(), (3,), (3, 2)])
def test_batch_mean_is_over_the_images(size):
    values = np.random.default_rng(0).normal(size=(5, *size))
    statistics = SceneStatistics(None, None, None, (50, 50))
    for compute in (statistics.batch_mean, tf.function(statistics.batch_mean, jit_compile=True)):
        np.testing.assert_allclose(compute(tf.constant(values)), values.mean(0), rtol=1e-9)


def test_outside_of_replicas_and_between_them_a_batch_is_as_large_as_it_is():
    statistics = SceneStatistics(tf.zeros([5, 3]), None, None, (50, 50))
    values = np.random.default_rng(0).normal(size=(5, 3))
    with tf.distribute.OneDeviceStrategy("CPU:0").scope():  # where there is no replica
        assert tf.distribute.get_replica_context() is None
        between = statistics.batch_size(), statistics.batch_mean(tf.constant(values))
    for size, mean in (between, (statistics.batch_size(), statistics.batch_mean(tf.constant(values)))):
        assert (float(size), size.dtype) == (5.0, tf.float32)
        np.testing.assert_allclose(mean, values.mean(0), rtol=1e-9)


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
        RULES = [@CountInSet(), @CountDistribution()]
        CountInSet.counts = (1, 3)
        CountInSet.broken_share = 0.02
        CountInSet.applies_to = 'both'
        CountDistribution.probabilities = {1: 0.25, 3: 0.75}
        collect.rules = %RULES
        """
    )
    count_in_set, frequencies = collect()
    assert isinstance(count_in_set, CountInSet) and isinstance(frequencies, CountDistribution)
    assert (count_in_set.counts, count_in_set.limit, count_in_set.asks(True)) == ((1, 3), 0.02, True)
    assert (frequencies.probabilities, frequencies.limit) == ((0.0, 0.25, 0.0, 0.75), 0.05)
    assert [rule.name for rule in (count_in_set, frequencies)] == ["count_in_set", "count_distribution"]


@pytest.mark.parametrize("kind", [rule for rule in vars(constraints).values() if inspect.isclass(rule)
                                  and issubclass(rule, Constraint) and rule is not Constraint])  # fmt: skip
def test_every_rule_can_be_named_in_gin(kind):
    gin.parse_config(f"collect.rules = [@{kind.__name__}]")
    (found,) = collect()
    assert issubclass(found, kind)


def test_gin_says_which_value_is_missing():
    gin.parse_config("collect.rules = [@CountInSet()]")
    with pytest.raises(RuntimeError, match=r"(?s)CountInSet.*counts"):
        collect()
