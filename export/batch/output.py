"""The folder of a job's results: nobody else writes there meanwhile, and results are there as a whole or not at all.

Layout:
    objects-*           rows, or one JSON
    _refused-*.jsonl    what couldn't be used; readers of folders of Parquet files pass over names with an underscore
    _SUCCESS            empty, and written last: all results are there
    _unfinished/        what a job is still writing; where no job is running, one was killed

Contract: results that are there already are never written over.  What a killed job has left is removed by the next one.
A lock keeps a second job of this machine out; storage behind URLs has none.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import sys
import uuid
from collections.abc import Iterator

from apache_beam.io.filesystems import FileSystems
from asr_tf.export.batch.matching import is_local, match
from asr_tf.export.plain_folder import is_plain, plain_folder

from asr_tf.data.image_files import shown
from asr_tf.runs.files import sync

__all__ = ["REFUSED_PREFIX", "RESULT_PREFIX", "plain_path", "writing"]

RESULT_PREFIX = "objects"
REFUSED_PREFIX = "_refused"

_SUCCESS = "_SUCCESS"
_UNFINISHED = "_unfinished"
_MARK = f"{_UNFINISHED}/job"
_RESULTS = (f"{RESULT_PREFIX}-*", f"{REFUSED_PREFIX}-*")
_EARLIER_PREFIX = "refused"  # what earlier versions called it
# What Beam's sinks of earlier versions wrote to, and have left where they were killed.
_LEFTOVERS = tuple(f"beam-temp-{prefix}" for prefix in (RESULT_PREFIX, _EARLIER_PREFIX))


@contextlib.contextmanager
def plain_path(path: str) -> Iterator[str]:
    """A path of the same folder that neither Beam nor TensorFlow takes for a pattern, as long as the block runs.

    Args:
        path: a URL, or the path of a folder that processes of this machine use.
    """
    with plain_folder(path) if is_local(path) else contextlib.nullcontext(path) as plain:
        yield plain


@contextlib.contextmanager
def writing(output: str) -> Iterator[str]:
    """A folder to write results into; they are published in `output` when the block ends without an error.

    Args:
        output: the folder of the results, created where it is missing.

    Yields:
        The folder to write into, for paths that begin with `RESULT_PREFIX` and `REFUSED_PREFIX`.

    Raises:
        ValueError: results are there already, another job is writing there, or the folder can't be used.
    """
    with _only_one(output), plain_path(output) as folder:
        _prepare(folder, output)
        work = f"{folder}/{_UNFINISHED}/{uuid.uuid4().hex}"
        try:
            yield work
            _publish(work, folder)
        except BaseException:
            if not FileSystems.exists(f"{folder}/{_SUCCESS}"):
                _discard(folder)
            raise
        _remove(f"{folder}/{_UNFINISHED}")


@contextlib.contextmanager
def _only_one(output: str) -> Iterator[None]:
    """Makes a folder, and keeps a second job out of it; a folder that stays empty goes again."""
    if not is_local(output):
        if not is_plain(output):
            raise ValueError(f"--output {output!r} must not hold any of *?[]{{}}\\, which stand for patterns in URLs.")
        yield
        return
    is_new = not os.path.lexists(output)
    try:
        os.makedirs(output, exist_ok=True)
        descriptor = os.open(output, os.O_RDONLY)
    except FileExistsError as error:
        raise ValueError(f"--output {output!r} is no folder but a file; give another name.") from error
    except OSError as error:
        raise ValueError(f"--output {output!r} cannot be made: {error.strerror or error}.") from error
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        os.close(descriptor)
        raise ValueError(
            f"another asr_batch_infer writes in {output!r}: wait for its end, or give another folder."
        ) from error
    except OSError:  # a file system without locks
        pass
    try:
        yield
    except BaseException:
        if is_new:
            with contextlib.suppress(OSError):
                os.rmdir(output)
        raise
    finally:
        os.close(descriptor)


def _prepare(folder: str, output: str) -> None:
    """Removes what a killed job has left, marks a folder as unfinished; refuses one with results."""
    unfinished, mark = f"{folder}/{_UNFINISHED}", f"{folder}/{_MARK}"
    try:
        if FileSystems.exists(f"{folder}/{_SUCCESS}"):
            _remove(unfinished)
            there = [_SUCCESS]
        elif FileSystems.exists(unfinished) or FileSystems.exists(mark):
            print(f"{shown(output)}: removing what a job has left that didn't come to its end.", file=sys.stderr)
            there = []
        else:
            there = _paths(folder, *_RESULTS, f"{_EARLIER_PREFIX}-*.jsonl")
        if there:
            name = there[0].rpartition("/")[2]
            raise ValueError(f"--output {output!r} holds results already ({name}); give another folder.")
        _discard(folder)
        FileSystems.create(mark).close()
    except OSError as error:
        raise ValueError(f"--output {output!r} cannot be used: {error}") from error


def _publish(work: str, folder: str) -> None:
    """Moves what was written to where it is looked for: what was refused comes first, the mark of success last."""
    for pattern in (f"{REFUSED_PREFIX}-*", f"{RESULT_PREFIX}-*"):
        paths = _paths(work, pattern)
        for path in paths:
            _sync(path)
        targets = [f"{folder}/{path.rpartition('/')[2]}" for path in paths]
        at_once = FileSystems.get_chunk_size(folder)
        for start in range(0, len(paths), at_once):
            FileSystems.rename(paths[start : start + at_once], targets[start : start + at_once])
    _sync(folder)
    FileSystems.create(f"{folder}/{_SUCCESS}").close()
    _sync(folder)


def _discard(folder: str) -> None:
    """Removes all results of a folder that isn't done; what says that it isn't, last."""
    results = _paths(folder, *_RESULTS)
    if results:
        FileSystems.delete(results)
    if is_local(folder):
        inside = os.listdir(folder)
    else:
        inside = [path.removeprefix(f"{folder}/").partition("/")[0] for path in _paths(folder, "beam-temp-*/**")]
    for name in set(inside):
        if name.startswith(_LEFTOVERS):
            _remove(f"{folder}/{name}")
    _remove(f"{folder}/{_UNFINISHED}")


def _remove(folder: str) -> None:
    """Removes a folder with all that is in it, if it is there; storage behind URLs may have files only."""
    files = [] if is_local(folder) else _paths(folder, "**")
    if files:
        FileSystems.delete(files)
    if FileSystems.exists(folder):
        FileSystems.delete([folder])


def _paths(folder: str, *patterns: str) -> list[str]:
    """The files in a folder that fit patterns."""
    return [file.path for file in match([f"{folder}/{pattern}" for pattern in patterns])]


def _sync(path: str) -> None:
    """Brings a local file or folder to disk."""
    if is_local(path):
        sync(path)
