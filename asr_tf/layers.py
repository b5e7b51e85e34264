"""Layers that the networks are made of: a perceptron, an LSTM cell, and the products of a loop.

Both are built on construction, so that every weight exists before the first call.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence

import keras
import tensorflow as tf

__all__ = ["MLP", "LSTMCell", "StepwiseProduct"]


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


class StepwiseProduct:
    """Products with one kernel in a loop of T steps, whose kernel gradient is one product over all steps.

    Each call gives `inputs @ kernel` for the next step.  Backpropagation through T separate products would form T small
    gradients of the kernel's size and add them up; here the inputs and the gradients of the outputs of all steps are
    laid end to end and multiplied once.

    Args:
        kernel: float [K, N].
        num_steps: T, how often the product is taken; no more and no less.
        batch_size: B, the rows of every step's inputs.
    """

    def __init__(self, kernel: tf.Tensor, num_steps: int, batch_size: tf.Tensor | int):
        self._kernel = tf.stop_gradient(kernel)
        self._inputs: list[tf.Tensor] = []

        @tf.custom_gradient
        def zeros(kernel: tf.Tensor) -> tuple[tf.Tensor, Callable[[tf.Tensor], tf.Tensor]]:
            def gradient(upstream: tf.Tensor) -> tf.Tensor:
                rows = tf.reshape(upstream, [-1, upstream.shape[-1]])
                return tf.matmul(tf.concat(self._inputs, 0), rows, transpose_a=True)

            return tf.zeros([num_steps, batch_size, kernel.shape[1]], kernel.dtype), gradient

        # What carries the outputs' gradients to `gradient`; it adds nothing.
        self._zeros = tf.unstack(zeros(kernel), num_steps)

    def __call__(self, inputs: tf.Tensor) -> tf.Tensor:
        """float [B, K] to [B, N], for the next step."""
        zeros = self._zeros[len(self._inputs)]
        self._inputs.append(inputs)
        return tf.matmul(inputs, self._kernel) + zeros


class LSTMCell(keras.layers.Layer):
    """An LSTM cell whose four gates are one matrix product.

    The kernel is [input_size + units, 4 units], the inputs' rows first; gates are input, forget, candidate, output.
    """

    def __init__(self, input_size: int, units: int, name: str):
        super().__init__(name=name)
        self.input_size, self.units = input_size, units
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

    def kernel(self) -> tf.Tensor:
        """float [input_size + units, 4 * units] in the dtype that the cell computes in."""
        return tf.cast(self.gates.kernel, self.compute_dtype)

    def call(
        self, inputs: tf.Tensor, state: tuple[tf.Tensor, tf.Tensor]
    ) -> tuple[tf.Tensor, tf.Tensor]:
        """One step.

        Args:
            inputs: float [B, input_size].
            state: hidden state and cell, each [B, units].

        Returns:
            The next hidden state and cell.
        """
        hidden, cell = state
        gates = self.gates(tf.concat([tf.cast(inputs, hidden.dtype), hidden], -1)) + self.bias
        return self.update(gates, cell)

    def unroll(self, inputs: tf.Tensor) -> tf.Tensor:
        """Hidden states of all steps, from zeros, where the inputs of all steps are known beforehand.

        Args:
            inputs: float [T, B, input_size].

        Returns:
            float [T, B, units].
        """
        num_steps, batch_size = inputs.shape[0], tf.shape(inputs)[1]
        input_kernel, hidden_kernel = tf.split(self.kernel(), [self.input_size, self.units])
        flat = tf.reshape(tf.cast(inputs, self.compute_dtype), [-1, self.input_size])
        projected = tf.matmul(flat, input_kernel) + tf.cast(self.bias, self.compute_dtype)
        projected = tf.unstack(tf.reshape(projected, [num_steps, -1, 4 * self.units]))
        product = StepwiseProduct(hidden_kernel, num_steps - 1, batch_size)
        state = self.update(projected[0])
        hiddens = [state[0]]
        for gates in projected[1:]:
            state = self.update(gates + product(state[0]), state[1])
            hiddens.append(state[0])
        return tf.stack(hiddens)

    @staticmethod
    def update(gates: tf.Tensor, cell: tf.Tensor | float = 0.0) -> tuple[tf.Tensor, tf.Tensor]:
        """The next hidden state and cell [B, units] from the gates [B, 4 * units] and the cell, at first zero."""
        enter, forget, candidate, leave = tf.split(gates, 4, axis=-1)
        cell = tf.sigmoid(forget) * cell + tf.sigmoid(enter) * tf.tanh(candidate)
        return tf.sigmoid(leave) * tf.tanh(cell), cell
