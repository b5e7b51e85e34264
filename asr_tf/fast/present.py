"""The steps of a batch of scenes that hold an object, laid end to end: work for absent ones is left out.

A scene has room for T objects and holds fewer, mostly; what an absent step would show is thrown away in the end.
"""

from __future__ import annotations

import tensorflow as tf

__all__ = ["PresentSteps"]


class PresentSteps:
    """Which steps are present, N in all, in the order of scenes and then of steps.

    Args:
        presence: float [B, T], 1 where present, else 0.
        gather: whether to leave out absent steps.  Their number is then known only when the graph runs, so that XLA
            can't compile it; otherwise N is B T, and absent steps are computed and then masked.
    """

    def __init__(self, presence: tf.Tensor, gather: bool = True):
        self._presence = presence
        self._index = tf.where(presence > 0.0) if gather else None  # [N, 2], scene and step

    def take(self, values: tf.Tensor) -> tf.Tensor:
        """[B, T, ...] to the present steps' [N, ...]."""
        if self._index is None:
            return tf.reshape(values, [-1, *values.shape[2:]])
        return tf.gather_nd(values, self._index)

    def scenes(self) -> tf.Tensor:
        """The scene of each present step, int32 [N]."""
        if self._index is None:
            shape = tf.shape(self._presence)
            return tf.repeat(tf.range(shape[0]), shape[1])
        return tf.cast(self._index[:, 0], tf.int32)

    def put(self, values: tf.Tensor) -> tf.Tensor:
        """[N, ...] to [B, T, ...], zeros for absent steps; all but N is static."""
        size = tf.shape(self._presence, tf.int64)[0]
        shape = [size, self._presence.shape[1], *values.shape[1:]]
        if self._index is not None:
            return tf.ensure_shape(tf.scatter_nd(self._index, values, shape), [None, *shape[1:]])
        is_there = tf.cast(self._presence > 0.0, values.dtype)
        return tf.reshape(is_there, [*shape[:2], *[1] * (values.shape.rank - 1)]) * tf.reshape(values, shape)
