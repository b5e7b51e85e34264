"""The learned scene prior: each step's latents are drawn given those of the steps before it.

    p(z) = p(n) prod_{t <= n} p(shift_t | z_<t) p(scale_t | shift_t, z_<t) p(what_t | z_<t)

References:
    Xu et al., "Multi-object Generation with Amortized Structural Regularization", NeurIPS 2019, arXiv:1906.03923.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import tensorflow as tf
import tensorflow_probability as tfp
from tensorflow_probability import distributions as tfd

from asr_tf.distributions.presence import PresenceCode
from asr_tf.distributions.scene_distribution import IndependentSteps, SceneDistribution
from asr_tf.scene import SceneLatents

__all__ = ["AutoregressiveScene", "NextStep"]


class NextStep(NamedTuple):
    """What the next step of N scenes is like.

    Attributes:
        shift: over its shift latent, batch shape [N].
        scale_given: its shift latent [N, 2] to the distribution over its scale latent.
        what: over its appearance.
        state: what the step after it needs, beside its latents.
    """

    shift: tfd.Distribution
    scale_given: Callable[[tf.Tensor], tfd.Distribution]
    what: tfd.Distribution
    state: Any


class AutoregressiveScene(SceneDistribution):
    """Joint distribution over `SceneLatents` whose steps follow from one another; batch shape [].

    It knows no networks: they are handed in as functions of tensors.
    """

    def __init__(
        self,
        presence: PresenceCode,
        what_size: int,
        first: Callable[[Any], NextStep],
        following: Callable[[int, SceneLatents, Any], NextStep],
        given: Callable[[SceneLatents], IndependentSteps],
        skip_absent: bool = False,
        name: str = "AutoregressiveScene",
    ) -> None:
        """Initializes the distribution.

        Args:
            presence: the count, batch shape [].
            what_size: Z.
            first: `N -> the first step of N scenes`.
            following: `(t, latents of the step before [N, ...], its NextStep.state) -> step t`, counted from 0.
            given: all steps at once, given the latents of scenes [B, T, ...].
            skip_absent: whether to stop where no scene has a further object; zeros stand for what would follow.
            name: name of the operations.
        """
        parameters = dict(locals())
        self._first, self._following, self._given = first, following, given
        self._skip_absent = skip_absent
        super().__init__(presence, what_size, parameters, name)

    @classmethod
    def _parameter_properties(
        cls, dtype: Any, num_classes: int | None = None
    ) -> dict[str, tfp.util.ParameterProperties]:
        return {}

    def given(self, latents: SceneLatents) -> IndependentSteps:
        """See `SceneDistribution.given`."""
        return self._given(latents)

    def sample_steps(self, presence: tf.Tensor, seed: tf.Tensor) -> SceneLatents:
        """See `SceneDistribution.sample_steps`."""
        num_steps = self.presence.num_steps
        seeds = tf.unstack(tfp.random.split_seed(seed, n=num_steps, salt="AutoregressiveScene"))
        size = tf.shape(presence)[0]
        steps: list[SceneLatents] = []
        state = None
        for t in range(num_steps):
            if t == 0 or not self._skip_absent:
                latents, state = self._draw(t, presence, steps, state, seeds[t], size)
            else:
                latents, state = self._draw_if_any(t, presence, steps, state, seeds[t], size)
            steps.append(latents)
        return tf.nest.map_structure(lambda *parts: tf.stack(parts, axis=1), *steps)

    def _draw(
        self, t: int, presence: tf.Tensor, steps: list[SceneLatents], state: Any, seed: tf.Tensor, size: tf.Tensor
    ) -> tuple[SceneLatents, Any]:
        """Step t, counted from 0: its latents, float [N, ...] each, and the state after it."""
        step = self._following(t, steps[-1], state) if steps else self._first(size)
        seeds = tf.unstack(tf.random.split(seed, 3))
        shift_latent = step.shift.sample(seed=seeds[0])
        scale_latent = step.scale_given(shift_latent).sample(seed=seeds[1])
        return SceneLatents(presence[:, t], shift_latent, scale_latent, step.what.sample(seed=seeds[2])), step.state

    def _draw_if_any(
        self, t: int, presence: tf.Tensor, steps: list[SceneLatents], state: Any, *rest: tf.Tensor
    ) -> tuple[SceneLatents, Any]:
        """As `_draw` where a scene has an object at step t, zeros otherwise."""
        return tf.cond(
            tf.reduce_any(presence[:, t] > 0.0),
            lambda: self._draw(t, presence, steps, state, *rest),
            lambda: (tf.nest.map_structure(tf.zeros_like, steps[-1]), state),
        )
