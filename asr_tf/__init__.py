"""Learn to count, box and redraw the objects of unlabelled images, by amortized structural regularization.

The names below are the package's front door; each is imported when it is first asked for, so that `import asr_tf`
loads neither TensorFlow nor anything else heavy.

References:
    Xu et al., "Multi-object Generation with Amortized Structural Regularization", NeurIPS 2019, arXiv:1906.03923.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from asr_tf.version import __version__

if TYPE_CHECKING:
    from asr_tf.constraints import (
        AggregateCount,
        Constraint,
        CountInSet,
        DisjointBoxes,
        DisjointObjects,
        InsideCanvas,
        PriorCountInSet,
        SceneStatistics,
        SharedSize,
        SizeInterval,
        TightWindows,
    )
    from asr_tf.data import Scenes, evaluation_dataset, load_scenes, training_dataset
    from asr_tf.distributions import (
        AIRScenePrior,
        AutoregressiveScenePrior,
        PresenceCode,
        RelaxedPresenceCode,
        ScenePosterior,
        SigmoidNormal,
        TanhNormal,
    )
    from asr_tf.models.asr_model import ASRModel
    from asr_tf.runs.evaluate import evaluate
    from asr_tf.runs.run_folder import restore_model
    from asr_tf.training.fit import train

__all__ = [
    "AIRScenePrior",
    "ASRModel",
    "AggregateCount",
    "AutoregressiveScenePrior",
    "Constraint",
    "CountInSet",
    "DisjointBoxes",
    "DisjointObjects",
    "InsideCanvas",
    "PresenceCode",
    "PriorCountInSet",
    "RelaxedPresenceCode",
    "ScenePosterior",
    "SceneStatistics",
    "Scenes",
    "SharedSize",
    "SigmoidNormal",
    "SizeInterval",
    "TanhNormal",
    "TightWindows",
    "__version__",
    "evaluate",
    "evaluation_dataset",
    "load_scenes",
    "restore_model",
    "train",
    "training_dataset",
]

# Public name -> the module that it comes from; type checkers read the imports above instead.
_HOMES = {
    "AIRScenePrior": "asr_tf.distributions",
    "ASRModel": "asr_tf.models.asr_model",
    "AggregateCount": "asr_tf.constraints",
    "AutoregressiveScenePrior": "asr_tf.distributions",
    "Constraint": "asr_tf.constraints",
    "CountInSet": "asr_tf.constraints",
    "DisjointBoxes": "asr_tf.constraints",
    "DisjointObjects": "asr_tf.constraints",
    "InsideCanvas": "asr_tf.constraints",
    "PresenceCode": "asr_tf.distributions",
    "PriorCountInSet": "asr_tf.constraints",
    "RelaxedPresenceCode": "asr_tf.distributions",
    "ScenePosterior": "asr_tf.distributions",
    "SceneStatistics": "asr_tf.constraints",
    "Scenes": "asr_tf.data",
    "SharedSize": "asr_tf.constraints",
    "SigmoidNormal": "asr_tf.distributions",
    "SizeInterval": "asr_tf.constraints",
    "TanhNormal": "asr_tf.distributions",
    "TightWindows": "asr_tf.constraints",
    "evaluate": "asr_tf.runs.evaluate",
    "evaluation_dataset": "asr_tf.data",
    "load_scenes": "asr_tf.data",
    "restore_model": "asr_tf.runs.run_folder",
    "train": "asr_tf.training.fit",
    "training_dataset": "asr_tf.data",
}


def __getattr__(name: str) -> Any:
    """Imports a public name, or says that there is none, as Python does for any module."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(_HOMES[name]), name)
    globals()[name] = value  # the next access doesn't come here
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOMES})
