"""Distributions of scenes: the presence code, squashed locations and scales, priors and the posterior.

All are `tfd.Distribution`s with stateless seeds, in float32 or float64, eagerly, in `tf.function` and under XLA.
"""

from asr_tf.distributions.air_prior import AIRScenePrior
from asr_tf.distributions.autoregressive_prior import AutoregressiveScenePrior
from asr_tf.distributions.gaussian import normal_kl, normal_log_prob
from asr_tf.distributions.placement import (
    cell_centres,
    normal_cell_logits,
    placement_log_prob,
    sample_placement,
)
from asr_tf.distributions.posterior import ScenePosterior
from asr_tf.distributions.presence import (
    PresenceCode,
    RelaxedPresenceCode,
    certain_presence_logits,
    code_of_count,
    relaxed_kl_estimate,
)
from asr_tf.distributions.squashed import SigmoidNormal, TanhNormal

__all__ = [
    "AIRScenePrior",
    "AutoregressiveScenePrior",
    "PresenceCode",
    "RelaxedPresenceCode",
    "ScenePosterior",
    "SigmoidNormal",
    "TanhNormal",
    "cell_centres",
    "certain_presence_logits",
    "code_of_count",
    "normal_cell_logits",
    "normal_kl",
    "normal_log_prob",
    "placement_log_prob",
    "relaxed_kl_estimate",
    "sample_placement",
]
