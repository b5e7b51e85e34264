"""Checkpoints of a run: saved whole and on disk, or not at all; found again newest intact one first.

Layout of a folder of checkpoints:
    ckpt-<step>.index, ckpt-<step>.data-*   what `tf.train.Checkpoint` writes; it is there once its index is
    ckpt-<step>.json                        what the run's small files held, see `RunFolder.record`
    .saving/                                one that is being written; where nobody trains, one was killed

Contract: a save that fails, or is killed, costs no earlier checkpoint.  Weights that aren't finite are never saved.
TensorFlow takes the paths that it reads from for patterns; here a path is a path, whatever is in it.
"""

from __future__ import annotations

import contextlib
import json
import os
import pathlib
import re
import shutil
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from absl import logging

from asr_tf.data.image_files import first_line, shown
from asr_tf.runs.files import sync, write_whole

__all__ = ["Checkpoints", "RunFolderError", "nonfinite_weights", "read_record", "saved_steps", "shortened"]

_SAVING = ".saving"
_WHOLE = re.compile(r"ckpt-(\d+)\.(index|json|data-\d+-of-\d+)")
# What a save that was killed leaves, also one by an earlier version, and that version's list of checkpoints.
_LEFT = re.compile(r"\.saving|ckpt-\d+(\..*|_temp)|checkpoint(\.tmp.*)?")
_PLAIN = re.compile(r"[^*?\[\]{}\\]*")
_DESCRIPTORS = "/proc/self/fd"


class RunFolderError(ValueError):
    """A work folder that can't be used; the message is one line."""


class Checkpoints:
    """Saves and restores named objects, newest intact checkpoint first."""

    def __init__(
        self,
        folder: pathlib.Path,
        max_to_keep: int = 3,
        record: Callable[[], str] | None = None,
        **objects: Any,
    ) -> None:
        """Binds the objects; reads and writes nothing.

        Args:
            folder: where the checkpoints lie.
            max_to_keep: older ones are deleted.
            record: gives the text, in JSON, that is kept beside a checkpoint; None for none.
            **objects: trackable TensorFlow or Keras objects.
        """
        self._folder = folder
        self._objects = objects
        # TensorFlow finds no weights of layers that a part holds in a list: the variables stand for themselves too.
        weights = {f"{name}_weights": list(x.variables) for name, x in objects.items() if isinstance(x, keras.Model)}
        self._checkpoint = tf.train.Checkpoint(**objects, **weights)
        self._max_to_keep = max_to_keep
        self._record = record
        self._damaged: dict[int, str] = {}  # what is said of it, by step
        self._place: str | None = None

    def save(self, step: int) -> str:
        """Writes `ckpt-<step>` and returns its path; older ones go, and those that `restore` found damaged.

        Raises:
            RunFolderError: a weight isn't finite, or the checkpoint can't be written; what was there before stays.
        """
        name = f"ckpt-{step}"
        before = saved_steps(self._folder)
        stays = f"ckpt-{before[0]}, saved before, stays" if before else "none was saved before"
        bad = nonfinite_weights(*self._objects.values())
        if bad:
            raise RunFolderError(
                f"weights are not finite at step {step} ({shortened(bad)}) and were not saved ({stays}); "
                "a lower train.peak_learning_rate may help."
            )
        try:
            self._write(name)
        except (OSError, tf.errors.OpError) as error:
            reason = getattr(error, "strerror", None) or first_line(error)
            raise RunFolderError(f"can't save {shown(self._folder / name)}: {reason}; {stays}.") from error
        self._damaged.pop(step, None)
        # Later ones are of a training that went back to an earlier step.
        intact = [found for found in saved_steps(self._folder) if found <= step and found not in self._damaged]
        self._keep_only(intact[: self._max_to_keep])
        return str(self._folder / name)

    def _write(self, name: str) -> None:
        """Writes a checkpoint beside the others, brings it to disk, and puts it in its place, the index last."""
        self._folder.mkdir(parents=True, exist_ok=True)
        part = self._folder / _SAVING
        shutil.rmtree(part, ignore_errors=True)
        try:
            part.mkdir()
            self._checkpoint.write(os.path.join(self._plain_folder(), _SAVING, name))
            if self._record is not None:
                write_whole(part / f"{name}.json", self._record())
            files = sorted(part.iterdir(), key=lambda file: file.suffix == ".index")
            for file in files:
                sync(file)
            (self._folder / files[-1].name).unlink(missing_ok=True)  # no index points to files of two saves
            for file in files:
                if file == files[-1]:
                    sync(self._folder)
                file.replace(self._folder / file.name)
            sync(self._folder)
            part.rmdir()
        except BaseException:
            self.sweep()
            raise

    def _plain_folder(self) -> str:
        """A path of the folder that TensorFlow takes for no pattern, and can write as UTF-8.

        The descriptor stays open: TensorFlow reads on where a model that was restored is given an optimizer.
        """
        if self._place is None:
            path = str(self._folder)
            if not (path.isprintable() and _PLAIN.fullmatch(path)):
                path = os.path.join(_DESCRIPTORS, str(os.open(self._folder, os.O_RDONLY)))
                if not os.path.isdir(path):
                    raise RunFolderError(
                        f"on this system TensorFlow can't use {shown(self._folder)}; "
                        "give a --workdir without any of *?[]{}\\ in its path."
                    )
            self._place = path
        return self._place

    def sweep(self) -> None:
        """Removes what saves that failed or were killed have left; only for who keeps others out of the folder."""
        steps = set(saved_steps(self._folder))
        for file in self._folder.iterdir() if self._folder.is_dir() else ():
            whole = _WHOLE.fullmatch(file.name)
            if whole and int(whole.group(1)) in steps:
                continue
            if _LEFT.fullmatch(file.name):
                if file.is_dir():
                    shutil.rmtree(file, ignore_errors=True)
                else:
                    with contextlib.suppress(OSError):
                        file.unlink()

    def _keep_only(self, steps: Sequence[int]) -> None:
        """Deletes the other checkpoints, the indices first."""
        # By name: TensorFlow would take the folder's own name for a pattern, and delete in others that match it.
        found = [(_WHOLE.fullmatch(file.name), file) for file in self._folder.iterdir()]
        old = [file for whole, file in found if whole and int(whole.group(1)) not in steps]
        for file in sorted(old, key=lambda file: file.suffix != ".index"):
            file.unlink(missing_ok=True)

    def paths(self) -> list[str]:
        """Prefixes of the checkpoints on disk, newest first."""
        return [str(self._folder / f"ckpt-{step}") for step in saved_steps(self._folder)]

    def restore(self) -> str | None:
        """Restores the newest intact checkpoint.

        Returns:
            Its path, or None where there is no checkpoint at all.

        Raises:
            RunFolderError: there are checkpoints, and none can be read or fits.
        """
        self._damaged.clear()
        for step in saved_steps(self._folder):
            name = f"ckpt-{step}"
            path = self._folder / name
            self._check_readable(name)
            source = os.path.join(self._plain_folder(), name)
            try:
                self._checkpoint.read(source).assert_existing_objects_matched().expect_partial()
            except (MemoryError, tf.errors.ResourceExhaustedError):  # which says nothing about the files
                raise
            except Exception as error:  # TensorFlow's readers raise errors of many types on damaged files
                if isinstance(error, AssertionError) or "incompatible tensor" in str(error):
                    raise RunFolderError(
                        f"checkpoint {shown(path)} belongs to another model than its config.gin describes."
                    ) from error
                self._damaged[step] = f"{name} ({type(error).__name__})"
                continue
            bad = nonfinite_weights(*self._objects.values())
            if bad:
                self._damaged[step] = f"{name} (not finite: {shortened(bad)})"
                continue
            if self._damaged:
                logging.error("damaged: %s; going on from %s.", ", ".join(self._damaged.values()), path)
            return str(path)
        if self._damaged:
            names = ", ".join(self._damaged.values())
            raise RunFolderError(
                f"no checkpoint in {shown(self._folder)} can be read, damaged or truncated: {names}; bring one back "
                "from a copy, or train in another --workdir (nothing was changed)."
            )
        return None

    def _check_readable(self, name: str) -> None:
        """Raises RunFolderError for files that are there and can't be read now: they aren't damaged."""
        for file in self._folder.iterdir():
            if file.name.startswith(f"{name}."):
                try:
                    with file.open("rb"):
                        pass
                except FileNotFoundError:
                    pass
                except OSError as error:
                    raise RunFolderError(f"can't read {shown(file)}: {error.strerror or error}.") from error


