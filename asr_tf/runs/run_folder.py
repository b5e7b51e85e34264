"""The folder of a run: what lies where, and how a run is saved, found again and told from another one.

Layout:
    config.gin      the configuration; `asr_train --gin_files=config.gin` with the flags in its first lines
                    repeats the run
    run.json        seed, budget, canvas size, steps, seconds of training, versions
    checkpoints/    weights, optimizer, step and clock of the last few saves, each with a record of the two files above
    logs/           TensorBoard
    metrics.jsonl   one line a report
    figures/, samples/, report.json    written by the evaluation and the sampler
    figures_validation/, report_validation.json    likewise, of the validation split

Contract: nothing of an earlier run is overwritten unless it is the same run; damaged checkpoints are passed over
with a warning as long as an intact one is left; config.gin and run.json come back from the checkpoints' records.
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

from absl import logging

from asr_tf.data.image_files import utf8
from asr_tf.models import BoundModel, build_model
from asr_tf.runs import configuration
from asr_tf.runs.checkpoints import Checkpoints, RunFolderError, read_record, saved_steps
from asr_tf.runs.files import naming, write_whole
from asr_tf.version import __version__

__all__ = ["FORMAT", "RunFolder", "RunFolderError", "restore_model"]


FORMAT = 5
"""Of what a run's folder holds: it changes where a version can't read the runs of the one before."""

# Settings by which a run may be prolonged.
_BUDGET = ("train.num_steps", "--max_minutes")
# Settings that don't make a run another one: flags decide, or the images' fingerprint, or training doesn't use them.
_BESIDE = re.compile(r"evaluate\.|data\.path$|train\.(seed|max_minutes|data_dir|manual_dir)$")


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
        self._config_text = ""

    def evaluation(self, split: str) -> tuple[pathlib.Path, pathlib.Path]:
        """The report's file and the folder of the figures of a split, "validation" or "test"."""
        if split == "test":
            return self.report, self.figures
        return self.path / f"report_{split}.json", self.path / f"figures_{split}"

    def check_writable(self) -> None:
        """Creates the folder and writes a probe, so that a run doesn't fail at its first checkpoint.

        Raises:
            RunFolderError: the folder can't be created or written, or TensorFlow can't be given its name.
        """
        if utf8(str(self.path)) != str(self.path):
            raise RunFolderError(
                f"the path of work folder {utf8(str(self.path))} isn't UTF-8; rename it, or give another --workdir."
            )
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
        """Raises RunFolderError where the folder holds no run; what was lost beside checkpoints is brought back."""
        self._mend()
        missing = [file.name for file in (self.config, self.info) if not file.is_file()]
        if missing:
            raise RunFolderError(
                f"{self.path} holds no run ({' and '.join(missing)} missing); "
                "give the --workdir of an asr_train that has started."
            )
        self._check_format(self.read_info())

    def _mend(self) -> None:
        """Brings config.gin and run.json back from a checkpoint's record where they are gone or damaged."""
        record = read_record(self.checkpoints)
        if record is None:
            return
        for file in (self.config, self.info):
            if self._is_whole(file) and not _is_cut(file, record[file.name]):
                continue
            logging.error("%s was gone or damaged; it is brought back from a checkpoint's record.", file)
            write_whole(file, record[file.name])

    def _is_whole(self, file: pathlib.Path) -> bool:
        """Whether config.gin or run.json can be used."""
        try:
            text = file.read_text(encoding="utf-8").strip()
            return bool(text) and (file != self.info or isinstance(json.loads(text), dict))
        except (FileNotFoundError, ValueError):
            return False

    def record(self, info: Mapping[str, Any]) -> str:
        """What is kept beside a checkpoint, in JSON: config.gin and run.json, by their names.

        Args:
            info: what run.json is going to hold.
        """
        return json.dumps({self.config.name: self._config_text, self.info.name: _info_text(info)}) + "\n"

    def sweep(self) -> None:
        """Removes what killed trainings have left; only within `only_one`."""
        for file in (self.config, self.info, self.metrics):
            file.with_name(f"{file.name}.part").unlink(missing_ok=True)
        for folder in (self.checkpoints, self.result):
            Checkpoints(folder).sweep()

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
        self._mend()
        if not self.info.is_file():
            return {}
        if not self._is_whole(self.info):
            raise RunFolderError(f"{self.info} is damaged: it is no JSON object; bring it back from a copy.")
        return json.loads(self.info.read_text(encoding="utf-8"))

    def write_info(self, info: Mapping[str, Any]) -> None:
        """Replaces run.json as a whole, so that a reader never sees half of it; what isn't finite becomes null."""
        write_whole(self.info, _info_text(info))

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
        self._config_text = head + text
        write_whole(self.config, self._config_text)

    def check_same_run(self, text: str, flags: Mapping[str, Any]) -> None:
        """Passes where the folder holds nothing to lose, or an earlier part of this same run.

        Args:
            text: gin text of the run that is about to start.
            flags: flags that belong to the run's identity, such as the seed.

        A larger budget (`train.num_steps`, `--max_minutes`) prolongs a run.

        Raises:
            RunFolderError: there are checkpoints of another configuration, whose first difference is named, or of one
                that is lost.
        """
        if not saved_steps(self.checkpoints):
            return
        self._mend()
        missing = [file.name for file in (self.config, self.info) if not file.is_file()]
        if missing:
            raise RunFolderError(
                f"work folder {self.path} holds checkpoints, but {' and '.join(missing)} of their run can't be found; "
                "bring that back from a copy, or give another --workdir (nothing was changed)."
            )
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
        old_flags = {f"--{name}": _number_text(info.get(name)) for name in flags}
        new_flags = {f"--{name}": _number_text(value) for name, value in flags.items()}
        for before, now in ((old_flags, new_flags), (old, new)):
            for name in _BUDGET:
                if _is_larger(now.get(name), before.get(name)):
                    before[name] = now[name]
        difference = configuration.first_difference(old_flags, new_flags) or configuration.first_difference(old, new)
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
        info = self.read_info() if saved_steps(self.checkpoints) else {}
        size, images = info.get("canvas_size", canvas_size), info.get("images", fingerprint)
        if (*size, images) != (*canvas_size, fingerprint):
            raise RunFolderError(
                f"the run in {self.path} began with other images for training: {images} of {size[0]} x {size[1]} "
                f"pixels, now {fingerprint} of {canvas_size[0]} x {canvas_size[1]}; what is for validation or test "
                "may have been trained on. Bring back the images as they were, or train in another --workdir."
            )

    def append_metrics(self, row: Mapping[str, float]) -> None:
        """Adds one line to metrics.jsonl; numbers that aren't finite become null (JSON has none)."""
        with naming(self.metrics), self.metrics.open("a", encoding="utf-8") as file:
            file.write(json.dumps(_finite(row)) + "\n")

    def read_metrics(self) -> list[dict[str, Any]]:
        """The reports, lines of metrics.jsonl; one that was cut off, as where the machine went down, is left out."""
        rows = []
        text = self.metrics.read_text(encoding="utf-8", errors="replace") if self.metrics.is_file() else ""
        for line in text.splitlines():
            try:
                row = json.loads(line)
            except ValueError:
                row = None
            if isinstance(row, dict) and "step" in row:
                rows.append(row)
            else:
                logging.warning("leaving out a damaged line of %s: %.40r", self.metrics, line)
        return rows

    def drop_metrics_after(self, step: int) -> None:
        """Forgets reports of steps that were lost with their checkpoint; they are going to be repeated."""
        if self.metrics.is_file():
            kept = [json.dumps(row) + "\n" for row in self.read_metrics() if row["step"] <= step]
            write_whole(self.metrics, "".join(kept))


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


def _is_larger(now: str | None, before: str | None) -> bool:
    """Whether both are numbers, as text, and the first is the larger one."""
    try:
        return float(now or "") > float(before or "")
    except ValueError:
        return False


def _is_cut(file: pathlib.Path, text: str) -> bool:
    """Whether a file ends before its text does; a cut configuration can still be read, and has other settings."""
    read = file.read_text(encoding="utf-8")
    return len(read) < len(text) and text.startswith(read)


def _info_text(info: Mapping[str, Any]) -> str:
    """The text of run.json; what isn't finite becomes null."""
    return json.dumps(_finite(info), indent=2) + "\n"


def _finite(value: Any) -> Any:
    """The value with null for numbers that JSON has no words for."""
    if isinstance(value, Mapping):
        return {key: _finite(part) for key, part in value.items()}
    return None if isinstance(value, float) and not math.isfinite(value) else value
