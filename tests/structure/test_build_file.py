"""BUILD says what the imports say: one library a room, every file in one target, every import a dependency, no other.

BUILD is written by hand; where it is wrong the message says which label to add or drop. It is read as Python (the
build language is a subset) with functions that only record their arguments.
"""

from __future__ import annotations

from pathlib import Path

import pytest
import source_tree
from structure.test_rooms import ABOVE_ALL, PROGRAMS, ROOMS

ROOT = source_tree.ROOT
LIBRARY, BINARY, TESTS, FILES = "py_library", "py_binary", "pytest_tests", "filegroup"


def _glob(patterns, exclude=()):
    def files(pattern):
        every = pattern + "/*" if pattern.endswith("**") else pattern
        return {path.relative_to(ROOT).as_posix() for path in ROOT.glob(every) if path.is_file()}

    return sorted(set().union(*map(files, patterns)) - set().union(*map(files, exclude)))


def _read_targets(text: str) -> dict[str, dict]:
    """Name -> the arguments of the target, with its `kind`; fails where two have the same name."""
    targets: dict[str, dict] = {}

    def recorder(kind):
        def record(name=kind, **arguments):  # a pattern of tests has no name of its own
            assert name not in targets, f"two targets are called {name}"
            targets[name] = {"kind": kind, "srcs": [], "deps": [], "data": [], **arguments}

        return record

    names = {kind: recorder(kind) for kind in (LIBRARY, BINARY, TESTS, FILES)}
    names |= dict.fromkeys(("load", "package", "licenses", "exports_files"), lambda *_, **__: None)
    exec(compile(text, "BUILD", "exec"), {"__builtins__": {}, "glob": _glob, **names})
    return targets


TARGETS = _read_targets((ROOT / "BUILD").read_text(encoding="utf-8"))
PYTHON = {name: target for name, target in TARGETS.items() if target["kind"] != FILES}
MIRRORED = sorted(name for name in PYTHON if name != TESTS)
OWNERS = {file: name for name, target in PYTHON.items() for file in target["srcs"]}


def _labels(target: dict) -> set[str]:
    return {label.removeprefix(":") for label in target["deps"]}


def _reached(labels: set[str]) -> set[str]:
    """The targets that these stand for, with all that they depend on."""
    reached: set[str] = set()
    waiting = set(labels)
    while waiting:
        label = waiting.pop()
        reached.add(label)
        waiting |= _labels(PYTHON[label]) - reached
    return reached


def _target_of(module: str) -> str | None:
    """The target that holds a module of the checkout or a helper of the tests; None for other packages."""
    top = module.partition(".")[0]
    path = source_tree.modules().get(module, source_tree.TESTS / f"{top}.py")
    return OWNERS.get(path.relative_to(ROOT).as_posix())


def _named_by(files: list[str]) -> set[str]:
    """Targets of the modules that files name in strings, to import them later."""
    return {_target_of(module) for file in files for module in source_tree.named_modules(ROOT / file)}


def _wanted(name: str) -> set[str]:
    """The labels that a target's imports ask for."""
    target = PYTHON[name]
    imported = {module for file in target["srcs"] for module, _ in source_tree.imports(ROOT / file)}
    wanted = {label for module in imported if (label := _target_of(module)) is not None}
    if name == "asr_tf":
        wanted |= _named_by(target["srcs"])
    if target["kind"] == BINARY and "runs" in (reached := _reached(wanted)):
        wanted |= _named_by(PYTHON["runs"]["srcs"]) - reached  # can be named in a gin file
    return wanted - {name}


def test_reader_of_build_files():
    targets = _read_targets('py_library(name = "a", srcs = ["a.py"], deps = [":b"])\npy_binary(name = "b")\n')
    assert targets["a"]["kind"] == LIBRARY
    assert _labels(targets["a"]) == {"b"}
    assert targets["b"]["srcs"] == []
    with pytest.raises(AssertionError, match="two targets are called a"):
        _read_targets('py_library(name = "a")\npy_binary(name = "a")\n')


def test_libraries_are_the_rooms():
    libraries = [name for name, target in PYTHON.items() if target["kind"] == LIBRARY and not target.get("testonly")]
    assert libraries == [*(room for room in ROOMS if room not in PROGRAMS), *ABOVE_ALL]


def test_each_room_is_one_library():
    for name, target in PYTHON.items():
        for file in target["srcs"]:
            path = Path(file)
            if path.parts[0] == "tests":
                wanted = TESTS if path.stem.startswith("test_") else "testing"
            elif path.stem.endswith("_main"):
                wanted = path.stem
                assert (target["kind"], target["main"]) == (BINARY, file)
            else:
                wanted = source_tree.room(source_tree.module_name(ROOT / file))
            assert name == wanted, file


def test_every_file_belongs_to_one_target():
    listed = [file for target in PYTHON.values() for file in target["srcs"]]
    assert sorted(listed) == sorted(set(listed)), "a file is in two targets"
    folders = (source_tree.PACKAGE, source_tree.EXPORT, source_tree.BENCHMARKS, source_tree.TESTS)
    there = {path.relative_to(ROOT).as_posix() for folder in folders for path in source_tree.python_files(folder)}
    there -= {"tests/bazel_main.py"}  # the macro of the tests puts it into each of them
    assert there - set(listed) == set(), "in no target of BUILD"
    assert set(listed) - there == set(), "in BUILD, but there is no such file"


@pytest.mark.parametrize("name", MIRRORED)
def test_dependencies_mirror_imports(name):
    labels = PYTHON[name]["deps"]
    assert all(label.startswith(":") for label in labels), f"{name}: labels start with a colon"
    assert labels == sorted(set(labels)), f"{name}: deps are sorted, without doubles"
    unknown = _labels(PYTHON[name]) - set(PYTHON)
    assert not unknown, f"{name}: deps name no target: {sorted(unknown)}"
    wanted, written = _wanted(name), _labels(PYTHON[name])
    message = [f'add ":{label}"' for label in sorted(wanted - written)]
    message += [f'drop ":{label}"' for label in sorted(written - wanted)]
    assert not message, f"BUILD, deps of {name}: {', '.join(message)}"


def test_tests_can_import_everything_and_read_the_checkout():
    assert _reached(_labels(PYTHON[TESTS])) == set(MIRRORED)
    assert PYTHON[TESTS]["data"] == [":checkout"]
    wanted = {"BUILD", "README.md", "pyproject.toml", ".ci/run", *PYTHON[TESTS]["srcs"]}
    assert wanted <= set(TARGETS["checkout"]["srcs"])


def test_gin_files_travel_with_what_reads_them():
    assert TARGETS["gin_configs"]["srcs"] == sorted(
        path.relative_to(ROOT).as_posix() for path in (ROOT / "gin_configs").rglob("*.gin")
    )
    assert PYTHON["runs"]["data"] == [":gin_configs"]
