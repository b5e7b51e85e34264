"""Layers against Keras' own and against matrix products."""

import keras
import numpy as np
import tensorflow as tf

from asr_tf.layers import MLP, LSTMCell


def test_lstm_cell_equals_keras_cell_with_the_input_split_in_two():
    rng = np.random.default_rng(0)
    inputs, extra = (rng.normal(size=(4, size)).astype(np.float32) for size in (5, 3))
    state = [rng.normal(size=(4, 6)).astype(np.float32) for _ in range(2)]
    kernels = [rng.normal(size=(size, 24)).astype(np.float32) for size in (3, 5, 6)]
    bias = rng.normal(size=24).astype(np.float32)
    reference = keras.layers.LSTMCell(6)
    reference.build((None, 8))
    reference.set_weights([np.concatenate(kernels[:2]), kernels[2], bias])
    cell = LSTMCell(5, 6, "cell")
    cell.gates.set_weights([np.concatenate(kernels[1:])])
    cell.bias.assign(bias)
    hidden, memory = cell(tf.constant(inputs), tuple(map(tf.constant, state)), extra @ kernels[0])
    _, expected = reference(np.concatenate([extra, inputs], 1), state)
    np.testing.assert_allclose(hidden, expected[0], atol=1e-5)
    np.testing.assert_allclose(memory, expected[1], atol=1e-5)


def test_mlp_equals_matrix_products():
    mlp = MLP([3, 5, 2], "softplus", "mlp", output_bias=[0.5, -1.0])
    first, first_bias, last, last_bias = mlp.get_weights()
    inputs = np.random.default_rng(0).normal(size=(2, 4, 3)).astype(np.float32)
    expected = np.log1p(np.exp(inputs @ first + first_bias)) @ last + last_bias
    np.testing.assert_allclose(mlp(inputs), expected, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(last_bias, [0.5, -1.0])
