"""Files that a reader finds whole or as they were before, also after a power cut, and reports as plain JSON."""

from __future__ import annotations

import contextlib
import errno
import math
import os
import pathlib
from collections.abc import Iterator, Mapping
from typing import Any, BinaryIO

from absl import logging

__all__ = ["json_ready", "naming", "replacing", "sync", "write_whole"]


def write_whole(path: pathlib.Path, text: str) -> None:
    """Replaces a file by one of this text: a reader never sees half of it, and a full disk costs nothing."""
    with replacing(path) as file:
        file.write(text.encode())


@contextlib.contextmanager
def replacing(path: pathlib.Path) -> Iterator[BinaryIO]:
    """A file to write that takes the place of `path` once it is whole and on disk; an error leaves nothing of it.

    Raises:
        OSError: it can't be written; names `path`.
    """
    part = path.with_name(path.name + ".part")
    try:
        with naming(path):
            with part.open("wb") as file:
                yield file
                file.flush()
                os.fsync(file.fileno())
            part.replace(path)
            sync(path.parent)
    except BaseException:
        with contextlib.suppress(OSError):
            part.unlink()
        raise


@contextlib.contextmanager
def naming(path: pathlib.Path) -> Iterator[None]:
    """Within it, errors of the system that name no file, as a full disk's, name this one."""
    try:
        yield
    except OSError as error:
        if error.errno is None or error.filename is not None:
            raise
        raise OSError(error.errno, error.strerror, str(path)) from error


def sync(path: str | os.PathLike[str]) -> None:
    """Brings a file, or the names in a folder, to disk.

    Raises:
        OSError: the disk is full or broken.
    """
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):  # a file system that can't
            raise
    finally:
        os.close(descriptor)


def json_ready(report: Mapping[str, Any]) -> dict[str, Any]:
    """The report with null for what isn't finite, and its place under `not_finite`."""
    not_finite: list[str] = []

    def clean(value: Any, place: str) -> Any:
        if isinstance(value, Mapping):
            return {key: clean(part, f"{place}.{key}") for key, part in value.items()}
        if isinstance(value, (list, tuple)):
            return [clean(part, f"{place}[{index}]") for index, part in enumerate(value)]
        if isinstance(value, float) and not math.isfinite(value):
            not_finite.append(place.removeprefix("."))
            return None
        return value

    cleaned = clean(report, "")
    if not_finite:
        cleaned["not_finite"] = not_finite
        logging.warning("not finite, and null in the report: %s", ", ".join(not_finite))
    return cleaned
