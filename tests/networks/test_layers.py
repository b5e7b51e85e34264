"""Layers against Keras' own and against matrix products in NumPy."""

import keras
import numpy as np
import tensorflow as tf

from asr_tf.networks.layers import Perceptron, lstm_step, remember_at_first


def test_lstm_step_and_its_gradients_are_those_of_keras_cell():
    """Step by step over three steps, the first from nothing."""
    rng = np.random.default_rng(0)
    kernel, bias = rng.normal(size=(11, 24)).astype(np.float32), rng.normal(size=24).astype(np.float32)
    cell = keras.layers.LSTMCell(6)
    cell.build((None, 5))
    cell.set_weights([kernel[:5], kernel[5:], bias])
    inputs = tf.constant(rng.normal(size=(3, 4, 5)), tf.float32)

    def of_keras(inputs):
        hidden = memory = tf.zeros([4, 6])
        for x in tf.unstack(inputs):
            _, (hidden, memory) = cell(x, (hidden, memory))
        return tf.stack([hidden, memory])

    def of_ours(inputs):
        hidden, memory = tf.zeros([4, 6]), 0.0
        for x in tf.unstack(inputs):
            i, f, g, o = tf.split(tf.concat([x, hidden], -1) @ kernel + bias, 4, -1)  # in Keras's order
            hidden, memory = lstm_step(tf.concat([i, f, o, g], -1), memory)
        return tf.stack([hidden, memory])

    weights = rng.normal(size=(2, 4, 6)).astype(np.float32)
    found = []
    for run in (of_keras, of_ours):
        with tf.GradientTape() as tape:
            tape.watch(inputs)
            state = run(inputs)
            total = tf.reduce_sum(weights * state)
        found.append((state, tape.gradient(total, inputs)))
    for wanted, value in zip(*found, strict=True):
        np.testing.assert_allclose(value, wanted, atol=1e-5)


def test_an_lstm_remembers_at_first():
    bias = remember_at_first([12])
    np.testing.assert_array_equal(bias, [0, 0, 0, 1, 1, 1, 0, 0, 0, 0, 0, 0])
    hidden, memory = lstm_step(bias[tf.newaxis], 0.4)  # no input, no candidate: half the gates, what was remembered
    kept = 0.4 / (1.0 + np.exp(-1.0))
    np.testing.assert_allclose(memory, np.full((1, 3), kept), rtol=1e-6)
    np.testing.assert_allclose(hidden, np.full((1, 3), 0.5 * np.tanh(kept)), rtol=1e-6)


def test_perceptron_equals_matrix_products():
    layer = Perceptron([3, 5, 2], "softplus", "perceptron", output_bias=[0.5, -1.0])
    first, first_bias, last, last_bias = layer.get_weights()
    inputs = np.random.default_rng(0).normal(size=(2, 4, 3)).astype(np.float32)
    expected = np.log1p(np.exp(inputs @ first + first_bias)) @ last + last_bias
    np.testing.assert_allclose(layer(inputs), expected, rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(last_bias, np.float32([0.5, -1.0]))
    np.testing.assert_array_equal(first_bias, np.zeros(5))


def test_a_perceptron_without_hidden_layers_is_linear():
    layer = Perceptron([3, 2], "relu", "linear", output_bias=2.0)
    kernel, bias = layer.get_weights()
    np.testing.assert_allclose(layer(-np.eye(3, dtype=np.float32)), bias - kernel, rtol=1e-6)
    np.testing.assert_array_equal(bias, [2.0, 2.0])
