"""Finds the objects of images, by the mode of a posterior.

What is fast here is told apart by `asr_tf.fast`: absent steps are neither described nor drawn.
"""

from __future__ import annotations

from collections.abc import Callable

import tensorflow as tf

from asr_tf import fast
from asr_tf.distributions import PresenceCode, code_of_count
from asr_tf.imaging.composition import Composition
from asr_tf.models import parts
from asr_tf.models.renderer import Renderer
from asr_tf.networks.contracts import Background, LatentNoise, Recognition
from asr_tf.scene import SceneSpec, window_boxes

__all__ = ["SceneInference", "background_of", "in_parts"]


def background_of(
    background: Background | None, images: tf.Tensor, spec: SceneSpec, seed: tf.Tensor | None = None
) -> tuple[tf.Tensor | None, tf.Tensor | None]:
    """The background of images, float32 [B, H, W, C], and its divergence [B]; None for black.

    Args:
        background: the part, None for black.
        images: float32 [B, H, W, C].
        spec: what all parts of the model agree on.
        seed: int32 [2], of a sample of its latents; None for their mode.
    """
    return (None, None) if background is None else parts.checked_background(background(images, seed), spec)


class SceneInference:
    """What is in images, by recognition, and what that looks like drawn again."""

    def __init__(
        self,
        recognition: Recognition,
        background: Background | None,
        composition: Composition,
        renderer: Renderer,
    ) -> None:
        """Takes the parts of a model."""
        self.recognition, self.background, self.composition = recognition, background, composition
        self.renderer, self.spec = renderer, renderer.spec

    @fast.graph
    def find(self, images: tf.Tensor) -> dict[str, tf.Tensor]:
        """Finds the objects of images, float32 [B, H, W, C] in [0, 1]; gives what `ASRModel.infer` does."""
        return self.find_by(images)

    def find_by(
        self, images: tf.Tensor, noise: LatentNoise | None = None, logits: tf.Tensor | float = 0.0
    ) -> dict[str, tf.Tensor]:
        """Finds the objects within a graph.

        Args:
            images: float32 [B, H, W, C] in [0, 1].
            noise: what recognition makes latents of, float32 [B, T, ...] each; None for the mode of its posterior.
            logits: what to add to those of the presence code, float32 [B, T].

        Returns:
            What `ASRModel.infer` gives, and the `objects`.
        """
        posterior, latents = parts.checked_located(self.recognition.locate(images, noise), self.spec)
        code = PresenceCode(posterior.presence_logits + logits)
        count_probs = code.count_probs()
        count = tf.argmax(count_probs, axis=-1, output_type=tf.int32)
        presence = code_of_count(count, self.spec.num_steps)
        steps = fast.present_steps(presence)
        shift, scale = steps.take(tf.tanh(latents.shift_latent)), steps.take(tf.sigmoid(latents.scale_latent))
        glimpses = fast.read_windows(images, steps.scenes(), shift, scale, self.spec.glimpse_size)
        what, log_scale = self.recognition.describe(glimpses)
        if noise is not None:
            what += tf.exp(log_scale) * steps.take(noise.what)
        boxes = window_boxes(shift, scale, self.spec.canvas_size)
        drawn = self.renderer.in_boxes(what, boxes).map(steps.put)
        background = background_of(self.background, images, self.spec)[0]
        return {
            "count": count,
            "count_probs": count_probs,
            "presence": presence,
            "boxes": steps.put(boxes),
            "z_what": steps.put(what),
            "scores": code.presence_probs(),
            "masks": self.composition.masks(drawn, presence, images, background),
            "reconstruction": self.composition.canvas(drawn, presence, background),
            "objects": drawn.colour,
        }


def in_parts(
    function: Callable[[tf.Tensor], dict[str, tf.Tensor]], images: tf.Tensor, most: int
) -> dict[str, tf.Tensor]:
    """A function's answers by name, [B, ...] each, of at most so many images at once; in a graph, of all at once."""
    if not tf.executing_eagerly() or len(images) <= most:
        return function(images)
    answers = [function(images[start : start + most]) for start in range(0, len(images), most)]
    return {name: tf.concat([answer[name] for answer in answers], 0) for name in answers[0]}
