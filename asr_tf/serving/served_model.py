"""A model of scenes as a `tf.Module` whose signatures any TensorFlow consumer can call.

Each signature is a graph of its own with named inputs and a dict of named outputs, takes any number of images, and
needs no Python where it is loaded:

    infer, also serving_default    images -> count, count_probs, presence, boxes, z_what, scores, masks,
                                   reconstruction
    refine                         images, steps -> as infer; negative_elbo_nats_before and _after,
                                   penalties_nats_before and _after
    sample                         num_samples, seed, num_objects, obey -> images, count, presence, boxes, z_what,
                                   obeys, acceptance_rate
    render                         z_what, boxes, presence -> images
    log_likelihood                 images, num_particles, seed -> log_likelihood

What came later than the first exports, `obey`, may be left out where a consumer knows of defaults.

Input is checked in the graph: what can't be answered ends in an InvalidArgument error that names the argument, what was
expected and what came.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Sequence
from typing import Any

import tensorflow as tf

from asr_tf import fast
from asr_tf.models.asr_model import ASRModel

__all__ = [
    "MOST_PARTICLES",
    "MOST_REFINED",
    "MOST_SAMPLES",
    "MOST_STEPS",
    "MOST_TRIES",
    "ServedModel",
    "to_tflite",
]

# One request must not take the memory, or the hours, of all.
MOST_SAMPLES = 4096
MOST_PARTICLES = 10_000
MOST_REFINED = 256
MOST_STEPS = 1000
MOST_TRIES = 100
_FARTHEST = 1000.0  # canvases that a box may be away: what is farther overflows on its way to pixels


_MEANINGS = {
    "acceptance_rate": "share of all scenes drawn that break no rule of the model's",
    "boxes": "[ymin, xmin, ymax, xmax] as fractions of the canvas, zeros for absent objects",
    "count": "objects in the image",
    "count_probs": "probability of each count, 0 to T",
    "images": "levels from 0 (black) to 1, height before width, grey or RGB",
    "log_likelihood": "importance-weighted lower bound of log p(image), in nats",
    "masks": "each object's share of each pixel, 0 to 1, zeros for absent objects",
    "negative_elbo_nats_after": "minus the bound on log p(image) of the refined posterior, in nats",
    "negative_elbo_nats_before": "minus the bound on log p(image) of the amortized posterior, in nats",
    "num_objects": "objects in every scene, 0 to T; -1 draws the count too",
    "num_particles": f"particles of the bound, 1 to {MOST_PARTICLES}",
    "num_samples": f"scenes to draw, 1 to {MOST_SAMPLES}",
    "obey": f"whether scenes that break a rule are drawn again, {MOST_TRIES} times at most; false where it is left out",
    "obeys": "whether a scene breaks no rule",
    "penalties_nats_after": "of the refined posterior, by the rules' strengths, in nats",
    "penalties_nats_before": "of the amortized posterior, by the rules' strengths, in nats",
    "presence": "1 for a present object, 0 for an absent one; present ones come first",
    "reconstruction": "the image redrawn from its objects, levels from 0 to 1",
    "scores": "probability of each object, that is of as many objects or more",
    "seed": "the same two numbers give the same answer",
    "steps": f"of each image's ascent, 0 to {MOST_STEPS}",
    "z_what": "code of each object's appearance, zeros for absent objects",
}


class ServedModel(tf.Module):
    """What is saved for serving.

    Attributes:
        infer, refine, sample, render, log_likelihood: the signatures as functions, see the module.
        served_variables: the weights that they read.
    """

    def __init__(self, model: ASRModel):
        """Takes the model, whose weights are saved as they are then.

        Args:
            model: of scenes.
        """
        super().__init__(name="asr")
        # The variables, not the model: it would be saved with all that Keras attaches to it.
        self.served_variables = [variable.value for variable in model.variables]
        height, width = model.canvas_size
        images = tf.TensorSpec([None, height, width, model.channels], tf.float32, "images")
        objects = (
            tf.TensorSpec([None, model.num_steps, model.spec.what_size], tf.float32, "z_what"),
            tf.TensorSpec([None, model.num_steps, 4], tf.float32, "boxes"),
            tf.TensorSpec([None, model.num_steps], tf.float32, "presence"),
        )
        seed, obeying = tf.TensorSpec([2], tf.int32, "seed"), tf.TensorSpec([], tf.bool, "obey")
        disobeying = tf.constant(False)

        def named(name: str) -> tf.TensorSpec:
            return tf.TensorSpec([], tf.int32, name)

        def infer(images: tf.Tensor) -> dict[str, tf.Tensor]:
            return model.infer(_checked_images(images, model))

        def refine(images: tf.Tensor, steps: tf.Tensor) -> dict[str, tf.Tensor]:
            steps = _checked_number("steps", steps, 0, MOST_STEPS)
            return model.refine(_checked_images(images, model, MOST_REFINED), steps)

        def sample(
            num_samples: tf.Tensor, seed: tf.Tensor, num_objects: tf.Tensor, obey: tf.Tensor = disobeying
        ) -> dict[str, tf.Tensor]:
            num_samples = _checked_number("num_samples", num_samples, 1, MOST_SAMPLES)
            num_objects = _checked_number("num_objects", num_objects, -1, model.num_steps)
            tries = tf.where(_checked_shape("obey", obey, []), MOST_TRIES, 1)
            seed = _checked_shape("seed", seed, [2])
            return model.sample(num_samples, seed, num_objects, obey=True, max_tries=tries)

        def render(z_what: tf.Tensor, boxes: tf.Tensor, presence: tf.Tensor) -> dict[str, tf.Tensor]:
            return {"images": model.render(*_checked_objects(z_what, boxes, presence, model))}

        def log_likelihood(images: tf.Tensor, num_particles: tf.Tensor, seed: tf.Tensor) -> dict[str, tf.Tensor]:
            num_particles = _checked_number("num_particles", num_particles, 1, MOST_PARTICLES)
            images, seed = _checked_images(images, model), _checked_shape("seed", seed, [2])
            return {"log_likelihood": model.log_likelihood(images, num_particles, seed)}

        def served(function: Callable[..., Any], *specs: tf.TensorSpec) -> Any:
            return tf.function(function, input_signature=specs, autograph=False)

        self.infer = served(infer, images)
        self.refine = served(refine, images, named("steps"))
        self.sample = served(sample, named("num_samples"), seed, named("num_objects"), obeying)
        self.render = served(render, *objects)
        self.log_likelihood = served(log_likelihood, images, named("num_particles"), seed)

    def signatures(self) -> dict[str, Any]:
        """The functions by the names that consumers call them by."""
        return {
            "serving_default": self.infer,
            "infer": self.infer,
            "refine": self.refine,
            "sample": self.sample,
            "render": self.render,
            "log_likelihood": self.log_likelihood,
        }

    def description(self) -> dict[str, dict[str, dict[str, dict[str, Any]]]]:
        """Each signature's `inputs` and `outputs` by name: `dtype`, `shape` (None for any size) and `meaning`."""

        def described(specs: dict[str, Any]) -> dict[str, dict[str, Any]]:
            return {
                name: {"dtype": spec.dtype.name, "shape": spec.shape.as_list(), "meaning": _MEANINGS[name]}
                for name, spec in sorted(specs.items())
            }

        found = {}
        for name, function in self.signatures().items():
            concrete = function.get_concrete_function()
            inputs = {spec.name: spec for spec in concrete.structured_input_signature[0]}
            found[name] = {"inputs": described(inputs), "outputs": described(concrete.structured_outputs)}
        return found

    def save(self, folder: str | os.PathLike[str]) -> None:
        """Writes a SavedModel.

        Args:
            folder: is created.
        """
        # Gradients that functions define themselves are for training: saving them takes longer than all the rest.
        options = tf.saved_model.SaveOptions(experimental_custom_gradients=False)
        tf.saved_model.save(self, os.fspath(folder), signatures=self.signatures(), options=options)


