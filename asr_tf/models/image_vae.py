"""A plain variational autoencoder of whole images: the baseline that knows nothing of objects.

One vector stands for the image; encoder, decoder, observation model and training are those of the models of scenes, so
that bounds and reconstructions compare.  It has neither counts nor boxes, and no rule applies to it.

References:
    Kingma and Welling, "Auto-Encoding Variational Bayes", ICLR 2014, arXiv:1312.6114.
    Xu et al., arXiv:1906.03923, section 5 (baselines).
    Burda et al., "Importance Weighted Autoencoders", ICLR 2016, arXiv:1509.00519.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any, NamedTuple

import keras
import numpy as np
import tensorflow as tf

from asr_tf.checks import check_choice, check_images, check_positive, check_range
from asr_tf.distributions import normal_kl, normal_log_prob
from asr_tf.fast.memory import keep_freed_memory
from asr_tf.imaging.observation import OBSERVATION_MODELS, negative_log_likelihood
from asr_tf.models.bound_model import BoundModel, configurable_model
from asr_tf.networks.autoencoder import ImageDecoder, ImageEncoder

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


@configurable_model
class ImageVAE(BoundModel):
    """q(z | x) and p(x | z) with one vector z ~ N(0, I) an image."""

    finds_objects = False
    estimator = "enumerate"  # there is nothing to enumerate

    def __init__(
        self,
        *,
        canvas_size: Sequence[int] = (50, 50),
        what_size: int = 50,
        encoder_units: Sequence[int] = (512, 256),
        decoder_units: Sequence[int] = (256, 512),
        observation: str = "bernoulli",
        observation_scale: float = 0.3,
        background: float = 1e-6,
        initial_brightness: float = 0.1,
        clipnorm: float | None = 1.0,
        seed: int = 0,
        name: str = "vae",
    ):
        """Initializes the model; settings as those of `ASRModel` of the same names.

        Args:
            canvas_size: (H, W) in pixels.
            what_size: Z.
            encoder_units, decoder_units: hidden widths between image and vector, and back.
            observation: "bernoulli" or "gaussian".
            observation_scale: standard deviation of the Gaussian, in units of the pixel range [0, 1].
            background: least Bernoulli mean of a pixel.
            initial_brightness: where the decoder's pixels start, in (0, 1).
            clipnorm: bound of each variable's gradient norm, None for no bound.
            seed: of training's randomness and of the initial weights.
            name: Keras name.

        Raises:
            ValueError, TypeError: a value is out of range, or of the wrong type.
        """
        super().__init__(name=name)
        if len(canvas_size) != 2:
            raise ValueError(f"ImageVAE.canvas_size must be (H, W), got {canvas_size!r}.")
        for label, value in (
            ("canvas_size", min(canvas_size)),
            ("what_size", what_size),
            ("observation_scale", observation_scale),
        ):
            check_positive(f"ImageVAE.{label}", value)
        check_range("ImageVAE.background", background, 1e-6, 0.5)
        check_range("ImageVAE.initial_brightness", initial_brightness, 1e-4, 1.0 - 1e-4)
        check_choice("ImageVAE.observation", observation, OBSERVATION_MODELS)
        self.canvas_size = (int(canvas_size[0]), int(canvas_size[1]))
        self.what_size, self.seed = what_size, seed
        self._nll = functools.partial(
            negative_log_likelihood, observation=observation, background=background, scale=observation_scale
        )
        keep_freed_memory()
        keras.utils.set_random_seed(seed)
        self.encoder = ImageEncoder(self.canvas_size, tuple(encoder_units), what_size, "encoder")
        self.decoder = ImageDecoder(
            what_size, tuple(decoder_units), self.canvas_size, initial_brightness, "decoder"
        )
        self.step = self._counter("step")
        self.built = True
        self._prepare_training(VAETerms._fields, (), clipnorm)

    def description(self) -> dict[str, Any]:
        """What the report tells of the model."""
        return {"kind": "vae", "what_size": self.what_size}

    def _score(
        self, images: tf.Tensor, seed: tf.Tensor, estimator: str, **noise_options: str
    ) -> tuple[VAETerms, None]:
        loc, log_scale = self.encoder(images)
        algorithm = noise_options.get("algorithm", "philox")
        noise = tf.random.stateless_normal(tf.shape(loc), seed, alg=algorithm)
        canvas = self.decoder(loc + tf.exp(log_scale) * noise)
        kl = tf.reduce_sum(normal_kl(loc, log_scale, 0.0, 0.0), axis=-1)
        return VAETerms(self._nll(images, canvas), kl), None

    def objective(self, images: Any, seed: Any, estimator: str | None = None) -> VAETerms:
        """The bound's terms, with one sample of the vector.

        Args:
            images: float32 [B, H, W, 1] in [0, 1].
            seed: int32 [2].
            estimator: there for models that have several.

        Returns:
            Terms, float32 [B] each, in nats.
        """
        images = tf.convert_to_tensor(images, tf.float32)[..., 0]
        return self._score(images, tf.convert_to_tensor(seed, tf.int32), self.estimator)[0]

    def _checked(self, images: Any) -> tf.Tensor:
        if not tf.is_symbolic_tensor(images):
            images = check_images(images, self.canvas_size)
        return tf.convert_to_tensor(images, tf.float32)[..., 0]

    def infer(self, images: Any) -> dict[str, tf.Tensor]:
        """Deterministic inference: the mode of the vector.

        Args:
            images: [B, H, W, 1]; float in [0, 1] or uint8.

        Returns:
            `z_what` float32 [B, Z]; `reconstruction` [B, H, W, 1] in [0, 1].

        Raises:
            ValueError, TypeError: images of another shape, size, dtype or range.
        """
        return self._infer(self._checked(images))

    @tf.function(reduce_retracing=True, autograph=False)
    def _infer(self, images: tf.Tensor) -> dict[str, tf.Tensor]:
        code, _ = self.encoder(images)
        return {"z_what": code, "reconstruction": self.decoder(code)[..., tf.newaxis]}

    def sample(self, num_samples: Any, seed: Any) -> dict[str, tf.Tensor]:
        """New images from the prior; the same seed gives the same images.

        Args:
            num_samples: int32 [], N.
            seed: int32 [2].

        Returns:
            `images` float32 [N, H, W, 1] in [0, 1]; `z_what` [N, Z].
        """
        return self._sample(tf.convert_to_tensor(num_samples, tf.int32), tf.convert_to_tensor(seed, tf.int32))

    @tf.function(reduce_retracing=True, autograph=False)
    def _sample(self, num_samples: tf.Tensor, seed: tf.Tensor) -> dict[str, tf.Tensor]:
        code = tf.random.stateless_normal([num_samples, self.what_size], seed)
        return {"images": self.decoder(code)[..., tf.newaxis], "z_what": code}

    def log_likelihood(self, images: Any, num_particles: int, seed: Any) -> tf.Tensor:
        """Importance-weighted lower bound of log p(x).

        Args:
            images: [B, H, W, 1]; float in [0, 1] or uint8.
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
        loc, log_scale = self.encoder(images)

        def particle(total: tf.Tensor, k: tf.Tensor) -> tf.Tensor:
            noise = tf.random.stateless_normal(tf.shape(loc), tf.stack([seed[0], seed[1] + k]))
            code = loc + tf.exp(log_scale) * noise
            ratio = normal_log_prob(code, 0.0, 0.0) - normal_log_prob(code, loc, log_scale)
            weight = tf.reduce_sum(ratio, axis=-1) - self._nll(images, self.decoder(code))
            return tf.reduce_logsumexp(tf.stack([total, weight]), axis=0)

        total = tf.foldl(
            particle, tf.range(num_particles), initializer=tf.fill([tf.shape(images)[0]], -np.inf)
        )
        return total - tf.math.log(tf.cast(num_particles, tf.float32))
