"""Parsing and writing gin configurations; `asr_tf.runs.gin_files` finds and reads their files.

Contract: everything that can be named in a gin file is registered before a file is parsed; numbers are finite; whatever
is wrong ends in a `ConfigurationError` whose message is one line.
"""

from __future__ import annotations

import copy
import difflib
import importlib
import inspect
import logging
import math
import os
import pathlib
import re
import sys
import tokenize
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import gin

from asr_tf.runs.gin_files import (
    ConfigurationError,
    available_files,
    find_file,
    gin_folder,
    one_line,
    own_reader,
)

__all__ = [
    "ConfigurationError",
    "available_files",
    "bound",
    "default_text",
    "find_file",
    "first_difference",
    "gin_folder",
    "imported_module_folders",
    "make_absolute",
    "merged_config",
    "one_line",
    "parse",
    "parse_settings",
]

# How facts of scenes get a value.
_MACROS = {
    "RULES": " (a scenes/*.gin file sets it)",
    "COUNTS": (
        ': state how many objects an image may hold, as by --gin_bindings="COUNTS = (1, 3)" or a scenes/*.gin file'
    ),
}

# Every module that registers something with gin.
_REGISTERING_MODULES = (
    "asr_tf.constraints",
    "asr_tf.data.loading",
    "asr_tf.models",
    "asr_tf.runs.evaluate",
    "asr_tf.training.fit",
)
_SECTION = re.compile(r"^# (Macros|Parameters for .*):$", re.MULTILINE)
_RULE = "# " + "=" * 78


def parse(
    gin_files: Sequence[str], gin_bindings: Sequence[str] = (), module_folders: Sequence[str] = ()
) -> None:
    """Registers the package's configurables, forgets earlier bindings, and parses files, then bindings.

    What a file includes is looked for beside that file, then beside those that include it, in the search paths that are
    registered with gin (the current folder is one) and in the package.  A module that a file imports (rules of one's
    own) may lie beside it, beside those, or in the current folder.

    Args:
        gin_files: paths or names, see `find_file`; later ones override earlier ones.
        gin_bindings: lines such as `train.batch_size = 32`; they override the files.
        module_folders: further folders to import modules from.

    Raises:
        ConfigurationError: an unknown file, configurable or parameter, a file that can't be read or includes itself, a
            line that isn't gin, or a number that isn't finite.
    """
    paths = [find_file(name) for name in gin_files]  # before the slow imports
    for module in _REGISTERING_MODULES:
        importlib.import_module(module)
    gin.clear_config()
    with own_reader([*module_folders, os.getcwd()]):
        for path in paths:
            _parse_one(gin.parse_config_file, str(path), str(path))
    for binding in gin_bindings:
        _parse_one(gin.parse_config, binding, f"binding {binding!r}")
    _check_numbers()
    _check_macros()


def _parse_one(parse_with: Callable[[str], object], what: str, source: str) -> None:
    # gin logs an error for each place where an included file isn't, before it finds the file or gives up.
    level = logging.root.manager.disable
    logging.disable(logging.ERROR)
    try:
        parse_with(what)
    except (SyntaxError, tokenize.TokenError) as error:
        line, file = getattr(error, "lineno", None), getattr(error, "filename", None) or source
        place = f"line {line} of {file}" if line else source
        raise ConfigurationError(f"{place} is not valid gin: {one_line(error)}") from error
    except ConfigurationError as error:  # which names the file; where gin adds a place, that is the include of it
        place = _place(error, "")
        raise ConfigurationError(f"{one_line(error).rstrip('.')}{place and f' ({place})'}.") from error
    except (ValueError, TypeError, OSError, ImportError, AttributeError, NameError) as error:
        raise ConfigurationError(f"{_explain(error)} ({_place(error, source)})") from error
    finally:
        logging.disable(level)


def _place(error: Exception, source: str) -> str:
    found = re.search(r'In (?:file "(.+)"|bindings string),? line (\d+)', str(error))
    return f"{found.group(1)}, line {found.group(2)}" if found and found.group(1) else source


def _explain(error: Exception) -> str:
    """The message of gin on one line, with the nearest name where a name is unknown."""
    message = one_line(error)
    unknown = re.match(r"No configurable matching (?:reference )?'@?(.+?)(?:\(\))?'", message)
    if unknown:
        name = unknown.group(1)
        known = sorted({selector.rsplit(".", 1)[-1] for selector in _registered()})
        return f"no configurable is called {name!r}{_nearest(name, known)}"
    parameter = re.match(
        r"Configurable '(.+?)' doesn't (?:have a parameter named|include kwarg) '(.+?)'", message
    )
    if parameter:
        selector, name = parameter.groups()
        known = _parameters(selector)
        return f"{selector} has no parameter {name!r}{_nearest(name, known)}"
    missing = re.match(r"Unable to open file: (.+)\. Searched config paths: (\[.*\])", message)
    if missing:
        return f"included gin file {missing.group(1)!r} is in none of {missing.group(2)}; give a path from one of these"
    return message.rstrip(".")


def _nearest(name: str, known: Sequence[str]) -> str:
    near = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    return f"; did you mean {near[0]!r}?" if near else f"; known: {', '.join(known)}"


def _registered() -> list[str]:
    """Selectors of the package's configurables (gin has no public listing)."""
    return [selector for selector, _ in gin.config._REGISTRY.items() if not selector.startswith("gin.")]


def _parameters(selector: str) -> list[str]:
    """Names that gin may bind: those allowed by the registration, else those of the signature."""
    configurable = gin.config._REGISTRY.get_match(selector)
    if configurable.allowlist:
        return sorted(configurable.allowlist)
    parameters = _signature(selector).parameters.values()
    return [p.name for p in parameters if p.kind is not inspect.Parameter.VAR_KEYWORD]


