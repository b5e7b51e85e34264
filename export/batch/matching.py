"""Which files an input means: a path is the file of that name, and a pattern the files that it fits.

Contract: in each part of a local path, what is there by that very name comes before what the name fits as a pattern, so
that any file can be named.  Patterns have `*`, `?` and `[...]`, and a part `**` is any number of folders.  What their
users didn't put there (hidden files, `Thumbs.db`) fits no pattern that doesn't begin with a dot itself.  URLs are
matched by the file systems that Beam knows.
"""

from __future__ import annotations

import fnmatch
import os
import re
import sys
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from apache_beam.io.filesystems import FileSystems

from asr_tf.data import image_files

__all__ = ["File", "is_local", "match", "split_patterns", "survey"]

_MAGIC = re.compile(r"[*?\[]")
_ANY_DEPTH = "**"


def is_local(path: str) -> bool:
    """Whether a path is one of this machine and no URL."""
    return FileSystems.get_scheme(path) is None


def split_patterns(values: Sequence[str]) -> list[str]:
    """The paths and patterns in values of `--input`.

    Args:
        values: each a path of this machine, or paths and patterns that are separated by `|`; `~` is the home.
    """
    found = []
    for value in values:
        parts = [value] if os.path.lexists(value) else value.split("|")
        found += [part if os.path.lexists(part) else os.path.expanduser(part) for part in parts if part]
    return found


class File(NamedTuple):
    """A file that an input means.

    Attributes:
        path: as the input begins it.
        size: in bytes; None where it wasn't looked at.
    """

    path: str
    size: int | None = None


def match(patterns: Sequence[str]) -> Iterator[File]:
    """The files that paths and patterns mean, each once, those of a folder in the order of their names.

    Raises:
        OSError: a folder or a storage can't be read; Beam's own errors are such.
        ValueError: a URL of a kind that Beam doesn't know.
    """
    seen = set()
    for pattern in patterns:
        for file in _match_local(pattern) if is_local(pattern) else _match_url(pattern):
            key = os.path.abspath(file.path) if is_local(pattern) else file.path
            if key not in seen:
                seen.add(key)
                yield file


def _match_local(pattern: str) -> Iterator[File]:
    top = "/" if pattern.startswith("/") else ""
    return map(File, _fitting(top, pattern.lstrip("/").split("/")))


def _match_url(pattern: str) -> Iterator[File]:
    if FileSystems.exists(pattern):
        yield File(pattern, FileSystems.get_filesystem(pattern).metadata(pattern).size_in_bytes)
        return
    known, _, _ = _MAGIC.split(pattern, maxsplit=1)[0].rpartition("/")
    wants_hidden = pattern.rpartition("/")[2].startswith(".")
    for file in FileSystems.match([pattern])[0].metadata_list:
        names = file.path.removeprefix(known).split("/")
        if wants_hidden or not any(map(image_files.is_clutter, names)):
            yield File(file.path, file.size_in_bytes)


def _fitting(folder: str, parts: Sequence[str]) -> Iterator[str]:
    """The files below a folder, '' for the current one, that fit the parts of a pattern."""
    part, *rest = parts
    path = os.path.join(folder, part)
    if os.path.lexists(path):
        if rest:
            yield from _fitting(path, rest)
        elif not os.path.isdir(path):
            yield path
    elif part.startswith(_ANY_DEPTH):
        name = part.removeprefix(_ANY_DEPTH)
        yield from _fitting(folder, [f"*{name}", *rest] if name else rest or ["*"])
        for entry in _entries(folder, "*"):
            if entry.is_dir(follow_symlinks=False):
                yield from _fitting(os.path.join(folder, entry.name), parts)
    elif _MAGIC.search(part):
        for entry in _entries(folder, part):
            path = os.path.join(folder, entry.name)
            if rest and entry.is_dir():
                yield from _fitting(path, rest)
            elif not rest and not entry.is_dir():
                yield path


def _entries(folder: str, part: str) -> list[os.DirEntry[str]]:
    """What of a folder fits one part of a pattern, by name."""
    fits = re.compile(fnmatch.translate(part)).match
    with os.scandir(folder or ".") as entries:
        fitting = [
            entry
            for entry in entries
            if fits(entry.name) and (part.startswith(".") or not image_files.is_clutter(entry.name))
        ]
    return sorted(fitting, key=lambda entry: entry.name)


def survey(patterns: Sequence[str]) -> None:
    """Tells on stderr how many files the patterns mean, and which images beside them are left out.

    Of URLs no more is looked at than whether they mean something.

    Raises:
        ValueError: a path or a pattern that means no file, or can't be read.
    """
    for pattern in patterns:
        if is_local(pattern) and os.path.isdir(pattern):
            raise ValueError(f"--input {pattern!r} is a folder; give the files in it, as {pattern.rstrip('/')}/*.png.")
        try:
            first = next(match([pattern]), None)
        except (OSError, ValueError) as error:
            raise ValueError(f"--input {pattern!r} cannot be read: {error}") from error
        if first is None:
            raise ValueError(f"--input {pattern!r} matches no file.")
    found: set[str] = set()
    folders: set[str] = set()
    for pattern in filter(is_local, patterns):
        files = {os.path.abspath(file.path) for file in match([pattern])}
        found |= files
        if not os.path.lexists(pattern):  # who names a file doesn't mean those beside it
            folders |= {os.path.dirname(file) for file in files}
    if found:
        left_out = image_files.tally(_images_beside(found, folders))
        beside = f"; left out beside them: {left_out} (PNG, NPY and TFRecord files are read)" if left_out else ""
        print(f"Found {len(found)} {'file' if len(found) == 1 else 'files'}{beside}.", file=sys.stderr)


def _images_beside(found: set[str], folders: set[str]) -> Iterator[str]:
    """The names of images of any format in some folders that aren't among the files that were found."""
    for folder in sorted(folders):
        for entry in _entries(folder, "*"):
            if image_files.is_image(entry.name) and os.path.join(folder, entry.name) not in found:
                yield entry.name
