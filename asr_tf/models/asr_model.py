"""The model of scenes: composed of recognition, object decoder, prior, background, composition, observation and rules.

AIR, AIR-pPrior and ASR are configurations of this one class: they differ by the prior and by the constraints.

References:
    Xu et al., "Multi-object Generation with Amortized Structural Regularization", NeurIPS 2019, arXiv:1906.03923.
    Eslami et al., "Attend, Infer, Repeat", NIPS 2016, arXiv:1603.08575.
    Burda et al., "Importance Weighted Autoencoders", ICLR 2016, arXiv:1509.00519.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import gin
import keras
import numpy as np
import tensorflow as tf

from asr_tf import fast
from asr_tf.checks import (
    CHANNELS,
    check_canvas_size,
    check_choice,
    check_positive,
    check_range,
    check_whole,
)
from asr_tf.constraints import Constraint, SceneStatistics
from asr_tf.distributions import PresenceCode, RelaxedPresenceCode, code_of_count, scene_posterior
from asr_tf.imaging.composition import Composition, Sum
from asr_tf.imaging.observation import BernoulliPixels, Observation
from asr_tf.models import bound, parts
from asr_tf.models.bound_model import BoundModel, initial_weights_from
from asr_tf.models.renderer import Renderer
from asr_tf.networks.contracts import (
    Background,
    LatentNoise,
    ObjectDecoder,
    Recognition,
    ScenePrior,
)
from asr_tf.networks.decoder import MLPDecoder
from asr_tf.networks.prior import AutoregressivePrior
from asr_tf.networks.recognition import LSTMRecognition
from asr_tf.scene import ObjectiveTerms, SceneSpec, window_boxes

__all__ = ["ASRModel"]

# What `infer` takes at once: more needs memory, and is no faster.
_LARGEST_BATCH = 256


@gin.register
@keras.saving.register_keras_serializable(package="asr_tf")
class ASRModel(BoundModel):
    """Attend-Infer-Repeat with amortized structural regularization; every weight exists after construction.

    Learning goes through Keras, see `BoundModel`.

    Attributes:
        spec: what all parts agree on.
        recognition, decoder, prior, background, composition, observation: the parts, see `asr_tf.networks.contracts`.
    """

    finds_objects = True

    def __init__(
        self,
        *,
        canvas_size: Sequence[int] = (50, 50),
        channels: int = 1,
        num_steps: int = 4,
        glimpse_size: int = 28,
        what_size: int = 50,
        scale_prior_loc: float = -1.0,
        scale_prior_scale: float = math.sqrt(0.05),
        exact_count: int | None = None,
        recognition: Recognition | None = None,
        decoder: ObjectDecoder | None = None,
        prior: ScenePrior | None = None,
        background: Background | None = None,
        composition: Composition | None = None,
        observation: Observation | None = None,
        constraints: Sequence[Constraint] = (),
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
            num_steps: T, the most objects in a scene.
            glimpse_size: G in pixels.
            what_size: Z.
            scale_prior_loc, scale_prior_scale: normal over the scale latent; sigmoid(loc) is the typical window side
                as a share of the shorter canvas side.
            exact_count: the number of objects where every scene has the same: the count is then given, to posterior
                and prior, and neither inferred nor learned.  None infers it.
            recognition: q(z | x); None for `LSTMRecognition()`.
            decoder: p(object | appearance); None for `MLPDecoder()`.
            prior: p(z); None for `AutoregressivePrior()`.
            background: what lies behind the objects; None for black.
            composition: how objects become a canvas; None for `Sum()`.
            observation: how the canvas becomes an image; None for `BernoulliPixels()`.
            constraints: the knowledge that training enforces.
            estimator: "enumerate" (exact expectation over the count) or "concrete" (published relaxation).
            temperature: of the binary Concrete.
            clipnorm: bound of each variable's gradient norm in `train_step`, None for no bound.
            seed: of training's randomness and of the initial weights.
            name: Keras name.

        Raises:
            ValueError, TypeError: a value is out of range, or of the wrong type, or a constraint can't hold with
                `num_steps`.
        """
        super().__init__(name=name)
        for label, value in (("num_steps", num_steps), ("glimpse_size", glimpse_size), ("what_size", what_size)):
            check_whole(f"ASRModel.{label}", value)
        check_choice("ASRModel.channels", channels, list(CHANNELS))
        check_positive("ASRModel.scale_prior_scale", scale_prior_scale)
        check_positive("ASRModel.temperature", temperature)
        check_choice("ASRModel.estimator", estimator, bound.ESTIMATORS)
        if exact_count is not None:
            check_range("ASRModel.exact_count", exact_count, 0, num_steps)
        for constraint in constraints:
            if not isinstance(constraint, Constraint):
                raise TypeError(f"ASRModel.constraints must hold Constraint objects, got {constraint!r}.")
            constraint.check(num_steps)

        self.canvas_size = check_canvas_size("ASRModel.canvas_size", canvas_size)
        self.channels, self.num_steps, self.estimator = channels, num_steps, estimator
        self.temperature, self.seed = temperature, seed
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
        self._prepare_training(fields, constraints, clipnorm)
        self.built = True

    def get_config(self) -> dict[str, Any]:
        """The arguments of the constructor as plain data; `keras.models.load_model` makes the model of them again."""
        spec = self.spec._asdict()
        spec |= {"scale_prior_loc": spec.pop("scale_loc"), "scale_prior_scale": spec.pop("scale_stddev")}
        own = {key: getattr(self, key) for key in ("estimator", "temperature", "clipnorm", "seed", "name")}
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

    def _infer_background(
        self, images: tf.Tensor, seed: tf.Tensor | None = None
    ) -> tuple[tf.Tensor | None, tf.Tensor | None]:
        """The background and its divergence; None for black."""
        if self.background is None:
            return None, None
        return parts.checked_background(self.background(images, seed), self.spec)

    def score(
        self, images: tf.Tensor, noise: LatentNoise, seed: tf.Tensor, training: bool
    ) -> tuple[ObjectiveTerms, SceneStatistics]:
        """See `BoundModel.score`."""
        recognized = parts.checked_recognized(self.recognition(images, noise), self.spec)
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
            prior_count_log_probs=prior.presence.count_log_probs() if self.prior.weights else None,
        )
        return terms._replace(kl_background=kl_background), statistics

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
        images = self._checked(images)
        if not tf.executing_eagerly() or len(images) <= _LARGEST_BATCH:
            batches = [self._infer(images)]
        else:
            starts = range(0, len(images), _LARGEST_BATCH)
            batches = [self._infer(images[i : i + _LARGEST_BATCH]) for i in starts]
        if not with_objects:
            for batch in batches:
                del batch["objects"]
        if len(batches) == 1:
            return batches[0]
        return {name: tf.concat([batch[name] for batch in batches], 0) for name in batches[0]}

    @fast.graph
    def _infer(self, images: tf.Tensor) -> dict[str, tf.Tensor]:
        posterior, latents = parts.checked_located(self.recognition.locate(images), self.spec)
        code = PresenceCode(posterior.presence_logits)
        count_probs = code.count_probs()
        count = tf.argmax(count_probs, axis=-1, output_type=tf.int32)
        presence = code_of_count(count, self.num_steps)
        steps = fast.present_steps(presence)
        shift, scale = steps.take(tf.tanh(latents.shift_latent)), steps.take(tf.sigmoid(latents.scale_latent))
        glimpses = fast.read_windows(images, steps.scenes(), shift, scale, self.spec.glimpse_size)
        what, _ = self.recognition.describe(glimpses)
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
        self, num_samples: Any, seed: Any, num_objects: Any = -1, with_masks: bool = False
    ) -> dict[str, tf.Tensor]:
        """New scenes from the prior; the same seed gives the same scenes.

        Args:
            num_samples: int32 [], N.
            seed: int32 [2].
            num_objects: int32 [], the number of objects in every scene (exact, without rejection); -1 draws it too.
            with_masks: whether to return which object each pixel shows, too.

        Returns:
            `images` float32 [N, H, W, C] in [0, 1]; `count` int32 [N]; `presence` [N, T]; `boxes` [N, T, 4] and
            `z_what` [N, T, Z], zeros for absent objects; if asked for, `masks` [N, T, H, W, 1], as of `infer`.

        Raises:
            ValueError: `num_objects` is not between -1 and T.
        """
        if not tf.is_tensor(num_objects):
            check_range("num_objects", num_objects, -1, self.num_steps)
        return (self._sample_with_masks if with_masks else self._sample)(
            tf.convert_to_tensor(num_samples, tf.int32),
            tf.convert_to_tensor(seed, tf.int32),
            tf.convert_to_tensor(num_objects, tf.int32),
        )

    @fast.graph
    def _sample(self, num_samples: tf.Tensor, seed: tf.Tensor, num_objects: tf.Tensor) -> dict[str, tf.Tensor]:
        scenes = self._sample_with_masks(num_samples, seed, num_objects)
        del scenes["masks"]
        return scenes

    @fast.graph
    def _sample_with_masks(
        self, num_samples: tf.Tensor, seed: tf.Tensor, num_objects: tf.Tensor
    ) -> dict[str, tf.Tensor]:
        scenes_seed, background_seed = tf.unstack(tf.random.split(seed, 2))
        scenes = self.prior.distribution(self.step, skip_absent=fast.enabled())
        latents = scenes.sample_given_count(tf.fill([num_samples], num_objects), scenes_seed)
        presence = latents.presence
        present = presence[..., tf.newaxis]
        boxes, what = present * self.renderer.boxes(latents), present * latents.what
        background = None if self.background is None else self.background.sample(num_samples, background_seed)
        drawn = self.renderer.draw_present(what, boxes, presence)
        images = self.composition.canvas(drawn, presence, background)
        return {
            "images": images,
            "count": tf.cast(tf.reduce_sum(presence, axis=-1), tf.int32),
            "presence": presence,
            "boxes": boxes,
            "z_what": what,
            "masks": self.composition.masks(drawn, presence, images, background),
        }

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
