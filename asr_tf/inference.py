"""Deterministic inference and drawing for models that are served: few kernels, no loop, no randomness.

`SceneModel.infer` takes the training pass with its noise set to zero, and is compiled by XLA.  A served model can't rely
on XLA: its first answer must come at once, and other consumers of a SavedModel don't have it.  What is here gives
the same numbers by TensorFlow's own kernels, as few as can be: recognition unrolled step by step, nothing that only
training needs, and absent objects left out.  Everything is float32.

References:
    Eslami et al., "Attend, Infer, Repeat", NIPS 2016, arXiv:1603.08575, section 2.1.
"""

from __future__ import annotations

import keras
import tensorflow as tf

from asr_tf.distributions import PresenceCode, code_of_count
from asr_tf.layers import MLP, mean_pool
from asr_tf.networks import RecognitionNetwork
from asr_tf.present import PresentSteps
from asr_tf.scene import window_boxes
from asr_tf.scene_model import SceneModel
from asr_tf.spatial_transformer import interpolate, read_glimpses

__all__ = ["draw", "infer"]


def infer(model: SceneModel, images: tf.Tensor, portable: bool = False) -> dict[str, tf.Tensor]:
    """The likeliest count, and the mode of every latent.

    Args:
        model: of scenes, whose weights are read.
        images: float32 [B, H, W, 1] in [0, 1], H and W static.
        portable: whether to do with LiteRT's own operations: all T objects are read and drawn, by products.

    Returns:
        As `SceneModel.infer`.
    """
    images = tf.squeeze(images, -1)
    presence_logits, shift, scale = _locate(model.recognition, images)
    count_probs = PresenceCode(presence_logits).count_probs()
    count = tf.argmax(count_probs, axis=-1, output_type=tf.int32)
    presence = code_of_count(count, model.num_steps)
    boxes = presence[..., tf.newaxis] * window_boxes(shift, scale, model.canvas_size)
    steps = PresentSteps(presence, gather=not portable)
    windows = steps.take(boxes)
    if portable:
        glimpses = read_glimpses(steps.take_scenes(images), steps.take(shift), steps.take(scale), model.glimpse_size)
    else:
        glimpses = _read(images, windows, steps.scenes(), model.glimpse_size)
    pixels = tf.reshape(glimpses, [-1, model.glimpse_size**2])
    what = _perceptron(model.recognition.encoder.mlp, pixels)[:, : model.what_size]
    canvases = steps.sum(_draw_present(model, what, windows, portable))
    return {
        "count": count,
        "count_probs": count_probs,
        "presence": presence,
        "boxes": boxes,
        "z_what": steps.put(what),
        "reconstruction": tf.clip_by_value(canvases, 0.0, 1.0)[..., tf.newaxis],
    }


def draw(model: SceneModel, what: tf.Tensor, boxes: tf.Tensor, presence: tf.Tensor) -> tf.Tensor:
    """Draws scenes of given objects; those that `infer` found give its reconstruction.

    Args:
        model: of scenes, whose decoder is read.
        what: float32 [B, T, Z], appearances.
        boxes: float32 [B, T, 4], `[ymin, xmin, ymax, xmax]` as fractions of the canvas; an object fills its box, whatever
            the box's proportions, and what lies outside the canvas isn't seen.
        presence: float32 [B, T], 0 for an absent object and 1 for a present one; between, an object is fainter.

    Returns:
        float32 [B, H, W, 1] in [0, 1].
    """
    steps = PresentSteps(presence)
    drawn = _draw_present(model, steps.take(what), steps.take(boxes))
    canvases = steps.sum(steps.take(presence)[:, tf.newaxis, tf.newaxis] * drawn)
    return tf.clip_by_value(canvases, 0.0, 1.0)[..., tf.newaxis]


