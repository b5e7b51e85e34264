"""Signs of a collapse, and beginning again."""

from __future__ import annotations

import types

import keras
import numpy as np
import pytest
import tensorflow as tf

from asr_tf.training.callbacks import Schedule, TrainingState
from asr_tf.training.collapse import CollapseGuard, SetbackGuard, collapse_signs
from asr_tf.training.schedule import TrainingBudget

CANVAS = (40, 60)


def model(counts=(1, 3)):
    spec = types.SimpleNamespace(scale_loc=-1.1, scale_stddev=0.1)
    return types.SimpleNamespace(counts=counts, canvas_size=CANVAS, spec=spec)


def inferred(counts, side_px=10.0, brightness=1.0):
    """Scenes of T = 3 whose windows all have one side, and draw one bright pixel each."""
    counts = np.array(counts)
    presence = (np.arange(3) < counts[:, np.newaxis]).astype(np.float32)
    boxes = np.zeros((len(counts), 3, 4), np.float32)
    boxes[..., 2:] = [side_px / CANVAS[0], side_px / CANVAS[1]]
    objects = np.zeros((len(counts), 3, *CANVAS, 1), np.float32)
    objects[:, :, 5, 5] = np.reshape(brightness, [-1, 1, 1])
    return {"count": counts, "presence": presence, "boxes": boxes * presence[..., None], "objects": objects}


@pytest.mark.parametrize(
    ("found", "sign"),
    [
        (inferred([1, 3] * 50), None),
        (inferred([3] * 99 + [1]), "nearly every image has 3 objects"),
        (inferred([1] * 100), "nearly every image has 1 object"),
        (inferred([1, 3] * 50, brightness=[1.0, 0.05] * 50), "75% of the windows are empty"),
        (inferred([1, 3] * 50, side_px=13.0), None),
        (inferred([1, 3] * 50, side_px=14.0), "windows are 14 px wide, where objects have up to 13 px"),
        (inferred([1, 3] * 50, side_px=30.0), "windows are 30 px wide, where objects have up to 13 px"),
        (inferred([0] * 100), "nearly every image has 0 objects"),
    ],
)
def test_signs(found, sign):
    """The largest side is sigmoid(-1.1 + 4 * 0.1) of 40 px, 13.3 px."""
    assert collapse_signs(model(), found) == ([] if sign is None else [sign])


def test_one_count_alone_is_no_sign_where_it_is_known():
    assert collapse_signs(model((3,)), inferred([3] * 100)) == []
    assert collapse_signs(model(None), inferred([3] * 100)) == []


class Trained(keras.Model):
    """A weight, a counter, and what a guard needs of an `ASRModel`."""

    def __init__(self):
        super().__init__()
        self.weight = self.add_weight(shape=(2,), name="weight")
        self.step = self.add_weight(shape=(), dtype="int64", trainable=False, name="step")
        self.counters = [self.step]
        self.counts, self.canvas_size, self.spec = (1, 3), CANVAS, model().spec


def guarded(found, most_restarts=2):
    """A guard, its model at step 3,000 of 10,000, and its state."""
    trained = Trained()
    trained.compile(optimizer=keras.optimizers.Adam(0.5))
    trained.optimizer.build(trained.trainable_variables)
    trained.optimizer.apply([tf.ones(2)], trained.trainable_variables)
    trained.step.assign(3_000)
    state = TrainingState(trained.step, TrainingBudget(10_000))
    guard = CollapseGuard(state, lambda: found, lambda n: [np.full(2, 7.0 + n), np.int64(0)], most_restarts)
    guard.set_model(trained)
    return guard, trained, state


def test_signs_that_last_three_reports_begin_training_again(capsys):
    guard, trained, state = guarded(inferred([3] * 100))
    for _ in range(2):
        guard.on_epoch_end(0)
    assert int(state.restarts) == 0
    guard.on_epoch_end(2)
    assert (int(state.restarts), int(state.started), int(trained.step)) == (1, 3_000, 3_000)
    np.testing.assert_array_equal(trained.weight, [8.0, 8.0])
    moments = [variable for variable in trained.optimizer.variables if variable.shape == (2,)]
    assert moments and not any(np.any(moment) for moment in moments)
    assert float(trained.optimizer.learning_rate) == 0.5
    told = capsys.readouterr().err
    assert "Step 3000: nearly every image has 3 objects. Training begins again" in told
    assert "(1 of 2 times at most)" in told


