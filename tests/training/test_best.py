"""What is kept as the result of a run: the best weights among those that hold most rules."""

from __future__ import annotations

import keras
import numpy as np
import pytest

from asr_tf.runs.checkpoints import Checkpoints
from asr_tf.training.best import BestKeeper
from asr_tf.training.callbacks import TrainingState
from asr_tf.training.schedule import TrainingBudget


class Trained(keras.Model):
    """A weight that says from which step it is."""

    def __init__(self):
        super().__init__()
        self.step = self.add_weight(shape=(), dtype="int64", initializer="zeros", name="step")


@pytest.mark.parametrize(
    ("reports", "kept"),
    [
        ([(9.0, 0), (7.0, 0), (8.0, 0)], 2),  # -ELBO and rules not held, a report each
        ([(9.0, 0), (7.0, 1), (8.0, 0)], 3),
        ([(9.0, 2), (7.0, 1), (8.0, 1)], 2),
        ([(9.0, 0), (float("nan"), 0), (9.0, 0)], 1),
    ],
)
def test_the_fewest_broken_rules_and_then_the_lowest_negative_elbo(tmp_path, reports, kept):
    model = Trained()
    state = TrainingState(model.step, TrainingBudget(10))
    broken = 0

    def rules_held():
        return {f"rule_{i}": {"held": i >= broken} for i in range(3)}

    keeper = BestKeeper(state, Checkpoints(tmp_path, 1, model=model), rules_held)
    for step, (bound, number) in enumerate(reports, start=1):
        broken = number
        model.step.assign(step)
        state.report = {"val_negative_elbo_nats": bound}
        keeper.on_epoch_end(step)
    assert len(list(tmp_path.glob("*.index"))) == 1
    restored = Trained()
    Checkpoints(tmp_path, model=restored).restore()
    assert int(restored.step) == kept
    np.testing.assert_array_equal(state.best, (reports[kept - 1][1], reports[kept - 1][0]))
