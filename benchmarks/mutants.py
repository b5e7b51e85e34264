"""Mutation testing: whether the tests of a room notice small faults that are planted in the room's code.

    python -m benchmarks.mutants --room=constraints [--room=imaging] [--number=80] [--seed=0] [--output=FILE]

A mutant is the room with one place of its code changed: another comparison or sum, a number one higher, `return None`,
an argument or a decorator left out.  A mutant is caught where a test in `tests/ROOM` fails, or takes far too long.  A
random share of all mutants is drawn, from each file in proportion to those that it has.

Most changes come from Cosmic Ray (`pip install cosmic-ray`), beside some that it doesn't know.  Left out is what no
test could notice (annotations, messages of errors) and what any test would (a shift of bits, an order of None).
`equivalent_mutants.json` lists drawn mutants that behave as the code does, each with its reason: they are not run.

TensorFlow is imported once.  Each mutant has a fork of that process and a folder with a copy of the checkout.
"""

from __future__ import annotations

import ast
import collections
import contextlib
import importlib
import importlib.metadata
import json
import math
import os
import pathlib
import platform
import random
import re
import resource
import runpy
import shutil
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from benchmarks import command

__all__ = ["Mutant", "draw", "measure", "mutants_of", "outcome", "wilson"]

EQUIVALENT = pathlib.Path(__file__).with_name("equivalent_mutants.json")
# What a room's tests read of the checkout.
_COPIED = ("asr_tf", "export", "gin_configs", "tests", "pyproject.toml")
# In processor time, for any load of the machine; a room's tests take a minute or less.
_LIMIT_S = 180
# Of the clock, for what waits forever.
_WAIT_S = 1800
# Tests up to that go first, those of the mutant's module before the others.
_QUICK_S = 0.5
_PASSED, _FAILED = 0, 1

_ARITHMETIC = "Add|Sub|Mul|Div|FloorDiv|Mod|Pow"
_ORDER = "Eq|NotEq|Lt|LtE|Gt|GtE"
# Of Cosmic Ray's operators: not those that give what isn't defined for numbers and tensors.
_OPERATORS = re.compile(
    rf"core/(ReplaceBinaryOperator_(({_ARITHMETIC})_({_ARITHMETIC})|BitAnd_BitOr|BitOr_BitAnd)"
    rf"|ReplaceComparisonOperator_(({_ORDER})_({_ORDER})|Is_IsNot|IsNot_Is)"
    r"|ReplaceUnaryOperator_Delete_\w+|ReplaceAndWithOr|ReplaceOrWithAnd|ReplaceTrueWithFalse|ReplaceFalseWithTrue"
    r"|AddNot|NumberReplacer|RemoveDecorator|ZeroIterationForLoop|ReplaceBreakWithContinue|ReplaceContinueWithBreak"
    r"|ExceptionReplacer)"
)

Place = tuple[int, int]
"""Line, counted from 1, and column, counted from 0."""


class Mutant(NamedTuple):
    """One changed place.

    Attributes:
        path: of the file, relative to the checkout.
        line: where the change begins, counted from 1.
        before, after: the lines that differ, on one line each.
        text: the whole file with the change.
    """

    path: str
    line: int
    before: str
    after: str
    text: str

    @property
    def key(self) -> tuple[str, str, str]:
        """What tells mutants apart, wherever in the file they stand."""
        return self.path, self.before, self.after


def mutants_of(path: str, text: str) -> list[Mutant]:
    """All mutants of a file.

    Args:
        path: of the file, relative to the checkout.
        text: what the file holds.

    Raises:
        Refusal: Cosmic Ray isn't installed.
    """
    tree = ast.parse(text)
    spared = [_span(text, node) for node in _spared(tree)]
    found = {}
    for place, mutated in [*_of_cosmic_ray(text), *_of_syntax(text, tree)]:
        if mutated != text and _parses(mutated) and not any(start <= place < end for start, end in spared):
            mutant = _mutant(path, text, mutated)
            found[mutant.text] = mutant  # two changes may come to the same
    return sorted(found.values(), key=lambda mutant: (mutant.line, mutant.after))


