"""Several optimizer updates as one program of XLA's.

Keras takes `steps_per_execution` updates in a loop of TensorFlow's that starts a compiled program for each: a hundred
variables are looked up, locked, handed over and taken back, for about a millisecond on a CPU, while its cores wait.
Here the loop is in the program, which is handed the variables and as many batches as it takes.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import tensorflow as tf

__all__ = ["several_updates"]

# Batches that a program is given at once take no more memory than this, or are one at a time.
_MAX_BYTES = 2**26

TrainFunction = Callable[[Any], dict[str, tf.Tensor]]


def _is_fixed(spec: Any) -> bool:
    """Whether an element of a data set is made of numbers in tensors of one shape, as programs take them."""
    return all(
        isinstance(part, tf.TensorSpec) and part.shape.is_fully_defined() and part.dtype.size > 0
        for part in tf.nest.flatten(spec)
    )


def _batches_a_program(spec: Any, num_updates: int) -> int:
    size = sum(part.shape.num_elements() * part.dtype.size for part in tf.nest.flatten(spec))
    programs = math.ceil(num_updates / max(1, _MAX_BYTES // max(1, size)))
    return math.ceil(num_updates / programs)


def _take(iterator: Any, at_most: int, size: int) -> tuple[tf.Tensor, list[tf.Tensor]]:
    """The next batches: how many there are, and their parts [size, ...], zeros after the last."""
    arrays = [
        tf.TensorArray(part.dtype, size, element_shape=part.shape) for part in tf.nest.flatten(iterator.element_spec)
    ]

    def body(number: tf.Tensor, _: tf.Tensor, arrays: list[Any]) -> tuple[tf.Tensor, tf.Tensor, list[Any]]:
        batch = iterator.get_next_as_optional()

        def added() -> list[Any]:
            parts = tf.nest.flatten(batch.get_value())
            return [array.write(number, part) for array, part in zip(arrays, parts, strict=True)]

        there = batch.has_value()
        return number + tf.cast(there, tf.int32), there, tf.cond(there, added, lambda: arrays)

    number, _, arrays = tf.while_loop(
        lambda number, there, _: there & (number < at_most), body, (tf.constant(0), tf.constant(True), arrays)
    )
    return number, [array.stack() for array in arrays]


def several_updates(
    update: Callable[[Any], Any], logs: Callable[[], dict[str, tf.Tensor]], num_updates: int, otherwise: TrainFunction
) -> TrainFunction:
    """A train function for Keras.

    Args:
        update: takes one step with a batch.  All that it leaves behind is in variables.
        logs: what is reported after the last of them; called where `update` was traced before.
        num_updates: the most updates of a call; fewer where the data end.
        otherwise: the train function for batches that XLA can't be given together, as those whose size varies.

    Returns:
        A function that takes an iterator, and raises StopIteration where it has no batch left.
    """

    @tf.function(jit_compile=True, autograph=False)
    def run(batches: Any, number: tf.Tensor) -> None:
        def body(t: tf.Tensor) -> tf.Tensor:
            update(tf.nest.map_structure(lambda x: x[t], batches))
            return t + 1

        tf.while_loop(lambda t: t < number, body, [tf.constant(0)])

    @tf.function(reduce_retracing=True, autograph=False)
    def execute(iterator: Any) -> tuple[tf.Tensor, dict[str, tf.Tensor]]:
        spec = iterator.element_spec
        size = _batches_a_program(spec, num_updates)
        taken = tf.constant(0)
        for start in range(0, num_updates, size):
            number, parts = _take(iterator, min(size, num_updates - start), size)
            run(tf.nest.pack_sequence_as(spec, parts), number)
            taken += number
        return taken, logs()

    def function(iterator: Any) -> dict[str, tf.Tensor]:
        if not isinstance(iterator, tf.data.Iterator) or not _is_fixed(iterator.element_spec):
            return otherwise(iterator)
        taken, values = execute(iterator)
        if not taken:
            raise StopIteration
        return values

    return function
