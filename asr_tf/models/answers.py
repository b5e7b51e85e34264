"""What a model of scenes answers: what is in images, what scenes look like, new scenes, and how likely images are.

How a model is composed and what it learns from stands beside it, in `asr_model`.

References:
    Burda et al., "Importance Weighted Autoencoders", ICLR 2016, arXiv:1509.00519.
"""

from __future__ import annotations

import abc
from collections.abc import Callable
from typing import Any

import numpy as np
import tensorflow as tf

from asr_tf import fast
from asr_tf.checks import check_positive, check_range, check_whole
from asr_tf.constraints import SceneStatistics
from asr_tf.distributions import PresenceCode, code_of_count, scene_posterior
from asr_tf.imaging.composition import Composition, Drawn
from asr_tf.imaging.observation import Observation
from asr_tf.models import bound, parts, redraw, refinement
from asr_tf.models.bound_model import BoundModel
from asr_tf.models.renderer import Renderer
from asr_tf.networks.contracts import Background, LatentNoise, Recognition, Recognized, ScenePrior
from asr_tf.scene import ObjectiveTerms, PosteriorStatistics, SceneSpec, window_boxes

__all__ = ["SceneAnswers"]

# What is taken at once: more needs memory, and is no faster.
_LARGEST_BATCH = 256
_LARGEST_REFINED = 64


