"""The loop against steps one by one: values, and gradients of every argument, compiled or not."""

import numpy as np
import pytest
import tensorflow as tf

from asr_tf.fast.recurrence import TANH, Activation, Operation, unroll


def _given(num_steps):
    rng = np.random.default_rng(0)
    return tf.nest.map_structure(
        lambda shape: tf.constant(rng.normal(size=shape, scale=0.7).astype(np.float32)),
        {
            "kernels": [np.array([5, 4]), np.array([4, 3]), np.array([4, 4])],
            "weights": {"bias": np.array([4]), "small": np.array([3, 2])},
            "state": (np.array([6, 3]), np.array([6, 2])),
            "inputs": [np.array([num_steps, 6, 4]), np.array([num_steps, 6, 2])],
        },
    )


_SQUARE_ROOT = Activation(lambda x: tf.sqrt(1.0 + tf.square(x)), lambda y: tf.sqrt(1.0 - 1.0 / tf.square(y)))
_HALVES = Activation(
    lambda x: tf.split(tf.tanh(x * [1.0, 1.0, 2.0, 2.0]), 2, -1),
    lambda ys: [gain * (1.0 - tf.square(y)) for gain, y in zip((1.0, 2.0), ys, strict=True)],
)


def _step(state, inputs, weights, operations):
    """Products with an addend, with activations of one and of two pieces, and neither, an activation alone; and state
    that is also an output.
    """
    first, second = state
    through, plain, halves, tanh = operations
    hidden = through(tf.abs(tf.concat([first, second], -1)), tf.square(inputs[0]) + tf.square(weights["bias"]))
    first = tf.sin(plain(hidden)) + 0.5 * first
    left, right = halves(hidden)
    second = tanh(-tf.square(tf.matmul(first, weights["small"]) - inputs[1])) + left * tf.reverse(tf.sin(right), [1])
    return (first, second), {"hidden": hidden, "second": second}


def _operations(kernels):
    # The root's slope is told from its value where x > 0: the first kernel is made positive.
    with_kernel = [Operation(tf.abs(kernels[0]), _SQUARE_ROOT), Operation(kernels[1]), Operation(kernels[2], _HALVES)]
    return [*with_kernel, Operation(activation=TANH)]


def _in_loop(step, kernels, weights, state, inputs, num_steps):
    return unroll(step, _operations(kernels), weights, state, inputs, num_steps)


def _one_by_one(step, kernels, weights, state, inputs, num_steps):
    first, second, third = tf.abs(kernels[0]), *kernels[1:]
    operations = [
        lambda x, y: tf.sqrt(1.0 + tf.square(x @ first + y)),
        lambda x: x @ second,
        lambda x: (tf.tanh(x @ third[:, :2]), tf.tanh(2.0 * x @ third[:, 2:])),
        tf.tanh,
    ]
    made = []
    for t in range(num_steps):
        state, outputs = step(state, [x[t] for x in inputs], weights, operations)
        made.append(outputs)
    return state, tf.nest.map_structure(lambda *values: tf.stack(values), *made)


def _value_and_gradients(run, given, num_steps):
    sources = tf.nest.flatten(given)
    with tf.GradientTape() as tape:
        tape.watch(sources)
        after, outputs = run(_step, **given, num_steps=num_steps)
        values = tf.nest.flatten((after, outputs))
        # Every element gets a weight of its own.
        loss = tf.add_n(
            [
                tf.reduce_sum(tf.reshape(tf.cos(tf.range(tf.size(x), dtype=tf.float32)), tf.shape(x)) * x)
                for x in values
            ]
        )
    return [*values, *tape.gradient(loss, sources)]


@pytest.mark.parametrize("num_steps", [1, 2, 5])
@pytest.mark.parametrize("mode", ["eager", "graph", "xla"])
def test_loop_equals_steps_one_by_one(mode, num_steps):
    given = _given(num_steps)
    expected = _value_and_gradients(_one_by_one, given, num_steps)

    def run():
        return _value_and_gradients(_in_loop, given, num_steps)

    if mode != "eager":
        run = tf.function(run, jit_compile=mode == "xla", autograph=False)
    for value, reference in zip(run(), expected, strict=True):
        assert value.shape == reference.shape
        np.testing.assert_allclose(value, reference, rtol=2e-4, atol=2e-5)


def test_outputs_that_nothing_depends_on_have_gradients_of_zero():
    given = _given(3)
    with tf.GradientTape() as tape:
        tape.watch(given["weights"])
        (first, _), _ = _in_loop(_step, **given, num_steps=3)
        loss = tf.reduce_sum(first)
    assert np.abs(tape.gradient(loss, given["weights"])["bias"]).max() > 0


def test_number_of_operations_does_not_grow_with_the_steps():
    def operations(num_steps):
        traced = tf.function(lambda: _value_and_gradients(_in_loop, _given(num_steps), num_steps))
        return len(traced.get_concrete_function().graph.get_operations())

    assert operations(9) == operations(3)


def test_an_operation_that_nothing_depends_on_has_gradients_of_zero():
    kernels = [tf.ones([3, 3]), 2.0 * tf.ones([3, 2])]

    def step(state, _, __, operations):
        return operations[0](state), operations[1](state)

    with tf.GradientTape() as tape:
        tape.watch(kernels)
        after, _ = unroll(step, [Operation(kernel) for kernel in kernels], (), tf.ones([1, 3]), (), 2)
    used, idle = tape.gradient(after, kernels)
    np.testing.assert_allclose(used, np.full([3, 3], 6.0))
    np.testing.assert_array_equal(idle, np.zeros([3, 2]))


def test_a_kernel_whose_factor_has_no_gradient_has_one():
    kernel, factors = tf.ones([3, 2]), tf.constant([[[1.0, 2.0, 3.0]], [[4.0, 5.0, 6.0]]])

    def step(state, factor, _, operations):
        return state + operations[0](tf.stop_gradient(factor)), ()

    with tf.GradientTape() as tape:
        tape.watch(kernel)
        after, _ = unroll(step, [Operation(kernel)], (), tf.zeros([1, 2]), factors, 2)
    np.testing.assert_allclose(tape.gradient(after, kernel), [[5.0, 5.0], [7.0, 7.0], [9.0, 9.0]])
