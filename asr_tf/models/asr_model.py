"""The model of scenes: composed of recognition, object decoder, prior, background, composition, observation and rules.

AIR, AIR-pPrior and ASR are configurations of this one class: they differ by the prior and by the constraints.

References:
    Xu et al., "Multi-object Generation with Amortized Structural Regularization", NeurIPS 2019, arXiv:1906.03923.
    Eslami et al., "Attend, Infer, Repeat", NIPS 2016, arXiv:1603.08575.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import gin
import keras
import tensorflow as tf

from asr_tf.checks import (
    CHANNELS,
    check_canvas_size,
    check_choice,
    check_counts,
    check_positive,
    check_range,
    check_whole,
)
from asr_tf.constraints import Constraint, SceneStatistics, check_rules
from asr_tf.distributions import RelaxedPresenceCode, scene_posterior
from asr_tf.imaging.composition import Composition, Sum
from asr_tf.imaging.observation import BernoulliPixels, Observation
from asr_tf.models import bound, parts
from asr_tf.models.bound_model import BoundModel, initial_weights_from
from asr_tf.models.inference import SceneInference, background_of, in_parts
from asr_tf.models.likelihood import ImportanceWeights
from asr_tf.models.refinement import Refiner, Regularized, noise_of, posterior_of
from asr_tf.models.renderer import Renderer
from asr_tf.models.rule_terms import PriorScenes
from asr_tf.models.sampling import SceneSampler
from asr_tf.networks.contracts import (
    Background,
    LatentNoise,
    ObjectDecoder,
    Recognition,
    Recognized,
    ScenePrior,
)
from asr_tf.networks.decoder import MLPDecoder
from asr_tf.networks.prior import AutoregressivePrior
from asr_tf.networks.recognition import LSTMRecognition
from asr_tf.scene import ObjectiveTerms, PosteriorStatistics, SceneSpec, scale_prior

__all__ = ["ASRModel"]

# Where nothing is known of counts and sizes.
_MOST_OBJECTS = 4
_SCALE_PRIOR = (-1.0, math.sqrt(0.05))
# What is taken at once: more needs memory, and is no faster.
_LARGEST_BATCH = 256
_LARGEST_REFINED = 64


@gin.register
@keras.saving.register_keras_serializable(package="asr_tf")
class ASRModel(BoundModel):
    """Attend-Infer-Repeat with amortized structural regularization; every weight exists after construction.

    Learning goes through Keras, see `BoundModel`.  Beside that it is asked what is in images (`infer`, `refine`), what
    scenes look like (`render`), for new scenes (`sample`), and how likely images are (`log_likelihood`).

    Attributes:
        counts: the numbers of objects that an image may hold; None where they aren't known.
        sides_px: (low, high) of the objects' sides; None where they aren't known.
        spec: what all parts agree on.
        num_steps: T, the most objects in a scene.
        recognition, decoder, prior, background, composition, observation: the parts, see `asr_tf.networks.contracts`.
        renderer, inference, refiner, sampler, likelihood: what the parts do together: draw objects, find them, find
            them with more time, draw new scenes, and weigh images.
    """

    finds_objects = True

    def __init__(
        self,
        *,
        canvas_size: Sequence[int] = (50, 50),
        channels: int = 1,
        counts: Sequence[int] | None = None,
        sides_px: Sequence[float] | None = None,
        num_steps: int | None = None,
        glimpse_size: int = 28,
        what_size: int = 50,
        scale_prior_loc: float | None = None,
        scale_prior_scale: float | None = None,
        exact_count: int | None = None,
        recognition: Recognition | None = None,
        decoder: ObjectDecoder | None = None,
        prior: ScenePrior | None = None,
        background: Background | None = None,
        composition: Composition | None = None,
        observation: Observation | None = None,
        constraints: Sequence[Constraint] = (),
        multiplier_scale: float = 1.0,
        estimator: str = "enumerate",
        temperature: float = 0.1,
        clipnorm: float | None = 1.0,
        seed: int = 0,
        name: str = "asr",
    ):
        """Initializes the model.

        Args:
            canvas_size: (H, W) in pixels.
            channels: C, 1 (grey) or 3 (RGB).
            counts: the numbers of objects that an image may hold, where they are known.
            sides_px: (low, high), between which the sides of objects lie, in pixels, where they are known.
            num_steps: T, the most objects in a scene; None for the largest of `counts`, or 4.
            glimpse_size: G in pixels.
            what_size: Z.
            scale_prior_loc, scale_prior_scale: normal over the scale latent; sigmoid(loc) is the typical window side
                as a share of the shorter canvas side.  None for what follows from `sides_px`, see `scale_prior`, or for
                objects of about a quarter of the side.
            exact_count: the number of objects where every scene has the same: the count is then given, to posterior
                and prior, and neither inferred nor learned.  None for the count if `counts` holds one alone; else it
                is inferred.
            recognition: q(z | x); None for `LSTMRecognition()`.
            decoder: p(object | appearance); None for `MLPDecoder()`.
            prior: p(z); None for `AutoregressivePrior()`.
            background: what lies behind the objects; None for black.
            composition: how objects become a canvas; None for `Sum()`.
            observation: how the canvas becomes an image; None for `BernoulliPixels()`.
            constraints: the knowledge that training enforces.
            multiplier_scale: how many times higher than usual their multipliers start.
            estimator: "enumerate" (exact expectation over the count) or "concrete" (published relaxation).
            temperature: of the binary Concrete.
            clipnorm: bound of each variable's gradient norm in `train_step`, None for no bound.
            seed: of training's randomness and of the initial weights.
            name: Keras name.

        Raises:
            ValueError, TypeError: a value is out of range, or of the wrong type, or the constraints can't hold.
        """
        super().__init__(name=name)
        self.canvas_size = check_canvas_size("ASRModel.canvas_size", canvas_size)
        self.sides_px = sides_px
        self.counts = counts = None if counts is None else check_counts("ASRModel.counts", counts)
        if num_steps is None:
            num_steps = _MOST_OBJECTS if counts is None else max(1, *counts)
        if exact_count is None and counts is not None and len(counts) == 1:
            exact_count = counts[0]
        loc, scale = _SCALE_PRIOR if sides_px is None else scale_prior(sides_px, self.canvas_size)
        scale_prior_loc = loc if scale_prior_loc is None else scale_prior_loc
        scale_prior_scale = scale if scale_prior_scale is None else scale_prior_scale
        for label, value in (("num_steps", num_steps), ("glimpse_size", glimpse_size), ("what_size", what_size)):
            check_whole(f"ASRModel.{label}", value)
        check_choice("ASRModel.channels", channels, list(CHANNELS))
        check_positive("ASRModel.scale_prior_scale", scale_prior_scale)
        check_positive("ASRModel.temperature", temperature)
        check_choice("ASRModel.estimator", estimator, bound.ESTIMATORS)
        if exact_count is not None:
            check_range("ASRModel.exact_count", exact_count, 0, num_steps)
        check_rules(constraints, num_steps, self.canvas_size, exact_count, sides_px)

        self.channels, self.num_steps, self.estimator = channels, num_steps, estimator
        self.temperature, self.multiplier_scale, self.seed = temperature, multiplier_scale, seed
        sizes = (self.canvas_size, channels, num_steps, glimpse_size, what_size)
        self.spec = SceneSpec(*sizes, scale_prior_loc, scale_prior_scale, exact_count)
        self.recognition, self.background = LSTMRecognition() if recognition is None else recognition, background
        self.decoder = MLPDecoder() if decoder is None else decoder
        self.prior = AutoregressivePrior() if prior is None else prior
        self.composition = Sum() if composition is None else composition
        self.observation = BernoulliPixels() if observation is None else observation
        for role in parts.PARTS:
            parts.check_part(f"ASRModel.{role}", role, getattr(self, role))
        with initial_weights_from(seed):
            for role in parts.PARTS:
                parts.build_part(f"ASRModel.{role}", getattr(self, role), self.spec)
        self.renderer = Renderer(self.decoder, self.spec)
        fields = [name for name in ObjectiveTerms._fields if name != "kl_background" or background is not None]
        parts.check_learns("ASRModel.prior", self.prior, constraints)
        self._prepare_training(fields, constraints, clipnorm, multiplier_scale)
        drawing = (self.background, self.composition, self.renderer)
        self.inference = SceneInference(self.recognition, *drawing)
        self.refiner = Refiner(self.inference, self._regularized)
        self.sampler = SceneSampler(self.prior, *drawing, self.rule_terms, self.step)
        self.likelihood = ImportanceWeights(self.recognition, *drawing, self.observation, self.prior, self.step)
        self.built = True

    def get_config(self) -> dict[str, Any]:
        """The arguments of the constructor as plain data; `keras.models.load_model` makes the model of them again."""
        spec = self.spec._asdict()
        spec |= {"scale_prior_loc": spec.pop("scale_loc"), "scale_prior_scale": spec.pop("scale_stddev")}
        names = ("counts", "sides_px", "multiplier_scale", "estimator", "temperature", "clipnorm", "seed", "name")
        own = {key: getattr(self, key) for key in names}
        roles = {role: parts.described(getattr(self, role)) for role in parts.PARTS}
        return spec | own | roles | {"constraints": [parts.described(rule) for rule in self.constraints]}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> ASRModel:
        """See `get_config`."""
        roles = {role: parts.made_again(contract, config[role]) for role, contract in parts.PARTS.items()}
        rules = [parts.made_again(Constraint, description) for description in config["constraints"]]
        return cls(**config | roles | {"constraints": rules})

    def description(self) -> dict[str, Any]:
        """What the report tells of the model."""
        return {
            "kind": "scenes",
            **{role: None if (part := getattr(self, role)) is None else type(part).__name__ for role in parts.PARTS},
            "estimator": self.estimator,
            "num_steps": self.num_steps,
            "exact_count": self.spec.exact_count,
            "constraints": [constraint.name for constraint in self.constraints],
        }

    def draw_noise(self, batch_size: tf.Tensor, seed: tf.Tensor, algorithm: str = "philox") -> LatentNoise:
        """See `BoundModel.draw_noise`."""
        return LatentNoise.draw(batch_size, self.spec, seed, algorithm)

    def score(
        self, images: tf.Tensor, noise: LatentNoise, seed: tf.Tensor, training: bool
    ) -> tuple[ObjectiveTerms, SceneStatistics]:
        """See `BoundModel.score`."""
        return self.score_recognized(images, self.recognition(images, noise), seed, training)

    def score_recognized(
        self, images: tf.Tensor, recognized: Recognized, seed: tf.Tensor, training: bool
    ) -> tuple[ObjectiveTerms, SceneStatistics]:
        """The bound's terms and what the rules look at, of a posterior and a sample of it; as of `score`."""
        recognized = parts.checked_recognized(recognized, self.spec)
        latents = recognized.latents
        posterior = scene_posterior(recognized.posterior)
        prior = self.prior.distribution(self.step).given(latents)
        objects, boxes, drawn = self.renderer.draw(latents)
        background, kl_background = background_of(self.background, images, self.spec, seed)
        if training and self.estimator == "concrete":
            relaxed = RelaxedPresenceCode(self.temperature, posterior.presence.logits).sample(seed=seed)
            canvas = self.composition.canvas(drawn, bound.relaxed_presence(relaxed), background)
            observation = self.observation(canvas)
            terms = bound.concrete_terms(
                images, posterior, prior, latents, observation, relaxed, self.temperature
            )
        else:
            observations = self.observation(self.composition.canvases(drawn, background))
            terms = bound.enumerated_terms(images, posterior, prior, latents, observations)
        statistics = SceneStatistics(
            presence_probs=posterior.presence.presence_probs(),
            count_probs=posterior.presence.count_probs(),
            boxes=boxes,
            canvas_size=self.canvas_size,
            objects=objects.colour,
            glimpses=recognized.glimpses,
            drawn=drawn.colour,
        )
        return terms._replace(kl_background=kl_background), statistics

    def _regularized(
        self, images: tf.Tensor, free: PosteriorStatistics, normal: LatentNoise, seed: tf.Tensor
    ) -> Regularized:
        """What training minimizes, of each image by itself, of a posterior with free numbers, see `refinement`."""
        recognized = parts.checked_recognized(self.recognition(images, noise_of(free, normal)), self.spec)
        recognized = recognized._replace(posterior=posterior_of(recognized.posterior, free))
        terms, statistics = self.score_recognized(images, recognized, seed, training=False)
        return Regularized(terms.negative_elbo, self.rule_terms.of_images(statistics))

    def prior_scenes(self) -> PriorScenes:
        """See `BoundModel.prior_scenes`."""
        return PriorScenes(self.prior, self.renderer, self.step)

    # What a model can be asked.

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
        found = in_parts(self.inference.find, self._checked(images), _LARGEST_BATCH)
        if not with_objects:
            del found["objects"]
        return found

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
        return in_parts(lambda part: self.refiner.refine(part, steps, seed), self._checked(images), _LARGEST_REFINED)

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
            return self.sampler.draw(*asked, with_masks)
        scenes = self.sampler.draw_obeying(*asked, tf.convert_to_tensor(max_tries, tf.int32), with_masks)
        if tf.executing_eagerly():
            self.sampler.check_obeyed(scenes, int(max_tries))
        return scenes

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
        return self.likelihood.lower_bound(
            self._checked(images),
            tf.convert_to_tensor(num_particles, tf.int32),
            tf.convert_to_tensor(seed, tf.int32),
        )
