"""The published recognition: an LSTM decides step by step where the next object is; then every window is read at once.

The LSTM sees the image and the window chosen before.  Appearances don't feed back into it, so that the glimpses of all
steps are encoded as one batch.

References:
    Eslami et al., "Attend, Infer, Repeat", NIPS 2016, arXiv:1603.08575, section 2.1.
    Xu et al., arXiv:1906.03923, section 4 (sizes).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import gin
import tensorflow as tf

from asr_tf.checks import check_positive, check_range, check_whole
from asr_tf.imaging.pooling import mean_pool
from asr_tf.imaging.windows import without_windows
from asr_tf.networks.contracts import LatentNoise, Recognition
from asr_tf.networks.layers import Perceptron, dense, lstm_step, remember_at_first
from asr_tf.networks.second_look import SecondLook
from asr_tf.scene import PosteriorStatistics, SceneLatents, SceneSpec

__all__ = ["Decision", "LSTMRecognition", "sampled"]


class Decision(NamedTuple):
    """Where a step looks: the posterior of its window's latents, and a sample of them, float32 [B, 2] or [B, 1]."""

    shift_loc: tf.Tensor
    shift_log_scale: tf.Tensor
    scale_loc: tf.Tensor
    scale_log_scale: tf.Tensor
    shift_latent: tf.Tensor
    scale_latent: tf.Tensor


def sampled(loc: tf.Tensor, log_scale: tf.Tensor, noise: tf.Tensor | None) -> tf.Tensor:
    """A sample of the normal, by its standard normal draw; the mode where there is none."""
    return loc if noise is None else loc + tf.exp(log_scale) * noise


