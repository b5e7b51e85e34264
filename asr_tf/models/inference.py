"""Deterministic inference and drawing: few kernels, no loop, no randomness.

The training pass with its noise set to zero gives the same numbers, and XLA compiles that.  Here TensorFlow's own
kernels do it: the first answer comes at once, and a served model and the model that it was made from give the same one.

*   Recognition is unrolled step by step, without what only training needs, and absent objects are left out.
*   Activations are [features, N]: in that order the products of a few hundred rows take two thirds of the time, and an
    LSTM's gates are slices that need no copies.
*   Windows are read and drawn by TensorFlow's kernel for bilinear crops instead of products with hat functions.

Everything is float32.

References:
    Eslami et al., "Attend, Infer, Repeat", NIPS 2016, arXiv:1603.08575, section 2.1.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence

import keras
import tensorflow as tf

from asr_tf.distributions import PresenceCode, certain_presence_logits, code_of_count
from asr_tf.fast.crops import interpolate_evenly, write_in_boxes
from asr_tf.fast.present import PresentSteps
from asr_tf.models.scene_network import SceneNetwork
from asr_tf.networks.layers import MLP, mean_pool
from asr_tf.networks.second_look import shift_step, without_windows
from asr_tf.scene import window_boxes

__all__ = ["Inference"]


class _Layer(tf.Module):
    """A dense layer on [in, N]."""

    def __init__(self, kernel: tf.Tensor, bias: tf.Tensor, activation: Callable[[tf.Tensor], tf.Tensor] | None = None):
        """Takes a kernel [in, out] and a bias [out]."""
        super().__init__(name="layer")
        self._kernel, self._bias, self._activation = kernel, bias, activation

    def __call__(self, inputs: tf.Tensor, by_rows: bool = False) -> tf.Tensor:
        """float32 [out, N] from [in, N], or from [N, in] where these are rows."""
        outputs = tf.matmul(self._kernel, inputs, transpose_a=True, transpose_b=by_rows)
        outputs += tf.expand_dims(self._bias, 1)
        return outputs if self._activation is None else self._activation(outputs)


def _dense(mlp: MLP) -> list[keras.layers.Dense]:
    return [getattr(mlp, f"dense_{i}") for i in range(mlp.depth)]


class Inference(tf.Module):
    """Infers and draws with a model's weights, as they are when it is called, or with copies of them."""

    def __init__(self, model: SceneNetwork, frozen: bool = True, portable: bool = False):
        """Arranges the weights of recognition and decoder.

        Args:
            model: of scenes.
            frozen: whether to copy the weights as they are now.  Otherwise this belongs to the `tf.function` in which
                it is made, which reads the model's variables.
            portable: whether to do with operations that XLA and LiteRT have: absent objects are read and drawn too, by
                products.
        """
        super().__init__(name="inference")
        self._keep = functools.partial(tf.Variable, trainable=False) if frozen else tf.convert_to_tensor
        self._portable = portable
        self._canvas_size, self._num_steps = model.canvas_size, model.num_steps
        self._glimpse_size, self._what_size = model.glimpse_size, model.what_size
        network = model.recognition
        self._image_pool, self._pixels = network.image_pool, network.pixels
        self._scale_range = (network.scale_centre, network.scale_radius)
        self._projection = self._layer(network.image_projection.kernel.value, network.cell.bias.value)
        self._gates = self._keep(network.cell.gates.kernel.value)
        presence = None
        if network.exact_count is None:
            presence = network.presence_head
        else:
            self._certain_logits = certain_presence_logits(network.exact_count, network.num_steps)
        shift, scale = network.shift_head, network.scale_head
        # The hidden layers of all heads are one product; the shift enters the scale head beside it.
        from_hidden, from_shift = tf.split(scale.dense_0.kernel.value, [network.cell.units, 2])
        kernels = [shift.dense_0.kernel.value, from_hidden]
        biases = [shift.dense_0.bias.value, scale.dense_0.bias.value]
        self._presence = None
        if presence is not None:
            kernels.append(presence.dense_0.kernel.value)
            biases.append(presence.dense_0.bias.value)
            self._presence = self._layer(presence.dense_1.kernel.value, presence.dense_1.bias.value)
        self._num_heads = len(kernels)
        self._heads = self._layer(tf.concat(kernels, 1), tf.concat(biases, 0))
        self._from_shift = self._keep(from_shift)
        # Means only: the heads' other outputs are standard deviations.
        self._shift = self._outputs_of(shift.dense_1, [0, 1])
        self._scale = self._outputs_of(scale.dense_1, [0])
        self._second_look: list[_Layer] = []
        if network.second_look is not None:
            # Of moved, spread and resized, two numbers each, spread and half of resized are standard deviations.
            self._second_look = self._perceptron(network.second_look.mlp, [0, 1, 4])
            self._margin, self._region_size = network.second_look.margin, network.second_look.glimpse_size
        self._encoder = self._perceptron(network.encoder.mlp, range(self._what_size))
        *hidden, last = _dense(model.decoder.mlp)
        self._decoder = [*map(self._hidden_layer, hidden)]
        # Its result is wanted with the objects as rows.
        self._pixel_kernel, self._pixel_bias = self._keep(last.kernel.value), self._keep(last.bias.value)

    def _layer(
        self, kernel: tf.Tensor, bias: tf.Tensor, activation: Callable[[tf.Tensor], tf.Tensor] | None = None
    ) -> _Layer:
        return _Layer(self._keep(kernel), self._keep(bias), activation)

    def _hidden_layer(self, layer: keras.layers.Dense) -> _Layer:
        is_softplus = layer.activation is keras.activations.softplus
        return self._layer(layer.kernel.value, layer.bias.value, tf.nn.softplus if is_softplus else layer.activation)

    def _outputs_of(self, layer: keras.layers.Dense, chosen: Sequence[int]) -> _Layer:
        """Some of a layer's outputs, before its activation."""
        return self._layer(*(tf.gather(weights.value, chosen, axis=-1) for weights in (layer.kernel, layer.bias)))

    def _perceptron(self, mlp: MLP, chosen: Sequence[int]) -> list[_Layer]:
        """Its layers, and of the last one these outputs."""
        *hidden, last = _dense(mlp)
        return [*map(self._hidden_layer, hidden), self._outputs_of(last, chosen)]

    def infer(self, images: tf.Tensor, with_objects: bool = False) -> dict[str, tf.Tensor]:
        """The likeliest count, and the mode of every latent.

        Args:
            images: float32 [B, H, W, 1] in [0, 1].
            with_objects: as for `SceneModel.infer`.

        Returns:
            As `SceneModel.infer`.
        """
        images = tf.squeeze(images, -1)
        presence_logits, shift_latent, scale_latent = self._locate(images)
        count_probs = PresenceCode(presence_logits).count_probs()
        count = tf.argmax(count_probs, axis=-1, output_type=tf.int32)
        presence = code_of_count(count, self._num_steps)
        steps = PresentSteps(presence, gather=not self._portable)
        shift, scale = tf.tanh(steps.take(shift_latent)), tf.sigmoid(steps.take(scale_latent))
        windows = window_boxes(shift, scale, self._canvas_size)
        glimpses = self._read(images, shift, scale, steps.scenes(), self._glimpse_size)
        what = tf.transpose(_through(self._encoder, glimpses))
        drawn = self._draw(what, windows)
        inferred = {
            "count": count,
            "count_probs": count_probs,
            "presence": presence,
            "boxes": steps.put(windows),
            "z_what": steps.put(what),
            "reconstruction": self._canvases(steps, drawn),
        }
        if with_objects:
            inferred["objects"] = steps.put(drawn)[..., tf.newaxis]
        return inferred

    def draw(self, what: tf.Tensor, boxes: tf.Tensor, presence: tf.Tensor) -> tf.Tensor:
        """Draws scenes of given objects; those that `infer` found give its reconstruction.

        Args:
            what: float32 [B, T, Z], appearances.
            boxes: float32 [B, T, 4], `[ymin, xmin, ymax, xmax]` as fractions of the canvas; an object fills its box,
                whatever the box's proportions, and what lies outside the canvas isn't seen.
            presence: float32 [B, T], 0 for an absent object and 1 for a present one, in any order; between, an object
                is fainter.

        Returns:
            float32 [B, H, W, 1] in [0, 1].
        """
        steps = PresentSteps(presence, gather=not self._portable)
        drawn = self._draw(steps.take(what), steps.take(boxes))
        return self._canvases(steps, steps.take(presence)[:, tf.newaxis, tf.newaxis] * drawn)

    @staticmethod
    def _canvases(steps: PresentSteps, drawn: tf.Tensor) -> tf.Tensor:
        return tf.clip_by_value(steps.sum(drawn), 0.0, 1.0)[..., tf.newaxis]

    def _locate(self, images: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        """Presence logits [B, T], latents of shift [B, T, 2] and of scale [B, T, 1] of images [B, H, W].

        `RecognitionNetwork.locate` without noise and without the standard deviations that it would be multiplied by.
        """
        projection = self._project(images)
        hidden, cell = _update(projection)
        window: list[tf.Tensor] = []
        for_presence, shifts, scales = [], [], []
        for _ in range(self._num_steps):
            if window:
                if self._second_look:
                    shift, scale = map(tf.transpose, window)
                    images = without_windows(images, shift, scale, self._canvas_size)
                    projection = self._project(images)
                gates = projection + tf.matmul(self._gates, tf.concat([*window, hidden], 0), transpose_a=True)
                hidden, cell = _update(gates, cell)
            shift_layer, scale_layer, *presence_layer = tf.split(self._heads(hidden), self._num_heads)
            shift_latent = self._shift(tf.nn.relu(shift_layer))
            for_scale = scale_layer + tf.matmul(self._from_shift, tf.tanh(shift_latent), transpose_a=True)
            scale_latent = self._bounded(self._scale(tf.nn.relu(for_scale)))
            window = [shift_latent, scale_latent]
            if self._second_look:
                window = self._look_again(images, *window)
            for_presence += presence_layer
            shifts.append(window[0])
            scales.append(window[1])
        if self._presence is not None:
            logits = self._presence(tf.nn.relu(tf.concat(for_presence, 1)))
            logits = tf.transpose(tf.reshape(logits, [self._num_steps, -1]))
        else:
            logits = tf.tile(self._certain_logits[tf.newaxis], [tf.shape(images)[0], 1])
        return logits, *(tf.transpose(tf.stack(steps), [2, 0, 1]) for steps in (shifts, scales))

    def _bounded(self, scale_latent: tf.Tensor) -> tf.Tensor:
        """`RecognitionNetwork._bounded`."""
        centre, radius = self._scale_range
        return scale_latent if radius is None else centre + radius * tf.tanh((scale_latent - centre) / radius)

    def _project(self, images: tf.Tensor) -> tf.Tensor:
        """What the gates get from images [B, H, W], [4 * units, B]."""
        seen = images if self._image_pool == 1 else mean_pool(images, self._image_pool)
        return self._projection(tf.reshape(seen, [-1, self._pixels]), by_rows=True)

    def _look_again(
        self, images: tf.Tensor, shift_latent: tf.Tensor, scale_latent: tf.Tensor
    ) -> list[tf.Tensor]:
        """`SecondLook`: corrected latents, [2, B] and [1, B], of one window in each image [B, H, W]."""
        shift, reach = tf.tanh(tf.transpose(shift_latent)), self._margin * tf.sigmoid(tf.transpose(scale_latent))
        scenes = tf.range(tf.shape(images)[0])
        seen = self._read(images, shift, reach, scenes, self._region_size)
        moved, resized = tf.split(_through(self._second_look, seen), [2, 1])
        step = shift_step(tf.transpose(moved), shift, reach, self._canvas_size)
        return [shift_latent + tf.transpose(step), self._bounded(scale_latent + resized)]

    def _read(
        self, images: tf.Tensor, shift: tf.Tensor, scale: tf.Tensor, scenes: tf.Tensor, size: int
    ) -> tf.Tensor:
        """Glimpses [N, size, size] of images [B, H, W] in windows, [N, 2] and [N, 1], of the scenes [N].

        Not by way of the boxes: fractions of the canvas are rounded, and codes feel it in their sixth digit.
        """
        half_extent = scale * (0.5 * min(self._canvas_size) * (1.0 - 1.0 / size))  # to the centres of the outer parts
        centre = (shift[:, ::-1] + 1.0) * (0.5 * tf.constant(self._canvas_size, tf.float32)) - 0.5
        return interpolate_evenly(
            images, scenes, centre - half_extent, centre + half_extent, (size, size), portable=self._portable
        )

    def _draw(self, what: tf.Tensor, boxes: tf.Tensor) -> tf.Tensor:
        """Each of N objects on a canvas of its own, [N, H, W], from appearances [N, Z] and boxes [N, 4]."""
        side = self._glimpse_size
        hidden = _through(self._decoder, what)
        logits = tf.matmul(hidden, self._pixel_kernel, transpose_a=bool(self._decoder))
        objects = tf.reshape(tf.sigmoid(tf.nn.bias_add(logits, self._pixel_bias)), [-1, side, side])
        return write_in_boxes(objects, boxes, self._canvas_size, portable=self._portable)


def _through(layers: list[_Layer], rows: tf.Tensor) -> tf.Tensor:
    """float32 [out, N] from rows [N, ...]."""
    values = tf.reshape(rows, [-1, math.prod(rows.shape[1:])])
    for i, layer in enumerate(layers):
        values = layer(values, by_rows=i == 0)
    return values


def _update(gates: tf.Tensor, cell: tf.Tensor | None = None) -> tuple[tf.Tensor, tf.Tensor]:
    """`LSTMCell.update` on [4 * units, B]."""
    enter, forget, candidate, leave = tf.split(gates, 4)
    entering = tf.sigmoid(enter) * tf.tanh(candidate)
    cell = entering if cell is None else tf.sigmoid(forget) * cell + entering
    return tf.sigmoid(leave) * tf.tanh(cell), cell
