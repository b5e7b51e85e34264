"""Kernels' gradients that are computed later: beside a loop, which leaves a processor's cores idle.

In the gradient of a layer, inputs^T @ upstream is what its kernel gets, and nothing waits for it but the optimizer.
The gradient of a recurrence is a chain of small operations, beside which such a product fits.  Left alone, it is done
at once: both cores are busy then, and one of them is idle in the loop that follows.

Within `later()`, layers hand their products over (`hand_over`) instead of computing them, and a recurrence says when
its gradient begins (`loop_starts`): what was handed over before then waits for it.
"""

from __future__ import annotations

import contextlib
import contextvars
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import tensorflow as tf

__all__ = ["Later", "hand_over", "later", "loop_starts", "one_after", "zero_after"]

# A kernel's gradient and its bias's, given what the ones beside the inputs are multiplied with.
Compute = Callable[[tf.Tensor], tuple[tf.Tensor, tf.Tensor]]


class Later:
    """Gradients handed over while a tape is played back."""

    def __init__(self) -> None:
        self._waiting: list[tuple[Sequence[Any], Compute]] = []
        self._started: list[tuple[Sequence[Any], Compute, tf.Tensor]] = []

    def hand_over(self, variables: Sequence[Any], compute: Compute) -> None:
        """Notes the gradients of some variables."""
        self._waiting.append((variables, compute))

    def start(self, one: tf.Tensor) -> None:
        """Ties what was handed over so far, and isn't tied yet, to a scalar of value one."""
        self._started += [(*each, one) for each in self._waiting]
        self._waiting = []

    def add_to(self, gradients: Sequence[tf.Tensor | None], variables: Sequence[Any]) -> list[tf.Tensor | None]:
        """The gradients of variables, with those handed over."""
        self.start(tf.ones([]))
        total = {id(variable): gradient for variable, gradient in zip(variables, gradients, strict=True)}
        for targets, compute, one in self._started:
            for variable, gradient in zip(targets, compute(one), strict=True):
                gradient = tf.cast(gradient, variable.dtype)
                before = total[id(variable)]
                total[id(variable)] = gradient if before is None else before + gradient
        return [total[id(variable)] for variable in variables]


_CURRENT: contextvars.ContextVar[Later | None] = contextvars.ContextVar("later", default=None)


@contextlib.contextmanager
def later() -> Iterator[Later]:
    """Gradients traced within are handed over; the caller adds them to the tape's."""
    gradients = Later()
    token = _CURRENT.set(gradients)
    try:
        yield gradients
    finally:
        _CURRENT.reset(token)


def hand_over(variables: Sequence[Any], compute: Compute) -> bool:
    """Hands gradients over to the `later` around, if there is one; says whether there is."""
    current = _CURRENT.get()
    if current is not None:
        current.hand_over(variables, compute)
    return current is not None


def zero_after(*known: tf.Tensor) -> tf.Tensor:
    """A scalar of value zero that isn't known before the tensors are; NaN where the first number of one of them is."""
    firsts = tf.add_n([tf.cast(tf.reshape(x, [-1])[0], tf.float32) for x in known])
    # Always 0, but no compiler knows.  (So is x * 0, but for infinities, too, it is NaN.)
    return tf.minimum(tf.abs(firsts), 0.0)


def one_after(*known: tf.Tensor) -> tf.Tensor:
    """A scalar of value one, otherwise as `zero_after`."""
    return 1.0 + zero_after(*known)


def loop_starts(upstream: Sequence[tf.Tensor]) -> None:
    """Says that the gradient of a loop begins, once its outputs' gradients are known."""
    current = _CURRENT.get()
    if current is not None:
        current.start(one_after(*upstream))
