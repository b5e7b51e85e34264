"""Folders by a name that TensorFlow and Beam don't take for a pattern, whatever characters their own names have.

Contract: the other name is a link in the folder for temporary files.  It goes when the block ends; those that killed
processes have left go with the next one.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import shutil
import tempfile
import time
from collections.abc import Iterator

__all__ = ["is_plain", "plain_folder"]

_LINK_PREFIX = "asr_tf-link-"
_YOUNG_SECONDS = 60.0
_PLAIN = re.compile(r"[^*?\[\]{}\\]*")


def is_plain(path: str) -> bool:
    """Whether a path has none of the characters that stand for a pattern."""
    return _PLAIN.fullmatch(path) is not None


@contextlib.contextmanager
def plain_folder(path: str | os.PathLike[str]) -> Iterator[str]:
    """A path of the same folder that isn't taken for a pattern, as long as the block runs.

    Args:
        path: of a folder that processes of this machine use.
    """
    path = os.fspath(path)
    if path.isprintable() and is_plain(path):
        yield path
        return
    _sweep_links()
    with tempfile.TemporaryDirectory(prefix=_LINK_PREFIX) as place:
        descriptor = os.open(place, os.O_RDONLY)
        try:
            _lock(descriptor)
            link = os.path.join(place, "link")
            os.symlink(os.path.abspath(path), link)
            yield link
        finally:
            os.close(descriptor)


def _sweep_links() -> None:
    """Removes the links of processes that were killed: nobody holds their locks any more."""
    for name in os.listdir(tempfile.gettempdir()):
        if not name.startswith(_LINK_PREFIX):
            continue
        with contextlib.suppress(OSError):  # another one's, or another process removes it, too
            place = os.path.join(tempfile.gettempdir(), name)
            if time.time() - os.stat(place).st_mtime < _YOUNG_SECONDS:
                continue  # it may not be locked yet
            descriptor = os.open(place, os.O_RDONLY)
            try:
                if _lock(descriptor):
                    shutil.rmtree(place)
            finally:
                os.close(descriptor)


def _lock(descriptor: int) -> bool:
    """Locks an open folder, until it is closed; False where another one has the lock, or can't say."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True
