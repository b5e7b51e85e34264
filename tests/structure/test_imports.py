"""Imports go one way: the levels of the package, and what each level may not know."""

from __future__ import annotations

import ast
import subprocess
import sys

import pytest
import source_tree

# A module imports from lower levels, and from its own where that makes no circle. A new file gets a line here.
LEVELS = {
    "version": 0,
    "scene": 0,
    "checks": 0,
    "sums": 0,
    "kernel_gradients": 0,
    "update_loop": 0,
    "memory": 0,
    "compile_cache": 0,
    "distributions": 1,
    "constraints": 1,
    "spatial_transformer": 1,
    "crops": 1,
    "observation": 1,
    "metrics": 1,
    "present": 1,
    "client": 1,
    "recurrence": 1,
    "data": 1,
    "layers": 2,
    "autoencoder": 2,
    "networks": 2,
    "second_look": 2,
    "pair_placement": 2,
    "prior_network": 2,
    "optimizer": 2,
    "objective": 3,
    "bound_model": 3,
    "scene_network": 3,
    "inference": 3,
    "scene_model": 3,
    "model": 3,
    "image_vae": 3,
    "models": 3,
    "configuration": 4,
    "run_folder": 4,
    "schedule": 4,
    "callbacks": 4,
    "training": 4,
    "measurement": 4,
    "evaluation": 4,
    "tiles": 4,
    "plots": 4,
    "serving": 4,
    "command_line": 5,
    "train_main": 5,
    "evaluate_main": 5,
    "sample_main": 5,
    "export": 5,
    "asr_tf": 6,  # asr_tf/__init__.py, which names things of every level
}

# What a unit must do without, as top-level names of other packages.
FOREIGN = {
    "scene": {"keras", "gin", "absl"},
    "checks": {"keras", "gin", "absl", "tensorflow"},
    "distributions": {"keras", "gin", "absl"},
    "spatial_transformer": {"keras", "gin", "absl", "tensorflow_probability"},
    "crops": {"keras", "gin", "absl", "tensorflow_probability"},
    "kernel_gradients": {"keras", "gin", "absl", "tensorflow_probability"},
    "recurrence": {"keras", "gin", "absl", "tensorflow_probability"},
    "update_loop": {"keras", "gin", "absl", "tensorflow_probability"},
    "memory": {"keras", "gin", "absl", "tensorflow"},
    "compile_cache": {"keras", "gin", "absl", "tensorflow"},
    "constraints": {"keras", "absl"},
    "metrics": {"keras", "gin", "absl", "tensorflow"},
    "data": {"keras"},
    "client": {"keras", "gin", "absl", "tensorflow"},
    "serving": {"gin", "absl", "tensorflow_probability"},
}

UNITS = sorted({source_tree.unit(name) for name in source_tree.modules()})


def _edges():
    """(importer's unit, imported unit, "file:line") for each import that leaves its unit."""
    for name, path in source_tree.modules().items():
        for target, line in source_tree.package_imports(path):
            here, there = source_tree.unit(name), source_tree.unit(target)
            if here != there:
                yield here, there, f"{path.relative_to(source_tree.ROOT)}:{line}"


def test_every_module_has_a_level():
    assert set(UNITS) - set(LEVELS) == set(), "give it a level in this file and a place in BUILD"
    assert set(LEVELS) - set(UNITS) == set(), "named here, but there is no such file"


def test_no_import_points_to_a_higher_level():
    wrong = [
        f"{place}: {here} (level {LEVELS[here]}) imports {there} (level {LEVELS[there]})"
        for here, there, place in _edges()
        if LEVELS.get(there, 0) > LEVELS.get(here, 0)
    ]
    assert not wrong, "\n".join(wrong)


def _circle(graph: dict[str, set[str]]) -> list[str]:
    """One circle of a directed graph as a path that ends where it starts, or nothing."""
    done: set[str] = set()

    def visit(node: str, path: list[str]) -> list[str]:
        if node in path:
            return [*path[path.index(node) :], node]
        if node in done:
            return []
        for target in sorted(graph.get(node, ())):
            if found := visit(target, [*path, node]):
                return found
        done.add(node)
        return []

    for start in sorted(graph):
        if found := visit(start, []):
            return found
    return []


def test_circle_is_found():
    assert _circle({"a": {"b"}, "b": {"c"}, "c": {"b"}}) == ["b", "c", "b"]
    assert _circle({"a": {"b", "c"}, "b": {"c"}}) == []


def test_no_circle_between_modules():
    graph: dict[str, set[str]] = {}
    for name, path in source_tree.modules().items():
        if name != "asr_tf":  # the package's own __init__ imports lazily, on request
            graph[name] = {target for target, _ in source_tree.package_imports(path)} - {name}
    assert not (circle := _circle(graph)), " -> ".join(circle)


@pytest.mark.parametrize("unit", sorted(FOREIGN))
def test_lower_levels_do_without(unit):
    wrong = [
        f"{path.relative_to(source_tree.ROOT)}:{line} imports {name}"
        for module, path in source_tree.modules().items()
        if source_tree.unit(module) == unit
        for name, line in source_tree.imports(path)
        if name.split(".")[0] in FOREIGN[unit]
    ]
    assert not wrong, "\n".join(wrong)


def test_flags_live_in_the_commands_only():
    wrong = [
        f"{path.relative_to(source_tree.ROOT)}:{line}"
        for module, path in source_tree.modules().items()
        if LEVELS.get(source_tree.unit(module), 0) != LEVELS["train_main"]
        for name, line in source_tree.imports(path)
        if name in ("absl.flags", "absl.app") or name == "argparse"
    ]
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize("banned", ["gin.tf", "tensorflow.keras", "tensorflow_probability.layers", "tf_keras"])
def test_packages_that_do_not_fit_are_not_imported(banned):
    wrong = []
    for path in source_tree.python_files(source_tree.PACKAGE) + source_tree.python_files(source_tree.TESTS):
        wrong += [
            f"{path.relative_to(source_tree.ROOT)}:{line} imports {name}"
            for name, line in source_tree.imports(path)
            if name == banned or name.startswith(banned + ".")
        ]
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize(("owner", "attribute"), [("tf", "keras"), ("tfp", "layers"), ("gin", "tf")])
def test_attributes_that_do_not_fit_are_not_used(owner, attribute):


    wrong = [
        f"{path.relative_to(source_tree.ROOT)}:{node.lineno} uses {owner}.{attribute}"
        for path in source_tree.python_files(source_tree.PACKAGE)
        for node in ast.walk(source_tree.parse(path))
        if isinstance(node, ast.Attribute)
        and node.attr == attribute
        and isinstance(node.value, ast.Name)
        and node.value.id == owner
    ]
    assert not wrong, "\n".join(wrong)


def _run_python(code: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=source_tree.ROOT, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_import_of_the_package_is_light():
    heavy = {"tensorflow", "keras", "tensorflow_probability", "tensorflow_datasets", "gin", "matplotlib", "numpy"}
    loaded = _run_python(
        "import sys, asr_tf; asr_tf.__version__; dir(asr_tf); print(*{m.split('.')[0] for m in sys.modules})"
    )
    assert heavy & set(loaded.split()) == set()


def test_public_names_of_the_package():
    """Every name in `asr_tf.__all__` can be had, and type checkers are told of the same ones."""


    import asr_tf

    for name in asr_tf.__all__:
        assert getattr(asr_tf, name) is not None
        assert name in dir(asr_tf)
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
    with pytest.raises(AttributeError, match="module 'asr_tf' has no attribute 'ASRModell'"):
        asr_tf.ASRModell  # noqa: B018
