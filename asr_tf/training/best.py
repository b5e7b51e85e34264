"""The result of a run: the weights that were best on held-out images, among those that hold the rules."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import keras

from asr_tf.runs.checkpoints import Checkpoints
from asr_tf.training.callbacks import TrainingState

__all__ = ["BestKeeper"]


class BestKeeper(keras.callbacks.Callback):
    """Keeps the weights of the report with the fewest rules not held and, among those, the highest bound.

    References:
        Cotter et al., "Two-player games for efficient non-convex constrained optimization", ALT 2019, section 4 (of a
        training that isn't sure to end at one, the best snapshot that is feasible).
    """

    def __init__(
        self, state: TrainingState, checkpoints: Checkpoints, rules_held: Callable[[], Mapping[str, Mapping[str, Any]]]
    ) -> None:
        """Binds the checkpoint.

        Args:
            state: shared; its `report` must hold `val_negative_elbo_nats`; `best` is written.
            checkpoints: where the result lies; they keep one.
            rules_held: where each rule stands, as `BoundModel.rules_held` tells.
        """
        super().__init__()
        self._state, self._checkpoints, self._rules_held = state, checkpoints, rules_held

    def on_epoch_end(self, epoch: int, logs: Mapping[str, Any] | None = None) -> None:
        """Keeps the weights where they are the best so far."""
        broken = sum(not rule["held"] for rule in self._rules_held().values())
        found = (float(broken), float(self._state.report["val_negative_elbo_nats"]))
        if found < tuple(self._state.best.numpy()):
            self._checkpoints.save(self._state.steps_done)
            self._state.best.assign(found)
