"""Drawing again what doesn't pass, until all passes or the tries are used up, inside a graph.

Each place is filled by the first of its draws that passes, so that what is there is a sample of what is drawn, given
that it passes.  Only what is missing is drawn again: how much that is, is known only when the graph runs.
"""

from __future__ import annotations

from collections.abc import Callable

import tensorflow as tf

__all__ = ["Drawn", "draw_until"]

Drawn = dict[str, tf.Tensor]


def draw_until(
    draw: Callable[[tf.Tensor, tf.Tensor], tuple[Drawn, tf.Tensor]],
    number: tf.Tensor,
    seed: tf.Tensor,
    most_tries: tf.Tensor,
) -> tuple[Drawn, tf.Tensor, tf.Tensor]:
    """Draws, and draws again what doesn't pass.

    Args:
        draw: how many, int32 [], and a seed, int32 [2], to tensors [M, ...] by name and which of them pass, bool [M].
        number: int32 [], N.
        seed: int32 [2]; the first try is `draw(number, seed)`.
        most_tries: int32 [], 1 or more.

    Returns:
        Tensors [N, ...] by name; which of them pass, bool [N]; and what passed / what was drawn, float32 [].
    """
    first, passed = draw(number, seed)

    def goes_on(tries: tf.Tensor, _: tf.Tensor, passed: tf.Tensor, *__: Drawn) -> tf.Tensor:
        return (tries < most_tries) & ~tf.reduce_all(passed)

    def again(
        tries: tf.Tensor, draws: tf.Tensor, passed: tf.Tensor, kept: Drawn
    ) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor, Drawn]:
        missing = tf.where(~passed)  # [M, 1]
        size = tf.shape(missing)[0]
        new, new_passed = draw(size, tf.random.fold_in(seed, tries))
        kept = {name: tf.tensor_scatter_nd_update(kept[name], missing, value) for name, value in new.items()}
        passed = tf.tensor_scatter_nd_update(passed, missing, new_passed)
        return tries + 1, draws + tf.cast(size, tf.float32), passed, kept

    state = (tf.constant(1), tf.cast(number, tf.float32), passed, first)
    shapes = tf.nest.map_structure(lambda x: x.shape, state)
    _, draws, passed, kept = tf.while_loop(goes_on, again, state, shape_invariants=shapes)
    return kept, passed, tf.reduce_sum(tf.cast(passed, tf.float32)) / draws
