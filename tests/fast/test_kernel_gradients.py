"""Gradients handed over: the same numbers as the tape's, and what they wait for."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from asr_tf.fast.kernel_gradients import later, loop_starts
from asr_tf.networks.layers import MLP, LSTMCell


def _gradients(compute, variables, handed_over):
    if not handed_over:
        with tf.GradientTape() as tape:
            loss = compute()
        return tape.gradient(loss, variables)
    with later() as of_kernels:
        with tf.GradientTape() as tape:
            loss = compute()
        return of_kernels.add_to(tape.gradient(loss, variables), variables)


def _noise(*shape):
    return tf.constant(np.random.default_rng(0).normal(size=shape).astype(np.float32))


@pytest.mark.parametrize("mode", ["eager", "graph", "xla"])
def test_gradients_are_those_of_the_tape(mode):
    """A perceptron called twice, one of whose kernels is used by hand too, around a recurrence."""
    inside, outside, cell = MLP([5, 7, 6], "softplus", "in"), MLP([4, 3, 2], "relu", "out"), LSTMCell(6, 4, "cell")
    variables = [*inside.trainable_variables, *cell.trainable_variables, *outside.trainable_variables]
    images = _noise(3, 2, 5)

    def compute():
        hiddens = cell.unroll(inside(images) + inside(tf.square(images)))
        penalty = tf.reduce_sum(tf.square(tf.convert_to_tensor(inside.dense_0.kernel)))
        return tf.reduce_sum(tf.sin(outside(hiddens))) + 0.1 * penalty

    expected = _gradients(compute, variables, handed_over=False)

    def run():
        return _gradients(compute, variables, handed_over=True)

    if mode != "eager":
        run = tf.function(run, jit_compile=mode == "xla", autograph=False)
    for value, reference in zip(run(), expected, strict=True):
        np.testing.assert_allclose(value, reference, rtol=1e-4, atol=1e-5)


def test_a_variable_without_gradient_stays_without():
    used, idle = MLP([3, 2], "relu", "used"), MLP([3, 2], "relu", "idle")
    variables = [*used.trainable_variables, *idle.trainable_variables]
    found = _gradients(lambda: tf.reduce_sum(used(_noise(4, 3))), variables, handed_over=True)
    assert [gradient is None for gradient in found] == [False, False, True, True]


def test_gradients_have_the_variables_dtype():
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        layer = MLP([3, 2], "relu", "half")
    finally:
        keras.config.set_dtype_policy("float32")
    loss = lambda: tf.reduce_sum(tf.cast(layer(_noise(4, 3)), tf.float32))  # noqa: E731
    found = _gradients(loss, layer.trainable_variables, handed_over=True)
    assert {gradient.dtype for gradient in found} == {tf.float32}


def _depends_on(tensor, name):
    seen, waiting = set(), [tensor.op]
    while waiting:
        op = waiting.pop()
        if op.name == name:
            return True
        if op.name not in seen:
            seen.add(op.name)
            waiting += [x.op for x in op.inputs]
    return False


def test_what_was_handed_over_waits_for_the_loop_after_it():
    """Backward, the last perceptron comes before the loop, and the first one after it."""
    first, last = MLP([3, 3], "relu", "first"), MLP([3, 3], "relu", "last")
    variables = [*first.trainable_variables, *last.trainable_variables]

    @tf.custom_gradient
    def loop(x):
        def gradient(upstream):
            loop_starts([tf.identity(upstream, name="begin")])
            return tf.cos(x) * upstream

        return tf.sin(x), gradient

    @tf.function(autograph=False)
    def run():
        found = _gradients(lambda: tf.reduce_sum(last(loop(first(_noise(4, 3))))), variables, handed_over=True)
        begin = next(op.name for op in found[0].graph.get_operations() if op.name.endswith("begin"))
        waits.extend(_depends_on(gradient, begin) for gradient in found)
        return found

    waits: list[bool] = []
    run()
    # Backward, the first one comes after the loop: its gradient was handed over when that had begun.
    assert waits == [False, False, True, True]


def test_not_finite_upstreams_are_not_hidden():
    layer = MLP([3, 2], "relu", "layer")

    def compute():
        return tf.reduce_sum(layer(_noise(4, 3))) * np.nan

    assert not any(np.isfinite(g).any() for g in _gradients(compute, layer.trainable_variables, handed_over=True))
