"""The potential between windows against a loop over cells, and what the prior makes of it."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from asr_tf.distributions import cell_centres
from asr_tf.networks.pair_placement import _DISTANCES, _WIDTH, PairPlacement
from asr_tf.networks.prior import AutoregressivePrior
from asr_tf.scene import SceneSpec

HEIGHT, WIDTH = CANVAS = (30, 40)


@pytest.fixture(autouse=True)
def _same_weights_every_time():
    keras.utils.set_random_seed(0)


def made(grid_size, canvas=CANVAS):
    placement = PairPlacement(grid_size)
    placement.build(SceneSpec(canvas, 1, 3, 6, 4, -1.0, 0.13))
    return placement


def prior(strength, grid_size=40):
    """Windows nearer than a side are unlikely by 10 times `strength` nats."""
    network = AutoregressivePrior(rnn_units=8, head_units=6, placement_grid=grid_size)
    network.build(SceneSpec(CANVAS, 1, 3, 6, 4, -1.0, 0.13))
    network.placement.heights.assign([strength if distance == 1.0 else 0.0 for distance in _DISTANCES])
    return network


def test_potential_is_that_of_the_distance_in_sides():
    rng = np.random.default_rng(0)
    placement = made(6)
    heights = rng.normal(size=len(_DISTANCES)).astype(np.float32)
    placement.heights.assign(heights)
    shift, scale = np.float32([[0.3, -0.5]]), np.float32([[-0.4]])
    logits = placement(shift, scale).numpy()
    side = HEIGHT / (1.0 + np.exp(0.4))
    x, y = (np.tanh(shift[0]) + 1.0) / 2.0 * [WIDTH, HEIGHT]
    for row, column in np.ndindex(6, 6):
        centre_y, centre_x = (np.array([cell_centres(6)[row], cell_centres(6)[column]]) + 1.0) / 2.0 * [HEIGHT, WIDTH]
        away = np.array([abs(centre_x - x), abs(centre_y - y)]) / side
        within = 1.0 / (1.0 + np.exp(-(_DISTANCES - away[:, np.newaxis]) / _WIDTH))
        np.testing.assert_allclose(logits[0, row, column], -10.0 * (heights * within[0] * within[1]).sum(), rtol=1e-3)


def test_mixed_precision_takes_no_digits():
    """Weights of cells are many nats: they are computed in float32 whatever the policy is."""
    heights = np.random.default_rng(0).normal(size=len(_DISTANCES))
    outputs, previous = [], keras.mixed_precision.dtype_policy()
    for policy in ("float32", "mixed_bfloat16"):
        keras.mixed_precision.set_dtype_policy(policy)
        try:
            placement = made(6)
        finally:
            keras.mixed_precision.set_dtype_policy(previous)
        placement.heights.assign(heights)
        outputs.append(placement(tf.constant([[0.3, -0.5]]), tf.constant([[-0.4]])))
    np.testing.assert_allclose(outputs[1], outputs[0], rtol=1e-6)


@pytest.mark.parametrize("skip_absent", [False, True])
def test_sampled_windows_keep_apart(skip_absent):
    """Against the same prior without the potential, whose windows overlap in most scenes."""

    def share_apart(strength):
        drawn = prior(strength).distribution(0, skip_absent).sample_given_count(tf.fill([400], 3), seed=(1, 2))
        side = HEIGHT * np.asarray(tf.sigmoid(drawn.scale_latent))[..., 0]
        centres = np.tanh(drawn.shift_latent) / 2.0 * [WIDTH, HEIGHT]
        free = np.ones(400, bool)
        for i in range(3):
            for j in range(i):
                free &= np.abs(centres[:, i] - centres[:, j]).max(-1) > 0.9 * side[:, j]
        return free.mean()

    assert share_apart(0.0) < 0.6
    assert share_apart(1.0) > 0.97


def test_log_prob_is_the_density_of_the_samples():
    """The mean of the score, the gradient of log p(z) by the heights, is 0 over samples of p itself."""
    network = prior(0.1, grid_size=8)
    scenes = network.distribution(0)
    chunks = []
    for seed in range(10):
        drawn = scenes.sample(2000, seed=(seed, 0))
        with tf.GradientTape() as tape:
            mean = tf.reduce_mean(network.distribution(0).log_prob(drawn))
        chunks.append(tape.gradient(mean, network.placement.heights.value).numpy())
    scores = np.stack(chunks)
    error = scores.std(axis=0) / np.sqrt(len(scores))
    assert np.all(np.abs(scores.mean(axis=0)) < 5.0 * error + 1e-6)
    assert error.max() > 0.0


def test_room_is_the_side_at_which_squares_meet():
    """Against squares that grow pixel by pixel until they meet one of two earlier windows."""
    placement = made(5, (40, 60))
    rng = np.random.default_rng(0)
    centres, sides = rng.uniform(5.0, 35.0, (50, 3, 2)), rng.uniform(4.0, 12.0, (50, 3))  # (x, y), px
    shift = np.arctanh(centres / [30.0, 20.0] - 1.0)
    windows = np.concatenate([shift, np.log(sides / (40.0 - sides))[..., None]], -1).astype(np.float32)
    room = placement.room(windows[:, 2, :2], windows, np.array([True, True, False]))[:, 0]
    for i in range(50):
        wanted = 2.0
        for u in range(2):
            grown = np.arange(0.0, 80.0, 0.01)
            gap = np.abs(centres[i, 2] - centres[i, u]).max() - (grown + sides[i, u]) / 2.0
            wanted = min(wanted, grown[np.argmax(gap < 0.0)] / sides[i, u])
        np.testing.assert_allclose(room[i], wanted, atol=0.01)
    np.testing.assert_array_equal(placement.room(windows[:, 0, :2], windows, np.zeros(3, bool)), np.full((50, 1), 2.0))
