"""`import asr_tf`: light, and with every public name there when it is asked for."""

from __future__ import annotations

import ast
import subprocess
import sys

import pytest
import source_tree

import asr_tf


def test_import_of_the_package_is_light():
    heavy = {"tensorflow", "keras", "tensorflow_probability", "tensorflow_datasets", "gin", "matplotlib", "numpy"}
    code = "import sys, asr_tf; asr_tf.__version__; dir(asr_tf); print(*{m.split('.')[0] for m in sys.modules})"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=source_tree.ROOT, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    assert heavy & set(done.stdout.split()) == set()


@pytest.mark.parametrize("name", asr_tf.__all__)
def test_public_name_is_there(name):
    assert getattr(asr_tf, name) is not None
    assert name in dir(asr_tf)


def test_unknown_name_is_refused():
    with pytest.raises(AttributeError, match="module 'asr_tf' has no attribute 'ASRModell'"):
        asr_tf.ASRModell  # noqa: B018


def test_type_checkers_are_told_of_the_same_names():
    tree = source_tree.parse(source_tree.PACKAGE / "__init__.py")
    for_types = {
        f"{node.module}:{alias.name}"
        for block in tree.body
        if source_tree.only_for_types(block)
        for node in ast.walk(block)
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    assert for_types == {f"{home}:{name}" for name, home in asr_tf._HOMES.items()}
