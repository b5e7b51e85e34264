"""New scenes from a model's prior: any, or those alone that obey the rules."""

from __future__ import annotations

from typing import Any

import tensorflow as tf

from asr_tf import fast
from asr_tf.constraints import SceneStatistics
from asr_tf.imaging.composition import Composition, Drawn
from asr_tf.models import redraw
from asr_tf.models.renderer import Renderer
from asr_tf.models.rule_terms import RuleTerms
from asr_tf.networks.contracts import Background, ScenePrior

__all__ = ["SceneSampler"]


class SceneSampler:
    """Draws scenes, as objects first and then as images."""

    def __init__(
        self,
        prior: ScenePrior,
        background: Background | None,
        composition: Composition,
        renderer: Renderer,
        rules: RuleTerms,
        step: Any,
    ) -> None:
        """Takes the parts of a model, its rules, and the training steps that were taken, integer []."""
        self.prior, self.background, self.composition = prior, background, composition
        self.renderer, self.rules, self.step = renderer, rules, step

    @fast.graph
    def draw(
        self, num_samples: tf.Tensor, seed: tf.Tensor, num_objects: tf.Tensor, with_masks: bool
    ) -> dict[str, tf.Tensor]:
        """Scenes as `ASRModel.sample` gives them.

        Args:
            num_samples: int32 [], N.
            seed: int32 [2].
            num_objects: int32 [], in every scene; -1 draws it too.
            with_masks: whether to return which object each pixel shows, too.
        """
        return self._scenes(num_samples, seed, num_objects, with_masks)[0]

    @fast.graph
    def draw_obeying(
        self, num_samples: tf.Tensor, seed: tf.Tensor, num_objects: tf.Tensor, max_tries: tf.Tensor, with_masks: bool
    ) -> dict[str, tf.Tensor]:
        """Likewise, of scenes that were drawn again where they broke a rule, with `obeys` and `acceptance_rate`.

        Args:
            num_samples, seed, num_objects, with_masks: as of `draw`.
            max_tries: int32 [], how often a scene is drawn at most.
        """

        def draw(number: tf.Tensor, seed: tf.Tensor) -> tuple[dict[str, tf.Tensor], tf.Tensor]:
            scenes, drawn = self._scenes(number, seed, num_objects, with_masks)
            return scenes, self._obeys(scenes, drawn)

        scenes, obeys, rate = redraw.draw_until(draw, num_samples, seed, max_tries)
        return scenes | {"obeys": obeys, "acceptance_rate": rate}

    def check_obeyed(self, scenes: dict[str, tf.Tensor], max_tries: int) -> None:
        """Raises ValueError where scenes of `draw_obeying` still break a rule."""
        total, left = len(scenes["obeys"]), int(tf.reduce_sum(tf.cast(~scenes["obeys"], tf.int32)))
        if left:
            rules = dict.fromkeys(demand.rule.name for demand in self.rules.asked)
            raise ValueError(
                f"{left} of {total} scenes still break a rule after {max_tries} tries each: of all drawn, "
                f"{float(scenes['acceptance_rate']):.2%} obey {', '.join(rules)}."
            )

    def _obeys(self, scenes: dict[str, tf.Tensor], drawn: Drawn) -> tf.Tensor:
        """bool [N], which finished scenes break no rule."""
        pixels = {"drawn": drawn.colour}
        if self.rules.looks_into_windows:  # where a drawn scene shows what is drawn
            objects = self.renderer.objects(scenes["z_what"]).colour
            pixels |= {"objects": objects, "glimpses": objects}
        canvas_size = self.renderer.spec.canvas_size
        finished = SceneStatistics.of_finished(scenes["count"], scenes["boxes"], canvas_size, **pixels)
        return ~self.rules.broken(finished)

    def _scenes(
        self, num_samples: tf.Tensor, seed: tf.Tensor, num_objects: tf.Tensor, with_masks: bool
    ) -> tuple[dict[str, tf.Tensor], Drawn]:
        """Scenes, and each object on a canvas of its own."""
        scenes_seed, background_seed = tf.unstack(tf.random.split(seed, 2))
        scenes = self.prior.distribution(self.step, skip_absent=fast.enabled())
        latents = scenes.sample_given_count(tf.fill([num_samples], num_objects), scenes_seed)
        presence = latents.presence
        present = presence[..., tf.newaxis]
        boxes, what = present * self.renderer.boxes(latents), present * latents.what
        background = None if self.background is None else self.background.sample(num_samples, background_seed)
        drawn = self.renderer.draw_present(what, boxes, presence)
        images = self.composition.canvas(drawn, presence, background)
        found = {
            "images": images,
            "count": tf.cast(tf.reduce_sum(presence, axis=-1), tf.int32),
            "presence": presence,
            "boxes": boxes,
            "z_what": what,
        }
        if with_masks:
            found["masks"] = self.composition.masks(drawn, presence, images, background)
        return found, drawn
