"""Draws objects on canvases, by a model's object decoder."""

from __future__ import annotations

import tensorflow as tf

from asr_tf import fast
from asr_tf.imaging.composition import Drawn
from asr_tf.imaging.windows import write_boxes
from asr_tf.models import parts
from asr_tf.networks.contracts import ObjectDecoder
from asr_tf.scene import SceneLatents, SceneSpec, window_boxes

__all__ = ["Renderer"]


class Renderer:
    """Draws each object of a scene on a canvas of its own; a composition puts them together.

    Attributes:
        decoder: what an appearance looks like.
        spec: what all parts of the model agree on.
    """

    def __init__(self, decoder: ObjectDecoder, spec: SceneSpec) -> None:
        self.decoder, self.spec = decoder, spec

    def boxes(self, latents: SceneLatents) -> tf.Tensor:
        """The windows of all steps as boxes, float32 [..., T, 4]."""
        return window_boxes(tf.tanh(latents.shift_latent), tf.sigmoid(latents.scale_latent), self.spec.canvas_size)

    def draw(self, latents: SceneLatents) -> tuple[Drawn, tf.Tensor, Drawn]:
        """Draws every step as if it held an object, with gradients.

        Args:
            latents: float32 [B, T, ...] each.

        Returns:
            What each step draws in its window [B, T, G, G, ...]; the windows as boxes [B, T, 4]; and on canvases
            [B, T, H, W, ...].
        """
        objects = self.objects(latents.what)
        boxes = self.boxes(latents)
        return objects, boxes, objects.map(lambda x: write_boxes(x, boxes, self.spec.canvas_size))

    def objects(self, what: tf.Tensor) -> Drawn:
        """What each step draws in its window, [B, T, G, G, ...], of appearances, float32 [B, T, Z]."""
        flat = self._decode(tf.reshape(what, [-1, self.spec.what_size]))
        return flat.map(lambda x: tf.reshape(x, [-1, self.spec.num_steps, *x.shape[1:]]))

    def in_boxes(self, what: tf.Tensor, boxes: tf.Tensor) -> Drawn:
        """Draws objects, without gradients.

        Args:
            what: float32 [N, Z].
            boxes: float32 [N, 4].

        Returns:
            On canvases, [N, H, W, ...].
        """
        return self._decode(what).map(lambda x: fast.write_boxes(x, boxes, self.spec.canvas_size))

    def draw_present(self, what: tf.Tensor, boxes: tf.Tensor, presence: tf.Tensor) -> Drawn:
        """Draws the present objects of scenes, without gradients.

        Args:
            what: float32 [B, T, Z].
            boxes: float32 [B, T, 4].
            presence: float32 [B, T], 0 for an absent object.

        Returns:
            On canvases, [B, T, H, W, ...], zeros for absent objects.
        """
        steps = fast.present_steps(presence)
        return self.in_boxes(steps.take(what), steps.take(boxes)).map(steps.put)

    def _decode(self, what: tf.Tensor) -> Drawn:
        """Objects [N, G, G, ...] of appearances [N, Z]."""
        return parts.checked_objects(self.decoder(what), self.spec)
