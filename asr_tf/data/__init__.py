"""Scenes: synthesis, data sets by name, and the pipelines that feed training and evaluation.

May import everything up to `asr_tf.constraints`.  The names below are imported when they are first asked for, because
workers of asr_batch_infer read images with `image_files` and `png`, and have neither gin nor SciPy.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from asr_tf.data.loading import DataSource, load_scenes
    from asr_tf.data.object_size import object_sides_px
    from asr_tf.data.pipeline import evaluation_dataset, training_dataset
    from asr_tf.data.scenes import Scenes
    from asr_tf.data.splits import training_fingerprint
    from asr_tf.data.synthesis import SceneSettings, synthesize

__all__ = [
    "DataSource",
    "SceneSettings",
    "Scenes",
    "evaluation_dataset",
    "load_scenes",
    "object_sides_px",
    "synthesize",
    "training_dataset",
    "training_fingerprint",
]

# Public name -> the module in this folder that it comes from.
_HOMES = {
    "DataSource": "loading",
    "SceneSettings": "synthesis",
    "Scenes": "scenes",
    "evaluation_dataset": "pipeline",
    "load_scenes": "loading",
    "object_sides_px": "object_size",
    "synthesize": "synthesis",
    "training_dataset": "pipeline",
    "training_fingerprint": "splits",
}


def __getattr__(name: str) -> Any:
    """Imports a public name, or says that there is none, as Python does for any module."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
    globals()[name] = value  # the next access doesn't come here
    return value
