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
from asr_tf.models.answers import SceneAnswers
from asr_tf.models.bound_model import initial_weights_from
from asr_tf.models.renderer import Renderer
from asr_tf.models.rule_terms import PriorScenes
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
from asr_tf.scene import ObjectiveTerms, SceneSpec, scale_prior

__all__ = ["ASRModel"]

# Where nothing is known of counts and sizes.
_MOST_OBJECTS = 4
_SCALE_PRIOR = (-1.0, math.sqrt(0.05))


@gin.register
@keras.saving.register_keras_serializable(package="asr_tf")
class ASRModel(SceneAnswers):
    """Attend-Infer-Repeat with amortized structural regularization; every weight exists after construction.

    Learning goes through Keras, see `BoundModel`; what it can be asked is in `SceneAnswers`.

    Attributes:
        counts: the numbers of objects that an image may hold; None where they aren't known.
        sides_px: (low, high) of the objects' sides; None where they aren't known.
        spec: what all parts agree on.
        recognition, decoder, prior, background, composition, observation: the parts, see `asr_tf.networks.contracts`.
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
        """See `SceneAnswers.score_recognized`."""
        recognized = parts.checked_recognized(recognized, self.spec)
        latents = recognized.latents
        posterior = scene_posterior(recognized.posterior)
        prior = self.prior.distribution(self.step).given(latents)
        objects, boxes, drawn = self.renderer.draw(latents)
        background, kl_background = self._infer_background(images, seed)
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

    def prior_scenes(self) -> PriorScenes:
        """See `BoundModel.prior_scenes`."""
        return PriorScenes(self.prior, self.renderer, self.step)
