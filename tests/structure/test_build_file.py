"""BUILD says what the imports say: every file in one target, every import a dependency, and no other.

BUILD is written by hand; where it is wrong the message says which label to add or drop. It is read as Python (the
build language is a subset) with functions that only record their arguments.
"""

from __future__ import annotations

from pathlib import Path

import pytest
import source_tree

ROOT = source_tree.ROOT
LIBRARY, BINARY, TEST = "py_library", "py_binary", "pytest_test"
# Registered with gin when a file is parsed: what can be named there is imported by name.
REGISTERED = "registered"


def _glob(patterns, exclude=()):
    del exclude
    files = {path for pattern in patterns if pattern != "**" for path in ROOT.glob(pattern)}
    return sorted(path.relative_to(ROOT).as_posix() for path in files if path.is_file())


def _read_targets(text: str) -> dict[str, dict]:
    """Name -> the arguments of the target, with its `kind`; fails where two have the same name."""
    targets: dict[str, dict] = {}

    def recorder(kind):
        def record(name, **arguments):
            assert name not in targets, f"two targets are called {name}"
            targets[name] = {"kind": kind, "srcs": [], "deps": [], "data": [], **arguments}

        return record

    def ignored(*_, **__):
        return None

    names = {kind: recorder(kind) for kind in (LIBRARY, BINARY, TEST, "filegroup")}
    names |= dict.fromkeys(("load", "package", "licenses", "exports_files"), ignored)
    exec(compile(text, "BUILD", "exec"), {"__builtins__": {}, "glob": _glob, **names})
    return targets


TARGETS = _read_targets((ROOT / "BUILD").read_text(encoding="utf-8"))
PYTHON = {name: target for name, target in TARGETS.items() if target["kind"] != "filegroup"}
OWNERS = {file: name for name, target in PYTHON.items() for file in target["srcs"]}


def _labels(target: dict) -> set[str]:
    return {label.removeprefix(":") for label in target["deps"]}


def _closure(labels: set[str]) -> set[str]:
    reached: set[str] = set()
    waiting = set(labels)
    while waiting:
        label = waiting.pop()
        reached.add(label)
        waiting |= _labels(PYTHON[label]) - reached
    return reached


def _target_of(module: str) -> str | None:
    """The target that holds a module of the package or a helper of the tests; None for other packages."""
    if module.split(".")[0] == "asr_tf":
        path = source_tree.modules()[module]
    else:
        path = source_tree.TESTS / f"{module.split('.')[0]}.py"
    return OWNERS.get(path.relative_to(ROOT).as_posix()) if path.is_file() else None


def _wanted(name: str) -> set[str]:
    """The labels that a target's imports ask for."""
    files = [ROOT / file for file in PYTHON[name]["srcs"]]
    modules = {module for file in files for module, _ in source_tree.imports(file)}
    if name == "asr_tf":  # imports lazily what it names in strings
        modules |= source_tree.named_modules(source_tree.PACKAGE / "__init__.py")
    if name == REGISTERED:
        modules |= source_tree.named_modules(source_tree.PACKAGE / "configuration.py")
    wanted = {target for module in modules if (target := _target_of(module)) is not None}
    if PYTHON[name]["kind"] != LIBRARY and "configuration" in _closure(wanted):
        wanted.add(REGISTERED)  # a program that parses gin files must carry what these can name
    return wanted - {name}


def test_reader_of_build_files():
    targets = _read_targets('py_library(name = "a", srcs = ["a.py"], deps = [":b"])\npy_binary(name = "b")\n')
    assert targets["a"]["kind"] == LIBRARY
    assert _labels(targets["a"]) == {"b"}
    assert targets["b"]["srcs"] == []
    with pytest.raises(AssertionError, match="two targets are called a"):
        _read_targets('py_library(name = "a")\npy_binary(name = "a")\n')


def test_every_file_belongs_to_one_target():
    listed = [file for target in PYTHON.values() for file in target["srcs"]]
    assert sorted(listed) == sorted(set(listed)), "a file is in two targets"
    there = {
        path.relative_to(ROOT).as_posix()
        for folder in (source_tree.PACKAGE, source_tree.EXPORT, source_tree.TESTS)
        for path in source_tree.python_files(folder)
    } - {"tests/bazel_main.py"}  # in every pytest_test
    assert there - set(listed) == set(), "in no target of BUILD"
    assert set(listed) - there == set(), "in BUILD, but there is no such file"


@pytest.mark.parametrize("name", sorted(PYTHON))
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


def test_no_circle():
    for name, target in PYTHON.items():
        assert name not in _closure(_labels(target)), f"{name} depends on itself"


def test_kinds_and_names():
    """Commands are binaries, files of tests are tests, and both are called by what they hold."""
    for name, target in PYTHON.items():
        for file in target["srcs"]:
            path = Path(file)
            if path.parts[0] == "tests" and path.stem.startswith("test_"):
                kind, wanted = TEST, file.removesuffix(".py")
            elif path.stem.endswith("_main"):
                kind, wanted = BINARY, path.stem
                assert target["main"] == file
            elif path.parts[0] == "tests":
                kind, wanted = LIBRARY, path.stem
            else:
                kind, wanted = LIBRARY, source_tree.unit(source_tree.module_name(ROOT / file))
            assert (target["kind"], name) == (kind, wanted), file


def test_gin_files_travel_with_what_reads_them():
    assert TARGETS["gin_configs"]["srcs"] == _glob(["gin_configs/**/*.gin"])
    assert ":gin_configs" in TARGETS["configuration"]["data"]
