"""The priors: AIR's in closed form; the learned one, all steps at once against step by step."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from tensorflow_probability import distributions as tfd

from asr_tf.networks.prior import AIRPrior, AutoregressivePrior
from asr_tf.scene import SceneLatents, SceneSpec

T, Z = 3, 4
LOC, STDDEV = -0.4, 0.5


@pytest.fixture(autouse=True)
def _same_weights_every_time():
    keras.utils.set_random_seed(0)


def spec(exact_count=None):
    return SceneSpec((20, 30), 1, T, 6, Z, LOC, STDDEV, exact_count)


def learned(exact_count=None, **settings):
    network = AutoregressivePrior(**{"rnn_units": 8, "head_units": 6, "placement_grid": 5, **settings})
    network.build(spec(exact_count))
    if network.num_cells is not None:
        network.placement.heights.assign(0.1 * np.random.default_rng(1).normal(size=16))
    return network


def air(exact_count=None, **settings):
    network = AIRPrior(**settings)
    network.build(spec(exact_count))
    return network


def some_latents(batch=2, seed=0):
    rng = np.random.default_rng(seed)
    return SceneLatents(
        tf.ones([batch, T]), *(tf.constant(rng.normal(size=(batch, T, size)), tf.float32) for size in (2, 1, Z))
    )


@pytest.mark.parametrize("placement_grid", [None, 5])
@pytest.mark.parametrize("learn_scale", [False, True])
def test_steps_given_a_scene_are_those_of_walking_along(learn_scale, placement_grid):
    """Densities of other values than the scene's own, so that all of each distribution is looked at."""
    network = learned(learn_scale=learn_scale, placement_grid=placement_grid)
    latents, others = some_latents(), some_latents(seed=1)
    given = network.distribution(0).given(latents)
    shift, scale = given.shift.log_prob(others.shift_latent), given.scale.log_prob(others.scale_latent)
    what = given.what.log_prob(others.what)
    step = network._first(2)
    for t in range(T):
        if t > 0:
            previous = tf.nest.map_structure(lambda x, t=t: x[:, t - 1], latents)
            step = network._following(t, previous, step.state)
        scale_there = step.scale_given(latents.shift_latent[:, t])
        np.testing.assert_allclose(step.shift.log_prob(others.shift_latent[:, t]), shift[:, t], rtol=1e-4, atol=1e-4)
        np.testing.assert_allclose(scale_there.log_prob(others.scale_latent[:, t]), scale[:, t], rtol=1e-4, atol=1e-4)
        np.testing.assert_allclose(step.what.log_prob(others.what[:, t]), what[:, t], rtol=1e-5)
    if learn_scale:
        assert np.ptp(given.scale.mean()) > 1e-3
    assert np.ptp(shift[:, 1] - given.shift.log_prob(some_latents(seed=1).shift_latent)[:, 0]) > 1e-3


def test_the_first_step_knows_no_window_and_later_ones_those_before():
    network = learned(learn_scale=True)
    base = network.distribution(0).given(some_latents())
    changed = some_latents()
    moved = changed.shift_latent + tf.constant([0.0, 1.0, 0.0])[:, None]
    moved = network.distribution(0).given(changed._replace(shift_latent=moved))
    there = some_latents(seed=1).shift_latent
    a, b = base.shift.log_prob(there), moved.shift.log_prob(there)
    np.testing.assert_allclose(a[:, :2], b[:, :2], atol=1e-5)
    assert np.abs(a[:, 2] - b[:, 2]).min() > 1e-4


def test_a_scale_that_is_not_learned_and_the_appearance_are_as_the_spec_says():
    latents, given = some_latents(), learned().distribution(0).given(some_latents())
    scale = tfd.Normal(LOC, STDDEV).log_prob(latents.scale_latent)[..., 0]
    np.testing.assert_allclose(given.scale.log_prob(latents.scale_latent), scale, rtol=1e-5)
    what = tf.reduce_sum(tfd.Normal(0.0, 1.0).log_prob(latents.what), -1)
    np.testing.assert_allclose(given.what.log_prob(latents.what), what, rtol=1e-5)


def test_a_learned_scale_starts_as_the_spec_says():
    network = learned(learn_scale=True)
    network.scale_head.dense[-1].kernel.assign(tf.zeros([6, 2]))
    latents = some_latents()
    found = network.distribution(0).given(latents).scale.log_prob(latents.scale_latent)
    np.testing.assert_allclose(found, tfd.Normal(LOC, STDDEV).log_prob(latents.scale_latent)[..., 0], rtol=1e-5)


def test_the_count_is_ten_times_the_weights_and_looks_at_no_latents():
    network = learned()
    network.presence_weights.assign([0.1, -0.2, 0.3])
    scenes = network.distribution(0)
    p1, p2, p3 = 1.0 / (1.0 + np.exp([-1.0, 2.0, -3.0]))
    wanted = [1 - p1, p1 * (1 - p2), p1 * p2 * (1 - p3), p1 * p2 * p3]
    np.testing.assert_allclose(scenes.presence.count_probs(), wanted, rtol=1e-5)
    np.testing.assert_allclose(scenes.given(some_latents()).presence.count_probs(), wanted, rtol=1e-5)


