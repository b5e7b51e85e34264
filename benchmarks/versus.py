"""Times this checkout beside another revision of it: `python -m benchmarks.speed --against=REVISION`.

A machine's speed drifts by more than revisions differ, so that figures of two runs can't be compared.  Here each
revision has a process of its own for each figure (`worker.py`), as what ran before in a process changes how fast it
allocates.  Only one works at a time.  They take turns, this other other this, so that every turn of one stands beside
the same turn of the other.  Figures are milliseconds a call or
training step, and `this_to_other` holds the ratios of those times pair by pair: below 1, this checkout is faster.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import pathlib
import statistics
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from asr_tf.fast.compile_cache import VARIABLE
from benchmarks import command, worker

__all__ = ["Worker", "checkout", "compared", "first_step", "measure", "paired"]

FIRST_STEP_PAIRS = 3  # at most


@contextlib.contextmanager
def checkout(revision: str) -> Iterator[tuple[pathlib.Path, str]]:
    """A folder with the files of a revision, which is removed afterwards, and the full name of its commit.

    Raises:
        Refusal: there is no such revision, or no git.
    """
    commit = _git("rev-parse", "--verify", "--quiet", "--end-of-options", f"{revision}^{{commit}}")
    if not commit:
        raise command.Refusal(f"--against={revision}: git knows no such revision in {command.ROOT}.")
    name = commit.decode().strip()
    with tempfile.TemporaryDirectory(prefix="asr_tf_revision_") as folder:
        with tarfile.open(fileobj=io.BytesIO(_git("archive", "--format=tar", name))) as archive:
            archive.extractall(folder, filter="data")
        yield pathlib.Path(folder).resolve(), name


def _git(*arguments: str) -> bytes:
    """What git prints; nothing where it fails.  It is the git that the user finds on the path, too."""
    try:
        return subprocess.run(["git", *arguments], cwd=command.ROOT, capture_output=True).stdout  # nosec B607
    except FileNotFoundError:
        raise command.Refusal("--against needs git, which isn't installed.") from None


def _start(folder: pathlib.Path, *flags: str) -> subprocess.Popen[str]:
    """A process of the worker, which keeps and finds no compiled programs."""
    given = os.environ.get("PYTHONPATH", "").split(os.pathsep)
    path = [str(folder), *(entry for entry in given if entry and pathlib.Path(entry).resolve() != command.ROOT)]
    return subprocess.Popen(
        [sys.executable, str(pathlib.Path(worker.__file__).resolve()), str(folder), *flags],
        cwd=folder,
        env={"TF_CPP_MIN_LOG_LEVEL": "2", **os.environ, "PYTHONPATH": os.pathsep.join(path), VARIABLE: ""},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


def _answer(process: subprocess.Popen[str], folder: pathlib.Path) -> dict[str, Any]:
    """The next answer.

    Raises:
        Refusal: the process ended instead.
    """
    assert process.stdout is not None
    line = process.stdout.readline()
    if not line:
        status = process.wait()
        raise command.Refusal(
            f"the process that times {folder} ended without an answer, with status {status}; why stands above."
        )
    return json.loads(line)


class Worker:
    """A process that times turns of one checkout.  A context manager, which ends the process.

    Attributes:
        turns: names of what can be timed.
    """

    def __init__(self, folder: pathlib.Path, *turns: str) -> None:
        """Starts the process and waits until it is ready.

        Args:
            folder: root of the checkout.
            turns: names of what is to be timed.
        """
        self._folder = folder
        self._process = _start(folder, *turns)
        try:
            self.turns: list[str] = _answer(self._process, folder)["ready"]
        except BaseException:
            self._close()
            raise

    def __enter__(self) -> Worker:
        return self

    def __exit__(self, *_: object) -> None:
        self._close()

    def _close(self) -> None:
        self._process.kill()
        self._process.communicate()

    def time(self, turn: str) -> float:
        """Seconds of one turn."""
        assert self._process.stdin is not None
        with contextlib.suppress(BrokenPipeError):  # then there is no answer either
            print(f"time {turn}", file=self._process.stdin, flush=True)
        return _answer(self._process, self._folder)["seconds"]


def first_step(folder: pathlib.Path) -> float:
    """Seconds from the start of a new process to the end of its first training step."""
    start = time.perf_counter()
    process = _start(folder, "--first-step")
    try:
        _answer(process, folder)
        return time.perf_counter() - start
    finally:
        process.communicate()


def paired(
    turns: Sequence[str],
    rounds: int,
    this: Callable[[str], float],
    other: Callable[[str], float],
    uncounted: int = 1,
) -> dict[str, list[tuple[float, float]]]:
    """Seconds of (this, other) for each turn and round.

    Turns follow one another within a round.  In one round `this` takes each turn first, in the next `other` does.

    Args:
        turns: names of what to time.
        rounds: how many pairs each turn gets.
        this, other: take the name of a turn and return its seconds.
        uncounted: rounds before those that count.
    """
    pairs: dict[str, list[tuple[float, float]]] = {turn: [] for turn in turns}
    for number in range(uncounted + rounds):
        for turn in turns:
            if number % 2 == 0:
                mine = this(turn)
                pair = (mine, other(turn))
            else:
                others = other(turn)
                pair = (this(turn), others)
            if number >= uncounted:
                pairs[turn].append(pair)
    return pairs


def compared(pairs: Sequence[tuple[float, float]], calls: int = 1) -> dict[str, Any]:
    """Medians of both sides in milliseconds a call, and the ratios this / other of the pairs.

    Args:
        pairs: seconds of (this, other).
        calls: how many calls or steps these seconds are of.
    """
    this, other = (1e3 * statistics.median(seconds) / calls for seconds in zip(*pairs, strict=True))
    ratios = [mine / others for mine, others in pairs]
    spread = {"median": statistics.median(ratios), "min": min(ratios), "max": max(ratios)}
    return {
        "this_ms": round(this, 3),
        "other_ms": round(other, 3),
        "this_to_other": {name: round(ratio, 4) for name, ratio in spread.items()},
    }


def measure(revision: str, rounds: int) -> dict[str, Any]:
    """Figures of this checkout and of a revision.

    Args:
        revision: what git calls it.
        rounds: how many pairs of each turn count; of first training steps at most 3.

    Raises:
        Refusal: there is no such revision, or one of the two can't be timed.
    """
    with checkout(revision) as (folder, commit):
        pairs: dict[str, list[tuple[float, float]]] = {}
        for turn in worker.CALLS:
            with Worker(command.ROOT, turn) as this, Worker(folder, turn) as other:
                pairs |= paired((turn,), rounds, this.time, other.time)
        steps = paired(
            ("first_step",),
            min(rounds, FIRST_STEP_PAIRS),
            lambda _: first_step(command.ROOT),
            lambda _: first_step(folder),
            uncounted=0,  # the files are in memory already
        )
    head = _git("rev-parse", "HEAD").decode().strip()
    changed = bool(_git("--no-optional-locks", "status", "--porcelain"))
    return {
        **command.machine(),
        "this": head + (" with uncommitted changes" if changed else ""),
        "other": commit,
        "rounds": rounds,
        **{turn: compared(pairs[turn], worker.CALLS[turn]) for turn in pairs},
        "first_step": compared(steps["first_step"]),
    }
