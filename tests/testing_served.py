"""A tiny stand-in for an exported model, with its signatures: servers load it in a moment."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import tensorflow as tf

CANVAS = (6, 8)
NUM_STEPS = 3
WHAT_SIZE = 2
SIGNATURES = ("infer", "refine", "sample", "render", "log_likelihood")


def _check(condition, message, value):
    return tf.raw_ops.Assert(condition=condition, data=[tf.constant(message), tf.convert_to_tensor(value)])


class TinyServed(tf.Module):
    """Counts bright pixels; redraws the image darkened by `factor`, by which versions are told apart.

    Brightness is that of the last channel; images have C = 1 (grey) or 3 (RGB) channels.
    """

    def __init__(self, factor: float, channels: int = 1) -> None:
        super().__init__()
        self.factor = tf.Variable(factor)
        height, width = CANVAS
        images = tf.TensorSpec([None, height, width, channels], tf.float32, "images")
        number, seed = tf.TensorSpec([], tf.int32), tf.TensorSpec([2], tf.int32, "seed")
        disobeying = tf.constant(False)

        def infer(images):
            total = tf.reduce_sum(images[..., -1], [1, 2])
            checks = [
                _check(tf.reduce_all(~tf.math.is_nan(total)), "images must not hold NaN", total),
                _check(~tf.reduce_any(total >= 40.0), "images are too bright:", total),
            ]
            with tf.control_dependencies(checks):
                count = tf.minimum(tf.cast(total / 8.0, tf.int32), NUM_STEPS)
            presence = tf.sequence_mask(count, NUM_STEPS, tf.float32)
            weights = tf.reshape(tf.range(1.0, 1.0 + NUM_STEPS * WHAT_SIZE), [1, NUM_STEPS, WHAT_SIZE])
            return {
                "count": count,
                "count_probs": tf.one_hot(count, NUM_STEPS + 1),
                "presence": presence,
                "boxes": presence[..., tf.newaxis] * tf.constant([0.0, 0.25, 0.5, 1.0]),
                "z_what": presence[..., tf.newaxis] * weights * total[:, tf.newaxis, tf.newaxis],
                "scores": 0.5 * presence,
                "masks": presence[:, :, None, None, None] * images[:, None, :, :, :1] / NUM_STEPS,
                "reconstruction": self.factor * images,
            }

        def refine(images, steps):
            before = tf.reduce_sum(images, [1, 2, 3])
            after = before / (1.0 + tf.cast(steps, tf.float32))
            nats = {"negative_elbo_nats_before": before, "negative_elbo_nats_after": after}
            return infer(images) | nats | {"penalties_nats_before": before / 2.0, "penalties_nats_after": after / 2.0}

        def sample(num_samples, seed, num_objects, obey=disobeying):
            """Scenes without an object break the rule; drawn again, they have one, if one is allowed."""
            checks = [
                _check((num_objects >= -1) & (num_objects <= NUM_STEPS), "num_objects is out of range:", num_objects),
                _check(num_samples >= 1, "num_samples must be 1 or more, got", num_samples),
            ]
            with tf.control_dependencies(checks):
                num_samples = tf.identity(num_samples)
                drawn = tf.random.stateless_uniform([num_samples], seed, 0, NUM_STEPS + 1, tf.int32)
            count = tf.where(num_objects < 0, tf.where(obey, tf.maximum(drawn, 1), drawn), num_objects)
            presence = tf.sequence_mask(count, NUM_STEPS, tf.float32)
            return {
                "images": tf.random.stateless_uniform([num_samples, height, width, channels], seed),
                "count": count,
                "presence": presence,
                "boxes": tf.zeros([num_samples, NUM_STEPS, 4]),
                "z_what": tf.zeros([num_samples, NUM_STEPS, WHAT_SIZE]),
                "obeys": count > 0,
                "acceptance_rate": tf.reduce_mean(tf.cast(drawn > 0, tf.float32)),
            }

        def render(z_what, boxes, presence):
            del boxes
            level = tf.sigmoid(tf.reduce_sum(z_what * presence[..., tf.newaxis], [1, 2]))
            return {"images": tf.tile(level[:, tf.newaxis, tf.newaxis, tf.newaxis], [1, height, width, channels])}

        def log_likelihood(images, num_particles, seed):
            with tf.control_dependencies([_check(num_particles >= 1, "num_particles is too low:", num_particles)]):
                noise = tf.random.stateless_normal(tf.shape(images)[:1], seed)
            return {"log_likelihood": -tf.reduce_sum(images, [1, 2, 3]) + noise / tf.cast(num_particles, tf.float32)}

        def served(function, *specs):
            return tf.function(function, input_signature=specs, autograph=False)

        def named(name):
            return tf.TensorSpec(number.shape, number.dtype, name)

        steps = [None, NUM_STEPS]
        self.infer = served(infer, images)
        self.refine = served(refine, images, named("steps"))
        obey = tf.TensorSpec([], tf.bool, "obey")
        self.sample = served(sample, named("num_samples"), seed, named("num_objects"), obey)
        self.render = served(
            render,
            tf.TensorSpec([*steps, WHAT_SIZE], tf.float32, "z_what"),
            tf.TensorSpec([*steps, 4], tf.float32, "boxes"),
            tf.TensorSpec(steps, tf.float32, "presence"),
        )
        self.log_likelihood = served(log_likelihood, images, named("num_particles"), seed)


def write_version(export_dir: Path, number: int, factor: float = 0.5, channels: int = 1) -> Path:
    """Writes a version as asr_export does: under another name first."""
    module = TinyServed(factor, channels)
    signatures = {name: getattr(module, name) for name in SIGNATURES}
    hidden = export_dir / f".{number}"
    tf.saved_model.save(module, str(hidden), signatures={"serving_default": module.infer, **signatures})
    os.rename(hidden, export_dir / str(number))
    return export_dir / str(number)


def break_version(export_dir: Path, number: int) -> Path:
    """Writes a version whose graph can't be read."""
    folder = export_dir / str(number)
    folder.mkdir()
    (folder / "saved_model.pb").write_bytes(b"no graph")
    return folder


def random_images(number: int, seed: int = 0, channels: int = 1) -> np.ndarray:
    """float32 [number, H, W, C] in [0, 1], not too bright."""
    rng = np.random.default_rng(seed)
    return (rng.random((number, *CANVAS, channels)) * rng.random((number, 1, 1, 1))).astype(np.float32)