def saved_steps(folder: pathlib.Path) -> list[int]:
    """The steps of the checkpoints in a folder, newest first; of intact and damaged ones."""
    names = (re.fullmatch(r"ckpt-(\d+)\.index", file.name) for file in (folder.iterdir() if folder.is_dir() else ()))
    return sorted((int(name.group(1)) for name in names if name), reverse=True)


def read_record(folder: pathlib.Path, steps: Sequence[int] | None = None) -> dict[str, Any] | None:
    """What is kept beside the newest checkpoint that has a record, or None.

    Args:
        folder: of checkpoints.
        steps: those to look at, newest first; all of them if None.
    """
    for step in saved_steps(folder) if steps is None else steps:
        try:
            record = json.loads((folder / f"ckpt-{step}.json").read_text(encoding="utf-8"))
        except (OSError, ValueError):
            continue
        if isinstance(record, dict):
            return record
    return None


def nonfinite_weights(*objects: Any) -> list[str]:
    """Names of the trainable weights of Keras models, and of the variables of optimizers, that aren't finite."""
    return [
        variable.path
        for variable in _variables(*objects)
        if not np.isfinite(keras.ops.convert_to_numpy(variable)).all()
    ]


def _variables(*objects: Any) -> Iterator[Any]:
    for found in objects:
        if isinstance(found, keras.Model):
            yield from found.trainable_variables
        elif isinstance(found, keras.optimizers.Optimizer):
            yield from found.variables


def shortened(names: list[str]) -> str:
    """The first name, and how many more there are."""
    return names[0] if len(names) == 1 else f"{names[0]} and {len(names) - 1} more"
