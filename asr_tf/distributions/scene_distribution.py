"""Distributions of scenes: what the posterior and every prior have in common, and scenes of independent steps.

An absent step carries no latents: a density counts the continuous latents of the steps that the presence code names,
and integrates to 1 over counts and over the latents of that many steps.  Samples hold drawn numbers in absent steps
too, so that shapes are fixed; nothing may depend on them.

References:
    Eslami et al., "Attend, Infer, Repeat", NIPS 2016, arXiv:1603.08575, sections 2.1 and 2.2.
"""

from __future__ import annotations

import abc
from typing import Any

import tensorflow as tf
import tensorflow_probability as tfp
from tensorflow_probability import distributions as tfd

from asr_tf.distributions.presence import PresenceCode, code_of_count
from asr_tf.scene import PosteriorStatistics, SceneLatents

__all__ = ["IndependentSteps", "SceneDistribution", "divergence", "normal", "scene_posterior"]

# Gradients flow through samples of the continuous latents, not through counts.
_REPARAMETERIZATION = SceneLatents(
    presence=tfd.NOT_REPARAMETERIZED,
    shift_latent=tfd.FULLY_REPARAMETERIZED,
    scale_latent=tfd.FULLY_REPARAMETERIZED,
    what=tfd.FULLY_REPARAMETERIZED,
)


def normal(loc: Any, log_scale: Any) -> tfd.Distribution:
    """Independent normals over the last axis, by mean and log standard deviation, float [..., N] each."""
    return tfd.Independent(tfd.Normal(loc, tf.exp(log_scale)), 1)


def divergence(q: tfd.Distribution, p: tfd.Distribution, value: tf.Tensor) -> tf.Tensor:
    """KL(q || p) in nats: in closed form where TFP knows one, else by one sample, with the entropy of q exact.

    Args:
        q, p: of one event shape.
        value: a sample of q.

    Returns:
        float [...], the batch shape of both.
    """
    try:
        return tfd.kl_divergence(q, p)
    except NotImplementedError:
        return -q.entropy() - p.log_prob(value)


class SceneDistribution(tfd.Distribution):
    """A distribution over `SceneLatents`, whose count looks at no other latents.

    A prior of one's own is a subclass that says what a scene's steps are like given the scene (`given`) and draws the
    steps' continuous latents (`sample_steps`); the rest follows.
    """

    def __init__(self, presence: PresenceCode, what_size: int, parameters: dict[str, Any], name: str) -> None:
        """Initializes the distribution.

        Args:
            presence: the count.
            what_size: Z.
            parameters: of the subclass's constructor, as `tfd.Distribution` takes them.
            name: name of the operations.
        """
        self._presence, self._what_size = presence, what_size
        super().__init__(
            dtype=SceneLatents(*[presence.dtype] * len(SceneLatents._fields)),
            reparameterization_type=_REPARAMETERIZATION,
            validate_args=False,
            allow_nan_stats=True,
            parameters=parameters,
            name=name,
        )

    @property
    def presence(self) -> PresenceCode:
        """The distribution of the presence code, batch shape [...]."""
        return self._presence

    @abc.abstractmethod
    def given(self, latents: SceneLatents) -> IndependentSteps:
        """Each step's distributions given the steps before it.

        Args:
            latents: float [..., T, ...] each.

        Returns:
            The distributions of all steps, independent of one another now.
        """

    @abc.abstractmethod
    def sample_steps(self, presence: tf.Tensor, seed: tf.Tensor) -> SceneLatents:
        """Draws the continuous latents of scenes whose count is known.

        Args:
            presence: float [N, ..., T], unary codes of N times the batch shape.
            seed: int32 [2].

        Returns:
            float [N, ..., T, ...] each.
        """

    def sample_given_count(self, count: tf.Tensor, seed: tf.Tensor) -> SceneLatents:
        """Scenes with exactly the given numbers of objects, without rejection; for batch shape [].

        Args:
            count: int32 [N], 0..T; where it is negative, the count is drawn too.
            seed: int32 [2].

        Returns:
            float [N, T, ...] each.
        """
        count_seed, steps_seed = tf.unstack(tfp.random.split_seed(seed, n=2, salt="SceneDistribution"))
        drawn = self.presence.sample(tf.size(count), seed=count_seed)
        code = code_of_count(count, self.presence.num_steps, drawn.dtype)
        return self.sample_steps(tf.where(count[:, tf.newaxis] < 0, drawn, code), steps_seed)

    def _batch_shape(self) -> tf.TensorShape:
        return self.presence.batch_shape

    def _batch_shape_tensor(self) -> tf.Tensor:
        return self.presence.batch_shape_tensor()

    def _event_shape(self) -> SceneLatents:
        num_steps = self.presence.num_steps
        sizes: list[list[int]] = [[], [2], [1], [self._what_size]]
        return SceneLatents(*(tf.TensorShape([num_steps, *size]) for size in sizes))

    def _sample_n(self, n: Any, seed: Any = None) -> SceneLatents:
        count_seed, steps_seed = tf.unstack(tfp.random.split_seed(seed, n=2, salt="SceneDistribution"))
        return self.sample_steps(self.presence.sample(n, seed=count_seed), steps_seed)

    def _log_prob(self, value: SceneLatents) -> tf.Tensor:
        steps = self.given(value).step_log_prob(value)
        present = tf.math.multiply_no_nan(steps, tf.broadcast_to(value.presence, tf.shape(steps)))
        return self.presence.log_prob(value.presence) + tf.reduce_sum(present, axis=-1)


