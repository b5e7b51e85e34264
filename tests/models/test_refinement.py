"""The free numbers, their ascent and what is kept of it, against values by hand."""

import numpy as np
import pytest
import tensorflow as tf

from asr_tf.models import refinement
from asr_tf.models.refinement import Regularized
from asr_tf.networks.contracts import LatentNoise
from asr_tf.scene import PosteriorStatistics, SceneSpec

SPEC = SceneSpec((12, 14), 1, 3, 6, 4, -1.0, 0.2)
SHAPES = PosteriorStatistics((3,), (3, 2), (3, 2), (3, 1), (3, 1), (3, 4), (3, 4))
SEED = tf.constant([5, 6])


def random_numbers(batch, seed=0):
    rng = np.random.default_rng(seed)
    return PosteriorStatistics(*(tf.constant(rng.normal(size=(batch, *shape)), tf.float32) for shape in SHAPES))


def per_image(values):
    return tf.reduce_sum(values, axis=list(range(1, values.shape.rank)))


def ascend(objective, start, steps, seed=SEED):
    return refinement.ascend(objective, start, SPEC, tf.constant(steps), seed)


def test_noise_and_posterior_by_hand():
    given, free = random_numbers(2, 1), random_numbers(2, 2)
    normal = LatentNoise.draw(2, SPEC, SEED, "philox")
    noise = refinement.noise_of(free, normal)
    posterior = refinement.posterior_of(given, free)
    np.testing.assert_allclose(posterior.presence_logits, given.presence_logits + free.presence_logits, rtol=1e-6)
    for name in ("shift", "scale", "what"):
        loc, log_scale = (np.asarray(getattr(given, f"{name}_{part}")) for part in ("loc", "log_scale"))
        mean, wider = (np.asarray(getattr(free, f"{name}_{part}")) for part in ("loc", "log_scale"))
        # The latent is loc + scale noise: of such noise it has this mean and spread.
        np.testing.assert_allclose(getattr(posterior, f"{name}_loc"), loc + np.exp(log_scale) * mean, rtol=1e-5)
        np.testing.assert_allclose(getattr(posterior, f"{name}_log_scale"), log_scale + wider, rtol=1e-5, atol=1e-6)
        drawn = np.asarray(getattr(normal, name))
        latent = loc + np.exp(log_scale) * np.asarray(getattr(noise, name))
        spread = np.exp(np.asarray(getattr(posterior, f"{name}_log_scale")))
        np.testing.assert_allclose(latent, getattr(posterior, f"{name}_loc") + spread * drawn, rtol=1e-4, atol=1e-5)
        np.testing.assert_array_equal(getattr(refinement.means(free), name), mean)


def test_zeros_are_the_amortized_posterior():
    zeros, given = refinement.amortized(2, SPEC), random_numbers(2)
    assert [tuple(x.shape) for x in zeros] == [(2, *shape) for shape in SHAPES]
    normal = LatentNoise.draw(2, SPEC, SEED, "philox")
    for found, wanted in zip(refinement.noise_of(zeros, normal), normal, strict=True):
        np.testing.assert_array_equal(found, wanted)
    for found, wanted in zip(refinement.posterior_of(given, zeros), given, strict=True):
        np.testing.assert_array_equal(found, wanted)


def test_the_first_step_by_hand():
    """A slope s moves each number by its kind's rate, times s / (the slopes' root mean square in its step + 0.1)."""
    slopes = random_numbers(2, 3)
    zeros = refinement.amortized(2, SPEC)

    def objective(free, normal):
        total = sum(per_image(slope * number) for slope, number in zip(slopes, free, strict=True))
        return Regularized(0.25 * total, 0.75 * total)

    found = ascend(objective, zeros, 1)
    for name in SHAPES._fields:
        slope, rate = np.asarray(getattr(slopes, name)), getattr(refinement._RATES, name)
        size = np.abs(slope) if slope.ndim == 2 else np.sqrt(np.mean(slope**2, axis=-1, keepdims=True))
        np.testing.assert_allclose(getattr(found, name), -rate * slope / (size + 0.1), rtol=1e-5, err_msg=name)