def _signature(selector: str) -> inspect.Signature:
    """That of a configurable itself; gin's wrapper of a class takes anything."""
    return inspect.signature(gin.config._REGISTRY.get_match(selector).wrapped)


def _check_numbers() -> None:
    """Raises where a number is bound that isn't finite: 1e999, which gin reads as infinite."""
    for (scope, selector), parameters in gin.config._CONFIG.items():
        for name, value in parameters.items():
            if not _is_finite(value):
                known = gin.config._REGISTRY.minimal_selector(selector)
                shown = scope if known == "macro" else f"{scope}/{known}.{name}" if scope else f"{known}.{name}"
                raise ConfigurationError(f"{shown} must be finite, got {value!r}.")


def _is_finite(value: Any) -> bool:
    """Whether a number, and each in a list, tuple or dict, is finite; true of everything else."""
    if isinstance(value, Mapping):
        return all(map(_is_finite, [*value.keys(), *value.values()]))
    if isinstance(value, (list, tuple)):
        return all(map(_is_finite, value))
    return not isinstance(value, float) or math.isfinite(value)


def _check_macros() -> None:
    """Raises where a macro is used but has no value: gin itself says so only when it is evaluated, obscurely."""
    settings = parse_settings(gin.config_str())
    for name, value in settings.items():
        for macro in re.findall(r"%([\w./]+)", re.sub(r"'[^']*'|\"[^\"]*\"", "", value)):
            if macro not in settings and f"{macro}/macro.value" not in settings:
                hint = _MACROS.get(macro, "")
                raise ConfigurationError(f"{name} uses %{macro}, which no file or binding sets{hint}.")
    is_used = any("%RULES" in value for value in settings.values())
    if "RULES" in settings and not is_used and settings.get("model.kind") != "'vae'":
        raise ConfigurationError("RULES is set, but nothing uses %RULES: add a model file, such as models/asr.gin.")


def merged_config() -> str:
    """The configuration as gin text: what was used, with defaults, and what is bound but not used yet.

    gin's operative configuration alone lacks the bindings of the functions that haven't been called, such as
    those of the evaluation while training starts.
    """
    operative = _sections(gin.operative_config_str())
    bound = _sections(gin.config_str())
    merged = {**operative, **{k: v for k, v in bound.items() if k not in operative or k == "Macros"}}
    order = sorted(merged, key=lambda heading: (heading != "Macros", heading))
    preamble = _SECTION.split(gin.config_str())[0]
    imports = [line for line in preamble.splitlines() if re.match(r"(import|from)\s", line)]
    sections = (f"# {heading}:\n{_RULE}\n{merged[heading].strip()}\n" for heading in order)
    return "\n".join([*(["\n".join(imports) + "\n"] if imports else []), *sections])


def bound(name: str, default: Any = None) -> Any:
    """The value that a parameter is bound to, such as `train.batch_size`; `default` where it isn't bound."""
    try:
        return copy.deepcopy(gin.query_parameter(name))  # a copy of a macro is its value
    except ValueError:
        return default


def make_absolute(name: str) -> None:
    """Binds a path that is bound already by what it is from any folder."""
    path = bound(name)
    if isinstance(path, str):
        with gin.unlock_config():
            gin.bind_parameter(name, os.path.abspath(os.path.expanduser(path)))


def default_text(name: str) -> str | None:
    """The default of a parameter, such as `train.batch_size`, as text in gin; None where it has none."""
    selector, _, parameter = name.rpartition(".")
    try:
        default = _signature(selector.rpartition("/")[2]).parameters[parameter].default
    except (AttributeError, KeyError):  # no such configurable, or parameter
        return None
    return None if default in (inspect.Parameter.empty, gin.REQUIRED) else repr(default)


def imported_module_folders() -> list[str]:
    """Folders of the modules that the parsed files import, so that a saved configuration finds them again."""
    folders = set()
    for line in _SECTION.split(gin.config_str())[0].splitlines():
        found = re.match(r"(?:import|from)\s+([\w.]+)", line)
        module = sys.modules.get(found.group(1)) if found else None
        file = getattr(module, "__file__", None)
        if found and file:
            path = pathlib.Path(file).resolve()
            depth = found.group(1).count(".") + (path.stem == "__init__")
            folders.add(str(path.parents[depth]))
    return sorted(folders)


def _sections(text: str) -> dict[str, str]:
    """Text of gin by its headings; comments that gin writes inside a section are left out."""
    parts = _SECTION.split(text)
    bodies = {}
    for heading, body in zip(parts[1::2], parts[2::2], strict=True):
        lines = [line for line in body.splitlines() if line.strip() and not line.startswith("#")]
        bodies[heading] = "\n".join(lines)
    return {heading: body for heading, body in bodies.items() if body}


def parse_settings(text: str) -> dict[str, str]:
    """Settings by name, from the text that gin writes (values as gin text, white space normalized)."""
    settings: dict[str, str] = {}
    name = ""
    for line in text.splitlines():
        if not line.strip() or line.startswith("#"):
            continue
        if line[0].isspace():
            settings[name] = f"{settings[name]} {line.strip()}".strip()
        else:
            name, _, value = (part.strip() for part in line.partition("="))
            settings[name] = value.rstrip("\\").strip()
    return settings


def first_difference(old: dict[str, str], new: dict[str, str]) -> str | None:
    """One phrase about the first setting in which two configurations differ, or None."""
    for name in sorted(old.keys() | new.keys()):
        if old.get(name) != new.get(name):
            return f"{name} is {old.get(name, 'not set')} there and {new.get(name, 'not set')} now"
    return None
