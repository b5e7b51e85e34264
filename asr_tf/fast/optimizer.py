"""Adam, with the moments of all small variables in two vectors.

A model has a few large weights and many small ones, heads and biases.  Updated variable by variable, three kernels for
each, the small ones are most of what XLA compiles of an optimizer and take no time to run.  Here they lie end to end.

References:
    Kingma and Ba, "Adam: A Method for Stochastic Optimization", ICLR 2015, arXiv:1412.6980, algorithm 1 in the order of
    section 2's last paragraph, as in Keras.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import keras
import tensorflow as tf

__all__ = ["PackedAdam"]

# From this many numbers on a variable's update takes long enough to be a kernel of its own.
_LARGE = 1 << 14


class PackedAdam(keras.optimizers.Optimizer):
    """The updates of `keras.optimizers.Adam`.

    With several replicas every variable has moments of its own, and Keras's way of summing gradients holds.
    """

    def __init__(
        self,
        learning_rate: Any = 1e-3,
        beta_1: float = 0.9,
        beta_2: float = 0.999,
        epsilon: float = 1e-7,
        name: str = "adam",
    ):
        """Initializes the optimizer.

        Args:
            learning_rate: a number or a Keras schedule.
            beta_1, beta_2: decay of the first and of the second moment, in [0, 1).
            epsilon: added to the root of the second moment.
            name: Keras name.
        """
        super().__init__(learning_rate=learning_rate, name=name)
        self.beta_1, self.beta_2, self.epsilon = beta_1, beta_2, epsilon

    def build(self, variables: Sequence[keras.Variable]) -> None:
        """Makes the moments, all zeros."""
        if self.built:
            return
        super().build(variables)
        pack = tf.distribute.get_strategy().num_replicas_in_sync == 1
        sizes = [math.prod(variable.shape) for variable in variables]
        self._small = [i for i, size in enumerate(sizes) if pack and size < _LARGE]
        self._place = {i: place for place, i in enumerate(i for i in range(len(sizes)) if i not in self._small)}
        self._momentums, self._velocities = (
            [self.add_variable_from_reference(variables[i], name=name) for i in self._place]
            for name in ("momentum", "velocity")
        )
        total = sum(sizes[i] for i in self._small)
        self._packed_momentum, self._packed_velocity = (
            self.add_variable(shape=(total,), initializer="zeros", name=f"packed_{name}")
            for name in ("momentum", "velocity")
        )

    def apply(self, grads: Sequence[tf.Tensor], trainable_variables: Any = None) -> None:
        """Updates the variables.

        Args:
            grads: one a variable.
            trainable_variables: those that the optimizer was built with, all of them; None for the same.
        """
        if trainable_variables is None:
            trainable_variables = self._trainable_variables
        if not self.built:
            self.build(trainable_variables)
        if self._small:
            if len(grads) != len(self._small) + len(self._place):
                raise ValueError(f"PackedAdam updates all {len(self._small) + len(self._place)} variables at once.")
            small = [(grads[i], trainable_variables[i]) for i in self._small]
            self._update_small(*zip(*small, strict=True))
        if self._place:
            super().apply([grads[i] for i in self._place], [trainable_variables[i] for i in self._place])
        else:  # Keras counts no iteration where it updates nothing
            self.iterations.assign_add(1)

    def _update_small(self, gradients: Sequence[tf.Tensor], variables: Sequence[keras.Variable]) -> None:
        gradient = tf.concat([tf.reshape(g, [-1]) for g in gradients], 0)
        update = self._moved(gradient, self._packed_momentum, self._packed_velocity, self.learning_rate)
        pieces = tf.split(update, [math.prod(variable.shape) for variable in variables])
        for variable, piece in zip(variables, pieces, strict=True):
            variable.assign(variable.value - tf.cast(tf.reshape(piece, variable.shape), variable.dtype))

    def update_step(self, gradient: tf.Tensor, variable: Any, learning_rate: tf.Tensor) -> None:
        """Updates one large variable; called by Keras."""
        place = self._place[self._get_variable_index(variable)]
        update = self._moved(gradient, self._momentums[place], self._velocities[place], learning_rate)
        self.assign_sub(variable, tf.cast(update, variable.dtype))

    def _moved(
        self, gradient: tf.Tensor, momentum: keras.Variable, velocity: keras.Variable, learning_rate: tf.Tensor
    ) -> tf.Tensor:
        """Moves the moments; what to subtract from the variable."""
        gradient = tf.cast(gradient, momentum.dtype)
        step = tf.cast(self.iterations.value + 1, momentum.dtype)
        rate = tf.cast(learning_rate, momentum.dtype)
        rate *= tf.sqrt(1.0 - tf.pow(self.beta_2, step)) / (1.0 - tf.pow(self.beta_1, step))
        first = momentum.value + (1.0 - self.beta_1) * (gradient - momentum.value)
        second = velocity.value + (1.0 - self.beta_2) * (tf.square(gradient) - velocity.value)
        momentum.assign(first)
        velocity.assign(second)
        return rate * first / (tf.sqrt(second) + self.epsilon)

    def get_config(self) -> dict[str, Any]:
        """Settings, as Keras saves them."""
        base = super().get_config()
        own = {"beta_1": self.beta_1, "beta_2": self.beta_2, "epsilon": self.epsilon}
        return {"name": base["name"], "learning_rate": base["learning_rate"], **own}
