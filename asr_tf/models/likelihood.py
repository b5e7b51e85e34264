"""How likely images are: lower bounds of log p(x) that grow with the number of samples.

References:
    Burda et al., "Importance Weighted Autoencoders", ICLR 2016, arXiv:1509.00519.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import tensorflow as tf

from asr_tf.distributions import scene_posterior
from asr_tf.imaging.composition import Composition
from asr_tf.imaging.observation import Observation
from asr_tf.models import bound, parts
from asr_tf.models.inference import background_of
from asr_tf.models.renderer import Renderer
from asr_tf.networks.contracts import Background, LatentNoise, Recognition, ScenePrior

__all__ = ["ImportanceWeights"]


class ImportanceWeights:
    """Weighs samples of the posterior, with the count summed out in each."""

    def __init__(
        self,
        recognition: Recognition,
        background: Background | None,
        composition: Composition,
        renderer: Renderer,
        observation: Observation,
        prior: ScenePrior,
        step: Any,
    ) -> None:
        """Takes the parts of a model, and the training steps that were taken, integer []."""
        self.recognition, self.background, self.composition = recognition, background, composition
        self.renderer, self.observation, self.prior, self.step = renderer, observation, prior, step

    @tf.function(reduce_retracing=True)
    def lower_bound(self, images: tf.Tensor, num_particles: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
        """The bound of each image, float32 [B], in nats.

        Args:
            images: float32 [B, H, W, C] in [0, 1].
            num_particles: int32 [], samples of the posterior.
            seed: int32 [2].
        """
        spec = self.renderer.spec
        scenes = self.prior.distribution(self.step)
        # One background for all particles: what it is worth enters by its own bound.
        background_seed, particles_seed = tf.unstack(tf.random.split(seed, 2))
        background, kl_background = background_of(self.background, images, spec, background_seed)

        def particle(total: tf.Tensor, k: tf.Tensor) -> tf.Tensor:
            noise = LatentNoise.draw(tf.shape(images)[0], spec, particles_seed + tf.stack([0, k]), "philox")
            recognized = parts.checked_recognized(self.recognition(images, noise), spec)
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
