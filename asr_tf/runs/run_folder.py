"""The folder of a run: what lies where, and how a run is saved, found again and told from another one.

Layout:
    config.gin      the configuration; `asr_train --gin_files=config.gin` with the flags in its first lines
                    repeats the run
    run.json        seed, budget, canvas size, steps, seconds of training, versions
    checkpoints/    weights, optimizer, step and clock of the last few saves
    logs/           TensorBoard
    metrics.jsonl   one line a report
    figures/, samples/, report.json    written by the evaluation and the sampler
    figures_validation/, report_validation.json    likewise, of the validation split

Contract: nothing of an earlier run is overwritten unless it is the same run; damaged checkpoints are passed over
with a warning as long as an intact one is left.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import math
import os
import pathlib
import re
import shlex
import tempfile
from collections.abc import Iterator, Mapping
from typing import Any

import keras
import tensorflow as tf
from absl import logging

from asr_tf.models import BoundModel, build_model
from asr_tf.runs import configuration
from asr_tf.runs.files import write_whole
from asr_tf.version import __version__

__all__ = ["FORMAT", "Checkpoints", "RunFolder", "RunFolderError", "restore_model"]


FORMAT = 4
"""Of what a run's folder holds: it changes where a version can't read the runs of the one before."""

# Settings that don't make a run another one: flags decide, or the images' fingerprint, or training doesn't use them.
_BESIDE = re.compile(r"evaluate\.|data\.path$|train\.(seed|max_minutes|data_dir|manual_dir)$")


class RunFolderError(ValueError):
    """A work folder that can't be used; the message is one line."""