class SceneAnswers(BoundModel):
    """The questions that a model of scenes can be asked.

    Attributes:
        spec: what all parts agree on.
        num_steps: T, the most objects in a scene.
        recognition, prior, background, composition, observation: the parts, see `asr_tf.networks.contracts`.
        renderer: draws by the object decoder.
    """

    spec: SceneSpec
    num_steps: int
    recognition: Recognition
    prior: ScenePrior
    background: Background | None
    composition: Composition
    observation: Observation
    renderer: Renderer

    @abc.abstractmethod
    def score_recognized(
        self, images: tf.Tensor, recognized: Recognized, seed: tf.Tensor, training: bool
    ) -> tuple[ObjectiveTerms, SceneStatistics]:
        """The bound's terms and what the rules look at, of a posterior and a sample of it; as of `score`."""

    def _infer_background(
        self, images: tf.Tensor, seed: tf.Tensor | None = None
    ) -> tuple[tf.Tensor | None, tf.Tensor | None]:
        """The background and its divergence; None for black."""
        if self.background is None:
            return None, None
        return parts.checked_background(self.background(images, seed), self.spec)

    def infer(self, images: Any, with_objects: bool = False) -> dict[str, tf.Tensor]:
        """Deterministic inference: the likeliest count, and the mode of every latent.

        Args:
            images: [B, H, W, C]; float in [0, 1] or uint8.
            with_objects: whether to return each object on a canvas of its own too.

        Returns:
            `count` int32 [B]; `count_probs` float32 [B, T + 1]; `presence` float32 [B, T], 0 or 1; `boxes` [B, T, 4],
            attention windows as canvas fractions, zeros for absent objects; `z_what` [B, T, Z], likewise; `scores`
            [B, T], q(n >= t), how sure it is of each object; `masks` [B, T, H, W, 1], the share of each pixel that each
            object has, zeros for absent ones; `reconstruction` [B, H, W, C] in [0, 1]; if asked for, `objects`
            [B, T, H, W, C], what each present step draws.

        Raises:
            ValueError, TypeError: images of another shape, size, dtype or range.
        """
        found = _in_parts(self._infer, self._checked(images), _LARGEST_BATCH)
        if not with_objects:
            del found["objects"]
        return found

    @fast.graph
    def _infer(self, images: tf.Tensor) -> dict[str, tf.Tensor]:
        return self._found(images)

    def _found(self, images: tf.Tensor, free: PosteriorStatistics | None = None) -> dict[str, tf.Tensor]:
        """What `infer` gives, of the amortized posterior or of one with free numbers."""
        noise = None if free is None else refinement.means(free)
        posterior, latents = parts.checked_located(self.recognition.locate(images, noise), self.spec)
        code = PresenceCode(posterior.presence_logits + (0.0 if free is None else free.presence_logits))
        count_probs = code.count_probs()
        count = tf.argmax(count_probs, axis=-1, output_type=tf.int32)
        presence = code_of_count(count, self.num_steps)
        steps = fast.present_steps(presence)
        shift, scale = steps.take(tf.tanh(latents.shift_latent)), steps.take(tf.sigmoid(latents.scale_latent))
        glimpses = fast.read_windows(images, steps.scenes(), shift, scale, self.spec.glimpse_size)
        what, log_scale = self.recognition.describe(glimpses)
        if free is not None:
            what += tf.exp(log_scale) * steps.take(free.what_loc)
        boxes = window_boxes(shift, scale, self.canvas_size)
        drawn = self.renderer.in_boxes(what, boxes).map(steps.put)
        background = self._infer_background(images)[0]
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

    def refine(self, images: Any, steps: Any = 20, seed: Any = (0, 0)) -> dict[str, tf.Tensor]:
        """Inference that takes its time: the posterior of each image by itself, from the amortized one on.

        It ascends what training does, the bound less the penalties, with the weights fixed; rules about a batch as a
        whole say nothing of one image, and are left out.  Where that ends worse than it began, an image keeps its
        amortized posterior.

        Args:
            images: [B, H, W, C]; float in [0, 1] or uint8.
            steps: int32 [], of the ascent, 0 or more; each takes several times as long as `infer`.
            seed: int32 [2], of its noise.

        Returns:
            What `infer` does, of the refined posterior; and `negative_elbo_nats_before` and `_after`, and
            `penalties_nats_before` and `_after`, float32 [B] each: what amortization cost, by noise that is the same
            for both and that the ascent hasn't seen.  (The sum of both is never larger after than before.)

        Raises:
            ValueError, TypeError: images of another shape, size, dtype or range, or steps that aren't a whole number,
                0 or more.
        """
        if not tf.is_tensor(steps):
            check_whole("steps", steps, 0)
        steps, seed = tf.convert_to_tensor(steps, tf.int32), tf.convert_to_tensor(seed, tf.int32)
        return _in_parts(lambda part: self._refine(part, steps, seed), self._checked(images), _LARGEST_REFINED)

    @fast.graph
    def _refine(self, images: tf.Tensor, steps: tf.Tensor, seed: tf.Tensor) -> dict[str, tf.Tensor]:
        ascent_seed, held_out_seed, other_seed = tf.unstack(tf.random.split(seed, 3))

        def objective(free: PosteriorStatistics, normal: LatentNoise) -> refinement.Regularized:
            recognized = self.recognition(images, refinement.noise_of(free, normal))
            recognized = parts.checked_recognized(recognized, self.spec)
            posterior = refinement.posterior_of(recognized.posterior, free)
            recognized = recognized._replace(posterior=posterior)
            terms, statistics = self.score_recognized(images, recognized, other_seed, training=False)
            return refinement.Regularized(terms.negative_elbo, self.rule_terms.of_images(statistics))

        start = refinement.amortized(tf.shape(images)[0], self.spec)
        free = refinement.ascend(objective, start, self.spec, steps, ascent_seed)
        free, before, after = refinement.no_worse(objective, free, self.spec, held_out_seed)
        found = self._found(images, free)
        del found["objects"]
        for when, values in (("before", before), ("after", after)):
            found |= {f"{name}_nats_{when}": value for name, value in values._asdict().items()}
        return found

    def render(
        self, what: tf.Tensor, boxes: tf.Tensor, presence: tf.Tensor, background: tf.Tensor | None = None
    ) -> tf.Tensor:
        """Draws scenes of given objects; those that `infer` found give its reconstruction.

        Args:
            what: float32 [B, T, Z], appearances.
            boxes: float32 [B, T, 4], `[ymin, xmin, ymax, xmax]` as fractions of the canvas; an object fills its box,
                whatever the box's proportions, and what lies outside the canvas isn't seen.
            presence: float32 [B, T], 0 for an absent object and 1 for a present one, in any order; between, an object
                is fainter.
            background: float32 [B, H, W, C], None for black.

        Returns:
            float32 [B, H, W, C] in [0, 1].
        """
        return self.composition.canvas(self.renderer.draw_present(what, boxes, presence), presence, background)

    def sample(
        self,
        num_samples: Any,
        seed: Any,
        num_objects: Any = -1,
        with_masks: bool = False,
        obey: bool = False,
        max_tries: Any = 100,
    ) -> dict[str, tf.Tensor]:
        """New scenes from the prior; the same seed gives the same scenes.

        Args:
            num_samples: int32 [], N.
            seed: int32 [2].
            num_objects: int32 [], the number of objects in every scene (exact, without rejection); -1 draws it too.
            with_masks: whether to return which object each pixel shows, too.
            obey: whether scenes that break one of the model's rules are drawn again.
            max_tries: int32 [], how often at most, for each scene, with the first time.

        Returns:
            `images` float32 [N, H, W, C] in [0, 1]; `count` int32 [N]; `presence` [N, T]; `boxes` [N, T, 4] and
            `z_what` [N, T, Z], zeros for absent objects; if asked for, `masks` [N, T, H, W, 1], as of `infer`.
            Where scenes obey: `obeys`, bool [N], and `acceptance_rate`, float32 [], the share of all scenes drawn that
            broke no rule.

        Raises:
            ValueError: `num_objects` is not between -1 and T, there isn't one try, or scenes still break a rule after
                the last (in a graph, `obeys` says which).
        """
        if not tf.is_tensor(num_objects):
            check_range("num_objects", num_objects, -1, self.num_steps)
        if not tf.is_tensor(max_tries):
            check_whole("max_tries", max_tries)
        asked = [tf.convert_to_tensor(value, tf.int32) for value in (num_samples, seed, num_objects)]
        if not obey:
            return (self._sample_with_masks if with_masks else self._sample)(*asked)
        asked.append(tf.convert_to_tensor(max_tries, tf.int32))
        scenes = (self._sample_obeying_with_masks if with_masks else self._sample_obeying)(*asked)
        if tf.executing_eagerly() and not tf.reduce_all(scenes["obeys"]):
            total, left = len(scenes["obeys"]), int(tf.reduce_sum(tf.cast(~scenes["obeys"], tf.int32)))
            rules = ", ".join(rule.name for rule in self.constraints)
            raise ValueError(
                f"{left} of {total} scenes still break a rule after {int(max_tries)} tries each: of all drawn, "
                f"{float(scenes['acceptance_rate']):.2%} obey {rules}."
            )
        return scenes

    @fast.graph
    def _sample(self, num_samples: tf.Tensor, seed: tf.Tensor, num_objects: tf.Tensor) -> dict[str, tf.Tensor]:
        return self._scenes(num_samples, seed, num_objects, False)[0]

    @fast.graph
    def _sample_with_masks(
        self, num_samples: tf.Tensor, seed: tf.Tensor, num_objects: tf.Tensor
    ) -> dict[str, tf.Tensor]:
        return self._scenes(num_samples, seed, num_objects, True)[0]

    @fast.graph
    def _sample_obeying(
        self, num_samples: tf.Tensor, seed: tf.Tensor, num_objects: tf.Tensor, max_tries: tf.Tensor
    ) -> dict[str, tf.Tensor]:
        return self._obeying_scenes(num_samples, seed, num_objects, max_tries, False)

    @fast.graph
    def _sample_obeying_with_masks(
        self, num_samples: tf.Tensor, seed: tf.Tensor, num_objects: tf.Tensor, max_tries: tf.Tensor
    ) -> dict[str, tf.Tensor]:
        return self._obeying_scenes(num_samples, seed, num_objects, max_tries, True)

    def _obeying_scenes(
        self, num_samples: tf.Tensor, seed: tf.Tensor, num_objects: tf.Tensor, max_tries: tf.Tensor, with_masks: bool
    ) -> dict[str, tf.Tensor]:
        def draw(number: tf.Tensor, seed: tf.Tensor) -> tuple[dict[str, tf.Tensor], tf.Tensor]:
            scenes, drawn = self._scenes(number, seed, num_objects, with_masks)
            return scenes, self._obeys(scenes, drawn)

        scenes, obeys, rate = redraw.draw_until(draw, num_samples, seed, max_tries)
        return scenes | {"obeys": obeys, "acceptance_rate": rate}

    def _obeys(self, scenes: dict[str, tf.Tensor], drawn: Drawn) -> tf.Tensor:
        """bool [N], which finished scenes break no rule."""
        pixels = {"drawn": drawn.colour}
        if self.rule_terms.looks_into_windows:  # where a drawn scene shows what is drawn
            objects = self.renderer.objects(scenes["z_what"]).colour
            pixels |= {"objects": objects, "glimpses": objects}
        finished = SceneStatistics.of_finished(scenes["count"], scenes["boxes"], self.canvas_size, **pixels)
        return ~self.rule_terms.broken(finished)

    def _scenes(
        self, num_samples: tf.Tensor, seed: tf.Tensor, num_objects: tf.Tensor, with_masks: bool
    ) -> tuple[dict[str, tf.Tensor], Drawn]:
        """What `sample` gives, and each object on a canvas of its own."""
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

    def log_likelihood(self, images: Any, num_particles: Any, seed: Any) -> tf.Tensor:
        """Importance-weighted lower bound of log p(x), with the count summed out in every particle.

        Args:
            images: [B, H, W, C]; float in [0, 1] or uint8.
            num_particles: K, 1 or more; with 1 its mean is no less than the ELBO, and it grows with K.
            seed: int32 [2].

        Returns:
            float32 [B], nats.

        Raises:
            ValueError, TypeError: images of another shape, size, dtype or range, or no particle.
        """
        if not tf.is_tensor(num_particles):
            check_positive("num_particles", num_particles)
        return self._log_likelihood(
            self._checked(images),
            tf.convert_to_tensor(num_particles, tf.int32),
            tf.convert_to_tensor(seed, tf.int32),
        )

    @tf.function(reduce_retracing=True)
    def _log_likelihood(self, images: tf.Tensor, num_particles: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
        scenes = self.prior.distribution(self.step)
        # One background for all particles: what it is worth enters by its own bound.
        background_seed, particles_seed = tf.unstack(tf.random.split(seed, 2))
        background, kl_background = self._infer_background(images, background_seed)

        def particle(total: tf.Tensor, k: tf.Tensor) -> tf.Tensor:
            noise = self.draw_noise(tf.shape(images)[0], particles_seed + tf.stack([0, k]))
            recognized = parts.checked_recognized(self.recognition(images, noise), self.spec)
            latents = recognized.latents
            _, _, drawn = self.renderer.draw(latents)
            observations = self.observation(self.composition.canvases(drawn, background))
            posterior = scene_posterior(recognized.posterior)
            weight = bound.log_weights(images, posterior, scenes.given(latents), latents, observations)
            return tf.reduce_logsumexp(tf.stack([total, weight]), axis=0)

        start = tf.fill([tf.shape(images)[0]], -np.inf)
        total = tf.foldl(particle, tf.range(num_particles), initializer=start)
        mean = total - tf.math.log(tf.cast(num_particles, tf.float32))
        return mean if kl_background is None else mean - kl_background


def _in_parts(
    function: Callable[[tf.Tensor], dict[str, tf.Tensor]], images: tf.Tensor, most: int
) -> dict[str, tf.Tensor]:
    """A function's answers by name, [B, ...] each, of so many images at once; of all in a graph."""
    if not tf.executing_eagerly() or len(images) <= most:
        return function(images)
    answers = [function(images[start : start + most]) for start in range(0, len(images), most)]
    return {name: tf.concat([answer[name] for answer in answers], 0) for name in answers[0]}
