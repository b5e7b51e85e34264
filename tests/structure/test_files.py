"""House rules that a reader relies on: small files that say what they do, nothing left undone, examples that run."""

from __future__ import annotations

import ast
import doctest
import importlib
import re
import subprocess

import pytest
import source_tree

MOST_LINES = 400


def _text_files():
    """Files that git knows, or all outside of hidden and generated folders where this is no git checkout."""
    try:
        listed = subprocess.run(
            ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
            cwd=source_tree.ROOT,
            capture_output=True,
            text=True,
        )
    except FileNotFoundError:
        listed = None
    if listed is not None and listed.returncode == 0:
        paths = [source_tree.ROOT / name for name in listed.stdout.split("\0") if name]
    else:
        paths = [
            path
            for path in source_tree.ROOT.rglob("*")
            if (parts := path.relative_to(source_tree.ROOT).parts)[0] not in ("build", "dist", "runs")
            and not any(part == "__pycache__" or part.startswith(".") or part.endswith(".egg-info") for part in parts)
        ]
    for path in paths:
        if path.is_file():
            try:
                yield path.relative_to(source_tree.ROOT).as_posix(), path.read_text(encoding="utf-8")
            except UnicodeDecodeError:
                continue  # a picture


def test_files_of_the_package_are_short():
    long = {
        name: lines
        for name, path in source_tree.modules().items()
        if (lines := len(path.read_text(encoding="utf-8").splitlines())) > MOST_LINES
    }
    assert not long, f"at most {MOST_LINES} lines a file: {long}"


def test_every_module_says_what_it_does():
    silent = [name for name, path in source_tree.modules().items() if not ast.get_docstring(source_tree.parse(path))]
    assert not silent


def test_public_names_have_docstrings_and_types():
    """Public functions and methods carry type hints for every argument and for what they return."""
    wrong = []
    for path in source_tree.modules().values():
        for node in ast.walk(source_tree.parse(path)):
            if not isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)) or node.name.startswith("_"):
                continue
            arguments = [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs]
            bare = [a.arg for a in arguments if a.annotation is None and a.arg not in ("self", "cls")]
            if bare or node.returns is None:
                where = f"{path.relative_to(source_tree.ROOT)}:{node.lineno} {node.name}"
                wrong.append(f"{where}: no type for {', '.join(bare) or 'the result'}")
    assert not wrong, "\n".join(wrong)


def test_nothing_is_left_undone():
    """No marker of unfinished work stands in any text file."""
    marker = re.compile(r"\b(TO" + r"DO|FIX" + r"ME|XX" + r"X)\b")
    found = [
        f"{name}:{number}: {line.strip()}"
        for name, text in _text_files()
        for number, line in enumerate(text.splitlines(), 1)
        if marker.search(line)
    ]
    assert not found, "\n".join(found)


def test_text_is_tidy():
    wrong = []
    for name, text in _text_files():
        if name == "LICENSE":
            continue
        if text and not text.endswith("\n"):
            wrong.append(f"{name}: no newline at the end")
        for number, line in enumerate(text.splitlines(), 1):
            if line != line.rstrip() and not name.endswith(".md"):
                wrong.append(f"{name}:{number}: white space at the end of the line")
            if "\t" in line and not name.endswith(("Makefile", ".mk")):
                wrong.append(f"{name}:{number}: tab")
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize(
    "module",
    [name for name, path in source_tree.modules().items() if ">>>" in path.read_text(encoding="utf-8")],
)
def test_examples_in_docstrings(module):
    flags = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
    result = doctest.testmod(importlib.import_module(module), optionflags=flags)
    assert result.attempted > 0
    assert result.failed == 0
