"""The contracts: what a model of scenes is composed of, and what each part takes and gives.

| part | takes | gives |
|---|---|---|
| `Recognition` | images [B, H, W, C], noise | parameters of the posterior, samples, glimpses |
| `ObjectDecoder` | appearances [N, Z] | colours [N, G, G, C] and, where there are any, masks [N, G, G, 1] |
| `ScenePrior` | the training step | a distribution over scenes |
| `Background` | images [B, H, W, C], noise | an image [B, H, W, C] and its divergence [B] |
| `Composition` | objects on canvases, background | the canvases of the first k objects, k = 0..T, and masks |
| `Observation` | a canvas | a `tfd.Distribution` over images |

A part of one's own is a subclass that is registered with gin, and is named there:

    ASRModel.decoder = @MyDecoder()

Networks are Keras layers.  They are constructed with their own settings alone; the model then calls `build` with what
all parts must agree on (`SceneSpec`).  A part makes its layers there and builds them, so that all weights exist before
the first call; their initial values then follow from the model's seed, as Keras initializers that are given no seed
draw theirs from it.  Each argument of a constructor is plain data (numbers, strings, tuples) and is kept in an
attribute of its name (`asr_tf.scene.Part`), so that a saved model can be made again.

Where `SceneSpec.exact_count` is set, the model takes that count for every image, whatever logits recognition gives; a
prior must give it the probability 1.

Tensors cross `call`; distributions are built where they are used and never stored on a layer.  What leaves a network is
float32, whatever precision it computes in.
"""

from __future__ import annotations

import abc
from typing import Any, NamedTuple

import keras
import tensorflow as tf

from asr_tf.distributions import SceneDistribution
from asr_tf.imaging.composition import Composition, Drawn
from asr_tf.imaging.observation import Observation
from asr_tf.imaging.windows import read_windows
from asr_tf.networks.keras_settings import own_settings
from asr_tf.scene import Part, PosteriorStatistics, SceneLatents, SceneSpec

__all__ = [
    "Background",
    "Composition",
    "Drawn",
    "LatentNoise",
    "Network",
    "ObjectDecoder",
    "Observation",
    "Recognition",
    "Recognized",
    "ScenePrior",
]


class LatentNoise(NamedTuple):
    """Standard normal draws that turn posterior statistics into samples.

    Attributes:
        shift: float [B, T, 2].
        scale: float [B, T, 1].
        what: float [B, T, Z].
    """

    shift: tf.Tensor
    scale: tf.Tensor
    what: tf.Tensor

    @classmethod
    def draw(cls, batch_size: tf.Tensor | int, spec: SceneSpec, seed: tf.Tensor, algorithm: str) -> LatentNoise:
        """Draws, a function of `seed`, int32 [2], and of the generator (see `tf.random.Algorithm`)."""
        shape = [batch_size, spec.num_steps, 3 + spec.what_size]
        normal = tf.random.stateless_normal(shape, seed, alg=algorithm)
        return cls(*tf.split(normal, [2, 1, spec.what_size], axis=-1))


class Network(Part, keras.layers.Layer, metaclass=abc.ABCMeta):
    """A part with weights.

    Attributes:
        spec: what all parts of the model agree on, known from `build` on.
    """

    spec: SceneSpec

    def __init__(self, **options: Any) -> None:
        """Initializes the layer.

        Args:
            **options: of a Keras layer, such as `name`.
        """
        with own_settings():
            super().__init__(**options)

    def build(self, spec: SceneSpec) -> None:
        """Makes the weights; a subclass builds every layer that it holds, so that all weights exist before a call."""
        self.spec = spec

    def get_build_config(self) -> None:
        """None: the model that holds the part builds it."""

    def compute_output_shape(self, spec: SceneSpec) -> tuple[int | None, ...]:
        """What `model.summary()` shows: an appearance for each step, unless a contract says otherwise."""
        return (None, spec.num_steps, spec.what_size)


