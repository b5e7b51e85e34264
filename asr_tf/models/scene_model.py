"""What a model of scenes can do once it has weights: infer, redraw, score and generate.

Randomness is a function of an explicit seed, down to stateless samplers.  `asr_tf.models.asr_model.ASRModel` adds the
training.

References:
    Xu et al., "Multi-object Generation with Amortized Structural Regularization", NeurIPS 2019, arXiv:1906.03923.
    Eslami et al., "Attend, Infer, Repeat", NIPS 2016, arXiv:1603.08575.
    Burda et al., "Importance Weighted Autoencoders", ICLR 2016, arXiv:1509.00519.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import tensorflow as tf

from asr_tf.checks import check_images, check_positive, check_range
from asr_tf.distributions import AIRScenePrior, AutoregressiveScenePrior, code_of_count
from asr_tf.fast.crops import write_in_boxes
from asr_tf.fast.present import PresentSteps
from asr_tf.imaging.spatial_transformer import write_objects
from asr_tf.models import objective
from asr_tf.models.inference import Inference
from asr_tf.models.scene_network import SceneNetwork
from asr_tf.scene import SceneLatents, window_boxes

__all__ = ["SceneModel"]


# What `infer` takes at once: more needs memory, and is no faster.
_LARGEST_BATCH = 256


class SceneModel(SceneNetwork):
    """Recognition network, decoder and prior as one model, with what it is for.

    Attributes:
        step: int64 variable, training steps taken.
    """

    finds_objects = True

    def description(self) -> dict[str, Any]:
        """What the report tells of the model."""
        return {
            "kind": "scenes",
            "prior": self.prior,
            "estimator": self.estimator,
            "num_steps": self.num_steps,
            "exact_count": self.exact_count,
            "constraints": [constraint.name for constraint in self.constraints],
        }

    def _checked(self, images: Any) -> tf.Tensor:
        """Images as float32, looked through; symbolic tensors are taken as they are."""
        if not tf.is_symbolic_tensor(images):
            images = check_images(images, self.canvas_size)
        return tf.convert_to_tensor(images, tf.float32)

    def infer(self, images: Any, with_objects: bool = False) -> dict[str, tf.Tensor]:
        """Deterministic inference: the likeliest count, and the mode of every latent.

        Outside a `tf.function`, large batches are taken apart.

        Args:
            images: [B, H, W, 1]; float in [0, 1] or uint8.
            with_objects: whether to return each object on a canvas of its own too.

        Returns:
            `count` int32 [B]; `count_probs` float32 [B, T + 1]; `presence` float32 [B, T], 0 or 1; `boxes` [B, T, 4],
            attention windows as canvas fractions, zeros for absent objects; `z_what` [B, T, Z], likewise;
            `reconstruction` [B, H, W, 1] in [0, 1]; if asked for, `objects` [B, T, H, W, 1], what each present step
            draws.

        Raises:
            ValueError, TypeError: images of another shape, size, dtype or range.
        """
        images = self._checked(images)
        if not tf.executing_eagerly() or len(images) <= _LARGEST_BATCH:
            return self._infer(images, with_objects)
        starts = range(0, len(images), _LARGEST_BATCH)
        batches = [self._infer(images[i : i + _LARGEST_BATCH], with_objects) for i in starts]
        return {name: tf.concat([batch[name] for batch in batches], 0) for name in batches[0]}

    @tf.function(reduce_retracing=True, autograph=False)
    def _infer(self, images: tf.Tensor, with_objects: bool) -> dict[str, tf.Tensor]:
        return Inference(self, frozen=False, portable=not self.skip_absent).infer(images, with_objects)

    def sample(self, num_samples: Any, seed: Any, num_objects: Any = -1) -> dict[str, tf.Tensor]:
        """New scenes from the prior; the same seed gives the same scenes.

        Args:
            num_samples: int32 [], N.
            seed: int32 [2].
            num_objects: int32 [], the number of objects in every scene (exact, without rejection); -1 draws it too.

        Returns:
            `images` float32 [N, H, W, 1] in [0, 1]; `count` int32 [N]; `presence` [N, T]; `boxes` [N, T, 4] and
            `z_what` [N, T, Z], zeros for absent objects.

        Raises:
            ValueError: `num_objects` is not between -1 and T.
        """
        if not tf.is_tensor(num_objects):
            check_range("num_objects", num_objects, -1, self.num_steps)
        return self._sample(
            tf.convert_to_tensor(num_samples, tf.int32),
            tf.convert_to_tensor(seed, tf.int32),
            tf.convert_to_tensor(num_objects, tf.int32),
        )

    @tf.function(reduce_retracing=True)
    def _sample(
        self, num_samples: tf.Tensor, seed: tf.Tensor, num_objects: tf.Tensor
    ) -> dict[str, tf.Tensor]:
        latents = self._sample_latents(num_samples, seed, num_objects)
        presence = latents.presence
        steps = PresentSteps(presence, self.skip_absent)
        shift, scale = tf.tanh(latents.shift_latent), tf.sigmoid(latents.scale_latent)
        objects = self.decoder(steps.take(latents.what))
        windows = steps.take(shift), steps.take(scale)
        if self.skip_absent:
            drawn = write_in_boxes(objects, window_boxes(*windows, self.canvas_size), self.canvas_size)
        else:
            drawn = write_objects(objects, *windows, self.canvas_size)
        return {
            "images": tf.clip_by_value(steps.sum(drawn), 0.0, 1.0)[..., tf.newaxis],
            "count": tf.cast(tf.reduce_sum(presence, axis=-1), tf.int32),
            "presence": presence,
            "boxes": presence[..., tf.newaxis] * self._boxes(latents),
            "z_what": presence[..., tf.newaxis] * latents.what,
        }

    def _sample_latents(
        self, num_samples: tf.Tensor, seed: tf.Tensor, num_objects: tf.Tensor
    ) -> SceneLatents:
        if self.prior == "autoregressive":
            network = self.prior_network
            scenes = AutoregressiveScenePrior(
                network.step,
                network.initial_state,
                num_steps=self.num_steps,
                what_size=self.what_size,
                scale_fn=network.scale if network.learn_scale else None,
            )
            # The presence logits look at no latents, so that one path a scene is exact.
            count = tf.fill([num_samples], num_objects)
            return scenes.sample_given_count(
                count, seed=seed, num_candidates=1, skip_absent=self.skip_absent
            )
        loc, log_scale = self._scale_prior
        scenes = AIRScenePrior(
            self._air_presence_logits(),
            what_size=self.what_size,
            scale_loc=loc,
            scale_stddev=math.exp(log_scale),
        )
        latents = scenes.sample(num_samples, seed=seed)
        given = code_of_count(tf.fill([num_samples], num_objects), self.num_steps)
        return latents._replace(presence=tf.where(num_objects < 0, latents.presence, given))

    def log_likelihood(self, images: Any, num_particles: int, seed: Any) -> tf.Tensor:
        """Importance-weighted lower bound of log p(x), with the count summed out in every particle.

        Args:
            images: [B, H, W, 1]; float in [0, 1] or uint8.
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
    def _log_likelihood(
        self, images: tf.Tensor, num_particles: tf.Tensor, seed: tf.Tensor
    ) -> tf.Tensor:
        images = images[..., 0]

        def particle(total: tf.Tensor, k: tf.Tensor) -> tf.Tensor:
            noise = self._noise(tf.shape(images)[0], tf.stack([seed[0], seed[1] + k]))
            posterior, latents, _ = self.recognition(images, noise)
            weight = objective.log_weights(
                posterior,
                self._prior_statistics(latents),
                latents,
                self._draw(latents),
                lambda canvases: self._nll(images, canvases),
                self.exact_count,
            )
            return tf.reduce_logsumexp(tf.stack([total, weight]), axis=0)

        total = tf.foldl(
            particle,
            tf.range(num_particles),
            initializer=tf.fill([tf.shape(images)[0]], -np.inf),
        )
        return total - tf.math.log(tf.cast(num_particles, tf.float32))
