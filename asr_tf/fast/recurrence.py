"""Loops over steps, whose products with large kernels are differentiated for all steps at once.

`unroll` runs a step function T times as a loop of the graph, so that its operations are traced and compiled once and
not T times.  Its gradient is a loop too, and cheaper than what automatic differentiation makes of a loop:

*   The gradient of a kernel is one product over all steps, not T small ones and as many sums.
*   Results of products and of activations are kept, and so is the state before each step; the rest of a step, light
    elementwise work, is done again.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, Protocol

import tensorflow as tf

from asr_tf.fast.kernel_gradients import loop_starts, one_after, zero_after

__all__ = ["TANH", "Activation", "Apply", "Operation", "Step", "unroll"]


class Activation(NamedTuple):
    """An elementwise function.

    Its value may be in pieces, equal parts of the last axis.  Where each is used on its own they are kept apart: of an
    array that it reads at several places, XLA makes loops that aren't vectorized.

    Attributes:
        value: of x, a tensor or a list of pieces.
        slope: its derivative at x, given the value y there; in pieces where the value is.
    """

    value: Callable[[tf.Tensor], Any]
    slope: Callable[[Any], Any]


TANH = Activation(tf.tanh, lambda y: 1.0 - tf.square(y))


class Apply(Protocol):
    """What a step calls for an operation."""

    def __call__(self, factor: tf.Tensor, beside: tf.Tensor | None = None) -> Any:
        """activation(factor @ kernel + beside); `beside` has the product's shape."""


class Operation(NamedTuple):
    """A product with a kernel and an activation; either may be missing."""

    kernel: tf.Tensor | None = None
    activation: Activation | None = None

    def __call__(self, factor: tf.Tensor, beside: tf.Tensor | None = None) -> Any:
        """See `Apply`."""
        result = factor if self.kernel is None else tf.matmul(factor, self.kernel)
        if beside is not None:
            result += beside
        return result if self.activation is None else self.activation.value(result)


Step = Callable[[Any, Any, Any, Sequence[Apply]], tuple[Any, Any]]


class _Recorder:
    """An operation that notes its factor and its result."""

    def __init__(self, operation: Operation):
        self._operation = operation
        self.factor: Any = None
        self.result: Any = None

    def __call__(self, factor: tf.Tensor, beside: tf.Tensor | None = None) -> Any:
        self.factor, self.result = factor, self._operation(factor, beside)
        return self.result


def _joined(pieces: Any) -> tf.Tensor:
    """The tensor that is given, or may be given, in pieces."""
    return tf.concat(pieces, -1) if isinstance(pieces, list | tuple) else pieces


class _Replay:
    """An operation whose result is known; `of_product` becomes the gradient of what went into the activation."""

    def __init__(self, operation: Operation, result: Any):
        self._operation, self.result = operation, result
        self.of_product: Any = tf.zeros_like(_joined(result))  # stays so where nothing depends on the result

    def __call__(self, factor: tf.Tensor, beside: tf.Tensor | None = None) -> Any:
        kernel, activation = self._operation
        pieces = tf.nest.flatten(self.result)

        # The result is an argument, and watched: a kernel has a gradient even where its factor has none.
        @tf.custom_gradient
        def known(*inputs: tf.Tensor) -> tuple[list[tf.Tensor], Callable[..., list[tf.Tensor]]]:
            def gradient(*upstream: tf.Tensor) -> list[tf.Tensor]:
                of_pieces = list(upstream)
                if activation is not None:
                    slopes = activation.slope(tf.nest.pack_sequence_as(self.result, inputs[: len(pieces)]))
                    of_pieces = [x * y for x, y in zip(upstream, tf.nest.flatten(slopes), strict=True)]
                self.of_product = of_product = _joined(tf.nest.pack_sequence_as(self.result, of_pieces))
                of_factor = of_product if kernel is None else tf.matmul(of_product, kernel, transpose_b=True)
                return [*of_pieces, of_factor, of_product][: len(inputs)]

            return [tf.identity(x) for x in inputs[: len(pieces)]], gradient

        values = known(*pieces, factor) if beside is None else known(*pieces, factor, beside)
        return tf.nest.pack_sequence_as(self.result, values)


def _rows(values: tf.Tensor) -> tf.Tensor:
    """[T, B, N] to [T * B, N]."""
    return tf.reshape(values, [-1, values.shape[-1]])


class _Kept:
    """Tensors of every step in arrays of the graph, each tensor once however often it is given.

    Args:
        examples: of a step's tensors; only their shapes and dtypes count.
        num_steps: T.
        known: a tensor that is there before the loop, not empty.
    """

    def __init__(self, examples: Sequence[tf.Tensor], num_steps: int, known: tf.Tensor):
        self._places: list[int] = []
        self.arrays = []
        first = tf.reshape(known, [-1])[0]
        for i, x in enumerate(examples):
            array = tf.TensorArray(x.dtype, num_steps, element_shape=x.shape)
            # An array starts as zeros that XLA doesn't know to be those of another one, which it would copy.
            if x.shape.is_fully_defined():
                zero = zero_after((i + 1) * first)
                array = array.unstack(tf.fill([num_steps, *x.shape], tf.cast(zero, x.dtype)))
            self.arrays.append(array)

    def write(self, arrays: Sequence[tf.TensorArray], t: tf.Tensor, values: Sequence[tf.Tensor]) -> list[Any]:
        """The arrays with the values of step t."""
        # For each tensor the place where it, the very same, comes first; an array that stays empty is left out by XLA.
        self._places = [next(i for i, y in enumerate(values) if y is x) for x in values]
        triples = zip(arrays, values, self._places, strict=True)
        return [array.write(t, x) if place == i else array for i, (array, x, place) in enumerate(triples)]

    def stacks(self, arrays: Sequence[tf.TensorArray]) -> list[tf.Tensor]:
        """[T, ...] for each of the examples."""
        stacks = {place: arrays[place].stack() for place in set(self._places)}
        return [stacks[place] for place in self._places]


