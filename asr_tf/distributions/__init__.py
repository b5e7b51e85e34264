"""Distributions of scenes: the presence code, the placement of windows, the posterior and the priors.

All are `tfd.Distribution`s with stateless seeds, eagerly, in `tf.function` and under XLA.  May import `asr_tf.scene`
and `asr_tf.checks`; knows neither images nor layers.
"""

from asr_tf.distributions.autoregressive import AutoregressiveScene, NextStep
from asr_tf.distributions.placement import GridPlacement, cell_centres, normal_cell_logits
from asr_tf.distributions.presence import (
    PresenceCode,
    RelaxedPresenceCode,
    certain_presence_logits,
    code_of_count,
    relaxed_kl_estimate,
    running_sum,
)
from asr_tf.distributions.scene_distribution import (
    IndependentSteps,
    SceneDistribution,
    divergence,
    normal,
    scene_posterior,
)

__all__ = [
    "AutoregressiveScene",
    "GridPlacement",
    "IndependentSteps",
    "NextStep",
    "PresenceCode",
    "RelaxedPresenceCode",
    "SceneDistribution",
    "cell_centres",
    "certain_presence_logits",
    "code_of_count",
    "divergence",
    "normal",
    "normal_cell_logits",
    "relaxed_kl_estimate",
    "running_sum",
    "scene_posterior",
]