def to_tflite(model: ASRModel) -> bytes:
    """The signature `infer` as a model for LiteRT, of its own operations only; its input isn't checked.

    Args:
        model: of scenes.

    Returns:
        The contents of a `.tflite` file.
    """
    module = tf.Module()
    module.served_variables = [variable.value for variable in model.variables]
    images = tf.TensorSpec([None, *model.canvas_size, model.channels], tf.float32, "images")
    module.infer = tf.function(model.infer, input_signature=[images], autograph=False)
    with fast.plain(), tempfile.TemporaryDirectory() as folder:
        tf.saved_model.save(module, folder, signatures={"infer": module.infer})
        return tf.lite.TFLiteConverter.from_saved_model(folder, signature_keys=["infer"]).convert()


def _assert(condition: tf.Tensor, *message: Any) -> tf.Operation:
    """Fails with InvalidArgument where the condition, bool [], is false.  (`tf.debugging.Assert` adds a branch.)"""
    data = [tf.convert_to_tensor(part) for part in message]
    return tf.raw_ops.Assert(condition=condition, data=data, summarize=8)


def _after(checks: Sequence[tf.Operation], value: tf.Tensor) -> tf.Tensor:
    """The value, which is there once the checks have passed."""
    with tf.control_dependencies(checks):
        return tf.identity(value)


