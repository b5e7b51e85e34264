"""The learned scene prior: each step's latents are drawn given those of the steps before it.

    p(z) = prod_t p(presence_t | presence_{t - 1}, h_t) [p(shift_t; h_t) N(scale_t; shift_t, h_t) N(what_t; 0, I)]

with p(shift_t) a normal or a mixture on a grid, h_t a state that a given function computes from z_1..z_{t-1}, and the
bracket only for present steps.

References:
    Xu et al., "Multi-object Generation with Amortized Structural Regularization", NeurIPS 2019,
    arXiv:1906.03923.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import tensorflow as tf
import tensorflow_probability as tfp
from tensorflow_probability import distributions as tfd

from asr_tf.distributions.placement import sample_placement
from asr_tf.distributions.presence import PresenceCode
from asr_tf.distributions.scene_density import (
    REPARAMETERIZATION,
    draw_normal,
    scene_event_shape,
    scene_log_prob,
    with_standard_what,
)
from asr_tf.scene import PriorStatistics, SceneLatents

__all__ = ["AutoregressiveScenePrior"]

StepFn = Callable[[SceneLatents, Any], tuple[PriorStatistics, Any]]
ScaleFn = Callable[[tf.Tensor, Any], tuple[tf.Tensor, tf.Tensor]]


class AutoregressiveScenePrior(tfd.Distribution):
    """Joint distribution over `SceneLatents` whose steps follow from one another; batch shape [].

    `log_prob` counts the latents of present steps only; samples hold drawn numbers in absent steps too.
    The distribution knows no networks: it is given by functions of tensors with one leading axis N (scenes).
    """

    def __init__(
        self,
        step_fn: StepFn,
        initial_state: Callable[[Any], Any],
        num_steps: int,
        what_size: int,
        scale_fn: ScaleFn | None = None,
        dtype: tf.DType = tf.float32,
        validate_args: bool = False,
        allow_nan_stats: bool = True,
        name: str = "AutoregressiveScenePrior",
    ) -> None:
        """Initializes the distribution.

        Args:
            step_fn: `(previous, state) -> (statistics, state)`. `previous` holds the step before, presence [N],
                shift_latent [N, 2], scale_latent [N, 1], what [N, Z]; before the first step presence is 1 and the
                rest 0. `statistics` are the step's own, presence_logits [N], the others [N, size].
            initial_state: `N -> state`, the state before the first step for N scenes (an integer or int32 []).
            num_steps: T.
            what_size: Z.
            scale_fn: `(shift_latent [N, 2], state) -> (scale_loc [N, 1], scale_log_scale [N, 1])` where the scale
                depends on the shift of the same step, `state` being what `step_fn` returned; replaces the
                statistics' scale. None where it doesn't.
            dtype: dtype of events; statistics are cast to it.
            validate_args: as in `tfd.Distribution`.
            allow_nan_stats: as in `tfd.Distribution`.
            name: name of the operations.
        """
        parameters = dict(locals())
        self._step_fn = step_fn
        self._initial_state = initial_state
        self._scale_fn = scale_fn
        self._num_steps = num_steps
        self._what_size = what_size
        self._float = tf.as_dtype(dtype)
        with tf.name_scope(name) as scope:
            super().__init__(
                dtype=SceneLatents(*[self._float] * len(SceneLatents._fields)),
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
        return {}

    def _batch_shape(self) -> tf.TensorShape:
        return tf.TensorShape([])

    def _batch_shape_tensor(self) -> tf.Tensor:
        return tf.constant([], tf.int32)

    def _event_shape(self) -> SceneLatents:
        return scene_event_shape(self._num_steps, self._what_size)

    def statistics(self, latents: SceneLatents) -> PriorStatistics:
        """Every step's statistics given the latents of the steps before it (teacher forcing).

        Args:
            latents: float [..., T, ...] each, of one leading shape.

        Returns:
            float [..., T, ...] each.
        """
        leading = tf.shape(latents.presence)[:-1]
        flat = tf.nest.map_structure(
            lambda part, shape: tf.reshape(part, [-1, *shape]), latents, self.event_shape
        )
        size = tf.shape(flat.presence)[0]
        previous, state = self._before_first(size), self._initial_state(size)
        steps = []
        for t in range(self._num_steps):
            statistics, state = self._step(previous, state)
            previous = SceneLatents(*(part[:, t] for part in flat))
            steps.append(self._with_scale(statistics, previous.shift_latent, state))
        return _each_part(
            lambda *parts: tf.reshape(
                tf.stack(parts, axis=1),
                tf.concat([leading, [self._num_steps], tf.shape(parts[0])[1:]], axis=0),
            ),
            *steps,
        )

    def sample_given_count(
        self, count: Any, seed: Any = None, num_candidates: int = 32, skip_absent: bool = False
    ) -> SceneLatents:
        """Scenes with exactly the given numbers of objects, without rejection.

        Presence is the code of the count, and the other latents are drawn step by step as ever. That is the
        conditional distribution p(z | n) already where the logits of presence don't depend on the latents; where they
        do, p(z | n) weighs each path by the probability that it stops at n. Of `num_candidates` paths a scene, one
        is therefore kept with probability proportional to that weight (importance resampling): the count is
        exact always, the distribution of the latents up to a bias of order 1 / num_candidates.

        Args:
            count: int32 [...], 0..T; a negative one leaves the count of that scene to the prior.
            seed: as for `sample`.
            num_candidates: paths drawn for each scene, 1 or more.
            skip_absent: whether to stop where no scene has a further object; what would follow is zeros then.

        Returns:
            float [..., T, ...] each.

        Raises:
            ValueError: a count known beforehand is above T, or `num_candidates` is below 1.
        """
        if num_candidates < 1:
            raise ValueError(f"num_candidates must be 1 or more, got {num_candidates!r}.")
        known = tf.get_static_value(count)
        if known is not None and np.max(known, initial=0) > self._num_steps:
            raise ValueError(
                f"count must be at most {self._num_steps}, the steps of the prior, got {np.max(known)}."
            )
        count = tf.convert_to_tensor(count, dtype=tf.int32)
        path_seed, choice_seed = tf.unstack(
            tfp.random.split_seed(seed, n=2, salt="sample_given_count")
        )
        repeated = tf.repeat(tf.reshape(count, [-1]), num_candidates)
        latents, logits = self._walk(tf.size(repeated), path_seed, repeated, skip_absent)
        if num_candidates == 1:
            return tf.nest.map_structure(
                lambda part, shape: tf.reshape(part, tf.concat([tf.shape(count), shape], axis=0)),
                latents,
                self.event_shape,
            )
        log_weight = PresenceCode(logits).log_prob(latents.presence)
        log_weight = tf.where(repeated < 0, tf.zeros_like(log_weight), log_weight)
        log_weight = tf.reshape(log_weight, [-1, num_candidates])
        chosen = _categorical(log_weight, choice_seed)
        return tf.nest.map_structure(
            lambda part, shape: tf.reshape(
                tf.gather(
                    tf.reshape(part, [-1, num_candidates, *shape]), chosen, axis=1, batch_dims=1
                ),
                tf.concat([tf.shape(count), shape], axis=0),
            ),
            latents,
            self.event_shape,
        )

    def _sample_n(self, n: Any, seed: Any = None) -> SceneLatents:
        return self._walk(n, tfp.random.sanitize_seed(seed, salt="sample"), None)[0]

    def _log_prob(self, value: SceneLatents) -> tf.Tensor:
        statistics = self.statistics(value)
        full = with_standard_what(statistics, self._what_size)
        return scene_log_prob(value, full, statistics.shift_logits)

    def _walk(
        self, size: Any, seed: Any, count: tf.Tensor | None, skip_absent: bool = False
    ) -> tuple[SceneLatents, tf.Tensor]:
        """Draws scenes step by step.

        Args:
            size: N.
            seed: int32 [2].
            count: int32 [N], counts that presence is forced to where they aren't negative, or None.
            skip_absent: as for `sample_given_count`.

        Returns:
            latents: float [N, T, ...] each.
            logits: float [N, T], of presence along the paths.
        """
        seeds = tfp.random.split_seed(seed, n=4 * self._num_steps, salt="AutoregressiveScenePrior")
        previous, state = self._before_first(size), self._initial_state(size)
        steps, logits = [], []
        for t in range(self._num_steps):

            def draw(
                t: int = t, previous: SceneLatents = previous, state: Any = state
            ) -> tuple[SceneLatents, tf.Tensor, Any]:
                return self._draw_step(t, previous, state, size, tf.unstack(seeds[4 * t : 4 * (t + 1)]), count)

            def nothing(previous: SceneLatents = previous, state: Any = state) -> tuple[SceneLatents, tf.Tensor, Any]:
                return tf.nest.map_structure(tf.zeros_like, (previous, previous.presence, state))

            may_stop = skip_absent and t > 0
            previous, step_logits, state = (
                tf.cond(tf.reduce_any(previous.presence > 0.0), draw, nothing) if may_stop else draw()
            )
            steps.append(previous)
            logits.append(step_logits)
        return _stack(steps), tf.stack(logits, axis=1)

    def _draw_step(
        self,
        t: int,
        previous: SceneLatents,
        state: Any,
        size: Any,
        seeds: list[tf.Tensor],
        count: tf.Tensor | None,
    ) -> tuple[SceneLatents, tf.Tensor, Any]:
        """Step t, counted from 0, of `_walk`: latents [N, ...], logits [N] of presence, and the next state."""
        statistics, state = self._step(previous, state)
        uniform = tf.random.stateless_uniform([size], seeds[0], dtype=self._float)
        asked = tf.cast(uniform < tf.sigmoid(statistics.presence_logits), self._float)
        presence = previous.presence * asked
        if count is not None:
            presence = tf.where(count < 0, presence, tf.cast(count > t, self._float))
        if statistics.shift_logits is None:
            shift_latent = draw_normal(
                [size, 2], statistics.shift_loc, statistics.shift_log_scale, seeds[1]
            )
        else:
            shift_latent = sample_placement(statistics.shift_logits, seeds[1])
        statistics = self._with_scale(statistics, shift_latent, state)
        scale_latent = draw_normal(
            [size, 1], statistics.scale_loc, statistics.scale_log_scale, seeds[2]
        )
        what = tf.random.stateless_normal([size, self._what_size], seeds[3], dtype=self._float)
        return SceneLatents(presence, shift_latent, scale_latent, what), statistics.presence_logits, state

    def _before_first(self, size: Any) -> SceneLatents:
        """What stands for the step before the first: there, and all zeros."""
        return SceneLatents(
            tf.ones([size], self._float),
            tf.zeros([size, 2], self._float),
            tf.zeros([size, 1], self._float),
            tf.zeros([size, self._what_size], self._float),
        )

    def _step(self, previous: SceneLatents, state: Any) -> tuple[PriorStatistics, Any]:
        """`step_fn`, its statistics cast to the events' dtype."""
        statistics, state = self._step_fn(previous, state)
        return _each_part(lambda part: tf.cast(part, self._float), statistics), state

    def _with_scale(
        self, statistics: PriorStatistics, shift_latent: tf.Tensor, state: Any
    ) -> PriorStatistics:
        """`statistics` with the scale given the step's own shift, where there is a function for it."""
        if self._scale_fn is None:
            return statistics
        loc, log_scale = self._scale_fn(shift_latent, state)
        return statistics._replace(
            scale_loc=tf.cast(loc, self._float), scale_log_scale=tf.cast(log_scale, self._float)
        )


def _each_part(function: Callable[..., Any], *statistics: PriorStatistics) -> PriorStatistics:
    """`function` of each field's parts; what is None stays None."""
    fields = zip(*statistics, strict=True)
    return PriorStatistics(*(None if parts[0] is None else function(*parts) for parts in fields))


def _stack(steps: list[Any]) -> Any:
    """Structures of [N, ...] a step as one structure of [N, T, ...]."""
    return tf.nest.map_structure(lambda *parts: tf.stack(parts, axis=1), *steps)


def _categorical(log_weights: tf.Tensor, seed: Any) -> tf.Tensor:
    """int32 [N], an index drawn from each row of unnormalized log-weights [N, M] (by Gumbel noise, for XLA)."""
    tiny = np.finfo(log_weights.dtype.as_numpy_dtype).tiny
    uniform = tf.random.stateless_uniform(
        tf.shape(log_weights), seed, minval=tiny, maxval=1.0, dtype=log_weights.dtype
    )
    gumbel = -tf.math.log(-tf.math.log(uniform))
    return tf.argmax(log_weights + gumbel, axis=1, output_type=tf.int32)