class Recognized(NamedTuple):
    """What recognition gives.

    Attributes:
        posterior: parameters of q(z | x), float32 [B, T, ...] each.
        latents: samples of all T steps, float32 [B, T, ...] each, as if every step held an object; `presence` is None.
        glimpses: float32 [B, T, G, G, C], what images show in the windows.
    """

    posterior: PosteriorStatistics
    latents: SceneLatents
    glimpses: tf.Tensor


class Recognition(Network):
    """q(z | x), in two halves, between which the windows are read: where objects are, and what they look like."""

    @abc.abstractmethod
    def locate(
        self, images: tf.Tensor, noise: LatentNoise | None = None
    ) -> tuple[PosteriorStatistics, SceneLatents]:
        """Infers presence and windows.

        Args:
            images: float32 [B, H, W, C] in [0, 1].
            noise: standard normal draws; None for the mode.

        Returns:
            The posterior's parameters and the samples, both without the appearance: `what_loc`, `what_log_scale` and
            `what` are None, and so is the samples' `presence`.
        """

    @abc.abstractmethod
    def describe(self, glimpses: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """Infers appearances.

        Args:
            glimpses: float32 [N, G, G, C].

        Returns:
            Mean and log standard deviation, float32 [N, Z] each.
        """

    def call(self, images: tf.Tensor, noise: LatentNoise | None = None) -> Recognized:
        """Infers every step's latents; arguments as of `locate`."""
        posterior, latents = self.locate(images, noise)
        shift, scale = tf.tanh(latents.shift_latent), tf.sigmoid(latents.scale_latent)
        glimpses = read_windows(images[:, tf.newaxis], shift, scale, self.spec.glimpse_size)
        steps = tf.shape(glimpses)[:2]
        described = self.describe(tf.reshape(glimpses, [-1, *glimpses.shape[2:]]))
        loc, log_scale = (tf.reshape(x, tf.concat([steps, x.shape[1:]], 0)) for x in described)
        what = loc if noise is None else loc + tf.exp(log_scale) * noise.what
        posterior = posterior._replace(what_loc=loc, what_log_scale=log_scale)
        return Recognized(posterior, latents._replace(what=what), glimpses)


class ObjectDecoder(Network):
    """p(object | appearance)."""

    def compute_output_shape(self, spec: SceneSpec) -> tuple[int | None, ...]:
        """The colours of objects."""
        return (None, spec.glimpse_size, spec.glimpse_size, spec.channels)

    @abc.abstractmethod
    def call(self, what: tf.Tensor) -> Drawn:
        """Draws objects.

        Args:
            what: float32 [N, Z].

        Returns:
            `colour` float32 [N, G, G, C] in [0, 1]; `mask` [N, G, G, 1] in [0, 1], or None.
        """


class ScenePrior(Network):
    """p(z)."""

    @abc.abstractmethod
    def distribution(self, step: Any, skip_absent: bool = False) -> SceneDistribution:
        """The distribution over scenes, batch shape [].

        Args:
            step: integer [], training steps taken, for a prior that changes with them.
            skip_absent: whether samples may hold zeros in place of what absent objects would be like.
        """


class Background(Network):
    """What lies behind the objects."""

    def compute_output_shape(self, spec: SceneSpec) -> tuple[int | None, ...]:
        """A background."""
        return (None, *spec.canvas_size, spec.channels)

    @abc.abstractmethod
    def call(self, images: tf.Tensor, seed: tf.Tensor | None = None) -> tuple[tf.Tensor, tf.Tensor]:
        """Infers the background.

        Args:
            images: float32 [B, H, W, C] in [0, 1].
            seed: int32 [2], of the samples; None for the mode.

        Returns:
            The background, float32 [B, H, W, C] in [0, 1], and its divergence from its prior, float32 [B] in nats.
        """

    @abc.abstractmethod
    def sample(self, num_samples: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
        """New backgrounds, float32 [N, H, W, C] in [0, 1], a function of `seed`, int32 [2]."""
