"""The scene posterior q(z | x): a presence code and normal latents, independent given their statistics.

The recognition network computes each step's statistics from the latents that it drew before; given those statistics
nothing else ties the steps together, and this is the distribution that they describe.

References:
    Eslami et al., "Attend, Infer, Repeat", NIPS 2016, arXiv:1603.08575, section 2.2.
"""

from __future__ import annotations

from typing import Any

import tensorflow as tf
import tensorflow_probability as tfp
from tensorflow_probability import distributions as tfd

from asr_tf.distributions.presence import PresenceCode
from asr_tf.distributions.scene_density import (
    REPARAMETERIZATION,
    draw_normal,
    scene_event_shape,
    scene_log_prob,
)
from asr_tf.scene import PosteriorStatistics, SceneLatents

__all__ = ["ScenePosterior"]


class ScenePosterior(tfd.Distribution):
    """Joint distribution over `SceneLatents`, factorised given `PosteriorStatistics`.

    The continuous latents are in the unbounded coordinates in which they are normal.  `log_prob` counts those of
    present steps only (an absent step carries no latents); samples hold drawn numbers in absent steps too.
    """

    def __init__(
        self,
        statistics: PosteriorStatistics,
        validate_args: bool = False,
        allow_nan_stats: bool = True,
        name: str = "ScenePosterior",
    ) -> None:
        """Initializes the distribution.

        Args:
            statistics: floating point, `presence_logits` [..., T] and the others [..., T, size];
                leading axes broadcast.
            validate_args: as in `tfd.Distribution`.
            allow_nan_stats: as in `tfd.Distribution`.
            name: name of the operations.

        Raises:
            TypeError: `statistics` is something else.
        """
        parameters = dict(locals())
        if not isinstance(statistics, PosteriorStatistics):
            raise TypeError(
                f"statistics must be PosteriorStatistics, got {type(statistics).__name__}."
            )
        with tf.name_scope(name) as scope:
            logits = tf.convert_to_tensor(statistics.presence_logits, dtype_hint=tf.float32)
            self._statistics = PosteriorStatistics(
                *(tf.convert_to_tensor(part, dtype=logits.dtype) for part in statistics)
            )
            self._code = PresenceCode(self._statistics.presence_logits)
            super().__init__(
                dtype=SceneLatents(*[logits.dtype] * len(SceneLatents._fields)),
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
        event_ndims = PosteriorStatistics(1, *[2] * (len(PosteriorStatistics._fields) - 1))
        return {"statistics": tfp.util.ParameterProperties(event_ndims=event_ndims)}

    @property
    def statistics(self) -> PosteriorStatistics:
        """The parameters, as tensors."""
        return self._statistics

    @property
    def presence_code(self) -> PresenceCode:
        """The marginal distribution of `presence`."""
        return self._code

    def _event_shape(self) -> SceneLatents:
        return scene_event_shape(
            self._statistics.presence_logits.shape[-1], self._statistics.what_loc.shape[-1]
        )

    def _batch_shape(self) -> tf.TensorShape:
        shape = self._statistics.presence_logits.shape[:-1]
        for part in self._statistics[1:]:
            shape = tf.broadcast_static_shape(shape, part.shape[:-2])
        return shape

    def _batch_shape_tensor(self) -> tf.Tensor:
        shape = tf.shape(self._statistics.presence_logits)[:-1]
        for part in self._statistics[1:]:
            shape = tf.broadcast_dynamic_shape(shape, tf.shape(part)[:-2])
        return shape

    def _sample_n(self, n: Any, seed: Any = None) -> SceneLatents:
        seeds = tfp.random.split_seed(seed, n=4, salt="ScenePosterior")
        statistics = self._statistics
        batch_shape = self.batch_shape_tensor()

        def draw(loc: tf.Tensor, log_scale: tf.Tensor, seed: Any) -> tf.Tensor:
            shape = tf.concat([[n], batch_shape, tf.shape(loc)[-2:]], axis=0)
            return draw_normal(shape, loc, log_scale, seed)

        logits = statistics.presence_logits
        logits = tf.broadcast_to(logits, tf.concat([batch_shape, tf.shape(logits)[-1:]], axis=0))
        return SceneLatents(
            presence=PresenceCode(logits).sample(n, seed=seeds[0]),
            shift_latent=draw(statistics.shift_loc, statistics.shift_log_scale, seeds[1]),
            scale_latent=draw(statistics.scale_loc, statistics.scale_log_scale, seeds[2]),
            what=draw(statistics.what_loc, statistics.what_log_scale, seeds[3]),
        )

    def _log_prob(self, value: SceneLatents) -> tf.Tensor:
        return scene_log_prob(value, self._statistics)
