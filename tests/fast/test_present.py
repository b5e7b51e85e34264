"""Present steps laid end to end, against masks."""

import numpy as np
import pytest
import tensorflow as tf

from asr_tf.fast.present import PresentSteps

PRESENCE = np.array([[1, 1, 0], [0, 0, 0], [1, 0, 0], [1, 1, 1]], np.float32)
SIZES = [(), (5,), (4, 4, 1), (4, 4, 3)]  # of what a step has


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("gather", [True, False])
def test_steps_go_there_and_back(gather, size):
    values = np.random.default_rng(0).normal(size=(4, 3, *size)).astype(np.float32)
    steps = PresentSteps(tf.constant(PRESENCE), gather)
    taken = steps.take(tf.constant(values))
    wanted = values[PRESENCE > 0] if gather else values.reshape(12, *size)
    np.testing.assert_array_equal(taken, wanted)
    masked = values * PRESENCE.reshape(4, 3, *[1] * len(size))
    np.testing.assert_array_equal(steps.put(taken), masked)


@pytest.mark.parametrize("gather", [True, False])
def test_each_step_gets_what_its_scene_has(gather):
    steps = PresentSteps(tf.constant(PRESENCE), gather)
    assert steps.scenes().dtype == tf.int32
    scenes = [0, 0, 2, 3, 3, 3] if gather else np.repeat(range(4), 3)
    np.testing.assert_array_equal(steps.scenes(), scenes)
    of_scenes = steps.put(tf.gather(tf.constant([[10.0], [20.0], [30.0], [40.0]]), steps.scenes()))
    np.testing.assert_array_equal(of_scenes[..., 0], PRESENCE * np.array([[10.0], [20.0], [30.0], [40.0]]))


@pytest.mark.parametrize("size", SIZES)
def test_gathered_or_not_is_the_same_in_the_end(size):
    values = tf.constant(np.random.default_rng(1).normal(size=(4, 3, *size)), tf.float32)
    results = []
    for gather in (True, False):
        steps = PresentSteps(tf.constant(PRESENCE), gather)
        with tf.GradientTape() as tape:
            tape.watch(values)
            placed = steps.put(tf.sin(steps.take(values)))
            total = tf.reduce_sum(tf.square(placed))
        results.append((placed, tape.gradient(total, values)))
    for value, expected in zip(*results, strict=True):
        np.testing.assert_allclose(value, expected, rtol=1e-6, atol=1e-7)


def test_no_step_at_all():
    steps = PresentSteps(tf.zeros([2, 3]))
    taken = steps.take(tf.ones([2, 3, 4]))
    assert taken.shape == (0, 4)
    assert steps.scenes().shape == (0,)
    np.testing.assert_array_equal(steps.put(taken), np.zeros((2, 3, 4)))


@pytest.mark.parametrize("gather", [True, False])
def test_the_number_of_scenes_may_be_unknown(gather):
    specs = [tf.TensorSpec([None, 3]), tf.TensorSpec([None, 3, 4, 2])]

    @tf.function(input_signature=specs, jit_compile=not gather)
    def double(presence, values):
        steps = PresentSteps(presence, gather)
        return steps.put(2.0 * steps.take(values))

    values = np.random.default_rng(2).normal(size=(4, 3, 4, 2)).astype(np.float32)
    assert double.get_concrete_function().output_shapes.as_list() == [None, 3, 4, 2]
    np.testing.assert_array_equal(double(PRESENCE, values), 2.0 * values * PRESENCE[..., None, None])