@gin.register
class LSTMRecognition(Recognition):
    """T steps of an LSTM with heads for presence, shift and scale; a perceptron encodes the glimpses."""

    def __init__(
        self,
        rnn_units: int = 256,
        head_units: int = 64,
        encoder_units: Sequence[int] = (512, 256),
        image_pool: int = 2,
        initial_shift_stddev: float = math.exp(-2.0),
        scale_bound: float | None = None,
        second_look: float | None = None,
        name: str = "recognition",
    ):
        """Initializes the network.

        Args:
            rnn_units, head_units: widths of the LSTM and of each head's hidden layer.
            encoder_units: hidden widths of the glimpse encoder.
            image_pool: the LSTM sees the image in squares of that many pixels a side, averaged; glimpses are read from
                every pixel.
            initial_shift_stddev: where the posterior's standard deviation of the shift latent starts; with more,
                windows look farther around at first.
            scale_bound: how many standard deviations of `SceneSpec.scale_stddev` the mean of the scale latent may be
                from `SceneSpec.scale_loc`, None for any number; keeps a window from growing over several objects early
                in training.
            second_look: each step corrects its window by what it sees in a region of so many times the window's side
                around it (1 to 4), and blanks what lies in the window for the steps that follow; None for neither.
            name: Keras name.

        Raises:
            ValueError, TypeError: a value is out of range, or of the wrong type.
        """
        super().__init__(name=name, autocast=False)  # latents stay float32
        for label, value in (("rnn_units", rnn_units), ("head_units", head_units), ("image_pool", image_pool)):
            check_whole(f"LSTMRecognition.{label}", value)
        for i, width in enumerate(encoder_units):
            check_whole(f"LSTMRecognition.encoder_units[{i}]", width)
        check_positive("LSTMRecognition.initial_shift_stddev", initial_shift_stddev)
        if scale_bound is not None:
            check_positive("LSTMRecognition.scale_bound", scale_bound)
        if second_look is not None:
            check_range("LSTMRecognition.second_look", second_look, 1.0, 4.0)
        self.rnn_units, self.head_units, self.encoder_units = rnn_units, head_units, tuple(encoder_units)
        self.image_pool, self.initial_shift_stddev = image_pool, initial_shift_stddev
        self.scale_bound, self.second_look = scale_bound, second_look

    def build(self, spec: SceneSpec) -> None:
        """See `Network.build`."""
        super().build(spec)
        units, head = self.rnn_units, self.head_units
        pixels = math.prod(-(-size // self.image_pool) for size in spec.canvas_size) * spec.channels
        self.image_gates = dense(pixels, 4 * units, "image_gates", remember_at_first)
        self.state_gates = dense(3 + units, 4 * units, "state_gates", bias=None)
        # Heads have a hidden layer each; those of all heads are one product.  The shift enters the scale's beside it.
        self.num_heads = 3 if spec.exact_count is None else 2
        self.head_hidden = dense(units, self.num_heads * head, "head_hidden")
        self.shift_to_scale = dense(2, head, "shift_to_scale", bias=None)
        spread = math.log(self.initial_shift_stddev)
        self.shift_output = dense(head, 4, "shift_output", [0.0, 0.0, spread, spread])
        self.scale_output = dense(head, 2, "scale_output", [spec.scale_loc, -2.0])
        if spec.exact_count is None:
            self.presence_output = dense(head, 1, "presence_output", 1.0)
        if self.second_look is not None:
            self.corrector = SecondLook(self.second_look)
            self.corrector.build(spec)
        glimpse = spec.glimpse_size**2 * spec.channels
        self.encoder = Perceptron([glimpse, *self.encoder_units, 2 * spec.what_size], "softplus", "encoder")

    def locate(
        self, images: tf.Tensor, noise: LatentNoise | None = None
    ) -> tuple[PosteriorStatistics, SceneLatents]:
        """See `Recognition.locate`."""
        seen = self._see(images)
        hidden = cell = seen  # of no step yet
        window: tuple[tf.Tensor, ...] = ()
        for_presence: list[tf.Tensor] = []
        decisions: list[Decision] = []
        for t in range(self.spec.num_steps):
            if t == 0:
                hidden, cell = lstm_step(seen, 0.0)
            else:
                state = tf.concat([*(tf.cast(x, hidden.dtype) for x in window), hidden], -1)
                hidden, cell = lstm_step(seen + self.state_gates(state), cell)
            step_noise = None if noise is None else (noise.shift[:, t], noise.scale[:, t])
            for_shift, for_scale, *rest = tf.split(self.head_hidden(hidden), self.num_heads, axis=-1)
            for_presence += rest
            if self.second_look is None:
                decision = self._decide(for_shift, for_scale, step_noise)
                window = decision.shift_latent, decision.scale_latent
            else:  # the LSTM goes by the means, so that what is blanked doesn't jitter
                decision = self._correct(images, self._decide(for_shift, for_scale, None), step_noise)
                window = decision.shift_loc, decision.scale_loc
                images = tf.stop_gradient(without_windows(images, tf.tanh(window[0]), tf.sigmoid(window[1])))
                if t + 1 < self.spec.num_steps:
                    seen = self._see(images)
            decisions.append(decision)
        chosen = Decision(*(tf.stack(parts, 1) for parts in zip(*decisions, strict=True)))
        if for_presence:
            rows = tf.reshape(tf.stack(for_presence, 1), [-1, self.head_units])
            logits = tf.reshape(self.presence_output(tf.nn.relu(rows)), [-1, self.spec.num_steps])
            logits = tf.cast(logits, tf.float32)
        else:  # the model knows the count
            logits = tf.zeros(tf.shape(chosen.shift_latent)[:2])
        posterior = PosteriorStatistics(logits, *chosen[:4], None, None)
        return posterior, SceneLatents(None, chosen.shift_latent, chosen.scale_latent, None)

    def _see(self, images: tf.Tensor) -> tf.Tensor:
        """What images [B, H, W, C] put into the gates, [B, 4 * units]."""
        pooled = images if self.image_pool == 1 else mean_pool(images, self.image_pool)
        return self.image_gates(tf.reshape(pooled, [-1, self.image_gates.kernel.shape[0]]))

    def _decide(
        self, for_shift: tf.Tensor, for_scale: tf.Tensor, noise: tuple[tf.Tensor, tf.Tensor] | None
    ) -> Decision:
        """Where to look, given both heads' hidden layers [B, units]: a shift, and a scale given the shift."""
        shift_noise, scale_noise = noise or (None, None)
        shift_loc, shift_log_scale = self._split(self.shift_output(tf.nn.relu(for_shift)))
        shift_latent = sampled(shift_loc, shift_log_scale, shift_noise)
        for_scale += self.shift_to_scale(tf.cast(tf.tanh(shift_latent), for_scale.dtype))
        scale_loc, scale_log_scale = self._split(self.scale_output(tf.nn.relu(for_scale)))
        scale_loc = self._bounded(scale_loc)
        scale_latent = sampled(scale_loc, scale_log_scale, scale_noise)
        return Decision(shift_loc, shift_log_scale, scale_loc, scale_log_scale, shift_latent, scale_latent)

    def _correct(
        self, images: tf.Tensor, decision: Decision, noise: tuple[tf.Tensor, tf.Tensor] | None
    ) -> Decision:
        """The decision after a second look at images [B, H, W, C]."""
        shift_noise, scale_noise = noise or (None, None)
        moved, shift_spread, resized, scale_spread, _ = self.corrector(images, decision.shift_loc, decision.scale_loc)
        shift_loc, shift_log_scale = decision.shift_loc + moved, decision.shift_log_scale + shift_spread
        scale_loc = self._bounded(decision.scale_loc + resized)
        scale_log_scale = decision.scale_log_scale + scale_spread
        shift_latent = sampled(shift_loc, shift_log_scale, shift_noise)
        scale_latent = sampled(scale_loc, scale_log_scale, scale_noise)
        return Decision(shift_loc, shift_log_scale, scale_loc, scale_log_scale, shift_latent, scale_latent)

    def _bounded(self, scale_loc: tf.Tensor) -> tf.Tensor:
        """The mean of the scale latent, kept within its bound."""
        if self.scale_bound is None:
            return scale_loc
        centre, radius = self.spec.scale_loc, self.scale_bound * self.spec.scale_stddev
        return centre + radius * tf.tanh((scale_loc - centre) / radius)

    def describe(self, glimpses: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """See `Recognition.describe`."""
        flat = tf.reshape(glimpses, [-1, math.prod(glimpses.shape[1:])])
        return self._split(self.encoder(flat))

    @staticmethod
    def _split(outputs: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """Mean and log standard deviation, float32, from a head's outputs."""
        loc, log_scale = tf.split(tf.cast(outputs, tf.float32), 2, axis=-1)
        return loc, log_scale