def test_no_more_than_so_often_nor_right_after_a_beginning_nor_late():
    guard, trained, state = guarded(inferred([3] * 100), most_restarts=1)
    for _ in range(6):
        guard.on_epoch_end(0)  # the sixth is still within 1,000 steps of the restart, and it was the only one
    assert int(state.restarts) == 1
    guard, trained, state = guarded(inferred([3] * 100))
    trained.step.assign(500)
    for _ in range(5):
        guard.on_epoch_end(0)
    trained.step.assign(9_000)
    for _ in range(5):
        guard.on_epoch_end(0)
    assert int(state.restarts) == 0


def test_a_training_that_is_well_goes_on():
    guard, trained, state = guarded(inferred([1, 3] * 50))
    before = trained.weight.numpy()
    for _ in range(5):
        guard.on_epoch_end(0)
    assert int(state.restarts) == 0
    np.testing.assert_array_equal(trained.weight, before)


def lost(bound, best=(0.0, 200.0), held=(True, True), started=0):
    """Whether a guard goes back, at step 3,000; its model, its state, and how often it restored."""
    _, trained, state = guarded(None)
    trained.rules_held = lambda: {str(i): {"held": value} for i, value in enumerate(held)}
    # What multipliers may become is that of the weights that are restored.
    trained.rule_terms = types.SimpleNamespace(hold_down=lambda: held_down.append(trained.weight.numpy()))
    held_down = state.held_down = []
    state.best.assign(best)
    state.started.assign(started)
    state.report = {"val_negative_elbo_nats": bound}
    restored = []

    def restore():
        restored.append(trained.weight.numpy())
        trained.weight.assign([3.0, 3.0])
        trained.step.assign(1_000)

    guard = SetbackGuard(state, restore)
    guard.set_model(trained)
    guard.on_epoch_end(0)
    return bool(restored), guard, trained, state


@pytest.mark.parametrize(
    ("bound", "more", "is_lost"),
    [
        (299.0, {}, False),
        (301.0, {}, True),
        (np.nan, {}, True),
        (301.0, {"best": (1.0, 200.0), "held": (False, True)}, True),
        (301.0, {"best": (1.0, 200.0)}, False),  # rules are held that weren't, and that costs
        (301.0, {"best": (0.0, 200.0), "held": (False, False)}, True),
        (1e6, {"best": (np.inf, np.inf)}, False),  # nothing is kept yet
        (1e6, {"started": 2_100}, False),  # begun again a little while ago
        (9.0, {"best": (0.0, 0.0)}, False),
        (11.0, {"best": (0.0, 0.0)}, True),
    ],
)
def test_a_bound_that_is_lost(bound, more, is_lost):
    assert lost(bound, **more)[0] == is_lost


def test_training_goes_back_at_half_the_rate_and_counts_its_steps_on(capsys):
    _, guard, trained, state = lost(1187.4)
    np.testing.assert_array_equal(trained.weight, [3.0, 3.0])
    np.testing.assert_array_equal(state.held_down, [[3.0, 3.0]])
    assert (int(trained.step), int(state.setbacks)) == (3_000, 1)
    moments = [v for v in trained.optimizer.variables if v is not trained.optimizer.learning_rate]
    assert all(not np.any(moment.numpy()) for moment in moments) and moments
    schedule = Schedule(state, lambda step, fraction: 0.5)
    schedule.set_model(trained)
    schedule.on_train_batch_begin(0)
    assert float(trained.optimizer.learning_rate.numpy()) == 0.25
    for _ in range(5):
        guard.on_epoch_end(0)
    assert int(state.setbacks) == 4
    message = capsys.readouterr().err
    assert message.count("Step 3000: -ELBO on held-out images is 1187 nats, and was 200.") == 4
    assert "with the learning rate times 0.5 and without larger multipliers of rules on inferred scenes." in message
    assert "times 0.0625 and" in message
