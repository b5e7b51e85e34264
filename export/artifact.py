"""The folder of an exported model: what lies where, which versions there are, and how a new one gets in.

Layout of an export folder, which is what TensorFlow Serving watches:
    <version>/                       a positive integer; newer versions have higher numbers
        saved_model.pb, variables/   the SavedModel; or model.tflite, for LiteRT, in all versions or in none
        model_card.json              training configuration, test figures, signatures, and a checksum for each file
        assets.extra/golden.npz      inputs and outputs of every signature, at two batch sizes
        assets.extra/tf_serving_warmup_requests
    .exporting-<version>-*/          a version that is being written, which its process has locked

Contract: a version is there as a whole or not at all, and is never changed.  What a killed export has left is removed
by the next one.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import pathlib
import re
import shutil
import tempfile
from collections.abc import Iterator

from asr_tf.runs.files import sync

__all__ = [
    "CARD",
    "GOLDEN",
    "MODEL_FILES",
    "TFLITE",
    "WARMUP",
    "ExportError",
    "check_one_format",
    "checksums",
    "new_version",
    "version_folder",
    "versions",
]

CARD = "model_card.json"
TFLITE = "model.tflite"
MODEL_FILES = {"savedmodel": "saved_model.pb", "tflite": TFLITE}  # by the format's name
GOLDEN = "assets.extra/golden.npz"
WARMUP = "assets.extra/tf_serving_warmup_requests"

_LARGEST_VERSION = 2**63 - 1
_EXPORTING = ".exporting-"


class ExportError(ValueError):
    """An export folder or run that can't be used; the message is one line."""


def versions(export_dir: str | os.PathLike[str]) -> list[int]:
    """The versions in an export folder, oldest first; none where there is no such folder."""
    folder = pathlib.Path(export_dir).expanduser()
    if not folder.is_dir():
        return []
    names = (path.name for path in folder.iterdir() if path.is_dir())
    return sorted(int(name) for name in names if re.fullmatch(r"[1-9]\d*", name))


def version_folder(export_dir: str | os.PathLike[str], version: int | None = None) -> pathlib.Path:
    """The folder of a version.

    Args:
        export_dir: an export folder, or the folder of one version.
        version: its number, None for the newest.

    Raises:
        ExportError: there is none.
    """
    folder = pathlib.Path(export_dir).expanduser()
    there = versions(folder)
    if not there and version is None and any((folder / name).is_file() for name in (CARD, *MODEL_FILES.values())):
        return folder
    if not there:
        raise ExportError(f"{folder} holds no exported version; asr_export --export_dir={folder} writes one.")
    if version is not None and version not in there:
        raise ExportError(f"{folder} holds no version {version}; there are: {', '.join(map(str, there))}.")
    return folder / str(there[-1] if version is None else version)


def check_one_format(export_dir: str | os.PathLike[str], model_format: str) -> None:
    """Refuses to put a version beside others of another format, which a server would take for the same model.

    Args:
        export_dir: an export folder; it may be missing.
        model_format: key of `MODEL_FILES`.

    Raises:
        ExportError: a version has another format.
    """
    folder = pathlib.Path(export_dir).expanduser()
    for number in versions(folder):
        for other, name in MODEL_FILES.items():
            if other != model_format and (folder / str(number) / name).is_file():
                raise ExportError(
                    f"version {number} in {folder} is of format {other}, which a server would mix up; "
                    f"give format {model_format} an --export_dir of its own."
                )


def checksums(folder: pathlib.Path) -> dict[str, dict[str, int | str]]:
    """Size in bytes and SHA-256 of every file in a version's folder but its card, by the path in it."""
    files = sorted(path for path in folder.rglob("*") if path.is_file() and path != folder / CARD)
    found: dict[str, dict[str, int | str]] = {}
    for path in files:
        digest = hashlib.sha256()
        with path.open("rb") as file:
            while block := file.read(1 << 20):
                digest.update(block)
        found[path.relative_to(folder).as_posix()] = {"bytes": path.stat().st_size, "sha256": digest.hexdigest()}
    return found


@contextlib.contextmanager
def new_version(export_dir: str | os.PathLike[str], version: int | None = None) -> Iterator[tuple[pathlib.Path, int]]:
    """A folder to fill; it becomes the version when the block ends without an error, and vanishes with one.

    Args:
        export_dir: created where it is missing.
        version: number of the version, None for one more than the newest.

    Yields:
        (folder, version): where to write, and the version that it will be.

    Raises:
        ExportError: the version is there already, isn't a positive number, or the folder can't be written.
    """
    folder = pathlib.Path(export_dir).expanduser()
    there = versions(folder)
    following = there[-1] + 1 if there else 1
    if version is not None and not 0 < version <= _LARGEST_VERSION:
        raise ExportError(f"version must be a number from 1 to {_LARGEST_VERSION}, got {version}.")
    number = following if version is None else version
    target = folder / str(number)
    if os.path.lexists(target):
        raise ExportError(
            f"version {number} is in {folder} already and stays as it is; "
            f"give another --version, or none for the next one ({following})."
        )
    try:
        folder.mkdir(parents=True, exist_ok=True)
        part, lock = _new_part(folder, number)
    except OSError as error:
        raise ExportError(f"can't write in export folder {folder}: {error.strerror or error}.") from error
    try:
        yield part, number
        _settle(part)
        try:
            part.rename(target)
        except OSError as error:
            raise ExportError(f"version {number} came into {folder} from elsewhere; nothing was written.") from error
        sync(folder)
    except BaseException:
        shutil.rmtree(part, ignore_errors=True)
        raise
    finally:
        os.close(lock)


def _new_part(folder: pathlib.Path, number: int) -> tuple[pathlib.Path, int]:
    """Removes what killed exports have left; returns a folder to write a version into, and the descriptor of its lock.

    It lies beside the target, so that one rename puts it in place; servers look at numbers only.
    """
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        _lock(descriptor, wait=True)  # between being made and being locked, a folder looks like one of a killed export
        for left in folder.glob(f"{_EXPORTING}*"):
            with contextlib.suppress(OSError):  # it is another user's, or has gone by itself
                _sweep(left)
        part = pathlib.Path(tempfile.mkdtemp(prefix=f"{_EXPORTING}{number}-", dir=folder))
        lock = os.open(part, os.O_RDONLY)
        _lock(lock)
        return part, lock
    finally:
        os.close(descriptor)


def _sweep(left: pathlib.Path) -> None:
    descriptor = os.open(left, os.O_RDONLY)
    try:
        if _lock(descriptor):
            shutil.rmtree(left)
    finally:
        os.close(descriptor)


def _lock(descriptor: int, wait: bool = False) -> bool:
    """Locks an open folder, until it is closed; False where another one has the lock, or the file system knows none."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except OSError:
        return False
    return True


def _settle(part: pathlib.Path) -> None:
    """Brings all to disk before the rename, and lets others read what a temporary folder keeps to its owner."""
    umask = os.umask(0)
    os.umask(umask)
    part.chmod(0o777 & ~umask)
    for path in [*part.rglob("*"), part]:
        sync(path)
