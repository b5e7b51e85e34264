"""Layers that the networks are made of."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence

import keras
import tensorflow as tf

__all__ = ["Perceptron", "dense", "lstm_step", "remember_at_first"]


class _Dense(keras.layers.Dense):
    """Keras's layer, whose bias is added as a row.

    (TensorFlow makes one operation of a product and the addition of a vector, which is slower for a single image.)
    """

    def call(self, inputs: tf.Tensor, training: bool | None = None) -> tf.Tensor:
        outputs = keras.ops.matmul(inputs, self.kernel)
        if self.use_bias:
            outputs += keras.ops.expand_dims(self.bias, 0)
        return outputs if self.activation is None else self.activation(outputs)


def dense(
    size_in: int,
    size_out: int,
    name: str,
    bias: float | Sequence[float] | Callable[..., tf.Tensor] | None = 0.0,
    activation: str | None = None,
    kernel_scale: float = 1.0,
) -> keras.layers.Dense:
    """A dense layer whose weights exist.

    Args:
        size_in, size_out: widths.
        name: Keras name.
        bias: where the bias starts, one number, one a unit, or an initializer; None for no bias.
        activation: Keras name of what follows.
        kernel_scale: variance of the initial kernel / that of Glorot and Bengio, AISTATS 2010.
    """
    start = bias if callable(bias) else keras.initializers.Constant(0.0 if bias is None else bias)
    kernel = keras.initializers.VarianceScaling(kernel_scale, "fan_avg", "uniform")
    layer = _Dense(size_out, activation, bias is not None, kernel, start, name=name)
    layer.build((None, size_in))
    return layer


class Perceptron(keras.layers.Layer):
    """Dense layers `sizes[0] -> ... -> sizes[-1]` on the last axis, linear at the end; weights exist from the start."""

    def __init__(
        self,
        sizes: Sequence[int],
        activation: str,
        name: str,
        output_bias: float | Sequence[float] = 0.0,
        output_scale: float = 1.0,
    ):
        """Initializes the layer.

        Args:
            sizes: widths, the input's first.
            activation: of the hidden layers.
            name: Keras name.
            output_bias: where the last layer's bias starts, one number or one a unit.
            output_scale: `kernel_scale` of the last layer, see `dense`.
        """
        super().__init__(name=name)
        self.depth = len(sizes) - 1
        for i, (size_in, size_out) in enumerate(itertools.pairwise(sizes)):
            rest = (output_bias, None, output_scale) if i == self.depth - 1 else (0.0, activation, 1.0)
            with keras.name_scope(name):
                layer = dense(size_in, size_out, f"dense_{i}", *rest)
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
    """One step of an LSTM from what goes into its gates.

    Args:
        gates: float [B, 4 * units], before the nonlinearity: input, forget and output gate, then the candidate.
        cell: float [B, units], the cell state; 0 before the first step.

    Returns:
        Hidden state and cell state, float [B, units] each.

    References:
        Gers et al., "Learning to forget", Neural Computation 2000.
    """
    units = gates.shape[-1] // 4
    logistic, candidate = tf.split(gates, [3 * units, units], axis=-1)
    input_gate, forget_gate, output_gate = tf.split(tf.sigmoid(logistic), 3, axis=-1)
    cell = forget_gate * cell + input_gate * tf.tanh(candidate)
    return output_gate * tf.tanh(cell), cell
