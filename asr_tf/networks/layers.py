"""Layers that the networks are made of."""

from __future__ import annotations

from collections.abc import Sequence

import keras
import tensorflow as tf

__all__ = ["Perceptron", "lstm_step", "remember_at_first"]


class Perceptron(keras.layers.Layer):
    """Dense layers `sizes[0] -> ... -> sizes[-1]` on the last axis, linear at the end; weights exist from the start."""

    def __init__(
        self, sizes: Sequence[int], activation: str, name: str, output_bias: float | Sequence[float] = 0.0
    ):
        """Initializes the layer.

        Args:
            sizes: widths, the input's first.
            activation: of the hidden layers.
            name: Keras name.
            output_bias: where the last layer's bias starts, one number or one a unit.
        """
        super().__init__(name=name)
        hidden = [keras.layers.Dense(size, activation, name=f"dense_{i}") for i, size in enumerate(sizes[1:-1])]
        start = keras.initializers.Constant(output_bias)
        self.dense = [*hidden, keras.layers.Dense(sizes[-1], bias_initializer=start, name=f"dense_{len(hidden)}")]
        for layer, size in zip(self.dense, sizes, strict=False):
            layer.build((None, size))
        self.built = True

    def call(self, inputs: tf.Tensor) -> tf.Tensor:
        """float [..., sizes[0]] to [..., sizes[-1]]."""
        for layer in self.dense:
            inputs = layer(inputs)
        return inputs


def remember_at_first(shape: Sequence[int], dtype: str | None = None) -> tf.Tensor:
    """Initial bias of an LSTM's gates [4 * units]: 1 for the forget gate, 0 for the others."""
    units = shape[0] // 4
    return tf.concat([tf.zeros([units], dtype), tf.ones([units], dtype), tf.zeros([2 * units], dtype)], 0)


def lstm_step(gates: tf.Tensor, cell: tf.Tensor | float) -> tuple[tf.Tensor, tf.Tensor]:
    """One step of an LSTM from its gates' activations.

    Args:
        gates: float [B, 4 * units], before the nonlinearity: input gate, forget gate, candidate, output gate.
        cell: float [B, units], the cell state; 0 before the first step.

    Returns:
        Hidden state and cell state, float [B, units] each.

    References:
        Gers et al., "Learning to forget", Neural Computation 2000.
    """
    input_gate, forget_gate, candidate, output_gate = tf.split(gates, 4, axis=-1)
    cell = tf.sigmoid(forget_gate) * cell + tf.sigmoid(input_gate) * tf.tanh(candidate)
    return tf.sigmoid(output_gate) * tf.tanh(cell), cell
