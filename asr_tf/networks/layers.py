"""Layers that the networks are made of: a perceptron, an LSTM cell and pooling.

Layers are built on construction, so that every weight exists before the first call.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from asr_tf.fast.kernel_gradients import hand_over
from asr_tf.fast.recurrence import TANH, Activation, Apply, Operation, unroll

__all__ = ["MLP", "LSTMCell", "mean_pool"]


def mean_pool(images: tf.Tensor, side: int) -> tf.Tensor:
    """Means over squares of pixels; those at the lower and right edge may be cut off.

    A product with a constant: TensorFlow's own pooling of one channel takes ten times as long on a CPU.

    Args:
        images: float [B, H, W], H and W static.
        side: of a square, in pixels.

    Returns:
        float [B, ceil(H / side), ceil(W / side)].
    """
    height, width = images.shape[1:]
    rows, columns = -(-height // side), -(-width // side)
    padded = tf.pad(images, [[0, 0], [0, rows * side - height], [0, 0]]) if height % side else images
    strips = tf.reshape(padded, [-1, side * width])  # each as high as a square
    column_of = np.repeat(np.eye(columns, dtype=np.float32), side, axis=0)[:width]
    column_of /= side * column_of.sum(axis=0)  # the pixels of a full square in the column
    means = tf.reshape(tf.matmul(strips, tf.cast(np.tile(column_of, (side, 1)), images.dtype)), [-1, rows, columns])
    if height % side:  # the last row's squares are lower
        row_sizes = np.minimum(side, height - side * np.arange(rows, dtype=np.float32))
        means *= tf.cast(side / row_sizes[:, np.newaxis], images.dtype)
    return means


def _affine(inputs: tf.Tensor, layer: keras.layers.Dense) -> tf.Tensor:
    """inputs @ kernel + bias, [N, K] to [N, M].

    For the gradients a column of ones comes beside the inputs.  The bias's gradient is then a product and not a sum,
    of which XLA makes several kernels; and rows of 512 numbers, which lie on the same few sets of a cache, are longer.
    """

    @tf.custom_gradient
    def affine(
        inputs: tf.Tensor, kernel: tf.Tensor, bias: tf.Tensor
    ) -> tuple[tf.Tensor, Callable[[tf.Tensor], tuple[tf.Tensor | None, ...]]]:
        def gradient(upstream: tf.Tensor) -> tuple[tf.Tensor | None, ...]:
            def of_weights(one: tf.Tensor | float) -> tuple[tf.Tensor, tf.Tensor]:
                ones = tf.ones_like(inputs[:, :1]) * tf.cast(one, inputs.dtype)
                of_both = tf.matmul(tf.concat([inputs, ones], 1), upstream, transpose_a=True)
                return of_both[:-1], of_both[-1]

            of_inputs = tf.matmul(upstream, kernel, transpose_b=True)
            if hand_over((layer.kernel, layer.bias), of_weights):
                return of_inputs, None, None
            return of_inputs, *of_weights(1.0)

        return tf.matmul(inputs, kernel) + bias, gradient

    return affine(inputs, *(tf.cast(weight, inputs.dtype) for weight in (layer.kernel, layer.bias)))


@tf.custom_gradient
def softplus(inputs: tf.Tensor) -> tuple[tf.Tensor, Callable[[tf.Tensor], tf.Tensor]]:
    """log(1 + exp(inputs)), element by element, exact to a rounding of 1; faster than XLA's own."""

    def gradient(upstream: tf.Tensor) -> tf.Tensor:
        return upstream * tf.sigmoid(inputs)

    return tf.nn.relu(inputs) + tf.math.log(1.0 + tf.exp(-tf.abs(inputs))), gradient


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
        flat = tf.reshape(tf.cast(inputs, self.compute_dtype), [-1, inputs.shape[-1]])
        for i in range(self.depth):
            layer = getattr(self, f"dense_{i}")
            flat = _affine(flat, layer)
            flat = softplus(flat) if layer.activation is keras.activations.softplus else layer.activation(flat)
        return tf.reshape(flat, tf.concat([tf.shape(inputs)[:-1], flat.shape[1:]], 0))


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
        num_steps = inputs.shape[0]
        input_kernel, hidden_kernel = tf.split(self.kernel(), [self.input_size, self.units])
        flat = tf.reshape(tf.cast(inputs, self.compute_dtype), [-1, self.input_size])
        projected = tf.matmul(flat, input_kernel) + tf.cast(self.bias, self.compute_dtype)
        projected = tf.reshape(projected, [num_steps, -1, 4 * self.units])
        state = self.update(projected[0])
        first = state[0][tf.newaxis]
        if num_steps == 1:
            return first

        def step(
            state: tuple[tf.Tensor, tf.Tensor], gates: tf.Tensor, _: Any, operations: Sequence[Apply]
        ) -> tuple[tuple[tf.Tensor, tf.Tensor], tf.Tensor]:
            hidden, cell = state
            activated, tanh = operations
            state = self.advance(activated(hidden, gates), cell, tanh)
            return state, state[0]

        operations = [Operation(hidden_kernel, self.activation()), Operation(activation=TANH)]
        _, hiddens = unroll(step, operations, (), state, projected[1:], num_steps - 1)
        return tf.concat([first, hiddens], 0)

    def activation(self) -> Activation:
        """Of all gates [B, 4 * units]: sigmoid(x), but sigmoid(2 x), which is (1 + tanh(x)) / 2, of the candidate's.

        As one elementwise function it is a single kernel.  Its value is in pieces, one a gate.
        """
        gain = np.repeat(np.array([1.0, 1.0, 2.0, 1.0], np.float32), self.units)
        return Activation(
            lambda x: tf.split(tf.sigmoid(tf.cast(gain, x.dtype) * x), 4, axis=-1),
            lambda gates: [factor * y * (1.0 - y) for factor, y in zip((1.0, 1.0, 2.0, 1.0), gates, strict=True)],
        )

    @staticmethod
    def advance(
        activated: Sequence[tf.Tensor], cell: tf.Tensor | float, tanh: Callable[[tf.Tensor], tf.Tensor]
    ) -> tuple[tf.Tensor, tf.Tensor]:
        """The next hidden state and cell [B, units].

        Args:
            activated: the gates, four times float [B, units].
            cell: float [B, units], or 0.
            tanh: the hyperbolic tangent, or what stands for it in a loop.
        """
        enter, forget, candidate, leave = activated
        cell = forget * cell + enter * (2.0 * candidate - 1.0)
        return leave * tanh(cell), cell

    def update(self, gates: tf.Tensor, cell: tf.Tensor | float = 0.0) -> tuple[tf.Tensor, tf.Tensor]:
        """As `advance`, from the gates before their activation."""
        return self.advance(self.activation().value(gates), cell, tf.tanh)