def squares(targets, scale=1.0):
    """An objective whose best numbers are the targets, whatever the noise."""

    def objective(free, normal):
        total = sum(per_image(tf.square(x - y)) for x, y in zip(free, targets, strict=True))
        noise = sum(per_image(x * y) for x, y in zip(refinement.means(free), normal, strict=True))
        return Regularized(scale * (total + 3.0 * noise), tf.zeros_like(total))

    return objective


def test_the_best_numbers_are_found_without_noise_getting_in_the_way():
    """What noise adds in proportion cancels between a draw and its opposite."""
    targets = tf.nest.map_structure(lambda x: 0.3 * x, random_numbers(2, 4))
    found = ascend(squares(targets), refinement.amortized(2, SPEC), 400)
    for name in ("shift_loc", "scale_loc", "what_loc", "presence_logits"):
        np.testing.assert_allclose(getattr(found, name), getattr(targets, name), atol=0.02, err_msg=name)


def test_images_do_not_see_one_another():
    """Neither which others there are, nor how many, nor how much steeper they are."""
    targets = random_numbers(3, 4)
    together = ascend(squares(targets, tf.constant([1.0, 2.0, 1000.0])), refinement.amortized(3, SPEC), 10)
    alone = ascend(
        squares(tf.nest.map_structure(lambda x: x[1:2], targets), 2.0), refinement.amortized(1, SPEC), 10
    )
    for found, wanted in zip(together, alone, strict=True):
        np.testing.assert_allclose(found[1:2], wanted, rtol=1e-5, atol=1e-6)


def test_what_does_not_matter_stays():
    zeros = refinement.amortized(2, SPEC)
    for found in ascend(squares(random_numbers(2), 1e-6), zeros, 20):
        assert np.abs(found).max() < 1e-3
    for found in ascend(lambda free, normal: Regularized(tf.zeros([2]), tf.zeros([2])), zeros, 3):
        assert not np.any(found)
    for found in ascend(squares(random_numbers(2)), zeros, 0):
        assert not np.any(found)


@pytest.mark.parametrize("in_graph", [False, True])
def test_draws_follow_the_seed_and_are_fresh_at_every_step(in_graph):
    seen = tf.Variable(tf.zeros([0]), shape=[None])

    def objective(free, normal):
        seen.assign(tf.concat([seen, normal.scale[:, 0, 0]], 0))
        return Regularized(per_image(tf.square(free.shift_loc)), tf.zeros([2]))

    def run(steps, seed):
        return refinement.ascend(objective, refinement.amortized(2, SPEC), SPEC, steps, seed)

    run = tf.function(run, autograph=False) if in_graph else run
    run(tf.constant(3), SEED)
    run(tf.constant(3), SEED)
    first, again = np.split(seen.numpy(), 2)
    np.testing.assert_array_equal(first, again)
    assert len(first) == 6 and len({*np.abs(first)}) == 3  # one draw for all images, and its opposite
    np.testing.assert_array_equal(first[::2], -first[1::2])


def test_numbers_go_back_where_they_are_worse():
    free = random_numbers(4, 7)

    def objective(numbers, normal):
        """Better, worse by its penalty, not a number, equal."""
        is_free = tf.reduce_any(numbers.presence_logits != 0.0)
        nats = tf.where(is_free, tf.constant([7.0, 7.0, np.nan, 10.0]), 10.0)
        penalties = tf.where(is_free, tf.constant([2.0, 5.0, 1.0, 1.0]), 1.0)
        return Regularized(nats + tf.reduce_sum(normal.shift), penalties)

    kept, before, after = refinement.no_worse(objective, free, SPEC, SEED)
    draws = [LatentNoise.draw(1, SPEC, tf.random.fold_in(SEED, k), "philox") for k in range(8)]
    noise = np.mean([np.sum(draw.shift) for draw in draws])
    np.testing.assert_allclose(before.negative_elbo, [10.0 + noise] * 4, rtol=1e-5)
    np.testing.assert_allclose(after.negative_elbo, np.array([7.0, 10.0, 10.0, 10.0]) + noise, rtol=1e-5)
    np.testing.assert_array_equal(after.penalties, [2.0, 1.0, 1.0, 1.0])
    np.testing.assert_allclose(after.total, after.negative_elbo + after.penalties, rtol=1e-6)
    for found, given in zip(kept, free, strict=True):
        np.testing.assert_array_equal(found[:1], given[:1])
        assert not np.any(found[1:])
