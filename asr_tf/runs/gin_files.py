"""Gin files: where they lie, how gin reads them, and what is said of one that can't be read.

Contract: a file is found by its path or, from any folder, by its name inside the package (`models/asr.gin`, with or
without `gin_configs/`), and what a file includes beside that file first; whatever is wrong ends in a
`ConfigurationError` whose message is one line.
"""

from __future__ import annotations

import codecs
import contextlib
import difflib
import importlib
import importlib.util  # not used here: gin's `include` needs the submodule loaded
import io
import os
import pathlib
import re
import sys
import tokenize
from collections.abc import Iterator, Sequence

import gin

__all__ = ["ConfigurationError", "available_files", "find_file", "gin_folder", "one_line", "own_reader"]

_PREFIX = "gin_configs/"
# Lines that gin appends to the message of an exception on its way through a configurable.
_GIN_NOTES = (
    "In call to configurable",
    "In file ",
    "In bindings string",
    "No values supplied by Gin",
    "Gin had values bound",
    "Caller supplied values",
)


class ConfigurationError(ValueError):
    """A configuration that can't be used; the message is one line."""


def gin_folder() -> pathlib.Path:
    """The folder with the package's gin files: inside a wheel, or beside the package in a checkout.

    Raises:
        ConfigurationError: neither is there (a broken installation).
    """
    package = pathlib.Path(__file__).resolve().parents[1]
    for folder in (package / "gin_configs", package.parent / "gin_configs"):
        if folder.is_dir():
            return folder
    raise ConfigurationError(f"the installation is broken: no folder gin_configs in {package}.")


def available_files() -> list[str]:
    """The names of the package's gin files, as `models/asr.gin`, sorted."""
    folder = gin_folder()
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*.gin"))


def find_file(name: str) -> pathlib.Path:
    """The gin file of this path or, failing that, of this name inside the package.

    Args:
        name: a path, or a name as `available_files` gives it, with or without `gin_configs/` before it.

    Raises:
        ConfigurationError: there is no such file, or a folder in its place; lists the package's names.
    """
    path = pathlib.Path(name).expanduser()
    if path.is_file():
        return path.resolve()
    inside = gin_folder() / pathlib.PurePosixPath(name).as_posix().removeprefix(_PREFIX)
    if not path.is_absolute() and inside.is_file():
        return inside
    if path.is_dir():
        raise ConfigurationError(f"gin file {name!r} is a folder; give a file in it.")
    names = available_files()
    near = difflib.get_close_matches(name.removeprefix(_PREFIX), names, n=1)
    hint = f" (did you mean {near[0]}?)" if near else ""
    raise ConfigurationError(
        f"gin file {name!r} not found{hint}; give a path, or one of the package's: {', '.join(names)}."
    )


def one_line(error: BaseException) -> str:
    """The message of an exception on one line, without the lines that gin adds about its own calls."""
    if isinstance(error, (SyntaxError, tokenize.TokenError)):
        return str(error.args[0]).rstrip(".") if error.args else "syntax error"
    lines = [re.sub(r"\x1b\[[0-9;]*m", "", line).strip() for line in str(error).splitlines()]
    kept = [line for line in lines if line and not line.startswith((*_GIN_NOTES, "Exception encountered when calling"))]
    required = re.match(r"Required bindings for `(.+?)` not provided in config: \['(\w+)'", str(error))
    if required:
        return f"{required.group(1)}.{required.group(2)} has no value; set it in a gin file or a binding"
    return kept[0] if kept else type(error).__name__


class _NamedText(io.StringIO):
    """Text of a file, of which gin's messages tell the name."""

    def __init__(self, text: str, name: str) -> None:
        super().__init__(text, newline=None)
        self.name = name


@contextlib.contextmanager
def own_reader(module_folders: Sequence[str]) -> Iterator[None]:
    """Within it, gin reads UTF-8 files alone, and looks for an included file beside the one that includes it first.

    (gin's own readers take any folder on the path for a package, and fail at it; its own search paths are the same for
    all files.)

    Args:
        module_folders: where the modules that files import may lie, beside those files.
    """
    readers, prefixes = list(gin.config._FILE_READERS), list(gin.config._LOCATION_PREFIXES)
    package = gin_folder()
    everywhere = [*prefixes, str(package), str(package.parent)]
    including: list[pathlib.Path] = []  # files that are being read, the innermost first

    @contextlib.contextmanager
    def read(name: str) -> Iterator[_NamedText]:
        path = pathlib.Path(name).resolve()
        if path in including:
            circle = " includes ".join(map(str, [*including[including.index(path) :: -1], path]))
            raise ConfigurationError(f"gin files include each other in a circle: {circle}; take one of these lines out")
        text = _read_text(path)
        including.insert(0, path)
        beside = list(dict.fromkeys(str(file.parent) for file in including))
        _import_modules(text, path, [*module_folders, *beside])
        outer = list(gin.config._LOCATION_PREFIXES)
        gin.config._LOCATION_PREFIXES[:] = [*beside, *everywhere]
        try:
            yield _NamedText(text, str(path))
        except tokenize.TokenError as error:  # which names no file
            raise ConfigurationError(f"{path} is not valid gin: {one_line(error)}") from error
        finally:
            gin.config._LOCATION_PREFIXES[:] = outer
            del including[0]

    gin.config._FILE_READERS[:] = [(read, os.path.isfile)]
    try:
        yield
    finally:
        gin.config._FILE_READERS[:] = readers
        gin.config._LOCATION_PREFIXES[:] = prefixes


def _read_text(path: pathlib.Path) -> str:
    """The text of a gin file, without the mark of UTF-8 that some editors put before it."""
    try:
        data = path.read_bytes()
    except OSError as error:
        raise ConfigurationError(f"gin file {path} cannot be read: {error.strerror or error}") from error
    cure = "save it as UTF-8, as `iconv -f {} -t UTF-8 OLD > NEW` does"
    if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)) or b"\0" in data:
        raise ConfigurationError(f"gin file {path} isn't text in UTF-8, but looks like UTF-16: {cure.format('UTF-16')}")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise ConfigurationError(
            f"gin file {path} isn't text in UTF-8, see line {line}: {cure.format('LATIN1')}"
        ) from error


def _import_modules(text: str, path: pathlib.Path, folders: Sequence[str]) -> None:
    """Imports what the text of a gin file imports, from `folders` too, which stay on the path no longer than that."""
    before = list(sys.path)
    sys.path += folders  # last: nothing that is installed is hidden
    try:
        for line in text.splitlines():
            if imported := re.match(r"(?:import|from)\s+([\w.]+)", line):
                _import_module(imported.group(1), path)
    finally:
        sys.path[:] = before


def _import_module(name: str, path: pathlib.Path) -> None:
    """Imports a module that a gin file names; where there is none, gin tells, with the line."""
    try:
        importlib.import_module(name)
    except SyntaxError as error:
        raise ConfigurationError(
            f"module {name}, which {path} imports, is not valid Python: {error.msg} "
            f"({error.filename}, line {error.lineno})"
        ) from error
    except Exception as error:
        if isinstance(error, ModuleNotFoundError) and f"{name}.".startswith(f"{error.name}."):
            return
        raise ConfigurationError(
            f"module {name}, which {path} imports, can't be imported: {type(error).__name__}: {one_line(error)}"
        ) from error
