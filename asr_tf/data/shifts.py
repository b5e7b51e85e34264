"""Scenes moved as a whole, each as far as its ink allows: more of them than there are images.

Where objects are is what a model of scenes learns from the fewest examples: an appearance is there in many images, an
arrangement in one.  What holds for an arrangement, counts, sizes and distances, holds for it elsewhere on the canvas.
"""

from __future__ import annotations

import tensorflow as tf

__all__ = ["shifted"]


def shifted(batch: dict[str, tf.Tensor], seed: tf.Tensor, margin: int) -> dict[str, tf.Tensor]:
    """Moves each scene by whole pixels, uniformly among the moves that keep its ink on the canvas.

    Args:
        batch: `image` uint8 [B, H, W, 1], whose ink is what isn't 0; `boxes` and `ink_boxes` float32 [B, M, 4], as
            fractions of the canvas with zeros for absent objects, move along where they are there.
        seed: int32 [2].
        margin: pixels along each edge that ink isn't moved into.  A box may reach farther than its ink.

    Returns:
        The batch, moved.  A scene without ink, or with ink in the margins on both sides, stays (along that axis).
    """
    images = batch["image"]
    ink = tf.squeeze(images, -1) > 0
    uniform = tf.random.stateless_uniform([2, tf.shape(images)[0]], seed)
    moves = []
    for axis, chance in enumerate(tf.unstack(uniform)):
        size = images.shape[1 + axis]
        inked = tf.reduce_any(ink, axis=2 - axis)  # [B, size]
        first = tf.argmax(inked, axis=1, output_type=tf.int32)
        last = size - 1 - tf.argmax(inked[:, ::-1], axis=1, output_type=tf.int32)
        back, forth = tf.maximum(first - margin, 0), tf.maximum(size - 1 - margin - last, 0)
        move = tf.cast(tf.floor(chance * tf.cast(back + forth + 1, tf.float32)), tf.int32) - back
        moves.append(tf.where(tf.reduce_any(inked, axis=1), move, 0))
        source = (tf.range(size) - moves[-1][:, tf.newaxis]) % size  # what goes around is blank
        images = tf.gather(images, source, axis=1 + axis, batch_dims=1)
    by = tf.cast(tf.stack(moves * 2, axis=-1), tf.float32) / tf.constant(images.shape[1:3].as_list() * 2, tf.float32)
    moved = {**batch, "image": images}
    for name in ("boxes", "ink_boxes"):
        if name in batch:
            there = tf.reduce_any(batch[name] != 0.0, axis=-1, keepdims=True)
            moved[name] = tf.where(there, batch[name] + by[:, tf.newaxis], batch[name])
    return moved
