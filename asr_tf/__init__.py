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
        Aligned,
        AtLeastApart,
        AtMost,
        Constraint,
        CountDistribution,
        CountInSet,
        DisjointBoxes,
        DisjointObjects,
        FunctionRule,
        InsideCanvas,
        InsideRegion,
        LeftOf,
        SameAppearance,
        SceneStatistics,
        SharedSize,
        SizeInterval,
        TightWindows,
    )
    from asr_tf.data import Scenes, evaluation_dataset, load_scenes, training_dataset
    from asr_tf.distributions import PresenceCode
    from asr_tf.imaging.composition import Sum
    from asr_tf.imaging.observation import BernoulliPixels, GaussianPixels
    from asr_tf.models import ASRModel, ImageVAE
    from asr_tf.networks.conv_recognition import ConvRecognition
    from asr_tf.networks.decoder import MLPDecoder
    from asr_tf.networks.prior import AIRPrior, AutoregressivePrior
    from asr_tf.networks.recognition import LSTMRecognition
    from asr_tf.runs.evaluate import evaluate
    from asr_tf.runs.run_folder import restore_model
    from asr_tf.serving.client import Client
    from asr_tf.training.fit import train

__all__ = [
    "AIRPrior",
    "ASRModel",
    "AggregateCount",
    "Aligned",
    "AtLeastApart",
    "AtMost",
    "AutoregressivePrior",
    "BernoulliPixels",
    "Client",
    "Constraint",
    "ConvRecognition",
    "CountDistribution",
    "CountInSet",
    "DisjointBoxes",
    "DisjointObjects",
    "FunctionRule",
    "GaussianPixels",
    "ImageVAE",
    "InsideCanvas",
    "InsideRegion",
    "LSTMRecognition",
    "LeftOf",
    "MLPDecoder",
    "PresenceCode",
    "SameAppearance",
    "SceneStatistics",
    "Scenes",
    "SharedSize",
    "SizeInterval",
    "Sum",
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
    "AIRPrior": "asr_tf.networks.prior",
    "ASRModel": "asr_tf.models",
    "AggregateCount": "asr_tf.constraints",
    "Aligned": "asr_tf.constraints",
    "AtLeastApart": "asr_tf.constraints",
    "AtMost": "asr_tf.constraints",
    "AutoregressivePrior": "asr_tf.networks.prior",
    "BernoulliPixels": "asr_tf.imaging.observation",
    "Client": "asr_tf.serving.client",
    "Constraint": "asr_tf.constraints",
    "ConvRecognition": "asr_tf.networks.conv_recognition",
    "CountDistribution": "asr_tf.constraints",
    "CountInSet": "asr_tf.constraints",
    "DisjointBoxes": "asr_tf.constraints",
    "DisjointObjects": "asr_tf.constraints",
    "FunctionRule": "asr_tf.constraints",
    "GaussianPixels": "asr_tf.imaging.observation",
    "ImageVAE": "asr_tf.models",
    "InsideCanvas": "asr_tf.constraints",
    "InsideRegion": "asr_tf.constraints",
    "LSTMRecognition": "asr_tf.networks.recognition",
    "LeftOf": "asr_tf.constraints",
    "MLPDecoder": "asr_tf.networks.decoder",
    "PresenceCode": "asr_tf.distributions",
    "SameAppearance": "asr_tf.constraints",
    "SceneStatistics": "asr_tf.constraints",
    "Scenes": "asr_tf.data",
    "SharedSize": "asr_tf.constraints",
    "SizeInterval": "asr_tf.constraints",
    "Sum": "asr_tf.imaging.composition",
    "TightWindows": "asr_tf.constraints",
    "evaluate": "asr_tf.runs.evaluate",
    "evaluation_dataset": "asr_tf.data",
    "load_scenes": "asr_tf.data",
    "restore_model": "asr_tf.runs.run_folder",
    "train": "asr_tf.training.fit",
    "training_dataset": "asr_tf.data",
}
# What imports Keras.
_ON_KERAS = ("asr_tf.models", "asr_tf.networks", "asr_tf.runs", "asr_tf.training")


def __getattr__(name: str) -> Any:
    """Imports a public name, or says that there is none, as Python does for any module."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    if _HOMES[name].startswith(_ON_KERAS):
        importlib.import_module("asr_tf.networks")  # which tells where Keras has another backend
    value = getattr(importlib.import_module(_HOMES[name]), name)
    globals()[name] = value  # the next access doesn't come here
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOMES})
