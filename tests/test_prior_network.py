"""The learned prior's RNN: teacher forcing against sampling, and what a given count replaces."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from asr_tf.distributions import PresenceCode
from asr_tf.prior_network import PriorNetwork
from asr_tf.scene import SceneLatents


@pytest.fixture(autouse=True)
def _same_weights_every_time():
    keras.utils.set_random_seed(0)


@pytest.mark.parametrize("learn_scale", [False, True])
def test_prior_step_by_step_equals_teacher_forcing(learn_scale):
    network = PriorNetwork(3, 4, 8, 6, -0.4, -1.0, learn_scale)
    network.presence_weights.assign([0.1, -0.2, 0.3])
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
        for got, expected in zip(statistics[:5], all_at_once[:5], strict=True):
            np.testing.assert_allclose(got, expected[:, t], atol=1e-6)
        previous = tf.nest.map_structure(lambda x, t=t: x[:, t], latents)
    np.testing.assert_allclose(all_at_once.presence_logits[0], [1.0, -2.0, 3.0], rtol=1e-6)


def test_a_given_count_has_all_of_the_probability():
    network = PriorNetwork(3, 4, 8, 6, -0.4, -1.0, False, exact_count=2)
    np.testing.assert_allclose(PresenceCode(network.presence_logits()).count_probs(), [0.0, 0.0, 1.0, 0.0], atol=1e-12)
    assert not any("presence" in weight.path for weight in network.trainable_variables)