class IndependentSteps(SceneDistribution):
    """Scenes whose steps are independent of one another: the posterior given its statistics, and AIR's prior."""

    def __init__(
        self,
        presence: PresenceCode,
        shift: tfd.Distribution,
        scale: tfd.Distribution,
        what: tfd.Distribution,
        name: str = "IndependentSteps",
    ) -> None:
        """Initializes the distribution.

        Args:
            presence: the count, batch shape [...].
            shift: over the shift latent (x, y) of each step: batch shape [..., T], event shape [2].
            scale: over the scale latent, [..., T] and [1].
            what: over the appearance, [..., T] and [Z].
            name: name of the operations.
        """
        parameters = dict(locals())
        self.shift, self.scale, self.what = shift, scale, what
        super().__init__(presence, what.event_shape[0], parameters, name)

    @classmethod
    def _parameter_properties(
        cls, dtype: Any, num_classes: int | None = None
    ) -> dict[str, tfp.util.ParameterProperties]:
        return {}

    def given(self, latents: SceneLatents) -> IndependentSteps:
        """This distribution: no step looks at another."""
        return self

    def step_log_prob(self, value: SceneLatents) -> tf.Tensor:
        """Log-density of each step's continuous latents, as if it were present.

        Args:
            value: float [..., T, ...] each.

        Returns:
            float [..., T], nats.
        """
        return (
            self.shift.log_prob(value.shift_latent)
            + self.scale.log_prob(value.scale_latent)
            + self.what.log_prob(value.what)
        )

    def sample_steps(self, presence: tf.Tensor, seed: tf.Tensor) -> SceneLatents:
        """See `SceneDistribution.sample_steps`."""
        seeds = tf.unstack(tf.random.split(seed, 3))
        parts = zip((self.shift, self.scale, self.what), seeds, strict=True)
        size = tf.shape(presence)[0]
        return SceneLatents(presence, *(part.sample(size, seed=part_seed) for part, part_seed in parts))


def scene_posterior(statistics: PosteriorStatistics) -> IndependentSteps:
    """q(z | x): a presence code and normal latents, independent given their statistics [..., T, ...]."""
    logits, *parts = statistics
    shift, scale, what = (normal(*parts[i : i + 2]) for i in (0, 2, 4))
    return IndependentSteps(PresenceCode(logits), shift, scale, what, name="scene_posterior")
