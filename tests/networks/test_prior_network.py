"""The learned prior's RNN: teacher forcing against sampling, and what a given count replaces."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from asr_tf.networks.prior_network import PriorNetwork

from asr_tf.distributions import AutoregressiveScenePrior, PresenceCode
from asr_tf.networks.pair_placement import PairPlacement
from asr_tf.scene import SceneLatents


@pytest.fixture(autouse=True)
def _same_weights_every_time():
    keras.utils.set_random_seed(0)


@pytest.mark.parametrize("placed", [False, True])
@pytest.mark.parametrize("learn_scale", [False, True])
def test_prior_step_by_step_equals_teacher_forcing(learn_scale, placed):
    placement = PairPlacement((20, 30), 5) if placed else None
    network = PriorNetwork(3, 4, 8, 6, -0.4, -1.0, learn_scale, placement=placement)
    network.presence_weights.assign([0.1, -0.2, 0.3])
    if placed:
        placement.heights.assign(0.1 * np.random.default_rng(1).normal(size=16))
    rng = np.random.default_rng(0)
    latents = SceneLatents(
        tf.ones([2, 3]),
        *(tf.constant(rng.normal(size=(2, 3, size)).astype(np.float32)) for size in (2, 1, 4)),
    )
    all_at_once = network(latents)
    state = network.initial_state(2)
    previous = tf.nest.map_structure(lambda x: tf.zeros_like(x[:, 0]), latents)
    for t in range(3):
        statistics, state = network.step(previous, state)
        if learn_scale:
            loc, log_scale = network.scale(latents.shift_latent[:, t], state)
            statistics = statistics._replace(scale_loc=loc, scale_log_scale=log_scale)
        for got, expected in zip(statistics, all_at_once, strict=True):
            if expected is not None:
                np.testing.assert_allclose(got, expected[:, t], atol=1e-5)
        previous = tf.nest.map_structure(lambda x, t=t: x[:, t], latents)
    assert (all_at_once.shift_logits is not None) == placed
    np.testing.assert_allclose(all_at_once.presence_logits[0], [1.0, -2.0, 3.0], rtol=1e-6)


def test_the_distribution_of_a_model_with_a_learned_scale_is_its_statistics():
    """`sample` draws from what `log_prob` of the same distribution and the network's `call` say."""
    placement = PairPlacement((20, 30), 5)
    network = PriorNetwork(3, 4, 8, 6, -0.4, -1.0, True, placement=placement)
    scenes = AutoregressiveScenePrior(network.step, network.initial_state, 3, 4, scale_fn=network.scale)
    latents = scenes.sample_given_count(tf.fill([5], 3), seed=(0, 1), num_candidates=1)
    statistics, expected = scenes.statistics(latents), network(latents)
    for got, wanted in zip(statistics, expected, strict=True):
        np.testing.assert_allclose(got, wanted, atol=1e-5)
    assert np.ptp(expected.scale_loc) > 1e-3


def test_a_given_count_has_all_of_the_probability():
    network = PriorNetwork(3, 4, 8, 6, -0.4, -1.0, False, exact_count=2)
    np.testing.assert_allclose(PresenceCode(network.presence_logits()).count_probs(), [0.0, 0.0, 1.0, 0.0], atol=1e-12)
    assert not any("presence" in weight.path for weight in network.trainable_variables)
