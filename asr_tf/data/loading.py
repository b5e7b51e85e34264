"""Data sets by name: builds a TFDS data set where it is missing and loads its splits into memory.

Contract: nothing is downloaded.  Wrong names end in one line with the choices, and files that are damaged or missing in
one with their folder and what helps.
"""

from __future__ import annotations

import contextlib
import dataclasses
import fcntl
import importlib
import io
import os
import pathlib
import shutil
import sys
from collections.abc import Iterator
from typing import Any

import gin
import numpy as np

from asr_tf import checks
from asr_tf.data import splits
from asr_tf.data.image_files import first_line, utf8
from asr_tf.data.image_folder import ImageFolder
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
_ANEW = "move that folder away, and the data set is prepared anew"
_BATCH = 1000


def load_scenes(
    name: str,
    split: str,
    data_dir: str | os.PathLike | None = None,
    manual_dir: str | os.PathLike | None = None,
    path: str | os.PathLike | None = None,
    *,
    num_validation: int = splits.NUM_VALIDATION,
    with_masks: bool = False,
) -> Scenes:
    """Loads a split of a data set, building the data set first where it isn't prepared.

    Args:
        name: 'multi_mnist/count13' and the like (builder/configuration), or 'image_folder'.
        split: 'train', 'validation' or 'test'; validation scenes are cut from the end of the training scenes.
        data_dir: folder of prepared TFDS data sets; None for TFDS's own (~/tensorflow_datasets).
        manual_dir: folder with original files, needed to build multi_mnist and multi_dsprites.
        path: the folder of images, for 'image_folder' only.
        num_validation: scenes of the validation split; at most a tenth of the scenes for training, at least one.
        with_masks: whether masks are read too, where there are any: they are as large as a grey image for each object.

    Raises:
        ValueError: an unknown name, configuration or split, too few images, or files that are missing or broken.
        OSError: the data set can't be written.
    """
    checks.check_choice("split", split, splits.SPLITS)
    return _open(name, data_dir, manual_dir, path).load(split, num_validation, with_masks)


@gin.configurable("data")
@dataclasses.dataclass(frozen=True)
class DataSource:
    """Which scenes a run uses; the gin root `data`.

    A source prepares a data set once, and reads each file of an image folder once and keeps its images, however many
    splits are loaded.

    Attributes:
        name: as in `load_scenes`.
        path: folder of images, for 'image_folder'.
        num_train: use only the first so many training scenes, of those that aren't for validation; None for all.
        num_test: use only the first so many test scenes; None for all.
        num_validation: scenes of the validation split, cut from the end of the training scenes; at most a tenth of
            them, at least one.
    """

    name: str = gin.REQUIRED
    path: str | None = None
    num_train: int | None = None
    num_test: int | None = None
    num_validation: int = splits.NUM_VALIDATION
    # By data_dir and manual_dir.
    _opened: dict[tuple[Any, Any], ImageFolder | _PreparedSet] = dataclasses.field(
        default_factory=dict, init=False, repr=False, compare=False
    )

    def load(
        self,
        split: str,
        data_dir: str | os.PathLike | None = None,
        manual_dir: str | os.PathLike | None = None,
        with_masks: bool = False,
    ) -> Scenes:
        """Loads a split ('train', 'validation' or 'test'), see `load_scenes`."""
        checks.check_choice("split", split, splits.SPLITS)
        folders = data_dir, manual_dir
        if folders not in self._opened:
            self._opened[folders] = _open(self.name, *folders, self.path)
        scenes = self._opened[folders].load(split, self.num_validation, with_masks)
        limit = {"train": self.num_train, "test": self.num_test}.get(split)
        return scenes if limit is None else scenes.take(checks.check_whole(f"data.num_{split}", limit))

    def depends_on_training_images(self, split: str) -> bool:
        """Whether other images for training would also be another 'validation' or 'test' split.

        It isn't so where a split has a folder of its own, or is drawn from objects of its own.
        """
        if self.name == _FOLDER:
            return not ImageFolder(_needed(self.path)).has_own(split)
        return split == "validation"


