"""What the machine can do at best: float32 matrix products of the model's shapes, and reading and writing memory."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import tensorflow as tf

from asr_tf.models import ASRModel

__all__ = ["BANDWIDTH_BYTES", "bandwidth_turn", "product_turns"]

BANDWIDTH_BYTES = 256 * 2**20  # far more than any cache holds
_REPEATS = 20


def _shapes(model: ASRModel, batch_size: int) -> list[tuple[int, int, int]]:
    """(M, K, N) of the largest products of a step: encoder, decoder and the LSTM's image projection."""
    rows = batch_size * model.num_steps
    layers = [layer.kernel.shape for layer in (*model.recognition.encoder.dense, *model.decoder.perceptron.dense)]
    largest = sorted(layers, key=lambda shape: -shape[0] * shape[1])[:4]
    projection = (batch_size, *model.recognition.image_gates.kernel.shape)
    forward = {(rows, int(k), int(n)) for k, n in largest} | {projection}
    return sorted(forward | {(k, m, n) for m, k, n in forward})  # and those of their kernels' gradients


def product_turns(
    model: ASRModel, batch_size: int
) -> dict[str, tuple[int, Callable[[], None]]]:
    """For each shape, by XLA and by TensorFlow's own kernels, the operations of a turn and the turn.

    The factors are device tensors that stay where they are; nothing is transposed, so that the rates are upper bounds.
    """
    rng = np.random.default_rng(0)
    turns: dict[str, tuple[int, Callable[[], None]]] = {}
    for m, k, n in _shapes(model, batch_size):
        factors = [tf.Variable(rng.normal(size=size).astype(np.float32)) for size in ((m, k), (k, n))]
        for compiler, jit_compile in (("xla", True), ("tf", False)):
            product = tf.function(
                lambda a=factors[0], b=factors[1]: tf.matmul(a, b), jit_compile=jit_compile, autograph=False
            )

            def turn(product: Callable[[], tf.Tensor] = product) -> None:
                for _ in range(_REPEATS):
                    result = product()
                result[0, 0].numpy()

            turns[f"{m}x{k}x{n} {compiler}"] = (2 * m * k * n * _REPEATS, turn)
    return turns


def bandwidth_turn() -> Callable[[], None]:
    """Reads `BANDWIDTH_BYTES` and writes as many."""
    values = tf.Variable(tf.ones([BANDWIDTH_BYTES // 4]))

    @tf.function(jit_compile=True, autograph=False)
    def scale() -> None:
        values.assign(values * 1.0000001)

    return scale
