"""Programs that XLA has compiled, kept on disk, so that a model that was compiled before starts at once.

TensorFlow keeps compiled programs in a folder if asked to, but trusts what it finds there: a file cut short makes a
training end as if its data had run out.  So a process gets a folder of its own, with links to the stored programs whose
contents are what they were; what it compiles moves to the store afterwards, under a name that holds its checksum.
A program is right for one TensorFlow, processor, number of threads and set of XLA's options, and the store has a
folder for each.

Imports nothing heavy: TensorFlow must be told the folder before it compiles the first program.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import importlib.metadata
import math
import os
import pathlib
import platform
import shutil
import tempfile
import time
from collections.abc import Iterator

__all__ = ["VARIABLE", "kept_programs", "usable_cpus"]

VARIABLE = "ASR_TF_COMPILE_CACHE"
MAX_BYTES = 2**29  # of a folder; the oldest programs go first

_FLAG = "--tf_xla_persistent_cache_directory="
_RUNNING = ".running-"
# A process locks its folder: the others are those of killed ones, once they are old enough to be locked.  Where a file
# system has no locks, only age tells.
_YOUNG_SECONDS, _STALE_SECONDS = 60.0, 60 * 86_400.0


@contextlib.contextmanager
def kept_programs() -> Iterator[bool]:
    """Within it, XLA finds the programs that earlier processes compiled, and keeps those of this one.

    Belongs around all that a process does: TensorFlow reads the folder's name once, when it first compiles.

    They lie in the folder that the environment variable ASR_TF_COMPILE_CACHE names, by default
    $XDG_CACHE_HOME/asr_tf/xla or ~/.cache/asr_tf/xla.  Does nothing where the variable is empty, where `TF_XLA_FLAGS`
    names a folder already, or where none can be written or its name has a space: only the time of
    compilation depends on it.

    Yields:
        Whether programs are kept.
    """
    flags = os.environ.get("TF_XLA_FLAGS", "")
    folder = os.environ.get(VARIABLE, _default_folder())
    if not folder or _FLAG in flags:
        yield False
        return
    try:
        store = pathlib.Path(folder).expanduser().absolute() / _kind()
        # TensorFlow takes what follows a space for the next flag.
        opened = None if len(str(store).split()) > 1 else _open(store)
    except (OSError, RuntimeError):  # the latter where there is no home folder
        opened = None
    if opened is None:
        yield False
        return
    private, lock = opened
    os.environ["TF_XLA_FLAGS"] = f"{flags} {_FLAG}{private}".strip()
    try:
        yield True
    finally:
        if flags:
            os.environ["TF_XLA_FLAGS"] = flags
        else:
            del os.environ["TF_XLA_FLAGS"]
        with contextlib.suppress(OSError):
            _take_over(private, store)
        shutil.rmtree(private, ignore_errors=True)
        os.close(lock)


def usable_cpus() -> int | None:
    """Processors that this process may use, of which a machine can have more."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()


def _default_folder() -> str:
    return os.path.join(os.environ.get("XDG_CACHE_HOME") or "~/.cache", "asr_tf", "xla")


def _kind() -> str:
    """Name of the folder for programs that are right here: all that a program depends on but its source."""
    facts = [platform.machine(), *(os.environ.get(name, "") for name in ("XLA_FLAGS", "TF_XLA_FLAGS"))]
    facts.append(str(usable_cpus()))
    facts += _facts("/proc/cpuinfo", ("flags", "Features", "model name"))
    for device in sorted(pathlib.Path("/proc/driver/nvidia").glob("**/information")):
        facts += _facts(device, ("Model",))
    version = importlib.metadata.version("tensorflow")
    return f"tensorflow-{version}-{hashlib.sha256(repr(facts).encode()).hexdigest()[:16]}"


def _facts(path: str | os.PathLike[str], starts: tuple[str, ...]) -> list[str]:
    """The different lines of a file that start so; none where it can't be read."""
    try:
        lines = pathlib.Path(path).read_text(encoding="utf-8").splitlines()
    except OSError:
        return []
    return sorted({line for line in lines if line.startswith(starts)})


def _open(store: pathlib.Path) -> tuple[pathlib.Path, int]:
    """A new folder with links to the intact programs, and its lock; what isn't intact or in use is deleted."""
    store.mkdir(parents=True, exist_ok=True)
    _sweep(store)
    private = pathlib.Path(tempfile.mkdtemp(prefix=_RUNNING, dir=store))
    lock = os.open(private, os.O_RDONLY)
    with contextlib.suppress(OSError):  # a file system without locks
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    for program in _programs(store):
        checksum, _, name = program.name.partition("-")
        # Another process may have deleted it, or the file system may have no links.
        with contextlib.suppress(OSError):
            if _checksum(program) == checksum:
                os.link(program, private / name)
            else:
                program.unlink()
    return private, lock


def _sweep(store: pathlib.Path) -> None:
    """Deletes the folders of processes that were killed, of all kinds of programs."""
    for left in store.parent.glob(f"*/{_RUNNING}*"):
        with contextlib.suppress(OSError):  # another process deletes it, too
            age = time.time() - left.stat().st_mtime
            descriptor = os.open(left, os.O_RDONLY)
            try:
                if age > _least_age(descriptor):
                    shutil.rmtree(left, ignore_errors=True)
            finally:
                os.close(descriptor)


def _least_age(descriptor: int) -> float:
    """The seconds after which an open folder is taken for a killed process's; locks the folder, if nobody does."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return math.inf
    except OSError:
        return _STALE_SECONDS
    return _YOUNG_SECONDS


def _take_over(private: pathlib.Path, store: pathlib.Path) -> None:
    """Moves new programs to the store, of which the oldest go where it grows too large."""
    for program in _programs(private):
        if program.stat().st_nlink == 1:  # others are the store's
            os.replace(program, store / f"{_checksum(program)}-{program.name}")
    total = 0
    for program in sorted(_programs(store), key=lambda path: path.stat().st_mtime, reverse=True):
        total += program.stat().st_size
        if total > MAX_BYTES:
            program.unlink(missing_ok=True)


def _programs(folder: pathlib.Path) -> list[pathlib.Path]:
    return [path for path in folder.iterdir() if path.suffix == ".pb" and path.is_file()]


def _checksum(path: pathlib.Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
