"""Pixels that are drawn twice, counted by hand and by loops."""

import numpy as np
import pytest
import tensorflow as tf

from asr_tf.constraints import DisjointObjects, SceneStatistics

# White, and a colour that is as bright in one channel.
COLOURS = {"grey": [1.0], "white": [1.0, 1.0, 1.0], "red": [1.0, 0.0, 0.0], "orange": [0.6, 1.0, 0.2]}


def statistics(drawn, presence):
    return SceneStatistics(tf.constant(presence), None, None, drawn.shape[2:4], drawn=tf.constant(drawn))


def blocks(first=(1.0,), second=(1.0,)):
    """Two blocks of 6 and 8 pixels that share 4."""
    drawn = np.zeros((1, 2, 5, 6, len(first)), np.float32)
    drawn[0, 0, 1:3, 0:3] = first
    drawn[0, 1, 1:3, 1:5] = second
    return drawn


@pytest.mark.parametrize("colour", COLOURS.values(), ids=COLOURS.keys())
def test_counts_shared_pixels_of_present_objects(colour):
    drawn = blocks(colour, colour)
    for presence, pixels in (([1.0, 1.0], 4.0), ([1.0, 0.25], 1.0), ([1.0, 0.0], 0.0)):
        np.testing.assert_allclose(DisjointObjects().penalty(statistics(drawn, [presence])), [pixels])


def test_objects_of_different_colours_share_pixels_all_the_same():
    drawn = blocks([1.0, 0.0, 0.0], [0.0, 0.0, 1.0])
    np.testing.assert_allclose(DisjointObjects().penalty(statistics(drawn, [[1.0, 1.0]])), [4.0])


def test_scenes_that_draw_more_than_the_slack_twice_are_broken():
    drawn = tf.constant(np.tile(blocks(), (2, 1, 1, 1, 1)))
    scenes = SceneStatistics.of_finished([2, 1], None, (5, 6), num_steps=2, drawn=drawn)
    assert DisjointObjects().broken(scenes).numpy().tolist() == [True, False]
    assert DisjointObjects(slack_px=4.0).broken(scenes).numpy().tolist() == [False, False]
    assert DisjointObjects().broken(scenes._replace(drawn=None)) is None


@pytest.mark.parametrize("channels", [1, 3])
def test_equals_a_loop_over_pixels(channels):
    rng = np.random.default_rng(0)
    drawn = rng.uniform(size=(3, 4, 5, 6, channels))
    presence = np.sort(rng.uniform(0.4, 1.0, (3, 4)), axis=1)[:, ::-1].copy()
    expected = np.zeros(3)
    for b, i, j in np.ndindex(3, 5, 6):
        expected[b] += max(sum(presence[b, t] * drawn[b, t, i, j].max() for t in range(4)) - 1.0, 0.0)
    assert expected.min() > 0.5
    np.testing.assert_allclose(DisjointObjects().penalty(statistics(drawn, presence)), expected, rtol=1e-9)


@pytest.mark.parametrize("colour", [[1.0], [0.6, 1.0, 0.2]])
def test_gradient_is_the_presence_on_shared_pixels_of_the_brightest_channel(colour):
    given = statistics(blocks(colour, colour), [[1.0, 0.5]])
    with tf.GradientTape() as tape:
        tape.watch(given.drawn)
        total = DisjointObjects().penalty(given)
    gradient = tape.gradient(total, given.drawn).numpy()[0]
    shared = np.zeros((5, 6, len(colour)))
    shared[1:3, 1:3, np.argmax(colour)] = 1.0
    np.testing.assert_allclose(gradient[0], shared)
    np.testing.assert_allclose(gradient[1], 0.5 * shared)
