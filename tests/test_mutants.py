"""Mutants of small texts, the sample, its interval, and forks that run a test; no room is mutated."""

import ast
import collections
import json
import os
import runpy
import subprocess
import sys

import numpy as np
import pytest

from benchmarks import command, mutants

TEXT = '''\
"""A module."""

from __future__ import annotations


def above(value: int, least: float = 2.0, *, strict: bool = True) -> bool | None:
    """Whether a value is above; é takes two bytes."""
    if value < 0:
        raise ValueError(f"must be {0 + 1} or more")
    return value > least if strict else max(value, least, key=abs)
'''


@pytest.fixture
def without_cosmic_ray(monkeypatch):
    monkeypatch.setattr(mutants, "_of_cosmic_ray", lambda text: iter(()))


def changes(text):
    return [(mutant.line, mutant.before, mutant.after) for mutant in mutants.mutants_of("a.py", text)]


def test_what_is_left_out(without_cosmic_ray):
    line = "return value > least if strict else max(value, least, key=abs)"
    assert changes(TEXT) == [(10, line, "return None"), (10, line, line.replace("key=abs", ""))]
    assert changes("f(a=1, b=2)\n") == [(1, "f(a=1, b=2)", "f(a=1, )"), (1, "f(a=1, b=2)", "f(b=2)")]
    several = "f(\n    a=1,\n    b=2,\n)\n"
    assert [after for *_, after in changes(several)] == ["", ")"]
    assert changes("def f():\n    return None\n") == []
    assert changes('print(len("é"), f(end="é"))\n') == [(1, 'print(len("é"), f(end="é"))', 'print(len("é"), f())')]


def test_every_mutant_is_python_that_differs_in_one_place(without_cosmic_ray):
    found = mutants.mutants_of("a.py", TEXT)
    for mutant in found:
        assert ast.dump(ast.parse(mutant.text)) != ast.dump(ast.parse(TEXT))
        old, new = TEXT.splitlines(), mutant.text.splitlines()
        assert [line for line in old if line not in new] == [old[mutant.line - 1]]
    assert len({mutant.key for mutant in found}) == len(found)


def test_mutants_of_cosmic_ray():
    pytest.importorskip("cosmic_ray")
    found = changes(TEXT)
    lines = {(line, after) for line, _, after in found}
    for line, after in [
        (6, "def above(value: int, least: float = 3.0, *, strict: bool = True) -> bool | None:"),
        (6, "def above(value: int, least: float = 2.0, *, strict: bool = False) -> bool | None:"),
        (8, "if value <= 0:"),
        (8, "if value < 1:"),
        (10, "return value >= least if strict else max(value, least, key=abs)"),
        (10, "return None"),
    ]:
        assert (line, after) in lines
    assert {line for line, _ in lines} == {6, 8, 10}  # no docstring, message or annotation
    assert not any("bool & None" in after or " is " in after for _, after in lines)


def test_cosmic_ray_is_needed(monkeypatch):
    monkeypatch.setitem(sys.modules, "cosmic_ray", None)
    with pytest.raises(command.Refusal, match=r"^mutants come from Cosmic Ray: pip install cosmic-ray\.$"):
        mutants.mutants_of("a.py", TEXT)


def some(path, number):
    return [mutants.Mutant(path, line, "", str(line), "") for line in range(number)]


def test_each_file_has_its_share_of_the_sample():
    pool = [*some("b.py", 50), *some("a.py", 30), *some("c.py", 21)]
    drawn = mutants.draw(pool, 10, seed=0)
    assert collections.Counter(mutant.path for mutant in drawn) == {"a.py": 3, "b.py": 5, "c.py": 2}
    assert len(set(drawn)) == 10 and drawn == mutants.draw(pool, 10, seed=0) != mutants.draw(pool, 10, seed=1)
    assert mutants.draw(pool, 1000, seed=0) == sorted(pool)
    counts = collections.Counter(m.line for seed in range(400) for m in mutants.draw(some("a.py", 5), 2, seed))
    np.testing.assert_allclose(list(counts.values()), [160] * 5, atol=45)  # 4.5 standard deviations


def test_interval_holds_the_shares_that_the_score_does_not_refuse():
    """Wilson's ends are where (share - p) ** 2 = z ** 2 p (1 - p) / n."""
    for caught, number in ((0, 5), (9, 10), (70, 80), (80, 80)):
        low, high = mutants.wilson(caught, number)
        for p in (low, high):
            assert (caught / number - p) ** 2 == pytest.approx(1.959964**2 * p * (1 - p) / number, abs=1e-9)
        assert low - 1e-9 <= caught / number <= high + 1e-9 and high - low > 0.01


_FORKS = """
import pathlib, sys
from benchmarks import mutants
for line in ("assert 1", "assert 0", "while True: pass", "os.abort()"):
    pathlib.Path("test_it.py").write_text(f"import os\\ndef test_first(): pass\\ndef test_it():\\n    {line}\\n")
    status = mutants.outcome(pathlib.Path.cwd(), ["test_it.py"], mutants._Order({}, ""), limit_s=1)
    print(line, status == 0, pathlib.Path("times.json").read_text().count("test_it.py::"), sep=", ")
    pathlib.Path("times.json").write_text("")
"""