class _PreparedSet:
    """A TFDS data set on disk, which has the splits train and test; the end of train is for validation."""

    def __init__(self, builder: Any) -> None:
        self._builder = builder

    def load(self, split: str, num_validation: int, with_masks: bool) -> Scenes:
        """Loads a split, see `load_scenes`."""
        if split == "test":
            return self._read("test", with_masks)
        num_scenes = self._builder.info.splits["train"].num_examples
        num_training = splits.num_for_training(num_scenes, num_validation, str(self._builder.data_dir))
        return self._read(f"train[:{num_training}]" if split == "train" else f"train[{num_training}:]", with_masks)

    def _read(self, rows: str, with_masks: bool) -> Scenes:
        """Reads some rows, such as 'train[:100]'; masks that aren't asked for aren't decoded."""
        import tensorflow as tf
        import tensorflow_datasets as tfds

        settings = self._builder.builder_config.settings
        most, canvas = settings.most_objects, settings.canvas_size
        # Key on disk: key in `Scenes`, shape of one scene, what stands for an absent object, dtype in `Scenes`.
        columns: dict[str, tuple[str, list[int], Any, type]] = {
            "image": ("images", [*canvas, settings.channels], np.uint8(0), np.uint8),
            "count": ("counts", [], np.int64(0), np.int32),
            "boxes": ("boxes", [most, 4], np.float32(0), np.float32),
            "ink_boxes": ("ink_boxes", [most, 4], np.float32(0), np.float32),
            "labels": ("labels", [most], np.int64(-1), np.int32),
            "masks": ("masks", [most, *canvas], np.uint8(0), np.uint8),
        }
        decoders = {}
        if not with_masks:
            decoders["masks"] = tfds.decode.SkipDecoding()  # what comes is the string that is on disk
            columns["masks"] = ("", [], b"", bytes)
        dataset = self._builder.as_dataset(
            split=rows,
            shuffle_files=False,
            decoders=decoders,
            read_config=tfds.ReadConfig(try_autocache=False),  # it is read once
        )
        dataset = dataset.padded_batch(
            _BATCH,
            padded_shapes={key: shape for key, (_, shape, _, _) in columns.items()},
            padding_values={key: absent for key, (_, _, absent, _) in columns.items()},
        )
        try:
            batches = list(dataset.as_numpy_iterator())
        except tf.errors.OpError as error:
            reason = first_line(error).rstrip(".")
            raise ValueError(f"{self._builder.data_dir} is damaged ({reason}): {_ANEW}.") from error
        return Scenes(
            **{
                name: np.concatenate([batch[key] for batch in batches]).astype(dtype, copy=False)
                for key, (name, _, _, dtype) in columns.items()
                if name
            }
        )


def _open(
    name: str,
    data_dir: str | os.PathLike | None,
    manual_dir: str | os.PathLike | None,
    path: str | os.PathLike | None,
) -> ImageFolder | _PreparedSet:
    """Returns the data set of a name, prepared, see `load_scenes`."""
    builder_name, _, config = name.partition("/")
    checks.check_choice("data set", builder_name, [*_BUILDERS, _FOLDER])
    if builder_name == _FOLDER:
        return ImageFolder(_needed(path))
    return _PreparedSet(_prepared_builder(builder_name, config, data_dir, manual_dir))


def _needed(path: str | os.PathLike | None) -> str | os.PathLike:
    if path is None:
        raise ValueError("image_folder needs the folder of the images: bind data.path = '/your/folder'.")
    return path