def _locate(network: RecognitionNetwork, images: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """Presence logits [B, T], shifts [B, T, 2] in (-1, 1) and scales [B, T, 1] in (0, 1) of images [B, H, W].

    `RecognitionNetwork.locate` without noise and without the standard deviations that it would be multiplied by.
    """
    heads = (network.presence_head, network.shift_head, network.scale_head)
    units = network.cell.units
    seen = images if network.image_pool == 1 else mean_pool(images, network.image_pool)
    seen = tf.reshape(seen, [-1, network.pixels])
    projection = tf.nn.bias_add(tf.matmul(seen, _value(network.image_projection.kernel)), _value(network.cell.bias))
    # The hidden layers of all heads are one product; the shift enters the scale head beside it.
    from_hidden, from_shift = tf.split(_value(heads[2].dense_0.kernel), [units, 2])
    hidden_kernel = tf.concat([*(_value(head.dense_0.kernel) for head in heads[:2]), from_hidden], 1)
    hidden_bias = tf.concat([_value(head.dense_0.bias) for head in heads], 0)
    # Means only: the heads' other outputs are standard deviations.
    shift_kernel, shift_bias = _value(heads[1].dense_1.kernel)[:, :2], _value(heads[1].dense_1.bias)[:2]
    scale_kernel, scale_bias = _value(heads[2].dense_1.kernel)[:, :1], _value(heads[2].dense_1.bias)[:1]
    cell_kernel = _value(network.cell.gates.kernel)

    hidden, cell = network.cell.update(projection)
    for_presence, shifts, scales = [], [], []
    for t in range(network.num_steps):
        if t > 0:
            window = tf.concat([shift_latent, scale_latent, hidden], -1)
            hidden, cell = network.cell.update(projection + tf.matmul(window, cell_kernel), cell)
        layer = tf.nn.bias_add(tf.matmul(hidden, hidden_kernel), hidden_bias)
        presence_layer, shift_layer, scale_layer = tf.split(layer, 3, axis=-1)
        shift_latent = tf.nn.bias_add(tf.matmul(tf.nn.relu(shift_layer), shift_kernel), shift_bias)
        shift = tf.tanh(shift_latent)
        scale_layer = tf.nn.relu(scale_layer + tf.matmul(shift, from_shift))
        scale_latent = tf.nn.bias_add(tf.matmul(scale_layer, scale_kernel), scale_bias)
        if network.scale_radius is not None:
            offset = (scale_latent - network.scale_centre) / network.scale_radius
            scale_latent = network.scale_centre + network.scale_radius * tf.tanh(offset)
        for_presence.append(presence_layer)
        shifts.append(shift)
        scales.append(tf.sigmoid(scale_latent))
    layer = tf.nn.relu(tf.concat(for_presence, 0))
    last = heads[0].dense_1
    logits = tf.nn.bias_add(tf.matmul(layer, _value(last.kernel)), _value(last.bias))
    logits = tf.transpose(tf.reshape(logits, [network.num_steps, -1]))
    return logits, tf.stack(shifts, axis=1), tf.stack(scales, axis=1)


def _read(images: tf.Tensor, boxes: tf.Tensor, scenes: tf.Tensor, size: int) -> tf.Tensor:
    """`read_glimpses` of images [B, H, W] in boxes [N, 4] of the scenes [N]; [N, G, G]."""
    canvas = tf.constant(images.shape[1:].as_list(), tf.float32)
    starts, ends = (edges * canvas for edges in tf.split(boxes, 2, axis=-1))
    half_part = (ends - starts) * (0.5 / size)
    return _interpolate(images, scenes, starts + half_part - 0.5, ends - half_part - 0.5, (size, size))


def _draw_present(model: SceneModel, what: tf.Tensor, boxes: tf.Tensor, portable: bool = False) -> tf.Tensor:
    """Each of N objects on a canvas of its own, [N, H, W], from appearances [N, Z] and boxes [N, 4]."""
    side = model.glimpse_size
    objects = tf.reshape(tf.sigmoid(_perceptron(model.decoder.mlp, what)), [-1, side, side])
    canvas = tf.constant(model.canvas_size, tf.float32)
    starts, ends = (edges * canvas for edges in tf.split(boxes, 2, axis=-1))
    # Floor on the side: a box under a hundredth of a pixel would divide by nothing.
    parts_per_pixel = float(side) / tf.maximum(ends - starts, 1e-2)
    if portable:
        rows, columns = (
            (tf.range(size, dtype=tf.float32) + 0.5 - starts[:, i : i + 1]) * parts_per_pixel[:, i : i + 1] - 0.5
            for i, size in enumerate(model.canvas_size)
        )
        return interpolate(objects, rows, columns)
    first, last = ((edge - starts) * parts_per_pixel - 0.5 for edge in (0.5, canvas - 0.5))
    return _interpolate(objects, tf.range(tf.shape(objects)[0]), first, last, model.canvas_size)


def _interpolate(
    values: tf.Tensor, index: tf.Tensor, first: tf.Tensor, last: tf.Tensor, size: tuple[int, int]
) -> tf.Tensor:
    """Bilinear interpolation at the crossings of evenly spaced rows and columns; zero outside the values.

    `spatial_transformer.interpolate` by TensorFlow's own kernel for it, which has no products and takes a fifth of the
    time.

    Args:
        values: float32 [M, P, Q].
        index: int32 [N], which of the values.
        first, last: float32 [N, 2], the first and last row and column, in indices of the values; finite.
        size: how many rows and columns.

    Returns:
        float32 [N, *size].
    """
    padded = tf.pad(values, [[0, 0], [1, 1], [1, 1]])[..., tf.newaxis]  # the fall-off to zero beyond the edges
    intervals = tf.constant([side + 1.0 for side in values.shape[1:].as_list()])
    boxes = tf.concat([(first + 1.0) / intervals, (last + 1.0) / intervals], -1)
    boxes = tf.where(tf.math.is_finite(boxes), boxes, -1.0)  # the kernel reads anywhere in memory for NaN
    return tf.squeeze(tf.image.crop_and_resize(padded, boxes, index, size), -1)


def _perceptron(mlp: MLP, inputs: tf.Tensor) -> tf.Tensor:
    """`mlp` on [N, sizes[0]], by kernels that TensorFlow puts together."""
    for i in range(mlp.depth):
        layer = getattr(mlp, f"dense_{i}")
        inputs = tf.nn.bias_add(tf.matmul(inputs, _value(layer.kernel)), _value(layer.bias))
        is_softplus = layer.activation is keras.activations.softplus
        inputs = tf.nn.softplus(inputs) if is_softplus else layer.activation(inputs)
    return inputs


def _value(variable: keras.Variable) -> tf.Tensor:
    return tf.convert_to_tensor(variable.value)