def _parses(text: str) -> bool:
    """False for what isn't Python, such as other stars before an argument."""
    try:
        ast.parse(text)
    except SyntaxError:
        return False
    return True


def _spared(tree: ast.Module) -> Iterator[ast.AST]:
    """What no test can notice a change in: annotations and messages."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Raise):
            yield node
        for annotation in (getattr(node, "annotation", None), getattr(node, "returns", None)):
            if isinstance(annotation, ast.AST):
                yield annotation


def _of_cosmic_ray(text: str) -> Iterator[tuple[Place, str]]:
    """Where each change begins, and the file with it."""
    try:
        from cosmic_ray import ast as parsed
        from cosmic_ray import mutating, plugins
    except ImportError:
        raise command.Refusal("mutants come from Cosmic Ray: pip install cosmic-ray.") from None
    nodes = list(parsed.ast_nodes(parsed.get_ast(text)))
    for name in sorted(plugins.operator_names()):
        if not _OPERATORS.fullmatch(name):
            continue
        operator = plugins.get_operator(name)()
        places = [start for node in nodes for start, _ in operator.mutation_positions(node)]
        for occurrence, place in enumerate(places):
            yield place, mutating.mutate_code(text, operator, occurrence)


def _of_syntax(text: str, tree: ast.Module) -> Iterator[tuple[Place, str]]:
    """Values that aren't returned, and arguments with a name that are left out."""
    lines = text.splitlines(keepends=True)
    starts = [0, *_running(len(line) for line in lines)]

    def replaced(span: tuple[Place, Place], new: str, behind: str = "") -> tuple[Place, str]:
        (first, start), (last, end) = span
        head, tail = text[: starts[first - 1] + start], text[starts[last - 1] + end :]
        return (first, start), head + new + re.sub(behind, "", tail, count=1) if behind else head + new + tail

    for node in ast.walk(tree):
        if isinstance(node, ast.Return) and node.value is not None and ast.unparse(node.value) != "None":
            yield replaced(_span(text, node.value), "None")
        if isinstance(node, ast.Call):
            for keyword in node.keywords:
                if keyword.arg is not None:
                    yield replaced(_span(text, keyword), "", r"\A\s*,\s*|\A(?=\s*\))")


def _running(sizes: Iterable[int]) -> Iterator[int]:
    total = 0
    for size in sizes:
        total += size
        yield total


def _span(text: str, node: Any) -> tuple[Place, Place]:
    """Where a node begins and ends; Python counts columns in bytes."""
    lines = text.splitlines()

    def place(line: int, column: int) -> Place:
        return line, len(lines[line - 1].encode()[:column].decode())

    return place(node.lineno, node.col_offset), place(node.end_lineno, node.end_col_offset)


def _mutant(path: str, text: str, mutated: str) -> Mutant:
    old, new = text.splitlines(), mutated.splitlines()
    first = next(i for i, pair in enumerate(zip([*old, None], [*new, None], strict=False)) if pair[0] != pair[1])
    same = 0
    while same < min(len(old), len(new)) - first and old[-1 - same] == new[-1 - same]:
        same += 1
    before, after = (" ".join(line.strip() for line in x[first : len(x) - same]) for x in (old, new))
    return Mutant(path, first + 1, before, after, mutated)


def draw(mutants: Sequence[Mutant], number: int, seed: int) -> list[Mutant]:
    """A random sample, from each file in proportion to its mutants.

    Args:
        mutants: to draw from.
        number: how many to draw; all where there are no more.
        seed: of the draw.
    """
    of_file = collections.defaultdict(list)
    for mutant in mutants:
        of_file[mutant.path].append(mutant)
    number = min(number, len(mutants))
    exact = {path: number * len(those) / len(mutants) for path, those in sorted(of_file.items())}
    sizes = {path: math.floor(share) for path, share in exact.items()}
    largest_rests = sorted(exact, key=lambda path: sizes[path] - exact[path])
    for path in largest_rests[: number - sum(sizes.values())]:
        sizes[path] += 1
    source = random.Random(seed)  # nosec B311: nothing secret
    return [mutant for path, size in sizes.items() for mutant in sorted(source.sample(of_file[path], size))]