def _prepared_builder(
    builder_name: str,
    config: str,
    data_dir: str | os.PathLike | None,
    manual_dir: str | os.PathLike | None,
) -> Any:
    """Returns the TFDS builder of a data set that is prepared, now or before, see `load_scenes`."""
    import tensorflow_datasets as tfds
    from google.protobuf import json_format
    from tensorflow_datasets.core.dataset_info import DatasetInfoFileError

    module, class_name = _BUILDERS[builder_name]
    builder_class = getattr(importlib.import_module(module), class_name)
    checks.check_choice(f"configuration of {builder_name}", config, list(builder_class.builder_configs))
    data_dir, manual_dir = (None if path is None else os.path.expanduser(path) for path in (data_dir, manual_dir))
    if data_dir is not None and ("*" in data_dir or utf8(data_dir) != data_dir):
        raise ValueError(f"data_dir={data_dir!r} must be UTF-8 and without *, for TFDS: give another --data_dir.")
    try:
        builder = builder_class(data_dir=data_dir, config=config)
    # AssertionError is what TFDS raises where the version, say, is another one than its folder is called.
    except (json_format.ParseError, UnicodeDecodeError, DatasetInfoFileError, AssertionError) as error:
        versions = os.path.join(data_dir or tfds.core.constants.DATA_DIR, builder_name, config)
        reason = first_line(error).rstrip(".")
        raise ValueError(f"a dataset_info.json in {versions} is damaged ({reason}): {_ANEW}.") from error
    download_config = tfds.download.DownloadConfig(
        manual_dir=manual_dir, compute_stats=tfds.download.ComputeStatsMode.SKIP
    )
    if manual_dir is not None and not os.path.isdir(manual_dir):
        raise ValueError(f"manual_dir={manual_dir!r} is not a folder.")
    if builder.is_prepared():
        missing = sorted({"train", "test"} - set(builder.info.splits))
        if missing:
            raise ValueError(f"{builder.data_dir} is damaged (no split {missing[0]} in dataset_info.json): {_ANEW}.")
        if manual_dir is not None:
            print(
                f"Using {builder_name}/{config} as it was prepared in {builder.data_dir}; {manual_dir} isn't read "
                "(for other originals give another data_dir).",
                file=sys.stderr,
            )
        return builder
    if os.path.exists(builder.data_dir) and not builder.info.splits:
        raise ValueError(f"{builder.data_dir} is no whole data set, it has no dataset_info.json: {_ANEW}.")
    # One line instead of TFDS's bars, several of which share a terminal badly.
    tfds.disable_progress_bar()
    folder = pathlib.Path(builder.data_dir)
    older = sorted(file.parent.name for file in folder.parent.glob("*/dataset_info.json"))
    no_longer = f"; what is beside it isn't read any more: {', '.join(older)}" if older else ""
    print(f"Preparing {builder_name}/{config} in {folder} (once){no_longer}.", file=sys.stderr)
    try:
        with _swept(folder), contextlib.redirect_stdout(io.StringIO()):  # TFDS speaks of a download; there is none
            builder.download_and_prepare(download_config=download_config)
    except FileExistsError:
        # Another process has put it there meanwhile, as where two runs start at once.
        builder = builder_class(data_dir=data_dir, config=config)
        if not builder.is_prepared():
            raise
    except OSError as error:
        raise OSError(
            f"{folder} cannot be written: {error.strerror or error}; give another folder (--data_dir)."
        ) from error
    return builder


@contextlib.contextmanager
def _swept(folder: pathlib.Path) -> Iterator[None]:
    """Removes what preparations of a data set have left where they were killed; no other may do so meanwhile."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(folder.parent, os.O_RDONLY)
    try:
        with contextlib.suppress(OSError):  # another process is preparing it, or there are no locks
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            for leftover in folder.parent.glob(f"incomplete.*_{folder.name}"):
                shutil.rmtree(leftover)
        with contextlib.suppress(OSError):
            fcntl.flock(descriptor, fcntl.LOCK_SH)
        yield
    finally:
        os.close(descriptor)
