"""The fixed scene prior of AIR: independent steps, normal latents, a presence code.

References:
    Eslami et al., "Attend, Infer, Repeat", NIPS 2016, arXiv:1603.08575, section 2.1.
"""

from __future__ import annotations

import math
from typing import Any

import tensorflow as tf
import tensorflow_probability as tfp
from tensorflow_probability import distributions as tfd

from asr_tf.distributions.gaussian import normal_kl
from asr_tf.distributions.posterior import ScenePosterior
from asr_tf.distributions.presence import PresenceCode
from asr_tf.distributions.scene_density import (
    REPARAMETERIZATION,
    draw_normal,
    scene_event_shape,
    scene_log_prob,
    with_standard_what,
)
from asr_tf.scene import PosteriorStatistics, PriorStatistics, SceneLatents

__all__ = ["AIRScenePrior"]

_SCALE_STDDEV = math.sqrt(0.05)


class AIRScenePrior(tfd.Distribution):
    """Joint distribution over `SceneLatents` with independent steps.

    presence is a `PresenceCode`; shift_latent ~ N(shift_loc, shift_stddev^2), scale_latent ~ N(scale_loc,
    scale_stddev^2), what ~ N(0, I).  `log_prob` counts the latents of present steps only; samples hold drawn numbers
    in absent steps too.

    A count prior that is annealed from many to few objects is a sequence of `presence_logits`, for example T times the
    same logit, falling as training goes on; `PresenceCode.from_count_logits` gives the logits of any other.
    """

    def __init__(
        self,
        presence_logits: Any,
        what_size: int,
        shift_loc: float = 0.0,
        shift_stddev: float = 1.0,
        scale_loc: float = -1.0,
        scale_stddev: float = _SCALE_STDDEV,
        validate_args: bool = False,
        allow_nan_stats: bool = True,
        name: str = "AIRScenePrior",
    ) -> None:
        """Initializes the distribution; the defaults are AIR's.

        Args:
            presence_logits: floating point [..., T], as `logits` of `PresenceCode`.
            what_size: Z.
            shift_loc: mean of both coordinates of `shift_latent`.
            shift_stddev: their standard deviation.
            scale_loc: mean of `scale_latent`.
            scale_stddev: its standard deviation.
            validate_args: as in `tfd.Distribution`.
            allow_nan_stats: as in `tfd.Distribution`.
            name: name of the operations.

        Raises:
            ValueError: a standard deviation is not above 0.
        """
        parameters = dict(locals())
        for label, stddev in (("shift_stddev", shift_stddev), ("scale_stddev", scale_stddev)):
            if not stddev > 0:
                raise ValueError(f"{label} must be a number above 0, got {stddev!r}.")
        with tf.name_scope(name) as scope:
            self._code = PresenceCode(presence_logits)
            self._what_size = what_size
            self._normals = (
                (2, shift_loc, math.log(shift_stddev)),
                (1, scale_loc, math.log(scale_stddev)),
            )
            super().__init__(
                dtype=SceneLatents(*[self._code.dtype] * len(SceneLatents._fields)),
                reparameterization_type=REPARAMETERIZATION,
                validate_args=validate_args,
                allow_nan_stats=allow_nan_stats,
                parameters=parameters,
                name=scope,
            )

    @classmethod
    def _parameter_properties(
        cls, dtype: Any, num_classes: int | None = None
    ) -> dict[str, tfp.util.ParameterProperties]:
        return {"presence_logits": tfp.util.ParameterProperties(event_ndims=1)}

    @property
    def presence_code(self) -> PresenceCode:
        """The marginal distribution of `presence`."""
        return self._code

    @property
    def statistics(self) -> PriorStatistics:
        """The parameters of every step, float [..., T, ...] each, equal for all steps but for the logits."""
        logits = self._code.logits
        parts = [
            tf.fill(tf.concat([tf.shape(logits), [size]], axis=0), tf.constant(value, logits.dtype))
            for size, *values in self._normals
            for value in values
        ]
        return PriorStatistics(logits, *parts)

    def _full_statistics(self) -> PosteriorStatistics:
        return with_standard_what(self.statistics, self._what_size)

    def _event_shape(self) -> SceneLatents:
        return scene_event_shape(self._code.num_steps, self._what_size)

    def _sample_n(self, n: Any, seed: Any = None) -> SceneLatents:
        seeds = tfp.random.split_seed(seed, n=4, salt="AIRScenePrior")
        _, *parts = self._full_statistics()
        draws = [
            draw_normal(tf.concat([[n], tf.shape(loc)], axis=0), loc, log_scale, part_seed)
            for loc, log_scale, part_seed in zip(
                parts[::2], parts[1::2], tf.unstack(seeds)[1:], strict=True
            )
        ]
        return SceneLatents(self._code.sample(n, seed=seeds[0]), *draws)

    def _log_prob(self, value: SceneLatents) -> tf.Tensor:
        return scene_log_prob(value, self._full_statistics())


@tfd.RegisterKL(ScenePosterior, AIRScenePrior)
def _kl_posterior_air(q: ScenePosterior, p: AIRScenePrior, name: str | None = None) -> tf.Tensor:
    """KL(q || p) in nats: exact over counts, plus each step's normals weighted by q(n >= t)."""
    with tf.name_scope(name or "kl_posterior_air"):
        _, *q_parts = q.statistics
        _, *p_parts = p._full_statistics()
        steps = sum(
            tf.reduce_sum(normal_kl(*q_parts[i : i + 2], *p_parts[i : i + 2]), axis=-1)
            for i in range(0, len(q_parts), 2)
        )  # [..., T]
        count = tfd.kl_divergence(q.presence_code, p.presence_code)
        return count + tf.reduce_sum(q.presence_code.presence_probs() * steps, axis=-1)
