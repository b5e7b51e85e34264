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
import re
import sys
import tempfile
import uuid
from collections.abc import Iterator

from apache_beam.io.filesystems import FileSystems
from asr_tf.export.batch.matching import is_local, match

from asr_tf.data.image_files import shown

__all__ = ["REFUSED_PREFIX", "RESULT_PREFIX", "plain_path", "writing"]

RESULT_PREFIX = "objects"
REFUSED_PREFIX = "_refused"

_SUCCESS = "_SUCCESS"
_UNFINISHED = "_unfinished"
_EARLIER_PREFIX = "refused"  # what earlier versions called it
_BEAMS = "beam-temp-"  # what Beam's sinks write to, and leave where they are killed
# Beam and TensorFlow take paths with other characters for patterns.
_PLAIN = re.compile(r"[^*?\[\]{}\\]*")


@contextlib.contextmanager
def plain_path(path: str) -> Iterator[str]:
    """A path of the same folder that neither Beam nor TensorFlow takes for a pattern, as long as the block runs.

    Args:
        path: a URL, or the path of a folder that processes of this machine use.
    """
    if not is_local(path) or (path.isprintable() and _PLAIN.fullmatch(path)):
        yield path
        return
    with tempfile.TemporaryDirectory(prefix="asr_batch_infer-") as place:
        link = os.path.join(place, "link")
        os.symlink(os.path.abspath(path), link)
        yield link


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
            FileSystems.mkdirs(work)
            yield work
            _publish(work, folder)
        except BaseException:
            _remove_unfinished(folder)
            raise


@contextlib.contextmanager
def _only_one(output: str) -> Iterator[None]:
    """Makes a folder, and keeps a second job out of it; a folder that stays empty goes again."""
    if not is_local(output):
        if not _PLAIN.fullmatch(output):
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
    """Removes what a killed job has left; refuses a folder with results."""
    try:
        if _found(folder, _SUCCESS) or not _found(folder, f"{_UNFINISHED}/**"):
        ...
    except OSError as error:
        raise ValueError(f"--output {output!r} cannot be used: {error}") from error
