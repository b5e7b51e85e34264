"""The rooms of the package: the one list of them, its order, and that every import points upwards in it.

A room is a package in `asr_tf/`, or a flat file there. It imports only from its own level and from the levels before.
BUILD and the tables in CONTRIBUTING.md and README.md are held against this list by the tests beside this one.
"""

from __future__ import annotations

import ast

import pytest
import source_tree

PROGRAMS = ("train_main", "evaluate_main", "sample_main", "score_main")
LEVELS = (
    ("scene", "checks", "version"),
    ("distributions",),
    ("imaging",),
    ("constraints",),
    ("data",),
    ("fast",),
    ("networks",),
    ("models",),
    ("evaluation",),
    ("runs",),
    ("training",),
    ("serving",),
    ("labelled",),
    PROGRAMS,
    ("export",),
)
ROOMS = tuple(room for level in LEVELS for room in level)
# Above every room: the package's own `__init__`, which names things of most rooms, and what measures the whole.
ABOVE_ALL = ("asr_tf", "benchmarks")
HEIGHTS = {room: height for height, level in enumerate(LEVELS) for room in level}
HEIGHTS |= {room: len(LEVELS) + height for height, room in enumerate(ABOVE_ALL)}


def upward_imports(imports: list[tuple[str, str, str]]) -> list[str]:
    """Those of (place, importing room, imported room) that break the order, as messages."""
    return [
        f"{place}: {here} must not import {there}, which stands below it in LEVELS"
        for place, here, there in imports
        if HEIGHTS[there] > HEIGHTS[here]
    ]


def circle(graph: dict[str, set[str]]) -> list[str]:
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


def test_every_module_belongs_to_a_room():
    rooms = {source_tree.room(name) for name in source_tree.modules()} - set(ABOVE_ALL)
    assert rooms - set(ROOMS) == set(), "give it a place in LEVELS, in BUILD and in CONTRIBUTING.md"
    assert set(ROOMS) - rooms == set(), "in LEVELS, but neither a file nor a package of asr_tf"


def test_imported_modules_are_there():
    wrong = [
        f"{path.relative_to(source_tree.ROOT)}:{line} imports {target}"
        for path in source_tree.modules().values()
        for target, line in source_tree.own_imports(path)
        if target not in source_tree.modules()
    ]
    assert not wrong, "\n".join(wrong)


def test_upward_import_is_found():
    assert upward_imports([("a.py:1", "networks", "models")]) == [
        "a.py:1: networks must not import models, which stands below it in LEVELS"
    ]
    assert upward_imports([("a.py:1", "models", "networks"), ("a.py:2", "checks", "scene")]) == []


def test_rooms_import_from_their_own_level_and_those_before_it():
    imports = [
        (f"{path.relative_to(source_tree.ROOT)}:{line}", source_tree.room(name), source_tree.room(target))
        for name, path in source_tree.modules().items()
        for target, line in source_tree.own_imports(path)
        if source_tree.room(target) in HEIGHTS
    ]
    assert not (wrong := upward_imports(imports)), "\n".join(wrong)


def test_nothing_imports_a_program():
    wrong = [
        f"{path.relative_to(source_tree.ROOT)}:{line} imports {target}"
        for path in source_tree.modules().values()
        for target, line in source_tree.own_imports(path)
        if target.endswith("_main")
    ]
    assert not wrong, "\n".join(wrong)


def test_circle_is_found():
    assert circle({"a": {"b"}, "b": {"c"}, "c": {"b"}}) == ["b", "c", "b"]
    assert circle({"a": {"b", "c"}, "b": {"c"}}) == []


@pytest.mark.parametrize("top", ["asr_tf", "benchmarks"])
def test_no_circle_between_modules(top):
    """Neither between rooms nor inside one; an import inside a function counts."""
    graph = {
        name: {target for target, _ in source_tree.own_imports(path)} - {name}
        for name, path in source_tree.modules().items()
        if name.split(".")[0] == top
    }
    assert not (found := circle(graph)), " -> ".join(found)


PACKAGES = {
    room: path
    for room in ROOMS
    if (path := source_tree.modules().get(f"asr_tf.{room}")) and path.name == "__init__.py"
}


@pytest.mark.parametrize("room", PACKAGES)
def test_packages_say_what_they_may_import(room):
    """The `__init__` of a room opens with what lives there, and names the room right before it in the list."""
    docstring = ast.get_docstring(source_tree.parse(PACKAGES[room])) or ""
    before = [level for level in LEVELS[: HEIGHTS[room]] if level != PROGRAMS][-1]
    allowed = docstring.partition("May import ")[2]
    assert any(f"`asr_tf.{name}`" in allowed for name in before), (
        f"{PACKAGES[room].relative_to(source_tree.ROOT)} must say: May import everything up to `asr_tf.{before[0]}`"
    )
