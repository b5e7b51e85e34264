"""The learned scene prior's RNN as a Keras layer: what the next object is like, given those before it.

Tensors cross `call`; distributions are built where they are used.  What leaves is float32, whatever precision it
computes in.

References:
    Xu et al., arXiv:1906.03923, section 4 (sizes) and its learned autoregressive prior.
"""

from __future__ import annotations

import keras
import numpy as np
import tensorflow as tf

from asr_tf.distributions import certain_presence_logits, normal_cell_logits
from asr_tf.networks.layers import MLP, LSTMCell
from asr_tf.networks.pair_placement import PairPlacement
from asr_tf.scene import PriorStatistics, SceneLatents, steps_first

__all__ = ["PriorNetwork"]

# Of the room for a window, beside hidden units between -1 and 1.
_ROOM_GAIN = 4.0

# The step's number, the RNN's hidden state and cell, the logits of the grid's cells, and the windows so far.
_PriorState = tuple[int, tuple[tf.Tensor, tf.Tensor], tf.Tensor, tf.Tensor]


class PriorNetwork(keras.layers.Layer):
    """p(z_t | z_<t): an LSTM over the previous steps' latents, with heads for shift and scale, and a learned count.

    The logits of the presence code are T free weights and look at no latents, so that p(n) is a learned categorical
    distribution and scenes with a given number of objects can be drawn exactly, without rejection.

    Args:
        num_steps: T.
        what_size: Z.
        rnn_units, head_units: widths of the LSTM and of the heads' hidden layer.
        scale_loc, scale_log_scale: the scale latent's normal, learned from there if `learn_scale`.
        learn_scale: whether the scale latent's normal is the network's output, given the room, if there is a placement.
        exact_count: the number of objects where every scene has the same; None learns p(n).
        placement: what weighs the cells of a grid by the windows before, None for a normal over the shift.
        name: Keras name.
    """

    def __init__(
        self,
        num_steps: int,
        what_size: int,
        rnn_units: int,
        head_units: int,
        scale_loc: float,
        scale_log_scale: float,
        learn_scale: bool,
        exact_count: int | None = None,
        placement: PairPlacement | None = None,
        name: str = "prior",
    ):
        super().__init__(name=name, autocast=False)  # latents stay float32
        self.learn_scale = learn_scale
        self.scale_stats = (scale_loc, scale_log_scale)
        self.cell = LSTMCell(3 + what_size, rnn_units, "cell")
        self.num_steps, self.exact_count, self.placement = num_steps, exact_count, placement
        if exact_count is None:
            self.presence_weights = self.add_weight(
                shape=(num_steps,), initializer="zeros", dtype="float32", name="presence_weights"
            )
        self.shift_head = MLP(
            [rnn_units, head_units, 4], "relu", "shift_head", [0.0, 0.0, -0.5, -0.5]
        )
        if learn_scale:
            inputs = rnn_units + (placement is not None)
            self.scale_head = MLP([inputs, head_units, 2], "relu", "scale_head", self.scale_stats)
        self.built = True

    def presence_logits(self) -> tf.Tensor:
        """float32 [T], the presence code's logits: ten times the weights, which Adam moves by its rate a step."""
        if self.exact_count is not None:
            return certain_presence_logits(self.exact_count, self.num_steps)
        return 10.0 * tf.cast(tf.convert_to_tensor(self.presence_weights), tf.float32)

    def initial_state(self, batch_size: tf.Tensor | int) -> _PriorState:
        """What `step` starts from: step 0, the RNN's zeros, cells that no window weighs yet, and no window."""
        cells = [batch_size, *([self.placement.grid_size] * 2 if self.placement else [0, 0])]
        return 0, self.cell.initial_state(batch_size), tf.zeros(cells), tf.zeros([batch_size, self.num_steps, 3])

    def heads(
        self, hidden: tf.Tensor, presence_logits: tf.Tensor, cell_logits: tf.Tensor
    ) -> PriorStatistics:
        """Statistics from the RNN's output [..., units] and the same steps' logits of presence [...] and cells.

        A learned scale isn't among them: it looks at the step's own shift (`scale`).
        """
        shift_loc, shift_log_scale = tf.split(tf.cast(self.shift_head(hidden), tf.float32), 2, axis=-1)
        scale_loc, scale_log_scale = (
            tf.fill(tf.shape(shift_loc[..., :1]), value) for value in self.scale_stats
        )
        statistics = PriorStatistics(
            presence_logits, shift_loc, shift_log_scale, scale_loc, scale_log_scale
        )
        if self.placement is None:
            return statistics
        about = normal_cell_logits(shift_loc, shift_log_scale, self.placement.grid_size)
        return statistics._replace(shift_logits=about + cell_logits)

    def _learned_scale(
        self, hidden: tf.Tensor, shift_latent: tf.Tensor, earlier: tf.Tensor, is_there: tf.Tensor
    ) -> tuple[tf.Tensor, tf.Tensor]:
        """Mean and log standard deviation of the scale latent, [..., 1] each; arguments as of `PairPlacement.room`."""
        if self.placement is not None:
            room = self.placement.room(shift_latent, earlier, is_there)
            sharpened = _ROOM_GAIN * (room - 1.0)  # what matters is whether there is room for a window of one size
            hidden = tf.concat([hidden, tf.cast(sharpened, hidden.dtype)], -1)
        loc, log_scale = tf.split(tf.cast(self.scale_head(hidden), tf.float32), 2, axis=-1)
        return loc, log_scale

    def scale(self, shift_latent: tf.Tensor, state: _PriorState) -> tuple[tf.Tensor, tf.Tensor]:
        """The learned scale of a step of sampling.

        Args:
            shift_latent: float [N, 2], the step's own.
            state: as `step` returned it.

        Returns:
            Mean and log standard deviation of the scale latent, [N, 1] each.
        """
        number, (hidden, _), _, windows = state
        return self._learned_scale(hidden, shift_latent, windows, tf.range(self.num_steps) < number - 1)

    def step(
        self, previous: SceneLatents, state: _PriorState
    ) -> tuple[PriorStatistics, _PriorState]:
        """One step of sampling.

        Args:
            previous: latents of the step before, [N, ...] each; zeros before the first.
            state: from `initial_state` or the step before.

        Returns:
            The step's statistics, [N, ...] each, and the next state; of a learned scale, `scale` tells.
        """
        t, rnn_state, cell_logits, windows = state
        window = tf.concat([previous.shift_latent, previous.scale_latent], -1)
        windows += tf.one_hot(t - 1, self.num_steps)[:, tf.newaxis] * window[:, tf.newaxis]
        if self.placement is not None:
            # What stands for the step before the first is no window.
            weights = self.placement(previous.shift_latent, previous.scale_latent)
            cell_logits += tf.cast(t > 0, weights.dtype) * weights
        rnn_state = self.cell(tf.concat([window, previous.what], -1), rnn_state)
        logits = tf.fill(tf.shape(window)[:1], self.presence_logits()[t])
        return self.heads(rnn_state[0], logits, cell_logits), (t + 1, rnn_state, cell_logits, windows)

    def call(self, latents: SceneLatents) -> PriorStatistics:
        """Statistics of every step, each given the inferred latents of the steps before it.

        Args:
            latents: float [B, T, ...] each.

        Returns:
            Statistics, [B, T, ...] each.
        """
        # Steps come first until the end, as the loop and the sums over earlier steps want them.
        shift_latent, scale_latent, what = (steps_first(part) for part in latents[1:])
        windows = tf.concat([shift_latent, scale_latent], -1)
        previous = tf.pad(tf.concat([windows, what], -1)[:-1], [[1, 0], [0, 0], [0, 0]])
        hiddens = self.cell.unroll(previous)
        presence_logits = tf.broadcast_to(self.presence_logits()[:, tf.newaxis], tf.shape(windows)[:2])
        cell_logits = tf.zeros([0])
        earlier = np.tri(self.num_steps, k=-1, dtype=np.float32)
        if self.placement is not None:
            weights = self.placement(shift_latent, scale_latent)  # [T, B, g, g]
            sums = tf.matmul(earlier, tf.reshape(weights, [self.num_steps, -1]))
            cell_logits = tf.reshape(sums, [self.num_steps, -1, *weights.shape[2:]])
        statistics = self.heads(hiddens, presence_logits, cell_logits)
        if self.learn_scale:
            others = steps_first(windows)[tf.newaxis]  # [1, B, T, 3]
            loc, log_scale = self._learned_scale(hiddens, shift_latent, others, earlier[:, np.newaxis] > 0.0)
            statistics = statistics._replace(scale_loc=loc, scale_log_scale=log_scale)
        return PriorStatistics(*(None if part is None else steps_first(part) for part in statistics))
