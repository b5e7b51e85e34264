"""Data sets that a model draws."""

from __future__ import annotations

import hashlib
import pathlib
from typing import Any

import numpy as np

from asr_tf.checks import check_choice, check_range
from asr_tf.labelled.formats import FORMATS
from asr_tf.labelled.objects import LEAST_SHARE
from asr_tf.labelled.scenes import LabelledScenes, label
from asr_tf.labelled.shards import Tally, write_dataset
from asr_tf.version import __version__

__all__ = ["sample_dataset"]


def sample_dataset(
    model: Any,
    folder: pathlib.Path,
    name: str,
    num_samples: int,
    seed: int,
    num_objects: int | None = None,
    config: str = "",
    least_share: float = LEAST_SHARE,
    obey: bool = False,
) -> Tally:
    """Writes scenes from the prior as a labelled data set, or goes on where an earlier call ended.

    Args:
        model: draws with `model.sample(..., with_masks=True)`.
        folder: exists; empty, or with a data set that the same arguments have begun.
        name: of the format, one of `FORMATS`.
        num_samples: scenes of the whole data set.
        seed: the same seed draws the same scenes.
        num_objects: in every scene, 0 to T; None draws the count too.
        config: text that stands for the model's settings; with its weights it tells one model from another.
        least_share: of a pixel, from which on it belongs to an object's mask, from 0.01 to 1.
        obey: whether scenes that break one of the model's rules are drawn again.

    Returns:
        What the scenes hold.

    Raises:
        ValueError: an argument is out of range, pycocotools is missing, something else lies in the folder, or scenes
            still break a rule after the last try.
        OSError: the folder can't be written; what is whole stays.
    """
    kind = FORMATS[check_choice("format", name, FORMATS)]
    kind.check_installed()
    check_range("least_share", least_share, 0.01, 1.0)
    if num_objects is not None:
        check_range("num_objects", num_objects, 0, model.num_steps)

    def draw(start: int, number: int) -> LabelledScenes:
        objects = -1 if num_objects is None else num_objects
        options = {"obey": True} if obey else {}
        drawn = model.sample(number, seed=(seed, start), num_objects=objects, with_masks=True, **options)
        return label(drawn, start + 1, least_share)

    digest = hashlib.sha256(config.encode())
    for weight in model.weights:
        digest.update(np.asarray(weight).tobytes())
    settings = {"format": name, "num_samples": num_samples, "seed": seed, "num_objects": num_objects}
    settings |= {"least_share": least_share, "obey": True if obey else None}
    known = {name: str(value) for name, value in settings.items() if value is not None}
    known |= {"asr_tf": __version__, "the model": digest.hexdigest()[:16]}
    image_shape = (*model.canvas_size, model.channels)
    return write_dataset(kind, folder, draw, num_samples, image_shape, model.num_steps, known)
