"""Loops over steps, whose products with large kernels are differentiated for all steps at once.

`unroll` runs a step function T times as a loop of the graph, so that its operations are traced and compiled once and
not T times.  Its gradient is a loop too, and cheaper than what automatic differentiation makes of a loop:

*   The gradient of a kernel is one product over all steps, not T small ones and as many sums.
*   Results of products are kept, and so is the state before each step; the rest of a step, elementwise work and
    products with small weights, is done again.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import tensorflow as tf

__all__ = ["Product", "Step", "unroll"]

Product = Callable[[tf.Tensor], tf.Tensor]
Step = Callable[[Any, Any, Any, Sequence[Product]], tuple[Any, Any]]


class _Recorder:
    """A product with a kernel that notes its factor and its result."""

    def __init__(self, kernel: tf.Tensor):
        self._kernel = kernel
        self.factor: Any = None
        self.result: Any = None

    def __call__(self, factor: tf.Tensor) -> tf.Tensor:
        self.factor, self.result = factor, tf.matmul(factor, self._kernel)
        return self.result


class _Replay:
    """A product whose result is known, and gets the gradient of the product, be its factor differentiated or not."""

    def __init__(self, kernel: tf.Tensor, result: tf.Tensor):
        self._kernel, self._result = kernel, result

    def __call__(self, factor: tf.Tensor) -> tf.Tensor:
        @tf.custom_gradient
        def product(
            factor: tf.Tensor, result: tf.Tensor
        ) -> tuple[tf.Tensor, Callable[[tf.Tensor], tuple[tf.Tensor, tf.Tensor]]]:
            def gradient(upstream: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
                return tf.matmul(upstream, self._kernel, transpose_b=True), upstream

            return tf.identity(result), gradient

        return product(factor, self._result)


class _Kept:
    """Tensors of every step in arrays of the graph, each tensor once however often it is asked for."""

    def __init__(self, examples: Sequence[tf.Tensor], num_steps: int):
        # For each tensor the place where it, the very same, comes first.
        self._places = [next(i for i, y in enumerate(examples) if y is x) for x in examples]
        self._firsts = sorted(set(self._places))
        self.arrays = [
            tf.TensorArray(examples[i].dtype, num_steps, element_shape=examples[i].shape) for i in self._firsts
        ]

    def write(self, arrays: Sequence[tf.TensorArray], t: tf.Tensor, values: Sequence[tf.Tensor]) -> list[Any]:
        """The arrays with the values of step t."""
        return [array.write(t, values[i]) for array, i in zip(arrays, self._firsts, strict=True)]

    def stacks(self, arrays: Sequence[tf.TensorArray]) -> list[tf.Tensor]:
        """[T, ...] for each of the examples."""
        stacked = [array.stack() for array in arrays]
        return [stacked[self._firsts.index(place)] for place in self._places]


def unroll(
    step: Step, kernels: Sequence[tf.Tensor], weights: Any, state: Any, inputs: Any, num_steps: int
) -> tuple[Any, Any]:
    """Runs `state, outputs = step(state, inputs[t], weights, products)` for t = 0..T-1.

    Args:
        step: the step function.  `products[i](x)` is `x @ kernels[i]`, to be taken once a step, in any order.  It must
            not read variables or other tensors that are to be differentiated: these come as arguments.
        kernels: K matrices.
        weights: a structure of what every step reads.
        state: a structure, the state before the first step; it keeps its shapes.
        inputs: a structure of tensors [T, ...].
        num_steps: T, at least 1.

    Returns:
        The last state, and a structure of the outputs, [T, ...] each.
    """
    pack, flatten = tf.nest.pack_sequence_as, tf.nest.flatten
    given = (list(kernels), weights, state, inputs)
    size = len(flatten(state))
    structure: list[Any] = []

    @tf.custom_gradient
    def run(*flat: tf.Tensor) -> tuple[list[tf.Tensor], Callable[..., list[tf.Tensor]]]:
        kernels, weights, state, inputs = pack(given, flat)

        def forward(t: tf.Tensor, state: Any) -> tuple[Any, Any, list[tf.Tensor]]:
            products = [_Recorder(kernel) for kernel in kernels]
            after, outputs = step(state, tf.nest.map_structure(lambda x: x[t], inputs), weights, products)
            factors, results = ([getattr(p, name) for p in products] for name in ("factor", "result"))
            return after, outputs, [*flatten(state), *factors, *results, *flatten(outputs)]

        # Of this call only shapes count, and which tensors are the same; nothing of it is left in the graph.
        _, outputs, examples = forward(tf.constant(0), state)
        structure.append(outputs)
        kept = _Kept(examples, num_steps)

        def body(t: tf.Tensor, state: Any, arrays: list[Any]) -> tuple[tf.Tensor, Any, list[Any]]:
            after, _, values = forward(t, state)
            return t + 1, after, kept.write(arrays, t, values)

        _, after, arrays = tf.while_loop(
            lambda t, *_: t < num_steps,
            body,
            (tf.constant(0), state, kept.arrays),
            maximum_iterations=num_steps,
        )
        values = kept.stacks(arrays)
        states, values = values[:size], values[size:]
        factors, values = values[: len(kernels)], values[len(kernels) :]
        results, outputs = values[: len(kernels)], values[len(kernels) :]

        def gradient(*upstream: tf.Tensor) -> list[tf.Tensor]:
            of_after, of_outputs = list(upstream[:size]), upstream[size:]

            def backward(
                i: tf.Tensor, of_state: list[tf.Tensor], of_weights: list[tf.Tensor], arrays: list[Any]
            ) -> tuple[tf.Tensor, list[tf.Tensor], list[tf.Tensor], list[Any]]:
                t = num_steps - 1 - i
                known = [result[t] for result in results]
                sources = [[x[t] for x in states], [x[t] for x in flatten(inputs)], flatten(weights), known]
                products = [_Replay(k, result) for k, result in zip(kernels, known, strict=True)]
                with tf.GradientTape() as tape:
                    tape.watch(sources)
                    before, now, small = (
                        pack(form, x) for form, x in zip((state, inputs, weights), sources[:3], strict=True)
                    )
                    targets = flatten(step(before, now, small, products))
                of_targets = [*of_state, *(x[t] for x in of_outputs)]
                of_before, of_inputs, of_weights_here, of_known = tape.gradient(
                    targets, sources, of_targets, unconnected_gradients="zero"
                )
                return (
                    i + 1,
                    of_before,
                    [a + b for a, b in zip(of_weights, of_weights_here, strict=True)],
                    by_step.write(arrays, t, [*of_inputs, *of_known]),
                )

            by_step = _Kept([x[0] for x in (*flatten(inputs), *results)], num_steps)
            _, of_before, of_weights, arrays = tf.while_loop(
                lambda i, *_: i < num_steps,
                backward,
                (tf.constant(0), of_after, [tf.zeros_like(x) for x in flatten(weights)], by_step.arrays),
                maximum_iterations=num_steps,
            )
            gradients = by_step.stacks(arrays)
            of_inputs, of_results = gradients[: -len(kernels)], gradients[-len(kernels) :]
            of_kernels = [
                tf.matmul(*(tf.reshape(x, [-1, x.shape[-1]]) for x in pair), transpose_a=True)
                for pair in zip(factors, of_results, strict=True)
            ]
            return [*of_kernels, *of_weights, *of_before, *of_inputs]

        return [*flatten(after), *outputs], gradient

    values = run(*flatten(given))
    return pack(state, values[:size]), pack(structure[0], values[size:])
