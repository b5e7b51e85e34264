"""Other people's packages: which rooms may import them, and which of their parts nobody does."""

from __future__ import annotations

import ast

import pytest
import source_tree
from structure.test_rooms import ABOVE_ALL, PROGRAMS, ROOMS


def from_room(first: str) -> set[str]:
    """A room and all that stand after it in the list."""
    return {*ROOMS[ROOMS.index(first) :], *ABOVE_ALL}


# Import -> the rooms that may have it.
MAY_IMPORT = {
    "tensorflow": {"scene", *from_room("distributions")},
    "tensorflow_probability": from_room("distributions") - {"serving"},
    "keras": from_room("fast"),
    "gin": {
        *("imaging", "constraints", "data", "networks", "models", "evaluation", "runs", "training"),
        "benchmarks",
    },
    "absl": from_room("runs") - {"training", "serving"},
    "absl.flags": {"runs", *PROGRAMS, "export"},
    "absl.app": {"runs", *PROGRAMS, "export"},
    "argparse": {"export", "benchmarks"},
}


def _imports_of(wanted: str, paths):
    """(path, "file:line imports name") for each import of a package or of something in it."""
    for path in paths:
        for name, line in source_tree.imports(path):
            if f"{name}.".startswith(f"{wanted}."):
                yield path, f"{path.relative_to(source_tree.ROOT)}:{line} imports {name}"


@pytest.mark.parametrize("package", sorted(MAY_IMPORT))
def test_rooms_do_without(package):
    wrong = [
        place
        for module, path in source_tree.modules().items()
        if source_tree.room(module) not in MAY_IMPORT[package]
        for _, place in _imports_of(package, [path])
    ]
    assert not wrong, "\n".join(wrong)


def test_programs_of_export_alone_have_flags():
    found = [*_imports_of("absl.flags", source_tree.python_files(source_tree.EXPORT))]
    assert found
    assert not (wrong := [place for path, place in found if not path.stem.endswith("_main")]), "\n".join(wrong)


def test_client_needs_nothing_heavy():
    """It runs where NumPy is the only other package, and so does what it imports of this one, `__init__`s included."""
    known = source_tree.modules()
    waiting, reached = ["asr_tf.serving.client"], set()
    while waiting:
        module = waiting.pop()
        if module in known and module not in reached:
            reached.add(module)
            waiting += [module.rpartition(".")[0], *(name for name, _ in source_tree.own_imports(known[module]))]
    for heavy in ("tensorflow", "tensorflow_probability", "keras", "gin", "absl"):
        wrong = [place for _, place in _imports_of(heavy, [known[module] for module in reached])]
        assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize("banned", ["gin.tf", "tensorflow.keras", "tensorflow_probability.layers", "tf_keras"])
def test_packages_that_do_not_fit_are_not_imported(banned):
    files = [*source_tree.modules().values(), *source_tree.python_files(source_tree.TESTS)]
    assert not (wrong := [place for _, place in _imports_of(banned, files)]), "\n".join(wrong)


@pytest.mark.parametrize(("owner", "attribute"), [("tf", "keras"), ("tfp", "layers"), ("gin", "tf")])
def test_attributes_that_do_not_fit_are_not_used(owner, attribute):
    wrong = [
        f"{path.relative_to(source_tree.ROOT)}:{node.lineno} uses {owner}.{attribute}"
        for path in source_tree.modules().values()
        for node in ast.walk(source_tree.parse(path))
        if isinstance(node, ast.Attribute)
        and node.attr == attribute
        and isinstance(node.value, ast.Name)
        and node.value.id == owner
    ]
    assert not wrong, "\n".join(wrong)
