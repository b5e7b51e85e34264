"""Drawing again, against a loop in Python with the same draws."""

import numpy as np
import pytest
import tensorflow as tf

from asr_tf.models import redraw


def draw(number, seed):
    """Numbers in [0, 1), of which those below 0.3 pass; and two columns that say which draw they are of."""
    values = tf.random.stateless_uniform([number], seed)
    columns = tf.tile(tf.cast(seed, tf.float32)[tf.newaxis], [number, 1])
    return {"value": values, "seed": columns}, values < 0.3


def by_hand(number, seed, most_tries):
    """One place at a time; draws, by how many were missing, are those of `draw`."""
    values, seeds = np.full(number, np.nan), np.zeros((number, 2))
    missing, draws = list(range(number)), 0
    for tries in range(most_tries):
        this = np.asarray(seed if tries == 0 else tf.random.fold_in(tf.constant(seed), tries))
        new, _ = draw(len(missing), tf.constant(this))
        draws += len(missing)
        for place, value in zip(list(missing), new["value"].numpy(), strict=True):
            values[place], seeds[place] = value, this
            if value < np.float32(0.3):
                missing.remove(place)
        if not missing:
            break
    return values, seeds, draws


@pytest.mark.parametrize("most_tries", [1, 2, 5, 100])
@pytest.mark.parametrize("in_graph", [False, True])
def test_places_hold_the_first_draw_that_passes(most_tries, in_graph):
    def run(number, seed, tries):
        return redraw.draw_until(draw, number, seed, tries)

    run = tf.function(run, autograph=False) if in_graph else run
    found, passed, rate = run(tf.constant(50), tf.constant([3, 4]), tf.constant(most_tries))
    values, seeds, draws = by_hand(50, [3, 4], most_tries)
    np.testing.assert_array_equal(found["value"], values.astype(np.float32))
    np.testing.assert_array_equal(found["seed"], seeds.astype(np.float32))
    np.testing.assert_array_equal(passed, values < np.float32(0.3))
    np.testing.assert_allclose(rate, passed.numpy().sum() / draws, rtol=1e-6)
    assert passed.numpy().all() == (most_tries == 100)


def test_what_passes_is_spread_as_what_is_drawn_is_where_it_passes():
    found, passed, rate = redraw.draw_until(draw, tf.constant(20_000), tf.constant([0, 1]), tf.constant(100))
    assert passed.numpy().all()
    np.testing.assert_allclose(np.mean(found["value"]), 0.15, atol=0.15 / np.sqrt(3 * 20_000) * 4)
    np.testing.assert_allclose(rate, 0.3, atol=0.01)


def test_nothing_that_passes_ends():
    found, passed, rate = redraw.draw_until(
        lambda number, seed: ({"value": tf.zeros([number])}, tf.zeros([number], tf.bool)),
        tf.constant(3),
        tf.constant([0, 0]),
        tf.constant(7),
    )
    assert found["value"].shape == (3,) and not passed.numpy().any() and rate.numpy() == 0.0
