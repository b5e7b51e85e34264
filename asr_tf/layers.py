"""Layers that the networks are made of: a perceptron and an LSTM cell.

Both are built on construction, so that every weight exists before the first call.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import keras
import tensorflow as tf

__all__ = ["MLP", "LSTMCell"]


class MLP(keras.layers.Layer):
    """Dense layers `sizes[0] -> ... -> sizes[-1]` on the last axis, linear at the end.

    Args:
        sizes: widths, the input's first.
        activation: of the hidden layers.
        name: Keras name.
        output_bias: where the last layer's bias starts, one number or one a unit.
    """

    def __init__(
        self,
        sizes: Sequence[int],
        activation: str,
        name: str,
        output_bias: float | Sequence[float] = 0.0,
    ):
        super().__init__(name=name)
        self.depth = len(sizes) - 1
        for i, (size_in, size_out) in enumerate(itertools.pairwise(sizes)):
            last = i == self.depth - 1
            layer = keras.layers.Dense(
                size_out,
                activation=None if last else activation,
                bias_initializer=keras.initializers.Constant(output_bias) if last else "zeros",
                name=f"dense_{i}",
            )
            layer.build((None, size_in))
            setattr(self, f"dense_{i}", layer)
        self.built = True

    def call(self, inputs: tf.Tensor) -> tf.Tensor:
        """float [..., sizes[0]] to [..., sizes[-1]]."""
        for i in range(self.depth):
            inputs = getattr(self, f"dense_{i}")(inputs)
        return inputs


class LSTMCell(keras.layers.Layer):
    """An LSTM cell whose four gates are one matrix product, and which takes part of its input already projected."""

    def __init__(self, input_size: int, units: int, name: str):
        super().__init__(name=name)
        self.units = units
        self.gates = keras.layers.Dense(4 * units, use_bias=False, name="gates")
        self.gates.build((None, input_size + units))
        # Keras' unit forget bias: remember at first.
        self.bias = self.add_weight(
            shape=(4 * units,),
            initializer=lambda shape, dtype=None: tf.concat(
                [tf.zeros([units]), tf.ones([units]), tf.zeros([2 * units])], 0
            ),
            name="bias",
        )
        self.built = True

    def initial_state(self, batch_size: tf.Tensor | int) -> tuple[tf.Tensor, tf.Tensor]:
        """Zeros: hidden state and cell, each [B, units]."""
        zeros = tf.zeros([batch_size, self.units], self.compute_dtype)
        return zeros, zeros

    def call(
        self,
        inputs: tf.Tensor,
        state: tuple[tf.Tensor, tf.Tensor],
        projection: tf.Tensor | float = 0.0,
    ) -> tuple[tf.Tensor, tf.Tensor]:
        """One step.

        Args:
            inputs: float [B, input_size].
            state: hidden state and cell, each [B, units].
            projection: float [B, 4 * units], what is added to the gates beside the inputs' product.

        Returns:
            The next hidden state and cell.
        """
        hidden, cell = state
        gates = self.gates(tf.concat([tf.cast(inputs, hidden.dtype), hidden], -1))
        gates += self.bias + projection
        enter, forget, candidate, leave = tf.split(gates, 4, axis=-1)
        cell = tf.sigmoid(forget) * cell + tf.sigmoid(enter) * tf.tanh(candidate)
        return tf.sigmoid(leave) * tf.tanh(cell), cell