def wilson(caught: int, number: int) -> tuple[float, float]:
    """The 95 % interval of a share by Wilson's score.

    >>> [round(end, 3) for end in wilson(9, 10)]
    [0.596, 0.982]
    """
    z = 1.959964
    share, total = caught / number, number + z * z
    centre = (number * share + z * z / 2.0) / total
    half = z / total * math.sqrt(number * share * (1.0 - share) + z * z / 4.0)
    return centre - half, centre + half


class _Order:
    """A plugin of pytest: quick tests first, and among them those of a module; notes what each test takes."""

    def __init__(self, seconds: Mapping[str, float], module: str) -> None:
        self.seconds = dict(seconds)
        self.module = module
        self.taken: dict[str, float] = collections.defaultdict(float)

    def pytest_collection_modifyitems(self, items: list[Any]) -> None:
        """Sorts the tests."""

        def key(item: Any) -> tuple[bool, bool, float]:
            seconds = self.seconds.get(item.nodeid, 0.0)
            return seconds > _QUICK_S, self.module not in item.path.stem, seconds

        items.sort(key=key)

    def pytest_runtest_logreport(self, report: Any) -> None:
        """Adds up a test's parts."""
        self.taken[report.nodeid] += report.duration


def outcome(folder: pathlib.Path, tests: Sequence[str], order: _Order, limit_s: int = _LIMIT_S) -> int:
    """The status of pytest in a fork of this process, negative where a signal ended it.

    Args:
        folder: the copy of the checkout.
        tests: what to run of it.
        order: the plugin; what tests took stands in `times.json` of the folder afterwards.
        limit_s: processor time after which the fork ends.
    """
    sys.stdout.flush()
    child = os.fork()
    if child == 0:
        with contextlib.suppress(BaseException):
            os._exit(_run_tests(folder, tests, order, limit_s))
        os._exit(_FAILED)
    deadline = time.monotonic() + _WAIT_S
    while True:
        ended, status = os.waitpid(child, os.WNOHANG)
        if ended:
            return os.waitstatus_to_exitcode(status)
        if time.monotonic() > deadline:
            os.kill(child, 9)
            deadline = math.inf
        time.sleep(0.05)


def _run_tests(folder: pathlib.Path, tests: Sequence[str], order: _Order, limit_s: int) -> int:
    """What the fork does."""
    import pytest

    resource.setrlimit(resource.RLIMIT_CPU, (limit_s, limit_s))
    os.chdir(folder)
    with open("log.txt", "w") as log, contextlib.redirect_stdout(log), contextlib.redirect_stderr(log):
        os.dup2(log.fileno(), 1)  # what isn't written by Python
        os.dup2(log.fileno(), 2)
        status = int(pytest.main(["-x", "-q", "-p", "no:cacheprovider", *tests], plugins=[order]))
    (folder / "times.json").write_text(json.dumps(order.taken), encoding="utf-8")
    return status


def _prepared(folder: pathlib.Path) -> None:
    """Copies the checkout, and imports from elsewhere what its tests do; no operation may run before a fork."""
    for name in _COPIED:
        source = command.ROOT / name
        (shutil.copytree if source.is_dir() else shutil.copy2)(source, folder / name)
    sys.path.insert(0, str(folder))
    runpy.run_path(str(folder / "tests" / "conftest.py"))  # the environment of the tests
    for name in ("tensorflow", "tensorflow_probability", "keras", "gin", "pytest"):
        importlib.import_module(name)


