"""The likeness of objects against a loop over pairs and pixels, and its gradient by hand."""

import numpy as np
import pytest
import tensorflow as tf

from asr_tf.constraints import SameAppearance, SceneStatistics


def statistics(objects, presence):
    return SceneStatistics(tf.constant(presence), None, None, (50, 50), objects=tf.constant(objects))


def slow_difference(one, other):
    """The mean absolute difference of two objects [G, G, C]."""
    return sum(abs(one[place] - other[place]) for place in np.ndindex(*one.shape)) / one.size


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("slack", [0.0, 0.3])
def test_equals_a_loop_over_pairs(channels, slack):
    rng = np.random.default_rng(0)
    objects = rng.uniform(size=(2, 4, 3, 3, channels))
    presence = np.sort(rng.uniform(size=(2, 4)), axis=1)[:, ::-1].copy()
    expected = np.zeros(2)
    for b in range(2):
        for t in range(4):
            for u in range(t):  # both are present where the later one is
                expected[b] += presence[b, t] * max(slow_difference(objects[b, t], objects[b, u]) - slack, 0.0)
    assert expected.min() > 0.01
    np.testing.assert_allclose(SameAppearance(slack).penalty(statistics(objects, presence)), expected, rtol=1e-9)


def test_gradient_is_the_sign_of_the_difference_where_it_is_over_the_slack():
    objects = np.zeros((1, 3, 2, 2, 1), np.float32)
    objects[0, 1] = 0.4  # over the slack to the first
    objects[0, 2] = 0.45  # and to the first alone
    given = statistics(objects, [[1.0, 0.5, 0.25]])
    with tf.GradientTape() as tape:
        tape.watch(given.objects)
        penalty = SameAppearance(slack=0.1).penalty(given)
    np.testing.assert_allclose(penalty, [0.5 * 0.3 + 0.25 * 0.35], rtol=1e-6)
    gradient = tape.gradient(penalty, given.objects)[0, :, 0, 0, 0]
    np.testing.assert_allclose(gradient, [-(0.5 + 0.25) / 4, 0.5 / 4, 0.25 / 4])


def test_scenes_with_an_object_that_differs_are_broken():
    objects = tf.constant(np.linspace(0.0, 0.4, 3).reshape(1, 3, 1, 1, 1) * np.ones((4, 1, 2, 2, 3)), tf.float32)
    scenes = SceneStatistics.of_finished([0, 1, 2, 3], None, (50, 50), num_steps=3, objects=objects)
    rule = SameAppearance(slack=0.25)  # neighbours differ by 0.2, the ends by 0.4
    assert rule.broken(scenes).numpy().tolist() == [False, False, False, True]
    assert rule.broken(scenes._replace(objects=None)) is None


def test_what_it_has_where_nothing_is_given():
    rule = SameAppearance()
    assert (rule.slack, rule.limit, rule.limit_unit, rule.start) == (0.1, 0.02, "brightness", 10.0)


@pytest.mark.parametrize("slack", [-0.1, 1.1])
def test_bad_slack(slack):
    with pytest.raises(ValueError, match=rf"SameAppearance.slack must be between 0.0 and 1.0, got {slack}"):
        SameAppearance(slack)