def test_a_fork_says_how_a_test_ends(tmp_path):
    """In a process of its own: one with threads, such as TensorFlow's, may hang where it forks."""
    command_line, path = [sys.executable, "-c", _FORKS], {**os.environ, "PYTHONPATH": str(command.ROOT)}
    process = subprocess.run(command_line, cwd=tmp_path, env=path, capture_output=True, text=True)
    assert process.returncode == 0, process.stderr
    assert process.stdout.splitlines() == [
        "assert 1, True, 2", "assert 0, False, 2", "while True: pass, False, 0", "os.abort(), False, 0"
    ]  # fmt: skip
    assert "Fatal Python error" not in process.stderr  # it stands in the log


def test_quick_tests_of_the_module_go_first():
    class Item:
        def __init__(self, nodeid):
            self.nodeid, self.path = nodeid, mutants.pathlib.Path(nodeid.partition(":")[0])

    seconds = {"test_b.py:slow": 9.0, "test_b.py:quick": 0.1, "test_a.py:quick": 0.01, "test_a.py:slow": 4.0}
    items = [Item(nodeid) for nodeid in seconds] + [Item("test_b.py:new")]
    mutants._Order(seconds, "b").pytest_collection_modifyitems(items)
    assert [item.nodeid for item in items] == [
        "test_b.py:new", "test_b.py:quick", "test_a.py:quick", "test_b.py:slow", "test_a.py:slow"
    ]  # fmt: skip


def test_a_copy_holds_its_mutant_only_as_long_as_it_is_tried(tmp_path):
    path = tmp_path / "a.py"
    path.write_text("x = 1\n")
    before = path.stat()
    with mutants._planted(tmp_path, mutants.Mutant("a.py", 1, "x = 1", "x = 2", "x = 2\n")):
        assert path.read_text() == "x = 2\n"
    assert path.read_text() == "x = 1\n" and path.stat().st_mtime_ns == before.st_mtime_ns


@pytest.mark.parametrize("room", ["cellar", "../tests", "runs/.."])
def test_there_must_be_such_a_room(room):
    with pytest.raises(command.Refusal, match=r"^--room=.*: there must be a folder asr_tf/"):
        mutants.measure([room], 1, 0)


def test_at_least_one_mutant_is_drawn():
    with pytest.raises(command.Refusal, match=r"^--number=0: at least 1 mutant must be drawn\.$"):
        mutants.measure(["imaging"], 0, 0)


@pytest.fixture
def small(monkeypatch, tmp_path, without_cosmic_ray):
    """A checkout of one module, whose test catches one of its two mutants; nothing is forked."""

    def outcome(folder, tests, order):
        (folder / "times.json").write_text("{}")
        (folder / "log.txt").write_text("F\n1 failed in 0.1s\n")
        doubled = runpy.run_path(str(folder / "asr_tf/cellar/doubled.py"))["doubled"](3)
        return int(tests != ["tests/cellar"] or doubled != 6)

    for folder in ("asr_tf/cellar", "tests/cellar"):
        (tmp_path / folder).mkdir(parents=True)
    (tmp_path / "asr_tf/cellar/doubled.py").write_text("def doubled(x):\n    return sum([x, x], start=0)\n")
    monkeypatch.setattr(mutants, "outcome", outcome)
    monkeypatch.setattr(command, "ROOT", tmp_path)
    monkeypatch.setattr(mutants, "_COPIED", ("asr_tf", "tests"))
    monkeypatch.setattr(mutants, "_prepared", lambda folder: [
        mutants.shutil.copytree(tmp_path / name, folder / name) for name in mutants._COPIED
    ])  # fmt: skip
    monkeypatch.setattr(mutants, "EQUIVALENT", tmp_path / "equivalent.json")
    mutants.EQUIVALENT.write_text("[]")
    monkeypatch.setattr(mutants.importlib.metadata, "version", lambda name: "1.0")
    return tmp_path


def test_a_room_is_measured(small, capsys):
    left_out = {
        "path": "asr_tf/cellar/doubled.py",
        "before": "return sum([x, x], start=0)",
        "after": "return sum([x, x], )",
    }
    figures = mutants.measure(["cellar"], 5, 0)["rooms"]["cellar"]
    assert [figures[key] for key in ("mutants", "drawn", "equivalent", "caught", "caught_share")] == [2, 2, 0, 1, 0.5]
    assert figures["survivors"] == [left_out]
    assert "caught asr_tf/cellar/doubled.py:2 return None" in capsys.readouterr().err
    mutants.EQUIVALENT.write_text(json.dumps([left_out]))
    figures = mutants.measure(["cellar"], 5, 0)["rooms"]["cellar"]
    assert [figures[key] for key in ("drawn", "equivalent", "caught", "caught_share")] == [2, 1, 1, 1.0]
    assert figures["survivors"] == [] and 0.2 < figures["interval_95"][0] < 0.21


def test_tests_must_pass_without_a_mutant(small):
    (small / "asr_tf/cellar/doubled.py").write_text("def doubled(x):\n    return sum([x], start=0)\n")
    with pytest.raises(command.Refusal, match="^tests/cellar fails without a mutant: 1 failed in 0.1s$"):
        mutants.measure(["cellar"], 5, 0)


def test_equivalent_mutants_are_still_there():
    """Each is a line of the file that it names, and says why it is none to be caught."""
    for each in json.loads(mutants.EQUIVALENT.read_text(encoding="utf-8")):
        text = " ".join((command.ROOT / each["path"]).read_text(encoding="utf-8").split())
        assert " ".join(each["before"].split()) in text, each
        assert each["before"] != each["after"] and len(each["reason"]) > 20
