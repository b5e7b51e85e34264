"""Layers that the networks are made of."""

from __future__ import annotations

import itertools
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
        self.depth = len(sizes) - 1
        for i, (size_in, size_out) in enumerate(itertools.pairwise(sizes)):
            is_last = i == self.depth - 1
            start = keras.initializers.Constant(output_bias) if is_last else "zeros"
            layer = keras.layers.Dense(
                size_out, None if is_last else activation, bias_initializer=start, name=f"dense_{i}"
            )
            with keras.name_scope(name):
                layer.build((None, size_in))
            setattr(self, layer.name, layer)  # a checkpoint finds layers by attributes, not in lists
        self.built = True

    @property
    def dense(self) -> list[keras.layers.Dense]:
        """The layers, first to last."""
        return [getattr(self, f"dense_{i}") for i in range(self.depth)]

    def call(self, inputs: tf.Tensor) -> tf.Tensor:
        """float [..., sizes[0]] to [..., sizes[-1]]."""
        for layer in self.dense:
            inputs = layer(inputs)
        return inputs


def remember_at_first(shape: Sequence[int], dtype: str = "float32") -> tf.Tensor:
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