class RunFolder:
    """Paths and small files of one run.

    Attributes:
        path: the folder.
        config, info, metrics, report: files; the report is of the test split.
        checkpoints, logs, figures, samples: folders; figures likewise.
    """

    def __init__(self, workdir: str | os.PathLike[str]) -> None:
        """Names the places; creates nothing.

        Args:
            workdir: path of the folder, `~` allowed.
        """
        self.path = pathlib.Path(workdir).expanduser()
        self.config = self.path / "config.gin"
        self.info = self.path / "run.json"
        self.metrics = self.path / "metrics.jsonl"
        self.report = self.path / "report.json"
        self.checkpoints = self.path / "checkpoints"
        self.result = self.checkpoints / "result"
        self.logs = self.path / "logs"
        self.figures = self.path / "figures"
        self.samples = self.path / "samples"

    def evaluation(self, split: str) -> tuple[pathlib.Path, pathlib.Path]:
        """The report's file and the folder of the figures of a split, "validation" or "test"."""
        if split == "test":
            return self.report, self.figures
        return self.path / f"report_{split}.json", self.path / f"figures_{split}"

    def check_writable(self) -> None:
        """Creates the folder and writes a probe, so that a run doesn't fail at its first checkpoint.

        Raises:
            RunFolderError: the folder can't be created or written.
        """
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=self.path) as probe:
                probe.write(b"probe")
        except OSError as error:
            reason = error.strerror or str(error)
            raise RunFolderError(f"can't write in work folder {self.path}: {reason}.") from error

    @contextlib.contextmanager
    def only_one(self) -> Iterator[None]:
        """Keeps other processes that ask for the same out of the folder.

        Raises:
            RunFolderError: another process is in it, or it can't be written.
        """
        self.check_writable()
        with (self.path / ".lock").open("a") as file:  # which leaves a file that is there as it is
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                raise RunFolderError(
                    f"another asr_train is at work in {self.path}; wait for its end, or give another --workdir."
                ) from error
            except OSError:  # a file system without locks
                pass
            yield

    def check_is_run(self) -> None:
        """Raises RunFolderError where the folder holds no run."""
        missing = [file.name for file in (self.config, self.info) if not file.is_file()]
        if missing:
            raise RunFolderError(
                f"{self.path} holds no run ({' and '.join(missing)} missing); "
                "give the --workdir of an asr_train that has started."
            )
        self._check_format(self.read_info())

    def _check_format(self, info: Mapping[str, Any]) -> None:
        """Raises RunFolderError where another version's run lies in the folder."""
        if info.get("format") != FORMAT:
            version = info.get("versions", {}).get("asr_tf", "unknown")
            raise RunFolderError(
                f"{self.path} holds a run of asr_tf {version}, whose model {__version__} can't read (nothing was "
                "changed): use that version for it, or train in another --workdir."
            )

    def parse_config(self) -> None:
        """Replaces the process's gin bindings by the run's, with the modules that its files import."""
        folders = self.read_info().get("module_folders", [])
        configuration.parse([str(self.config)], module_folders=folders)

    def read_info(self) -> dict[str, Any]:
        """What run.json holds; empty where there is none.

        Raises:
            RunFolderError: the file isn't JSON.
        """
        if not self.info.is_file():
            return {}
        try:
            return json.loads(self.info.read_text(encoding="utf-8"))
        except ValueError as error:
            raise RunFolderError(f"{self.info} is damaged: {error}.") from error

    def write_info(self, info: Mapping[str, Any]) -> None:
        """Replaces run.json as a whole, so that a reader never sees half of it; what isn't finite becomes null."""
        write_whole(self.info, json.dumps(_finite(info), indent=2) + "\n")

    def write_config(self, text: str, flags: Mapping[str, Any]) -> None:
        """Writes config.gin.

        Args:
            text: gin text, see `configuration.merged_config`.
            flags: the flags beside it that repeat the run; those that are None are left out.
        """
        shown = " ".join(f"--{name}={shlex.quote(str(value))}" for name, value in flags.items() if value is not None)
        head = (
            "# The whole configuration of this run, defaults included.  To repeat it:\n"
            f"# asr_train --workdir=ANOTHER_FOLDER --gin_files=config.gin {shown}\n\n"
        )
        write_whole(self.config, head + text)

    def check_same_run(self, text: str, flags: Mapping[str, Any]) -> None:
        """Passes where the folder holds nothing to lose, or an earlier part of this same run.

        Args:
            text: gin text of the run that is about to start.
            flags: flags that belong to the run's identity, such as the seed.

        Raises:
            RunFolderError: there are checkpoints of another configuration; names the first difference.
        """
        if not any(self.checkpoints.glob("*.index")) or not self.config.is_file():
            return
        info = self.read_info()
        self._check_format(info)
        old, new = (
            {name: value for name, value in configuration.parse_settings(config).items() if not _BESIDE.match(name)}
            for config in (self.config.read_text(encoding="utf-8"), text)
        )
        # A setting that the run's revision didn't have yet was as its default is.
        for name in new.keys() - old.keys():
            if configuration.default_text(name) == new[name]:
                old[name] = new[name]
        difference = configuration.first_difference(
            {f"--{name}": _number_text(info.get(name)) for name in flags},
            {f"--{name}": _number_text(value) for name, value in flags.items()},
        ) or configuration.first_difference(old, new)
        if difference:
            raise RunFolderError(
                f"work folder {self.path} holds a run of another configuration: {difference}; "
                "give another --workdir, or the same settings to resume (nothing was changed)."
            )

    def check_same_images(self, canvas_size: tuple[int, int], fingerprint: str) -> None:
        """Passes where the folder holds nothing to lose, or a run that began with these images.

        Args:
            canvas_size: (H, W) in pixels.
            fingerprint: of what is trained on and held out, see `asr_tf.data.training_fingerprint`.

        Raises:
            RunFolderError: the images are others, and with them the splits.
        """
        info = self.read_info() if any(self.checkpoints.glob("*.index")) else {}
        size, images = info.get("canvas_size", canvas_size), info.get("images", fingerprint)
        if (*size, images) != (*canvas_size, fingerprint):
            raise RunFolderError(
                f"the run in {self.path} began with other images for training: {images} of {size[0]} x {size[1]} "
                f"pixels, now {fingerprint} of {canvas_size[0]} x {canvas_size[1]}; what is for validation or test "
                "may have been trained on. Bring back the images as they were, or train in another --workdir."
            )

    def append_metrics(self, row: Mapping[str, float]) -> None:
        """Adds one line to metrics.jsonl; numbers that aren't finite become null (JSON has none)."""
        with self.metrics.open("a", encoding="utf-8") as file:
            file.write(json.dumps(_finite(row)) + "\n")

    def read_metrics(self) -> list[dict[str, Any]]:
        """The reports, lines of metrics.jsonl; one that was cut off, as where the machine went down, is left out."""
        rows = []
        for line in self.metrics.read_text(encoding="utf-8").splitlines() if self.metrics.is_file() else ():
            try:
                rows.append(json.loads(line))
            except ValueError:
                logging.warning("leaving out a damaged line of %s: %.40r", self.metrics, line)
        return rows

    def drop_metrics_after(self, step: int) -> None:
        """Forgets reports of steps that were lost with their checkpoint; they are going to be repeated."""
        if self.metrics.is_file():
            kept = [json.dumps(row) + "\n" for row in self.read_metrics() if row["step"] <= step]
            write_whole(self.metrics, "".join(kept))


