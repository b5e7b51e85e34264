"""Trainings that go wrong, told by signs that need no label: begun again, or taken back to where they were good."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from typing import Any

import keras
import numpy as np

from asr_tf.training.callbacks import TrainingState

__all__ = ["CollapseGuard", "SetbackGuard", "collapse_signs"]

# An image count that so many images have is the only one; windows that so large a share of is empty are lost.
_ONE_COUNT, _EMPTY_SHARE = 0.98, 0.3
# A window that draws nothing brighter than that is empty.
_FAINT = 0.1
# Windows may be so many standard deviations of the scale's prior larger than its mean, on average.
_LARGE = 4.0
# No sign counts before so many steps, or after that part of the budget; a sign must last so many reports.
_FIRST_STEP, _LAST_FRACTION, _REPORTS = 1_000, 0.6, 3
# The bound is lost where -ELBO is by so large a part of it, and by so many nats, above that of the best weights.
_LOST_PART, _LOST_NATS = 0.5, 10.0
_MOST_SETBACKS = 4


def collapse_signs(model: Any, inferred: Mapping[str, np.ndarray]) -> list[str]:
    """What is wrong with what a model finds in images, in words; nothing where all is well.

    Args:
        model: an `ASRModel`.
        inferred: what `infer(images, with_objects=True)` gives, as arrays.
    """
    counts = inferred["count"]
    signs = []
    commonest = int(np.bincount(counts).argmax())
    if model.counts is not None and len(model.counts) > 1 and np.mean(counts == commonest) >= _ONE_COUNT:
        signs.append(f"nearly every image has {commonest} object{'s' * (commonest != 1)}")
    present = inferred["presence"] > 0.5
    if present.any():
        brightest = inferred["objects"].max(axis=(-3, -2, -1))[present]
        if np.mean(brightest < _FAINT) > _EMPTY_SHARE:
            signs.append(f"{np.mean(brightest < _FAINT):.0%} of the windows are empty")
        boxes = inferred["boxes"][present]
        side = np.mean(boxes[:, 2] - boxes[:, 0]) * model.canvas_size[0] / min(model.canvas_size)
        largest = 1.0 / (1.0 + np.exp(-(model.spec.scale_loc + _LARGE * model.spec.scale_stddev)))
        if side > largest:
            signs.append(
                f"windows are {side * min(model.canvas_size):.0f} px wide, "
                f"where objects have up to {largest * min(model.canvas_size):.0f} px"
            )
    return signs


class CollapseGuard(keras.callbacks.Callback):
    """Begins again from other initial weights where a training shows signs of a collapse, and says so."""

    def __init__(
        self,
        state: TrainingState,
        infer: Callable[[], Mapping[str, np.ndarray]],
        initial_weights: Callable[[int], list[Any]],
        most_restarts: int,
    ) -> None:
        """Binds functions.

        Args:
            state: shared; `restarts` is written.
            infer: what the model finds in held-out images, as `collapse_signs` takes it.
            initial_weights: the weights of a fresh model, in the order of `weights`, given how often training was
                begun again.
            most_restarts: how often at most; 0 for never.
        """
        super().__init__()
        self._state, self._infer, self._initial_weights = state, infer, initial_weights
        self._most_restarts = most_restarts
        self._reports_with_signs = 0

    def on_epoch_end(self, epoch: int, logs: Mapping[str, Any] | None = None) -> None:
        """Looks for signs."""
        state = self._state
        restarts = int(state.restarts.numpy())
        early = state.steps_done - int(state.started.numpy()) < _FIRST_STEP
        if restarts >= self._most_restarts or early or state.fraction > _LAST_FRACTION:
            self._reports_with_signs = 0
            return
        signs = collapse_signs(self.model, self._infer())
        self._reports_with_signs = self._reports_with_signs + 1 if signs else 0
        if self._reports_with_signs < _REPORTS:
            return
        print(
            f"\nStep {state.steps_done}: {'; '.join(signs)}. Training begins again from other initial weights "
            f"({restarts + 1} of {self._most_restarts} times at most).",
            file=sys.stderr,
            flush=True,
        )
        self._begin_again(restarts + 1)

    def _begin_again(self, restarts: int) -> None:
        fresh = self._initial_weights(restarts)
        counters = {id(variable) for variable in self.model.counters}
        for variable, value in zip(self.model.variables, fresh, strict=True):
            if id(variable) not in counters:
                variable.assign(value)
        _forget_moments(self.model.optimizer)
        self._state.restarts.assign(restarts)
        self._state.started.assign(self._state.steps_done)
        self._reports_with_signs = 0


class SetbackGuard(keras.callbacks.Callback):
    """Goes back to the best weights where a training has lost the bound, at half of the learning rate, and says so.

    At a high rate, or where rules ask for more than there is and their multipliers grow, a step can throw windows off
    their objects.  What the rules then ask grows without bound, and the way back is long; the weights that are kept as
    the result aren't far.  From there on no multiplier of a demand on inferred scenes becomes larger than it was with
    them.
    """

    def __init__(self, state: TrainingState, restore: Callable[[], Any]) -> None:
        """Binds a function.

        Args:
            state: shared; `setbacks` is written.
            restore: gives the model the weights that are kept as the result.
        """
        super().__init__()
        self._state, self._restore = state, restore

    def on_epoch_end(self, epoch: int, logs: Mapping[str, Any] | None = None) -> None:
        """Compares the bound on held-out images with that of the best weights."""
        state = self._state
        setbacks = int(state.setbacks.numpy()) + 1
        fresh = state.steps_done - int(state.started.numpy()) < _FIRST_STEP
        bound, (broken, best) = float(state.report["val_negative_elbo_nats"]), state.best.numpy()
        if fresh or setbacks > _MOST_SETBACKS or not np.isfinite(best):
            return
        if bound <= best + max(_LOST_PART * abs(best), _LOST_NATS):
            return
        if sum(not rule["held"] for rule in self.model.rules_held().values()) < broken:
            return  # what rules cost
        print(
            f"\nStep {state.steps_done}: -ELBO on held-out images is {bound:.0f} nats, and was {best:.0f}. Training "
            f"goes on from the weights that had it, with the learning rate times {0.5**setbacks:g} and without larger "
            "multipliers of rules on inferred scenes.",
            file=sys.stderr,
            flush=True,
        )
        counts = [keras.ops.convert_to_numpy(counter) for counter in self.model.counters]
        self._restore()
        for counter, count in zip(self.model.counters, counts, strict=True):
            counter.assign(count)
        self.model.rule_terms.hold_down()
        _forget_moments(self.model.optimizer)
        state.setbacks.assign(setbacks)


def _forget_moments(optimizer: Any) -> None:
    """An optimizer as it was before its first update, but for the learning rate."""
    for variable in optimizer.variables:
        if variable is not optimizer.learning_rate:
            variable.assign(keras.ops.zeros_like(variable))