def unroll(
    step: Step, operations: Sequence[Operation], weights: Any, state: Any, inputs: Any, num_steps: int
) -> tuple[Any, Any]:
    """Runs `state, outputs = step(state, inputs[t], weights, operations)` for t = 0..T-1.

    Args:
        step: the step function.  It calls each of the operations once a step, in any order.  It must not read variables
            or other tensors that are to be differentiated: these come as arguments.
        operations: what is worth keeping for the gradient.
        weights: a structure of what every step reads.
        state: a structure, the state before the first step; it keeps its shapes.
        inputs: a structure of tensors [T, ...].
        num_steps: T, at least 1.

    Returns:
        The last state, and a structure of the outputs, [T, ...] each.
    """
    pack, flatten = tf.nest.pack_sequence_as, tf.nest.flatten
    with_kernel = [i for i, operation in enumerate(operations) if operation.kernel is not None]
    given = ([operations[i].kernel for i in with_kernel], weights, state, inputs)
    size, count = len(flatten(state)), len(with_kernel)
    structure: list[Any] = []

    @tf.custom_gradient
    def run(*flat: tf.Tensor) -> tuple[list[tf.Tensor], Callable[..., list[tf.Tensor]]]:
        kernels, weights, state, inputs = pack(given, flat)
        kernel_of = dict(zip(with_kernel, kernels, strict=True))
        here = [operation._replace(kernel=kernel_of.get(i)) for i, operation in enumerate(operations)]

        def forward(t: tf.Tensor, state: Any) -> tuple[Any, Any, list[Any], list[tf.Tensor]]:
            recorders = [_Recorder(operation) for operation in here]
            after, outputs = step(state, tf.nest.map_structure(lambda x: x[t], inputs), weights, recorders)
            factors, results = [recorders[i].factor for i in with_kernel], [r.result for r in recorders]
            return after, outputs, results, [*flatten(state), *factors, *flatten(results), *flatten(outputs)]

        # Of this call only shapes count; nothing of it is left in the graph.
        _, outputs, form_of_results, examples = forward(tf.constant(0), state)
        structure.append(outputs)
        kept = _Kept(examples, num_steps, flat[0])

        def body(t: tf.Tensor, state: Any, arrays: list[Any]) -> tuple[tf.Tensor, Any, list[Any]]:
            after, _, _, values = forward(t, state)
            return t + 1, after, kept.write(arrays, t, values)

        _, after, arrays = tf.while_loop(
            lambda t, *_: t < num_steps,
            body,
            (tf.constant(0), state, kept.arrays),
            maximum_iterations=num_steps,
        )
        values = kept.stacks(arrays)
        states, values = values[:size], values[size:]
        factors, values = values[:count], values[count:]
        pieces = len(flatten(form_of_results))
        results, outputs = pack(form_of_results, values[:pieces]), values[pieces:]

        def gradient(*upstream: tf.Tensor) -> list[tf.Tensor]:
            of_after, of_outputs = list(upstream[:size]), upstream[size:]
            loop_starts(upstream)

            def backward(
                i: tf.Tensor, of_state: list[tf.Tensor], of_weights: list[tf.Tensor], arrays: list[Any]
            ) -> tuple[tf.Tensor, list[tf.Tensor], list[tf.Tensor], list[Any]]:
                t = num_steps - 1 - i
                sources = [[x[t] for x in states], [x[t] for x in flatten(inputs)], flatten(weights)]
                results_now = tf.nest.map_structure(lambda x: x[t], results)
                replays = [_Replay(operation, x) for operation, x in zip(here, results_now, strict=True)]
                with tf.GradientTape() as tape:
                    tape.watch([sources, [replay.result for replay in replays]])
                    before, now, small = (
                        pack(form, x) for form, x in zip((state, inputs, weights), sources, strict=True)
                    )
                    targets = flatten(step(before, now, small, replays))
                of_targets = [*of_state, *(x[t] for x in of_outputs)]
                of_before, of_inputs, of_weights_here = tape.gradient(
                    targets, sources, of_targets, unconnected_gradients="zero"
                )
                return (
                    i + 1,
                    of_before,
                    [a + b for a, b in zip(of_weights, of_weights_here, strict=True)],
                    by_step.write(arrays, t, [*of_inputs, *(replays[i].of_product for i in with_kernel)]),
                )

            products = [_joined(form_of_results[i]) for i in with_kernel]  # again only for their shapes
            by_step = _Kept([*(x[0] for x in flatten(inputs)), *products], num_steps, flat[0])
            _, of_before, of_weights, arrays = tf.while_loop(
                lambda i, *_: i < num_steps,
                backward,
                (tf.constant(0), of_after, [tf.zeros_like(x) for x in flatten(weights)], by_step.arrays),
                maximum_iterations=num_steps,
            )
            gradients = by_step.stacks(arrays)
            of_inputs, of_products = gradients[: len(gradients) - count], gradients[len(gradients) - count :]
            # Not before the loop's end: what comes before the loop goes on meanwhile.
            one = one_after(*of_before) if of_before else 1.0
            of_kernels = [
                tf.matmul(_rows(factor) * tf.cast(one, factor.dtype), _rows(of_product), transpose_a=True)
                for factor, of_product in zip(factors, of_products, strict=True)
            ]
            return [*of_kernels, *of_weights, *of_before, *of_inputs]

        return [*flatten(after), *outputs], gradient

    values = run(*flatten(given))
    return pack(state, values[:size]), pack(structure[0], values[size:])
