"""Reads the checkout as text and syntax trees, for the tests of its structure. Imports nothing of the package."""

from __future__ import annotations

import ast
import functools
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "asr_tf"
TESTS = ROOT / "tests"
EXPORT = ROOT / "export"  # stands beside the package, and is `asr_tf.export`
BENCHMARKS = ROOT / "benchmarks"


def python_files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*.py") if "__pycache__" not in path.parts)


def module_name(path: Path) -> str:
    """`asr_tf/data/__init__.py` -> `asr_tf.data`; `export/artifact.py` -> `asr_tf.export.artifact`."""
    parts = list(path.relative_to(ROOT).with_suffix("").parts)
    if path.is_relative_to(EXPORT):
        parts.insert(0, "asr_tf")
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


@functools.cache
def modules() -> dict[str, Path]:
    """Every module of `asr_tf`, `asr_tf.export` and `benchmarks` by its dotted name."""
    folders = (PACKAGE, EXPORT, BENCHMARKS)
    return {module_name(path): path for folder in folders for path in python_files(folder)}


def room(module: str) -> str:
    """The room that a dotted name belongs to.

    `asr_tf.data.scenes` -> `data`, `asr_tf.scene` -> `scene`; the package's own `__init__` is `asr_tf`, and any module
    of `benchmarks` belongs to `benchmarks`.
    """
    top, *inner = module.split(".")
    return inner[0] if top == "asr_tf" and inner else top


def parse(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"), filename=str(path))


def only_for_types(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)


def _run_time_nodes(node: ast.AST) -> Iterator[ast.AST]:
    for child in ast.iter_child_nodes(node):
        if not only_for_types(child):
            yield child
            yield from _run_time_nodes(child)


@functools.cache
def imports(path: Path) -> list[tuple[str, int]]:
    """Dotted names that a file imports anywhere in it, with line numbers.

    `from a.b import c` counts as `a.b.c`, but as `a.b` where that is a module of this checkout and `a.b.c` is none.
    Imports for type checkers only are left out; relative imports are resolved.
    """
    known = modules()
    package = module_name(path)
    if path.name != "__init__.py":
        package = package.rpartition(".")[0]
    found = []
    for node in _run_time_nodes(parse(path)):
        if isinstance(node, ast.Import):
            found += [(alias.name, node.lineno) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                outer = package.split(".")[: len(package.split(".")) - node.level + 1]
                base = ".".join([*outer, base] if base else outer)
            for alias in node.names:
                full = f"{base}.{alias.name}"
                found.append((base if base in known and full not in known else full, node.lineno))
    return found


def own_imports(path: Path) -> list[tuple[str, int]]:
    """The imports of a file that stay within `asr_tf` and `benchmarks`."""
    return [(name, line) for name, line in imports(path) if name.split(".")[0] in ("asr_tf", "benchmarks")]


def named_modules(path: Path) -> set[str]:
    """Modules of this checkout that a file names in strings, to import them when they are asked for.

    Names without a dot don't count: `"asr_tf"` is also what folders and loggers are called.
    """
    known = {name for name in modules() if "." in name}
    return {
        node.value
        for node in ast.walk(parse(path))
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and node.value in known
    } - {module_name(path)}
