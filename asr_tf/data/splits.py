"""Names of the splits, and where the training scenes end and the validation scenes begin.

Contract: settings are chosen on the validation split, so that the test split is read once, at the end.  The validation
split is the last of the scenes that are there for training; the training split is the rest of them, so no scene is
in both.
"""

from __future__ import annotations

from asr_tf import checks
from asr_tf.data.scenes import Scenes

__all__ = ["NUM_VALIDATION", "SPLITS", "num_for_training", "training_fingerprint"]

SPLITS = ("train", "validation", "test")
NUM_VALIDATION = 1000
"""Scenes of a validation split, where there are enough and nothing else is said."""

_LARGEST_SHARE = 10  # a tenth of the scenes


def num_for_training(num_scenes: int, num_validation: int, where: str) -> int:
    """Returns how many scenes, the first ones, are for training; those after them are for validation.

    Args:
        num_scenes: all that are there for both.
        num_validation: how many are wanted for validation; at most a tenth of all scenes is taken, and at least one.
        where: the scenes are, for messages.

    Raises:
        ValueError: fewer than 2 scenes, or a `num_validation` that isn't a whole number from 1.
    """
    wanted = checks.check_whole("data.num_validation", num_validation)
    if num_scenes < 2:
        raise ValueError(f"training needs at least 2 images (one is held out), got {num_scenes} in {where}.")
    return num_scenes - min(wanted, max(1, num_scenes // _LARGEST_SHARE))


def training_fingerprint(training: Scenes, validation: Scenes) -> str:
    """What tells the images that a run trains on and holds out from others, see `Scenes.fingerprint`."""
    return f"{training.fingerprint()}, held out {validation.fingerprint()}"
