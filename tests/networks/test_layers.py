"""Layers against Keras' own and against matrix products."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from asr_tf.networks.layers import MLP, LSTMCell, mean_pool


def cells(seed=0):
    """An LSTM cell of 5 inputs and 6 units, and Keras' layer with the same weights."""
    rng = np.random.default_rng(seed)
    kernel, bias = rng.normal(size=(11, 24)).astype(np.float32), rng.normal(size=24).astype(np.float32)
    reference = keras.layers.LSTM(6, return_sequences=True)
    reference.build((None, None, 5))
    reference.set_weights([kernel[:5], kernel[5:], bias])
    cell = LSTMCell(5, 6, "cell")
    cell.gates.set_weights([kernel])
    cell.bias.assign(bias)
    return cell, reference


def test_lstm_cell_equals_keras_cell():
    cell, reference = cells()
    rng = np.random.default_rng(1)
    inputs = rng.normal(size=(4, 5)).astype(np.float32)
    state = tuple(tf.constant(rng.normal(size=(4, 6)).astype(np.float32)) for _ in range(2))
    hidden, memory = cell(tf.constant(inputs), state)
    _, expected = reference.cell(inputs, state)
    np.testing.assert_allclose(hidden, expected[0], atol=1e-5)
    np.testing.assert_allclose(memory, expected[1], atol=1e-5)


def test_unrolled_lstm_and_its_gradients_equal_keras():
    cell, reference = cells()
    inputs = tf.constant(np.random.default_rng(1).normal(size=(3, 4, 5)).astype(np.float32))  # [T, B, K]
    weights = tf.constant(np.random.default_rng(2).normal(size=(3, 4, 6)).astype(np.float32))
    results = []
    for run, variables in (
        (cell.unroll, [cell.gates.kernel, cell.bias]),
        (
            lambda x: tf.transpose(reference(tf.transpose(x, [1, 0, 2])), [1, 0, 2]),
            reference.trainable_variables,
        ),
    ):
        with tf.GradientTape() as tape:
            tape.watch(inputs)
            hiddens = run(inputs)
            loss = tf.reduce_sum(weights * hiddens)
        gradients = tape.gradient(loss, [inputs, *variables])
        kernels = tf.concat(gradients[1:-1], 0)
        results.append((hiddens, gradients[0], kernels, gradients[-1]))
    for value, expected in zip(*results, strict=True):
        np.testing.assert_allclose(value, expected, atol=2e-5)


def test_mlp_equals_matrix_products():
    mlp = MLP([3, 5, 2], "softplus", "mlp", output_bias=[0.5, -1.0])
    first, first_bias, last, last_bias = mlp.get_weights()
    inputs = np.random.default_rng(0).normal(size=(2, 4, 3)).astype(np.float32)
    expected = np.log1p(np.exp(inputs @ first + first_bias)) @ last + last_bias
    np.testing.assert_allclose(mlp(inputs), expected, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(last_bias, [0.5, -1.0])


def test_mlp_has_the_gradients_of_keras_layers():
    mlp = MLP([3, 5, 2], "softplus", "mlp")
    inputs = tf.constant(np.random.default_rng(0).normal(size=(2, 4, 3)).astype(np.float32))
    weights = tf.constant(np.random.default_rng(1).normal(size=(2, 4, 2)).astype(np.float32))
    results = []
    for run in (mlp, lambda x: mlp.dense_1(mlp.dense_0(x))):
        with tf.GradientTape() as tape:
            tape.watch(inputs)
            loss = tf.reduce_sum(weights * run(inputs))
        results.append(tape.gradient(loss, [inputs, *mlp.trainable_variables]))
    for value, expected in zip(*results, strict=True):
        np.testing.assert_allclose(value, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(("height", "width", "side"), [(6, 8, 2), (11, 14, 2), (5, 4, 3), (4, 5, 1), (3, 3, 7)])
def test_pooled_pixels_are_means_of_what_is_there(height, width, side):
    images = np.random.default_rng(0).uniform(size=(2, height, width)).astype(np.float32)
    expected = [
        [image[i : i + side, j : j + side].mean() for i in range(0, height, side) for j in range(0, width, side)]
        for image in images
    ]
    pooled = mean_pool(tf.constant(images), side)
    assert pooled.shape == (2, -(-height // side), -(-width // side))
    np.testing.assert_allclose(np.reshape(pooled, (2, -1)), expected, rtol=1e-5)