class Checkpoints:
    """Saves and restores named objects, newest intact checkpoint first."""

    def __init__(self, folder: pathlib.Path, max_to_keep: int = 3, **objects: Any) -> None:
        """Binds the objects; reads and writes nothing.

        Args:
            folder: where the checkpoints lie.
            max_to_keep: older ones are deleted.
            **objects: trackable TensorFlow or Keras objects.
        """
        self._folder = folder
        # TensorFlow finds no weights of layers that a part holds in a list: the variables stand for themselves too.
        weights = {f"{name}_weights": list(x.variables) for name, x in objects.items() if isinstance(x, keras.Model)}
        self._checkpoint = tf.train.Checkpoint(**objects, **weights)
        self._max_to_keep = max_to_keep
        self._manager: tf.train.CheckpointManager | None = None
        self._damaged: dict[str, str] = {}  # what is said of it, by prefix

    def save(self, step: int) -> str:
        """Writes `ckpt-<step>` and returns its path; older ones go, and those that `restore` found damaged."""
        if self._manager is None:
            self._manager = tf.train.CheckpointManager(self._checkpoint, str(self._folder), max_to_keep=None)
        path = self._manager.save(checkpoint_number=step)
        self._damaged.pop(path, None)
        intact = [prefix for prefix in self.paths() if prefix not in self._damaged]
        # TensorFlow would take the folder's own name for a pattern, and delete in others that match it.
        for old in map(pathlib.Path, [*intact[self._max_to_keep :], *self._damaged]):
            for file in [file for file in self._folder.iterdir() if file.name.startswith(f"{old.name}.")]:
                file.unlink()
        return path

    def paths(self) -> list[str]:
        """Prefixes of the checkpoints on disk, newest first, whatever the `checkpoint` file says."""
        numbered = []
        for index in self._folder.glob("ckpt-*.index"):
            number = re.fullmatch(r"ckpt-(\d+)\.index", index.name)
            if number:
                numbered.append((int(number.group(1)), str(index).removesuffix(".index")))
        return [path for _, path in sorted(numbered, reverse=True)]

    def restore(self) -> str | None:
        """Restores the newest intact checkpoint.

        Returns:
            Its path, or None where there is no checkpoint at all.

        Raises:
            RunFolderError: there are checkpoints, and none can be read or fits.
        """
        self._damaged.clear()
        for path in self.paths():
            try:
                status = self._checkpoint.read(path)
                status.assert_existing_objects_matched().expect_partial()
            except Exception as error:  # TensorFlow's readers raise errors of many types on damaged files
                if isinstance(error, AssertionError) or "incompatible tensor" in str(error):
                    raise RunFolderError(
                        f"checkpoint {path} belongs to another model than its config.gin describes."
                    ) from error
                self._damaged[path] = f"{pathlib.Path(path).name} ({type(error).__name__})"
                continue
            if self._damaged:
                logging.error("damaged: %s; going on from %s.", ", ".join(self._damaged.values()), path)
            return path
        if self._damaged:
            names = ", ".join(self._damaged.values())
            raise RunFolderError(
                f"no checkpoint in {self._folder} can be read, damaged or truncated: {names}; "
                "delete that folder to train from the start."
            )
        return None


def restore_model(workdir: str | os.PathLike[str]) -> tuple[BoundModel, dict[str, Any]]:
    """The model of a run, with the weights that are its result; with the newest ones where there is none yet.

    Replaces the process's gin bindings by those of the run's config.gin.

    Args:
        workdir: folder of a run.

    Returns:
        (model, info): the model, ready for `infer`, `sample` and `log_likelihood`, and the contents of run.json.

    Raises:
        RunFolderError: the folder holds no run, or no checkpoint that can be read.
    """
    folder = RunFolder(workdir)
    folder.check_is_run()
    info = folder.read_info()
    folder.parse_config()
    model = build_model(
        canvas_size=tuple(info["canvas_size"]),
        channels=info["channels"],
        seed=info["seed"],
        sides_px=info["sides_px"],
    )
    try:
        restored = Checkpoints(folder.result, model=model).restore()
    except RunFolderError as error:
        logging.error("%s; taking the newest weights in place of the result.", str(error).partition(";")[0])
        restored = None
    if restored is None and Checkpoints(folder.checkpoints, model=model).restore() is None:
        raise RunFolderError(f"{folder.path} holds no checkpoint yet; train it first with asr_train.")
    return model, info


def _number_text(value: Any) -> str:
    """Text of a flag's value, the same for 5 and 5.0."""
    return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)


def _finite(value: Any) -> Any:
    """The value with null for numbers that JSON has no words for."""
    if isinstance(value, Mapping):
        return {key: _finite(part) for key, part in value.items()}
    return None if isinstance(value, float) and not math.isfinite(value) else value
