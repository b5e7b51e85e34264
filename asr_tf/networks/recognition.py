"""The recognition RNN as a Keras layer, and the noise that its samples are made of.

The recognition RNN is the only sequential part of the model.  The image enters it once: its product with the gates'
kernel is the same at every step and is computed before the loop.  Tensors cross `call`; distributions are built where
they are used.  What leaves a network is float32, whatever precision it computes in.

References:
    Eslami et al., "Attend, Infer, Repeat", NIPS 2016, arXiv:1603.08575, section 2.1.
    Xu et al., arXiv:1906.03923, section 4 (sizes) and its learned autoregressive prior.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import keras
import tensorflow as tf

from asr_tf.distributions import certain_presence_logits
from asr_tf.fast.recurrence import TANH, Apply, Operation, unroll
from asr_tf.imaging.spatial_transformer import read_glimpses
from asr_tf.networks.autoencoder import ImageEncoder
from asr_tf.networks.layers import MLP, LSTMCell, mean_pool
from asr_tf.networks.second_look import SecondLook, without_windows
from asr_tf.scene import PosteriorStatistics, SceneLatents, steps_first

__all__ = ["LatentNoise", "RecognitionNetwork"]


class LatentNoise(NamedTuple):
    """Standard normal draws that turn posterior statistics into samples; zeros give the posterior's mode.

    Attributes:
        shift: float [B, T, 2].
        scale: float [B, T, 1].
        what: float [B, T, Z].
    """

    shift: tf.Tensor
    scale: tf.Tensor
    what: tf.Tensor

    @classmethod
    def draw(
        cls,
        batch_size: tf.Tensor | int,
        num_steps: int,
        what_size: int,
        seed: tf.Tensor,
        algorithm: str = "philox",
    ) -> LatentNoise:
        """Standard normal draws, a function of `seed`, int32 [2], and of the generator (see `tf.random.Algorithm`)."""
        normal = tf.random.stateless_normal([batch_size, num_steps, 3 + what_size], seed, alg=algorithm)
        return cls(*tf.split(normal, [2, 1, what_size], axis=-1))

    @classmethod
    def zeros(cls, batch_size: tf.Tensor | int, num_steps: int, what_size: int) -> LatentNoise:
        """No noise."""
        return cls(*(tf.zeros([batch_size, num_steps, size]) for size in (2, 1, what_size)))


def _float32(x: tf.Tensor) -> tf.Tensor:
    return tf.cast(x, tf.float32)


class _WindowBiases(NamedTuple):
    """Biases of the shift and scale heads."""

    hidden: tf.Tensor  # of both heads' hidden layers
    shift: tf.Tensor
    scale: tf.Tensor


class RecognitionNetwork(keras.layers.Layer):
    """q(z | x): T steps of an LSTM that decides where the next object is; then every window is read at once.

    The LSTM sees the image and the windows chosen before.  Appearances don't feed back into it, so that glimpses of
    all steps are read and encoded as one batch.

    Args:
        canvas_size: (H, W) in pixels.
        num_steps: T.
        glimpse_size: G in pixels.
        what_size: Z.
        rnn_units, head_units: widths of the LSTM and of each head's hidden layer.
        encoder_units: hidden widths of the glimpse encoder.
        initial_scale_latent: where the windows' scale latent starts.
        initial_shift_stddev: standard deviation of the shift latent at first; larger ones look farther around.
        scale_radius: how far the mean of the scale latent may go from there, None for any distance.
        image_pool: the LSTM sees means of squares of that many pixels a side; glimpses keep every pixel.
        exact_count: the number of objects where every image has the same, which then isn't inferred.
        second_look: each step corrects its window by what lies in a region around it, of so many times its side, and
            the steps after it see the image without what lies in the window; None for neither.
        name: Keras name.
    """

    def __init__(
        self,
        canvas_size: tuple[int, int],
        num_steps: int,
        glimpse_size: int,
        what_size: int,
        rnn_units: int,
        head_units: int,
        encoder_units: Sequence[int],
        initial_scale_latent: float,
        initial_shift_stddev: float = math.exp(-2.0),
        scale_radius: float | None = None,
        image_pool: int = 1,
        exact_count: int | None = None,
        second_look: float | None = None,
        name: str = "recognition",
    ):
        super().__init__(name=name, autocast=False)  # latents stay float32
        self.num_steps = num_steps
        self.glimpse_size = glimpse_size
        self.scale_centre, self.scale_radius = initial_scale_latent, scale_radius
        self.canvas_size, self.image_pool = canvas_size, image_pool
        self.pixels = math.prod(-(-size // image_pool) for size in canvas_size)
        self.image_projection = keras.layers.Dense(4 * rnn_units, use_bias=False)
        self.image_projection.build((None, self.pixels))
        self.cell = LSTMCell(2 + 1, rnn_units, "cell")
        self.exact_count = exact_count
        if exact_count is None:
            self.presence_head = MLP([rnn_units, head_units, 1], "relu", "presence_head", 1.0)
        spread = math.log(initial_shift_stddev)
        self.shift_head = MLP(
            [rnn_units, head_units, 4], "relu", "shift_head", [0.0, 0.0, spread, spread]
        )
        self.scale_head = MLP(
            [rnn_units + 2, head_units, 2], "relu", "scale_head", [initial_scale_latent, -2.0]
        )
        self.second_look = None if second_look is None else SecondLook(canvas_size, second_look)
        self.encoder = ImageEncoder((glimpse_size, glimpse_size), encoder_units, what_size, "encoder")
        self.built = True

    def call(
        self, images: tf.Tensor, noise: LatentNoise
    ) -> tuple[PosteriorStatistics, SceneLatents, tf.Tensor]:
        """Infers every step's latents.

        Args:
            images: float32 [B, H, W] in [0, 1].
            noise: standard normal draws, zeros for the mode.

        Returns:
            The posterior's statistics; the sampled latents, whose `presence` is q(step | previous step) and not a
            sample; and the glimpses [B, T, G, G] that were read.
        """
        posterior, shift_latent, scale_latent = self.locate(images, noise)
        glimpses = read_glimpses(
            images[:, tf.newaxis], tf.tanh(shift_latent), tf.sigmoid(scale_latent), self.glimpse_size
        )
        what_loc, what_log_scale = self.encoder(glimpses)
        what = what_loc + tf.exp(what_log_scale) * noise.what
        presence = tf.sigmoid(posterior.presence_logits)
        return (
            posterior._replace(what_loc=what_loc, what_log_scale=what_log_scale),
            SceneLatents(presence, shift_latent, scale_latent, what),
            glimpses,
        )

    def locate(
        self, images: tf.Tensor, noise: LatentNoise
    ) -> tuple[PosteriorStatistics, tf.Tensor, tf.Tensor]:
        """Infers presence and windows, all but the appearance.

        Args: as for `call`; of the noise, only that of shift and scale counts.

        Returns:
            The posterior's statistics, None for those of the appearance; shift latents [B, T, 2]; scale latents
            [B, T, 1].
        """
        # With a second look, the RNN goes by the means: what is blanked doesn't jitter.
        steps_noise = noise if self.second_look is None else tf.nest.map_structure(tf.zeros_like, noise)
        hiddens, decisions = self._unroll(images, steps_noise)
        latents, shift_stats, scale_stats = tf.split(decisions, [3, 4, 2], axis=-1)
        shift_latent, scale_latent = tf.split(latents, [2, 1], axis=-1)
        if self.second_look is not None:
            shift_latent = shift_stats[..., :2] + tf.exp(shift_stats[..., 2:]) * noise.shift
            scale_latent = scale_stats[..., :1] + tf.exp(scale_stats[..., 1:]) * noise.scale
        if self.exact_count is None:
            presence_logits = _float32(self.presence_head(hiddens))[..., 0]
        else:
            certain = certain_presence_logits(self.exact_count, self.num_steps)
            presence_logits = tf.broadcast_to(certain, tf.shape(hiddens)[:2])
        shift_loc, shift_log_scale = tf.split(shift_stats, 2, axis=-1)
        scale_loc, scale_log_scale = tf.split(scale_stats, 2, axis=-1)
        posterior = PosteriorStatistics(
            presence_logits, shift_loc, shift_log_scale, scale_loc, scale_log_scale, None, None
        )
        return posterior, shift_latent, scale_latent

    def _unroll(self, images: tf.Tensor, noise: LatentNoise) -> tuple[tf.Tensor, tf.Tensor]:
        """Hidden states [B, T, units] and decisions [B, T, 9] (see `_window`)."""
        units = self.cell.units
        kernel = tf.cast(self.image_projection.kernel, self.image_projection.compute_dtype)
        dtype = kernel.dtype
        bias = tf.cast(self.cell.bias, dtype)
        projection = tf.matmul(self._pooled(images, dtype), kernel) + bias
        # The hidden layers of both heads are one product; the shift enters the scale head beside it.
        shift_head, scale_head = self.shift_head, self.scale_head
        from_hidden, from_shift = tf.split(tf.cast(scale_head.dense_0.kernel, dtype), [units, 2])
        of_window = [
            Operation(tf.concat([tf.cast(shift_head.dense_0.kernel, dtype), from_hidden], 1)),
            Operation(tf.cast(shift_head.dense_1.kernel, dtype)),
            Operation(from_shift),
            Operation(tf.cast(scale_head.dense_1.kernel, dtype)),
        ]
        biases = _WindowBiases(
            tf.concat([tf.cast(head.dense_0.bias, dtype) for head in (shift_head, scale_head)], 0),
            *(tf.cast(head.dense_1.bias, dtype) for head in (shift_head, scale_head)),
        )
        draws = steps_first(tf.concat([noise.shift, noise.scale], -1))  # [T, B, 3]

        hidden, cell = self.cell.update(projection)  # neither window nor hidden state yet
        decision = self._window(hidden, draws[0], of_window, biases)
        of_cell = [Operation(self.cell.kernel(), self.cell.activation()), Operation(activation=TANH)]
        of_image: list[Operation] = []
        given: tuple[Any, ...] = (projection, biases)
        state: tuple[tf.Tensor, ...] = (cell,)
        if self.second_look is not None:
            looking, beside = Operation(self.second_look.kernel()), self.second_look.weights_beside()
            decision = self._corrected(images, decision, looking, beside)
            of_image, given = [Operation(kernel), looking], (bias, biases, beside)
            state = (*state, self._blanked(images, decision))
        hiddens, decisions = hidden[tf.newaxis], decision[tf.newaxis]
        if self.num_steps > 1:
            state = (self._fed_back(decision, hidden), *state)
            _, rest = unroll(
                self._step, [*of_cell, *of_window, *of_image], given, state, draws[1:], self.num_steps - 1
            )
            hiddens, decisions = tf.concat([hiddens, rest[0]], 0), tf.concat([decisions, rest[1]], 0)
        return steps_first(hiddens), steps_first(decisions)

    def _pooled(self, images: tf.Tensor, dtype: tf.DType) -> tf.Tensor:
        """What the LSTM sees of images [B, H, W], [B, pixels]."""
        pooled = images if self.image_pool == 1 else mean_pool(images, self.image_pool)
        return tf.cast(tf.reshape(pooled, [-1, self.pixels]), dtype)

    def _corrected(
        self, images: tf.Tensor, decision: tf.Tensor, product: Apply, weights: Sequence[tf.Tensor]
    ) -> tf.Tensor:
        """The decision [B, 9] after the second look; its latents are the means."""
        assert self.second_look is not None
        shift_stats, scale_stats = self.second_look.correct(
            images, decision[:, 3:7], decision[:, 7:], product, weights
        )
        scale_loc = self._bounded(scale_stats[:, :1])
        return tf.concat([shift_stats[:, :2], scale_loc, shift_stats, scale_loc, scale_stats[:, 1:]], -1)

    def _bounded(self, scale_loc: tf.Tensor) -> tf.Tensor:
        """The mean of the scale latent, kept within its radius."""
        if self.scale_radius is None:
            return scale_loc
        offset = (scale_loc - self.scale_centre) / self.scale_radius
        return self.scale_centre + self.scale_radius * tf.tanh(offset)

    def _blanked(self, images: tf.Tensor, decision: tf.Tensor) -> tf.Tensor:
        """Images [B, H, W] less what lies in the windows decided on."""
        return without_windows(images, decision[:, :2], decision[:, 2:3], self.canvas_size)

    @staticmethod
    def _fed_back(decision: tf.Tensor, hidden: tf.Tensor) -> tf.Tensor:
        """What the LSTM's next step sees beside the image: the last window and its own state, [B, 3 + units]."""
        return tf.concat([tf.cast(decision[:, :3], hidden.dtype), hidden], -1)

    def _step(
        self,
        state: tuple[tf.Tensor, ...],
        draws: tf.Tensor,
        given: tuple[Any, ...],
        operations: Sequence[Apply],
    ) -> tuple[tuple[tf.Tensor, ...], tuple[tf.Tensor, tf.Tensor]]:
        """A step after the first; gives the hidden state and the decision.

        `given` starts with the image's product with the gates' kernel, and their bias.  With a second look the image is
        in `state`, as the steps before left it, and the product is made here.
        """
        fed_back, cell, *image = state
        projection, biases, *beside = given
        (activated, tanh), of_window, of_image = operations[:2], operations[2:6], operations[6:]
        if self.second_look is None:
            hidden, cell = self.cell.advance(activated(fed_back, projection), cell, tanh)
            decision = self._window(hidden, draws, of_window, biases)
            return (self._fed_back(decision, hidden), cell), (hidden, decision)
        left = tf.stop_gradient(image[0])
        from_image = of_image[0](self._pooled(left, projection.dtype)) + projection
        hidden, cell = self.cell.advance(activated(fed_back, from_image), cell, tanh)
        decision = self._window(hidden, draws, of_window, biases)
        decision = self._corrected(left, decision, of_image[1], beside[0])
        return (self._fed_back(decision, hidden), cell, self._blanked(left, decision)), (hidden, decision)

    def _window(
        self, hidden: tf.Tensor, draws: tf.Tensor, products: Sequence[Apply], biases: _WindowBiases
    ) -> tf.Tensor:
        """Decides where to look.

        Args:
            hidden: float [B, units].
            draws: float [B, 3], standard normal.
            products: with the kernels of both heads' hidden layers, of the shift head's output, from the shift to the
                scale head's hidden layer, and of the scale head's output.
            biases: of the heads.

        Returns:
            [B, 9]: shift and scale latents; then mean and log standard deviation of the shift, and of the scale.
        """
        of_hidden, of_shift, from_shift, of_scale = products
        for_shift, for_scale = tf.split(of_hidden(hidden) + biases.hidden, 2, axis=-1)
        shift_stats = _float32(of_shift(tf.nn.relu(for_shift)) + biases.shift)
        shift_loc, shift_log_scale = tf.split(shift_stats, 2, axis=-1)
        shift_latent = shift_loc + tf.exp(shift_log_scale) * draws[:, :2]
        for_scale += from_shift(tf.cast(tf.tanh(shift_latent), for_scale.dtype))
        scale_stats = _float32(of_scale(tf.nn.relu(for_scale)) + biases.scale)
        scale_loc, scale_log_scale = tf.split(scale_stats, 2, axis=-1)
        scale_loc = self._bounded(scale_loc)
        scale_latent = scale_loc + tf.exp(scale_log_scale) * draws[:, 2:]
        return tf.concat([shift_latent, scale_latent, shift_stats, scale_loc, scale_log_scale], -1)