def _checked_shape(
    name: str, value: tf.Tensor, shape: Sequence[int | None], most: int | None = None
) -> tf.Tensor:
    """The value, if it is of this shape; None at the front stands for one or more, up to the most.

    A consumer may feed any shape, whatever the signature says.  What is known from the signature, TensorFlow takes for
    granted in checks that are made of its operations, but not in this one.
    """
    value = tf.ensure_shape(value, shape)
    if list(shape[:1]) != [None]:
        return value
    fed = tf.shape(value)
    checks = [_assert(fed[0] > 0, f"{name} must hold one scene or more, got shape", fed)]
    if most is not None:
        checks.append(_assert(fed[0] <= most, f"{name} must hold {most} scenes at most, got shape", fed))
    return _after(checks, value)


def _checked_number(name: str, value: tf.Tensor, low: int, high: int) -> tf.Tensor:
    value = _checked_shape(name, value, [])
    fits = tf.reduce_all((value >= low) & (value <= high))
    return _after([_assert(fits, f"{name} must be from {low} to {high}, got", value)], value)


def _checked_fractions(name: str, values: tf.Tensor) -> tf.Tensor:
    """The values, if all are from 0 to 1."""
    low, high = tf.reduce_min(values), tf.reduce_max(values)  # NaN, both, where one of the values is
    # All digits: 1.000001 would be told as 1.
    lowest, highest = (tf.strings.as_string(value, precision=9, shortest=True) for value in (low, high))
    checks = [
        _assert(~tf.math.is_nan(low + high), f"{name} must not hold NaN"),
        _assert(~((low < 0.0) | (high > 1.0)), f"{name} must lie in [0, 1], got values from", lowest, "to", highest),
    ]
    return _after(checks, values)


def _checked_images(images: tf.Tensor, model: ASRModel, most: int | None = None) -> tf.Tensor:
    shape = [None, *model.canvas_size, model.channels]
    return _checked_fractions("images", _checked_shape("images", images, shape, most))


def _checked_objects(
    z_what: tf.Tensor, boxes: tf.Tensor, presence: tf.Tensor, model: ASRModel
) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    z_what = _checked_shape("z_what", z_what, [None, model.num_steps, model.spec.what_size])
    boxes = _checked_shape("boxes", boxes, [None, model.num_steps, 4])
    presence = _checked_shape("presence", presence, [None, model.num_steps])
    sizes = [tf.shape(part)[0] for part in (z_what, boxes, presence)]
    same = (sizes[0] == sizes[1]) & (sizes[0] == sizes[2])
    starts, ends = tf.split(boxes, 2, axis=-1)
    checks = [
        _assert(same, "z_what, boxes and presence must be of as many scenes each, got", tf.stack(sizes)),
        _assert(tf.reduce_all(tf.math.is_finite(z_what)), "z_what must hold finite numbers"),
        _assert(tf.reduce_all(tf.math.is_finite(boxes)), "boxes must hold finite numbers"),
        _assert(~tf.reduce_any(tf.abs(boxes) > _FARTHEST), f"boxes must lie within {_FARTHEST:.0f} canvases"),
        _assert(tf.reduce_all(starts <= ends), "boxes must be [ymin, xmin, ymax, xmax] with minima up to maxima"),
    ]
    presence = _checked_fractions("presence", presence)
    return _after(checks, z_what), _after(checks, boxes), _after(checks, presence)
