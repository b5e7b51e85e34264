"""Data sets by name: builds a TFDS data set where it is missing and loads it into memory.

Contract: nothing is downloaded.  Wrong names end in one line with the choices.
"""

from __future__ import annotations

import dataclasses
import importlib
import os
import sys

import gin
import numpy as np

from asr_tf import checks
from asr_tf.data.image_folder import load_image_folder
from asr_tf.data.scenes import Scenes

__all__ = ["DataSource", "load_scenes"]

# Name of a data set to the module and class of its builder; modules are imported when one is asked for, since TFDS
# takes long to import.
_BUILDERS = {
    "multi_dsprites": ("asr_tf.data.multi_dsprites", "MultiDsprites"),
    "multi_mnist": ("asr_tf.data.multi_mnist", "MultiMnist"),
    "multi_sprites": ("asr_tf.data.multi_sprites", "MultiSprites"),
}
_FOLDER = "image_folder"
_SPLITS = ("train", "test")
_BATCH = 1000


def load_scenes(
    name: str,
    split: str,
    data_dir: str | os.PathLike | None = None,
    manual_dir: str | os.PathLike | None = None,
    path: str | os.PathLike | None = None,
) -> Scenes:
    """Loads a split of a data set, building the data set first where it isn't prepared.

    Args:
        name: 'multi_mnist/count13' and the like (builder/configuration), or 'image_folder'.
        split: 'train' or 'test'.
        data_dir: folder of prepared TFDS data sets; None for TFDS's own (~/tensorflow_datasets).
        manual_dir: folder with original files, needed to build multi_mnist and multi_dsprites.
        path: the folder of images, for 'image_folder' only.

    Raises:
        ValueError: an unknown name, configuration or split, or files that are missing or broken.
    """
    checks.check_choice("split", split, _SPLITS)
    builder_name, _, config = name.partition("/")
    checks.check_choice("data set", builder_name, [*_BUILDERS, _FOLDER])
    if builder_name == _FOLDER:
        if path is None:
            raise ValueError("image_folder needs the folder of the images: bind data.path = '/your/folder'.")
        return load_image_folder(path, split)
    return _load_prepared(builder_name, config, split, data_dir, manual_dir)


def _load_prepared(
    builder_name: str,
    config: str,
    split: str,
    data_dir: str | os.PathLike | None,
    manual_dir: str | os.PathLike | None,
) -> Scenes:
    """Loads a split of a TFDS data set, see `load_scenes`."""
    import tensorflow_datasets as tfds

    module, class_name = _BUILDERS[builder_name]
    builder_class = getattr(importlib.import_module(module), class_name)
    checks.check_choice(f"configuration of {builder_name}", config, list(builder_class.builder_configs))
    data_dir, manual_dir = (None if path is None else os.path.expanduser(path) for path in (data_dir, manual_dir))
    builder = builder_class(data_dir=data_dir, config=config)
    download_config = tfds.download.DownloadConfig(
        manual_dir=manual_dir, compute_stats=tfds.download.ComputeStatsMode.SKIP
    )
    if manual_dir is not None and not os.path.isdir(manual_dir):
        raise ValueError(f"manual_dir={manual_dir!r} is not a folder.")
    if builder.is_prepared():
        if manual_dir is not None:
            print(
                f"Using {builder_name}/{config} as it was prepared in {builder.data_dir}; {manual_dir} isn't read "
                "(for other originals give another data_dir).",
                file=sys.stderr,
            )
    else:
        # One line instead of TFDS's bars, several of which share a terminal badly.
        tfds.disable_progress_bar()
        print(f"Preparing {builder_name}/{config} in {builder.data_dir} (once).", file=sys.stderr)
        try:
            builder.download_and_prepare(download_config=download_config)
        except FileExistsError:
            # Another process has put it there meanwhile, as where two runs start at once.
            builder = builder_class(data_dir=data_dir, config=config)
            if not builder.is_prepared():
                raise

    most_objects = builder.builder_config.settings.most_objects
    dataset = builder.as_dataset(split=split, shuffle_files=False)
    dataset = dataset.padded_batch(
        _BATCH,
        padded_shapes={
            "image": builder.info.features["image"].shape,
            "count": [],
            "boxes": [most_objects, 4],
            "ink_boxes": [most_objects, 4],
            "labels": [most_objects],
        },
        padding_values={
            "image": np.uint8(0),
            "count": np.int64(0),
            "boxes": np.float32(0),
            "ink_boxes": np.float32(0),
            "labels": np.int64(-1),
        },
    )
    batches = list(dataset.as_numpy_iterator())
    arrays = {key: np.concatenate([batch[key] for batch in batches]) for key in batches[0]}
    return Scenes(
        images=arrays["image"],
        counts=arrays["count"].astype(np.int32),
        boxes=arrays["boxes"],
        ink_boxes=arrays["ink_boxes"],
        labels=arrays["labels"].astype(np.int32),
    )


@gin.configurable("data")
@dataclasses.dataclass(frozen=True)
class DataSource:
    """Which scenes a run uses; the gin root `data`.

    Attributes:
        name: as in `load_scenes`.
        path: folder of images, for 'image_folder'.
        num_train: use only the first so many training scenes; None for all.
        num_test: use only the first so many test scenes; None for all.
    """

    name: str = gin.REQUIRED
    path: str | None = None
    num_train: int | None = None
    num_test: int | None = None

    def load(
        self,
        split: str,
        data_dir: str | os.PathLike | None = None,
        manual_dir: str | os.PathLike | None = None,
    ) -> Scenes:
        """Loads a split ('train' or 'test'), see `load_scenes`."""
        scenes = load_scenes(self.name, split, data_dir, manual_dir, self.path)
        limit = self.num_train if split == "train" else self.num_test
        if limit is None:
            return scenes
        return scenes.take(checks.check_whole(f"data.num_{split}", limit))
