"""Pixels that are drawn twice, counted by hand."""

import numpy as np
import tensorflow as tf

from asr_tf.constraints import DisjointObjects, SceneStatistics


def scene(presence):
    """Two white blocks of 6 and 8 pixels that share 4."""
    drawn = np.zeros((1, 2, 5, 6), np.float32)
    drawn[0, 0, 1:3, 0:3] = 1.0
    drawn[0, 1, 1:3, 1:5] = 1.0
    return SceneStatistics(
        presence_probs=tf.constant([presence]),
        count_probs=None,
        boxes=None,
        canvas_size=(5, 6),
        drawn=tf.constant(drawn),
    )


def test_counts_shared_pixels_of_present_objects():
    rule = DisjointObjects()
    np.testing.assert_allclose(rule.penalty(scene([1.0, 1.0])), [4.0])
    np.testing.assert_allclose(rule.penalty(scene([1.0, 0.25])), [1.0])
    np.testing.assert_allclose(rule.penalty(scene([1.0, 0.0])), [0.0])


def test_gradient_is_the_presence_on_shared_pixels_and_zero_elsewhere():
    given = scene([1.0, 0.5])
    with tf.GradientTape() as tape:
        tape.watch(given.drawn)
        total = DisjointObjects().penalty(given)
    gradient = tape.gradient(total, given.drawn).numpy()[0]
    shared = np.zeros((5, 6))
    shared[1:3, 1:3] = 1.0
    np.testing.assert_allclose(gradient[0], shared)
    np.testing.assert_allclose(gradient[1], 0.5 * shared)
