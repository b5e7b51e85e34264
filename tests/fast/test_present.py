"""Present steps laid end to end, against masks."""

import numpy as np
import pytest
import tensorflow as tf

from asr_tf.fast.present import PresentSteps

PRESENCE = np.array([[1, 1, 0], [0, 0, 0], [1, 0, 0], [1, 1, 1]], np.float32)


@pytest.mark.parametrize("gather", [True, False])
def test_steps_go_there_and_back(gather):
    values = np.random.default_rng(0).normal(size=(4, 3, 2, 5)).astype(np.float32)
    steps = PresentSteps(tf.constant(PRESENCE), gather)
    taken = steps.take(tf.constant(values))
    masked = values * PRESENCE[..., None, None]
    np.testing.assert_array_equal(steps.put(taken), masked)
    np.testing.assert_allclose(steps.sum(taken), masked.sum(1), rtol=1e-6)
    assert taken.shape == ((6, 2, 5) if gather else (12, 2, 5))


@pytest.mark.parametrize("gather", [True, False])
def test_each_step_gets_what_its_scene_has(gather):
    steps = PresentSteps(tf.constant(PRESENCE), gather)
    scenes = steps.put(tf.gather(tf.constant([[10.0], [20.0], [30.0], [40.0]]), steps.scenes()))
    np.testing.assert_array_equal(scenes[..., 0], PRESENCE * np.array([[10.0], [20.0], [30.0], [40.0]]))


def test_no_step_at_all():
    steps = PresentSteps(tf.zeros([2, 3]))
    taken = steps.take(tf.ones([2, 3, 4]))
    assert taken.shape == (0, 4)
    np.testing.assert_array_equal(steps.put(taken), np.zeros((2, 3, 4)))
    np.testing.assert_array_equal(steps.sum(taken), np.zeros((2, 4)))
