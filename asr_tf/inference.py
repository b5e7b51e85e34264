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
from asr_tf.spatial_transformer import read_glimpses

__all__ = ["draw", "infer"]


def infer(model: SceneModel, images: tf.Tensor, skip_absent: bool = True) -> dict[str, tf.Tensor]:
    """The likeliest count, and the mode of every latent.

    Args:
        model: of scenes, whose weights are read.
        images: float32 [B, H, W, 1] in [0, 1], H and W static.
        skip_absent: whether to leave out absent objects, whose number is known only when the graph runs.

    Returns:
        As `SceneModel.infer`.
    """
    images = tf.squeeze(images, -1)
    presence_logits, shift, scale = _locate(model.recognition, images)
    count_probs = PresenceCode(presence_logits).count_probs()
    count = tf.argmax(count_probs, axis=-1, output_type=tf.int32)
    presence = code_of_count(count, model.num_steps)
    boxes = presence[..., tf.newaxis] * window_boxes(shift, scale, model.canvas_size)
    steps = PresentSteps(presence, skip_absent)
    glimpses = read_glimpses(steps.take_scenes(images), steps.take(shift), steps.take(scale), model.glimpse_size)
    pixels = tf.reshape(glimpses, [-1, model.glimpse_size**2])
    what = _perceptron(model.recognition.encoder.mlp, pixels)[:, : model.what_size]
    canvases = steps.sum(_draw_present(model, what, steps.take(boxes)))
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


def _draw_present(model: SceneModel, what: tf.Tensor, boxes: tf.Tensor) -> tf.Tensor:
    """Each of N objects on a canvas of its own, [N, H, W], from appearances [N, Z] and boxes [N, 4]."""
    side = model.glimpse_size
    objects = tf.reshape(tf.sigmoid(_perceptron(model.decoder.mlp, what)), [-1, side, side])
    starts, ends = tf.split(boxes, 2, axis=-1)
    height, width = model.canvas_size
    rows = _box_weights(starts[:, :1], ends[:, :1], height, side)
    columns = _box_weights(starts[:, 1:], ends[:, 1:], width, side)
    return tf.matmul(tf.matmul(rows, objects), columns, transpose_b=True)


def _box_weights(starts: tf.Tensor, ends: tf.Tensor, size: int, parts: int) -> tf.Tensor:
    """Bilinear weights of a box's parts in each line of pixels, as `write_objects` has them.

    Args:
        starts, ends: float32 [N, 1], edges as fractions of the canvas.
        size: of the canvas along this axis, in pixels.
        parts: G, the values of an object along it.

    Returns:
        float32 [N, size, parts].
    """
    # Floor on the side: a box under a hundredth of a pixel would divide by nothing.
    parts_per_pixel = float(parts) / tf.maximum((ends - starts) * float(size), 1e-2)
    lines = (tf.range(size, dtype=tf.float32) + 0.5 - starts * float(size)) * parts_per_pixel - 0.5
    return tf.nn.relu(1.0 - tf.abs(lines[..., tf.newaxis] - tf.range(parts, dtype=tf.float32)))


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
