"""A plain variational autoencoder of whole images: the baseline that knows nothing of objects.

One vector stands for the image; encoder, decoder, observation model and training are those of the models of scenes, so
that bounds and reconstructions compare.  It has neither counts nor boxes, and no rule applies to it.

References:
    Kingma and Welling, "Auto-Encoding Variational Bayes", ICLR 2014, arXiv:1312.6114.
    Xu et al., arXiv:1906.03923, section 5 (baselines).
    Burda et al., "Importance Weighted Autoencoders", ICLR 2016, arXiv:1509.00519.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import gin
import keras
import numpy as np
import tensorflow as tf
from tensorflow_probability import distributions as tfd

from asr_tf.checks import (
    CHANNELS,
    check_canvas_size,
    check_choice,
    check_positive,
    check_range,
    check_whole,
)
from asr_tf.distributions import normal
from asr_tf.imaging.observation import BernoulliPixels, Observation
from asr_tf.models.bound_model import BoundModel, initial_weights_from
from asr_tf.models.parts import described, made_again
from asr_tf.networks.layers import Perceptron

__all__ = ["ImageVAE", "VAETerms"]


class VAETerms(NamedTuple):
    """The bound, term by term, in nats an image; -ELBO is their sum.

    Attributes:
        nll: float [B], -E_q log p(x | z).
        kl_what: float [B], divergence of the image's vector.
    """

    nll: Any
    kl_what: Any

    @property
    def negative_elbo(self) -> Any:
        """float [B], -ELBO in nats an image."""
        return self.nll + self.kl_what


@gin.register
@keras.saving.register_keras_serializable(package="asr_tf")
class ImageVAE(BoundModel):
    """q(z | x) and p(x | z) with one vector z ~ N(0, I) an image."""

    finds_objects = False

    def __init__(
        self,
        *,
        canvas_size: Sequence[int] = (50, 50),
        channels: int = 1,
        what_size: int = 50,
        encoder_units: Sequence[int] = (512, 256),
        decoder_units: Sequence[int] = (256, 512),
        observation: Observation | None = None,
        initial_brightness: float = 0.1,
        clipnorm: float | None = 1.0,
        seed: int = 0,
        name: str = "vae",
    ):
        """Initializes the model; settings as those of `ASRModel` and its parts of the same names.

        Args:
            canvas_size: (H, W) in pixels.
            channels: C, 1 (grey) or 3 (RGB).
            what_size: Z.
            encoder_units, decoder_units: hidden widths between image and vector, and back.
            observation: how the decoded canvas becomes an image; None for `BernoulliPixels()`.
            initial_brightness: where the decoder's pixels start, in (0, 1).
            clipnorm: bound of each variable's gradient norm, None for no bound.
            seed: of training's randomness and of the initial weights.
            name: Keras name.

        Raises:
            ValueError, TypeError: a value is out of range, or of the wrong type.
        """
        super().__init__(name=name)
        check_choice("ImageVAE.channels", channels, list(CHANNELS))
        check_whole("ImageVAE.what_size", what_size)
        check_range("ImageVAE.initial_brightness", initial_brightness, 1e-4, 1.0 - 1e-4)
        self.canvas_size = check_canvas_size("ImageVAE.canvas_size", canvas_size)
        self.channels, self.what_size, self.seed = channels, what_size, seed
        self.encoder_units, self.decoder_units = tuple(encoder_units), tuple(decoder_units)
        self.initial_brightness = initial_brightness
        self.observation = BernoulliPixels() if observation is None else observation
        pixels = math.prod(self.canvas_size) * channels
        start = math.log(initial_brightness / (1.0 - initial_brightness))
        with initial_weights_from(seed):
            self.encoder = Perceptron([pixels, *encoder_units, 2 * what_size], "softplus", "encoder")
            self.decoder = Perceptron([what_size, *decoder_units, pixels], "softplus", "decoder", start)
        self._prepare_training(VAETerms._fields, (), clipnorm)
        self.built = True

    def get_config(self) -> dict[str, Any]:
        """The arguments of the constructor as plain data."""
        names = ("canvas_size", "channels", "what_size", "encoder_units", "decoder_units", "initial_brightness")
        own = {key: getattr(self, key) for key in (*names, "clipnorm", "seed", "name")}
        return own | {"observation": described(self.observation)}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> ImageVAE:
        """See `get_config`."""
        return cls(**config | {"observation": made_again(Observation, config["observation"])})

    def description(self) -> dict[str, Any]:
        """What the report tells of the model."""
        return {"kind": "vae", "what_size": self.what_size}

    def _posterior(self, images: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """Mean and log standard deviation of the vector, float32 [B, Z] each."""
        flat = tf.reshape(images, [-1, math.prod(images.shape[1:])])
        loc, log_scale = tf.split(tf.cast(self.encoder(flat), tf.float32), 2, axis=-1)
        return loc, log_scale

    def _canvas(self, code: tf.Tensor) -> tf.Tensor:
        """What a vector [B, Z] looks like, float32 [B, H, W, C] in (0, 1)."""
        pixels = tf.sigmoid(tf.cast(self.decoder(code), tf.float32))
        return tf.reshape(pixels, [-1, *self.canvas_size, self.channels])

    def _prior(self) -> tfd.Distribution:
        return normal(tf.zeros([self.what_size]), tf.zeros([self.what_size]))

    def draw_noise(self, batch_size: tf.Tensor, seed: tf.Tensor, algorithm: str = "philox") -> tf.Tensor:
        """See `BoundModel.draw_noise`: float32 [B, Z]."""
        return tf.random.stateless_normal([batch_size, self.what_size], seed, alg=algorithm)

    def score(self, images: tf.Tensor, noise: tf.Tensor, seed: tf.Tensor, training: bool) -> tuple[VAETerms, None]:
        """See `BoundModel.score`."""
        loc, log_scale = self._posterior(images)
        canvas = self._canvas(loc + tf.exp(log_scale) * noise)
        kl = tfd.kl_divergence(normal(loc, log_scale), self._prior())
        return VAETerms(-self.observation(canvas).log_prob(images), kl), None

    def infer(self, images: Any) -> dict[str, tf.Tensor]:
        """Deterministic inference: the mode of the vector.

        Args:
            images: [B, H, W, C]; float in [0, 1] or uint8.

        Returns:
            `z_what` float32 [B, Z]; `reconstruction` [B, H, W, C] in [0, 1].

        Raises:
            ValueError, TypeError: images of another shape, size, dtype or range.
        """
        return self._infer(self._checked(images))

    @tf.function(reduce_retracing=True, autograph=False)
    def _infer(self, images: tf.Tensor) -> dict[str, tf.Tensor]:
        code, _ = self._posterior(images)
        return {"z_what": code, "reconstruction": self._canvas(code)}

    def sample(self, num_samples: Any, seed: Any) -> dict[str, tf.Tensor]:
        """New images from the prior; the same seed gives the same images.

        Args:
            num_samples: int32 [], N.
            seed: int32 [2].

        Returns:
            `images` float32 [N, H, W, C] in [0, 1]; `z_what` [N, Z].
        """
        return self._sample(tf.convert_to_tensor(num_samples, tf.int32), tf.convert_to_tensor(seed, tf.int32))

    @tf.function(reduce_retracing=True, autograph=False)
    def _sample(self, num_samples: tf.Tensor, seed: tf.Tensor) -> dict[str, tf.Tensor]:
        code = self._prior().sample(num_samples, seed=seed)
        return {"images": self._canvas(code), "z_what": code}

    def log_likelihood(self, images: Any, num_particles: int, seed: Any) -> tf.Tensor:
        """Importance-weighted lower bound of log p(x).

        Args:
            images: [B, H, W, C]; float in [0, 1] or uint8.
            num_particles: K, 1 or more.
            seed: int32 [2].

        Returns:
            float32 [B], nats.

        Raises:
            ValueError, TypeError: images of another shape, size, dtype or range, or no particle.
        """
        check_positive("num_particles", num_particles)
        return self._log_likelihood(
            self._checked(images),
            tf.convert_to_tensor(num_particles, tf.int32),
            tf.convert_to_tensor(seed, tf.int32),
        )

    @tf.function(reduce_retracing=True, autograph=False)
    def _log_likelihood(
        self, images: tf.Tensor, num_particles: tf.Tensor, seed: tf.Tensor
    ) -> tf.Tensor:
        loc, log_scale = self._posterior(images)
        posterior, prior = normal(loc, log_scale), self._prior()

        def particle(total: tf.Tensor, k: tf.Tensor) -> tf.Tensor:
            noise = self.draw_noise(tf.shape(images)[0], tf.stack([seed[0], seed[1] + k]))
            code = loc + tf.exp(log_scale) * noise
            log_likelihood = self.observation(self._canvas(code)).log_prob(images)
            weight = prior.log_prob(code) - posterior.log_prob(code) + log_likelihood
            return tf.reduce_logsumexp(tf.stack([total, weight]), axis=0)

        total = tf.foldl(
            particle, tf.range(num_particles), initializer=tf.fill([tf.shape(images)[0]], -np.inf)
        )
        return total - tf.math.log(tf.cast(num_particles, tf.float32))