def measure(rooms: Sequence[str], number: int, seed: int) -> dict[str, Any]:
    """Draws mutants of rooms and runs each room's tests on its own.

    Args:
        rooms: packages in `asr_tf` that have a folder in `tests`.
        number: how many mutants to draw of each.
        seed: of the draw.

    Raises:
        Refusal: there is no such room, Cosmic Ray isn't installed, or tests fail without a mutant.
    """
    if number < 1:
        raise command.Refusal(f"--number={number}: at least 1 mutant must be drawn.")
    mutants = {room: _all_mutants(room) for room in rooms}
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        _prepared(folder)
        figures = {room: _of_room(folder, room, found, number, seed) for room, found in mutants.items()}
    versions = {name: importlib.metadata.version(name) for name in ("cosmic-ray", "tensorflow", "pytest")}
    return {"python": platform.python_version(), **versions, "seed": seed, "rooms": figures}


def _all_mutants(room: str) -> list[Mutant]:
    files = sorted((command.ROOT / "asr_tf" / room).glob("*.py"))
    if not (room.isidentifier() and files and (command.ROOT / "tests" / room).is_dir()):
        raise command.Refusal(f"--room={room}: there must be a folder asr_tf/{room} with modules and one tests/{room}.")
    texts = {str(path.relative_to(command.ROOT)): path.read_text(encoding="utf-8") for path in files}
    return [mutant for path, text in texts.items() for mutant in mutants_of(path, text)]


def _of_room(folder: pathlib.Path, room: str, mutants: Sequence[Mutant], number: int, seed: int) -> dict[str, Any]:
    """The figures of one room; what is decided is shown on stderr."""
    known = {(each["path"], each["before"], each["after"]) for each in json.loads(EQUIVALENT.read_text("utf-8"))}
    drawn = draw(mutants, number, seed)
    meant = [mutant for mutant in drawn if mutant.key not in known]
    if not meant:
        raise command.Refusal(f"--number={number}: only equivalent mutants of {room} are drawn; draw more.")
    tests, survivors = [f"tests/{room}"], []
    if outcome(folder, tests, _Order({}, "")) != _PASSED:
        last_line = (folder / "log.txt").read_text("utf-8").strip().rpartition("\n")[2]
        raise command.Refusal(f"tests/{room} fails without a mutant: {last_line}")
    seconds = json.loads((folder / "times.json").read_text("utf-8"))
    for place, mutant in enumerate(meant, start=1):
        with _planted(folder, mutant):
            survived = outcome(folder, tests, _Order(seconds, pathlib.Path(mutant.path).stem)) == _PASSED
        if survived:
            survivors.append(mutant)
        word = "SURVIVED" if survived else "caught"
        print(f"{place}/{len(meant)} {word} {mutant.path}:{mutant.line} {mutant.after}", file=sys.stderr)
    caught = len(meant) - len(survivors)
    return {
        "mutants": len(mutants),
        "drawn": len(drawn),
        "equivalent": len(drawn) - len(meant),
        "caught": caught,
        "caught_share": round(caught / len(meant), 3),
        "interval_95": [round(end, 3) for end in wilson(caught, len(meant))],
        "survivors": [{"path": x.path, "before": x.before, "after": x.after} for x in survivors],
    }


@contextlib.contextmanager
def _planted(folder: pathlib.Path, mutant: Mutant) -> Iterator[None]:
    """The copy with a mutant in it."""
    path = folder / mutant.path
    kept, stat = path.read_bytes(), path.stat()
    path.write_text(mutant.text, encoding="utf-8")
    try:
        yield
    finally:
        path.write_bytes(kept)
        os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))  # what is compiled of it stays good


def main() -> None:
    """Command line."""
    parser = command.parser(__doc__)
    parser.add_argument("--room", required=True, action="append", help="package in asr_tf; may be given several times")
    parser.add_argument("--number", type=int, default=80, help="how many mutants to draw of each")
    parser.add_argument("--seed", type=int, default=0, help="seed of the draw")
    arguments = parser.parse_args()
    command.report(arguments.output, lambda: measure(arguments.room, arguments.number, arguments.seed))


if __name__ == "__main__":
    main()
