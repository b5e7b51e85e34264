"""Scene priors: the fixed one of AIR, and the learned one, an LSTM over the objects so far.

References:
    Eslami et al., "Attend, Infer, Repeat", NIPS 2016, arXiv:1603.08575, section 2.1.
    Xu et al., arXiv:1906.03923, section 4 (sizes) and its learned autoregressive prior.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import Any

import gin
import numpy as np
import tensorflow as tf
from tensorflow_probability import distributions as tfd

from asr_tf.checks import check_choice, check_range, check_whole
from asr_tf.distributions import (
    AutoregressiveScene,
    GridPlacement,
    IndependentSteps,
    NextStep,
    PresenceCode,
    certain_presence_logits,
    normal,
    normal_cell_logits,
)
from asr_tf.networks.contracts import ScenePrior
from asr_tf.networks.layers import Perceptron, dense, lstm_step, remember_at_first
from asr_tf.networks.pair_placement import PairPlacement
from asr_tf.scene import SceneLatents, SceneSpec

__all__ = ["AIRPrior", "AutoregressivePrior"]

# Of the room for a window, beside hidden units between -1 and 1.
_ROOM_GAIN = 4.0
# Adam moves a weight by its rate a step: the count's logits are so many times their weights.
_PRESENCE_GAIN = 10.0
# Cells of a grid: the fewest and the most, and how many there are to a side of a typical object.
_CELLS, _CELLS_A_SIDE = (4, 200), 8.0


def _cells_by_size(spec: SceneSpec) -> int:
    """Cells along each axis, fine enough to tell the distances that matter between objects of their typical size."""
    side = min(spec.canvas_size) / (1.0 + math.exp(-spec.scale_loc))
    return min(max(round(_CELLS_A_SIDE * max(spec.canvas_size) / side), _CELLS[0]), _CELLS[1])


@gin.register
class AIRPrior(ScenePrior):
    """The fixed prior: steps are independent, and the count's preference for many objects turns into one for few.

    The shift latent is N(0, 1), the scale latent as `SceneSpec` has it, the appearance N(0, I).
    """

    def __init__(
        self, presence_logits: Sequence[float] = (4.0, -4.0), anneal_steps: int = 10_000, name: str = "prior"
    ):
        """Initializes the prior.

        Args:
            presence_logits: the logit of "one more object" at the first step of training and from `anneal_steps` on,
                linear between.
            anneal_steps: training steps.
            name: Keras name.

        Raises:
            ValueError: not two logits, or a number of steps that isn't 1 or more.
        """
        super().__init__(name=name, autocast=False)
        if isinstance(presence_logits, str) or len(presence_logits) != 2:
            raise ValueError(f"AIRPrior.presence_logits must be (start, end), got {presence_logits!r}.")
        check_whole("AIRPrior.anneal_steps", anneal_steps)
        self.presence_logits, self.anneal_steps = tuple(presence_logits), anneal_steps

    def distribution(self, step: Any, skip_absent: bool = False) -> IndependentSteps:
        """See `ScenePrior.distribution`."""
        spec = self.spec
        start, end = self.presence_logits
        progress = tf.minimum(tf.cast(step, tf.float32) / float(self.anneal_steps), 1.0)
        if spec.exact_count is None:
            logits = tf.fill([spec.num_steps], start + (end - start) * progress)
        else:
            logits = certain_presence_logits(spec.exact_count, spec.num_steps)

        def each_step(size: int, loc: float, stddev: float) -> tfd.Distribution:
            return normal(tf.fill([spec.num_steps, size], loc), math.log(stddev))

        return IndependentSteps(
            PresenceCode(logits),
            each_step(2, 0.0, 1.0),
            each_step(1, spec.scale_loc, spec.scale_stddev),
            each_step(spec.what_size, 0.0, 1.0),
        )


@gin.register
class AutoregressivePrior(ScenePrior):
    """p(z_t | z_<t): an LSTM over the previous steps' latents, with heads for shift and scale, and a learned count.

    The logits of the presence code are T free weights and look at no latents, so that p(n) is a learned categorical
    distribution and scenes with a given number of objects can be drawn exactly, without rejection.
    """

    def __init__(
        self,
        rnn_units: int = 256,
        head_units: int = 64,
        placement_grid: int | str | None = "by_size",
        learn_scale: bool = False,
        name: str = "prior",
    ):
        """Initializes the network.

        Args:
            rnn_units, head_units: widths of the LSTM and of the heads' hidden layer.
            placement_grid: objects are placed by weights of so many times so many cells of the canvas (4 to 200), which
                lets the prior keep them apart; "by_size" for eight cells a side of a typical object; None for a normal
                a step.
            learn_scale: whether the scale's normal is learned, starting as `SceneSpec` has it; it is given the room
                that earlier windows leave, if there is a grid.
            name: Keras name.

        Raises:
            ValueError, TypeError: a value is out of range, or of the wrong type.
        """
        super().__init__(name=name, autocast=False)  # latents stay float32
        check_whole("AutoregressivePrior.rnn_units", rnn_units)
        check_whole("AutoregressivePrior.head_units", head_units)
        if isinstance(placement_grid, str):
            check_choice("AutoregressivePrior.placement_grid", placement_grid, ["by_size"])
        elif placement_grid is not None:
            check_range("AutoregressivePrior.placement_grid", placement_grid, *_CELLS)
        self.rnn_units, self.head_units = rnn_units, head_units
        self.placement_grid, self.learn_scale = placement_grid, learn_scale

    def build(self, spec: SceneSpec) -> None:
        """See `Network.build`."""
        super().build(spec)
        units = self.rnn_units
        self.num_cells = _cells_by_size(spec) if isinstance(self.placement_grid, str) else self.placement_grid
        self.input_gates = dense(3 + spec.what_size, 4 * units, "input_gates", remember_at_first)
        self.state_gates = dense(units, 4 * units, "state_gates", bias=None)
        if spec.exact_count is None:
            self.presence_weights = self.add_weight(
                shape=(spec.num_steps,), initializer="zeros", dtype="float32", name="presence_weights"
            )
        self.shift_head = Perceptron(
            [self.rnn_units, self.head_units, 4], "relu", "shift_head", [0.0, 0.0, -0.5, -0.5]
        )
        if self.learn_scale:
            inputs = self.rnn_units + (self.num_cells is not None)
            start = [spec.scale_loc, math.log(spec.scale_stddev)]
            self.scale_head = Perceptron([inputs, self.head_units, 2], "relu", "scale_head", start)
        if self.num_cells is not None:
            self.placement = PairPlacement(self.num_cells)
            self.placement.build(spec)

    def distribution(self, step: Any, skip_absent: bool = False) -> AutoregressiveScene:
        """See `ScenePrior.distribution`."""
        spec = self.spec
        if spec.exact_count is None:
            logits = _PRESENCE_GAIN * tf.cast(tf.convert_to_tensor(self.presence_weights), tf.float32)
        else:
            logits = certain_presence_logits(spec.exact_count, spec.num_steps)
        presence = PresenceCode(logits)
        return AutoregressiveScene(
            presence,
            spec.what_size,
            self._first,
            self._following,
            lambda latents: self._given(presence, latents),
            skip_absent,
        )

    # All steps at once, given a scene.

    def _given(self, presence: PresenceCode, latents: SceneLatents) -> IndependentSteps:
        """Each step's distributions, given the steps before it; latents [B, T, ...]."""
        windows = tf.concat([latents.shift_latent, latents.scale_latent], -1)
        before = tf.pad(tf.concat([windows, latents.what], -1)[:, :-1], [[0, 0], [1, 0], [0, 0]])
        gates = tf.unstack(self.input_gates(before), axis=1)  # [B, 4 * units] a step
        hidden, cell = lstm_step(gates[0], 0.0)
        hiddens = [hidden]
        for step_gates in gates[1:]:
            hidden, cell = lstm_step(step_gates + self.state_gates(hidden), cell)
            hiddens.append(hidden)
        hidden = tf.stack(hiddens, 1)  # [B, T, units]
        weights = None
        if self.num_cells is not None:
            each = tf.unstack(self.placement(latents.shift_latent, latents.scale_latent), axis=1)  # [B, g, g] a step
            before_it = itertools.accumulate(each[:-1], initial=tf.zeros_like(each[0]))
            weights = tf.stack(list(before_it), axis=1)
        earlier = np.tri(self.spec.num_steps, k=-1, dtype=bool)  # [t, u], whether u < t
        scale = self._scale(hidden, latents.shift_latent, windows[:, tf.newaxis], earlier)
        return IndependentSteps(presence, self._shift(hidden, weights), scale, self._what(hidden))

    # Step by step, for samples.

    def _first(self, size: Any) -> NextStep:
        none = SceneLatents(*(tf.zeros([size, n]) for n in (0, 2, 1, self.spec.what_size)))
        cells = [] if self.num_cells is None else [self.num_cells] * 2
        windows = tf.zeros([size, self.spec.num_steps, 3])
        zeros = tf.zeros([size, self.rnn_units], self.state_gates.compute_dtype)
        return self._next(0, none, (zeros, zeros), tf.zeros([size, *cells]), windows)

    def _following(self, t: int, previous: SceneLatents, state: Any) -> NextStep:
        lstm_state, weights, windows = state
        if self.num_cells is not None:
            weights += self.placement(previous.shift_latent, previous.scale_latent)
        window = tf.concat([previous.shift_latent, previous.scale_latent], -1)
        windows += tf.one_hot(t - 1, self.spec.num_steps)[:, tf.newaxis] * window[:, tf.newaxis]
        return self._next(t, previous, lstm_state, weights, windows)

    def _next(
        self, t: int, previous: SceneLatents, lstm_state: Any, weights: tf.Tensor, windows: tf.Tensor
    ) -> NextStep:
        """Step t: cells have the log-weights [N, g, g]; of windows [N, T, 3], the first t are there."""
        hidden, cell = lstm_state
        gates = self.input_gates(tf.concat(previous[1:], -1)) + self.state_gates(hidden)
        hidden, cell = lstm_step(gates, cell)
        return NextStep(
            self._shift(hidden, weights),
            lambda shift_latent: self._scale(hidden, shift_latent, windows, np.arange(self.spec.num_steps) < t),
            self._what(hidden),
            ((hidden, cell), weights, windows),
        )

    # What both share: distributions given the LSTM's output [..., units].

    def _shift(self, hidden: tf.Tensor, weights: tf.Tensor | None) -> tfd.Distribution:
        """Over the shift latent; weights [..., g, g] of the cells by the windows before."""
        loc, log_scale = tf.split(tf.cast(self.shift_head(hidden), tf.float32), 2, axis=-1)
        if self.num_cells is None:
            return normal(loc, log_scale)
        return GridPlacement(normal_cell_logits(loc, log_scale, self.num_cells) + weights)

    def _scale(
        self, hidden: tf.Tensor, shift_latent: tf.Tensor, earlier: tf.Tensor, is_there: Any
    ) -> tfd.Distribution:
        """Over the scale latent, given the step's own shift; the last two as of `PairPlacement.room`."""
        if not self.learn_scale:
            fixed = tf.zeros_like(shift_latent[..., :1])
            return normal(fixed + self.spec.scale_loc, fixed + math.log(self.spec.scale_stddev))
        if self.num_cells is not None:
            room = self.placement.room(shift_latent, earlier, is_there)
            sharpened = _ROOM_GAIN * (room - 1.0)  # what matters is whether there is room for a window of one size
            hidden = tf.concat([hidden, tf.cast(sharpened, hidden.dtype)], -1)
        return normal(*tf.split(tf.cast(self.scale_head(hidden), tf.float32), 2, axis=-1))

    def _what(self, hidden: tf.Tensor) -> tfd.Distribution:
        """Over the appearance: standard normal."""
        zeros = tf.zeros(tf.concat([tf.shape(hidden)[:-1], [self.spec.what_size]], 0))
        return normal(zeros, zeros)
