"""Scenes: synthesis, data sets by name, and the pipelines that feed training and evaluation.

May import everything up to `asr_tf.constraints`.
"""

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