@pytest.mark.parametrize("learn_scale", [False, True])
def test_log_prob_is_the_density_of_the_samples(learn_scale):
    """The mean of the score is 0 over samples of p itself: of the shift's head, of the scale's and of the LSTM."""
    network = learned(learn_scale=learn_scale)
    heads = [network.shift_head.dense[-1].bias, network.input_gates.bias]
    heads += [network.scale_head.dense[-1].bias] if learn_scale else []
    draw = tf.function(lambda seed: network.distribution(0).sample(1000, seed=seed))
    chunks = []
    for i in range(12):
        drawn = draw(tf.constant([i, 5]))
        with tf.GradientTape() as tape:
            mean = tf.reduce_mean(network.distribution(0).log_prob(drawn))
        chunks.append(np.concatenate([np.ravel(g) for g in tape.gradient(mean, [head.value for head in heads])]))
    scores = np.stack(chunks)
    error = scores.std(axis=0) / np.sqrt(len(scores))
    assert np.all(np.abs(scores.mean(axis=0)) < 6.0 * error + 1e-6)
    assert error[:4].min() > 0.0


def test_leaving_out_absent_steps_leaves_present_ones_as_they_are():
    network = learned(learn_scale=True)
    counts = tf.constant([0, 1, 2, 1])  # none has three
    every, some = (network.distribution(0, skip).sample_given_count(counts, (3, 4)) for skip in (False, True))
    present = np.asarray(every.presence)[..., np.newaxis] > 0
    for a, b in zip(every[1:], some[1:], strict=True):
        np.testing.assert_array_equal(np.where(present, a, 0.0), np.where(present, b, 0.0))
    assert not np.any(some.what[:, 2]) and np.any(every.what[:, 2])


def test_airs_count_is_annealed():
    network = air(presence_logits=(2.0, -4.0), anneal_steps=10)
    logits = [network.distribution(tf.constant(step, tf.int64)).presence.logits.numpy() for step in (0, 5, 10, 20)]
    np.testing.assert_allclose(logits, np.repeat([[2.0], [-1.0], [-4.0], [-4.0]], T, 1))
    assert not network.weights


def test_airs_prior_in_closed_form():
    latents = some_latents()
    found = air(presence_logits=(1.0, 1.0)).distribution(7).log_prob(latents)
    p = 1.0 / (1.0 + np.exp(-1.0))
    wanted = T * np.log(p)
    for value, loc, stddev in ((latents.shift_latent, 0.0, 1.0), (latents.scale_latent, LOC, STDDEV)):
        wanted = wanted + tf.reduce_sum(tfd.Normal(loc, stddev).log_prob(value), [1, 2])
    wanted += tf.reduce_sum(tfd.Normal(0.0, 1.0).log_prob(latents.what), [1, 2])
    np.testing.assert_allclose(found, wanted, rtol=1e-5)


@pytest.mark.parametrize("made", [learned, air])
def test_a_given_count_has_all_of_the_probability(made):
    network = made(exact_count=2)
    np.testing.assert_allclose(network.distribution(0).presence.count_probs(), [0.0, 0.0, 1.0, 0.0], atol=1e-12)
    assert not any("presence" in weight.path for weight in network.trainable_variables)
    drawn = network.distribution(0).sample(20, seed=(0, 1))
    np.testing.assert_array_equal(drawn.presence, [[1, 1, 0]] * 20)


def test_mixed_precision_leaves_float32():
    previous = keras.mixed_precision.dtype_policy()
    keras.mixed_precision.set_dtype_policy("mixed_bfloat16")
    try:
        network = learned(learn_scale=True)
        latents = network.distribution(0).sample(3, seed=(0, 1))
        log_prob = network.distribution(0).log_prob(latents)
    finally:
        keras.mixed_precision.set_dtype_policy(previous)
    assert log_prob.dtype == tf.float32 and np.all(np.isfinite(log_prob))
    assert {part.dtype for part in latents} == {tf.float32}
    assert network.state_gates.compute_dtype == "bfloat16"


@pytest.mark.parametrize(
    ("kind", "settings", "message"),
    [
        (AIRPrior, {"presence_logits": (4.0,)}, r"AIRPrior.presence_logits must be \(start, end\), got \(4.0,\)"),
        (AIRPrior, {"anneal_steps": 0}, "AIRPrior.anneal_steps must be a whole number, 1 or more, got 0"),
        (AutoregressivePrior, {"placement_grid": 3}, "AutoregressivePrior.placement_grid must be between 4 and 200"),
        (AutoregressivePrior, {"rnn_units": 2.5}, "AutoregressivePrior.rnn_units must be a whole number"),
    ],
)
def test_bad_settings(kind, settings, message):
    with pytest.raises(ValueError, match=message):
        kind(**settings)


@pytest.mark.parametrize(
    ("loc", "canvas", "cells"), [(-0.405465, (50, 50), 20), (-1.15, (50, 80), 53), (5.0, (9, 9), 8)]
)
def test_a_grid_by_size_has_eight_cells_a_side_of_an_object(loc, canvas, cells):
    """A side is 0.4 or 0.24 of 50 px, or all of 9 px."""
    prior = AutoregressivePrior()
    prior.build(SceneSpec(canvas, 1, 2, 4, 3, loc, 0.1))
    assert prior.num_cells == prior.placement.grid_size == cells
