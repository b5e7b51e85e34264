"""What a part of the benchmark did, expected and saw; and what all parts share: a folder, a seed, a size."""

from __future__ import annotations

import collections
import dataclasses
import pathlib
import zlib
from typing import Any

import numpy as np

__all__ = ["Bench", "Check"]

_MOST_FAULTS = 5  # that are shown of a check
_MOST_LETTERS = 300  # of one


@dataclasses.dataclass(frozen=True)
class Bench:
    """Where and how a part works.

    Attributes:
        folder: scratch space, which parts share.
        seed: of everything that is drawn.
        quick: whether everything is done a few times only.
    """

    folder: pathlib.Path
    seed: int = 0
    quick: bool = False

    def many(self, full: int, quick: int) -> int:
        """How often something is done."""
        return quick if self.quick else full

    def rng(self, name: str) -> np.random.Generator:
        """Random numbers of one check, which don't depend on what other checks draw."""
        return np.random.default_rng([self.seed, zlib.crc32(name.encode())])

    def place(self, name: str) -> pathlib.Path:
        """A new folder of this name in the scratch space."""
        folder = self.folder / name
        folder.mkdir(parents=True)
        return folder


class Check:
    """Something that is done many times, and what came of it."""

    def __init__(self, done: str, expected: str) -> None:
        """Nothing has been done yet.

        Args:
            done: what is done, as a phrase.
            expected: what should come of it.
        """
        self._done = done
        self._expected = expected
        self._seen: collections.Counter[str] = collections.Counter()
        self._notes: list[str] = []
        self._faults: list[str] = []

    @property
    def times(self) -> int:
        """How often it was done."""
        return self._seen.total()

    def add(self, seen: str, *faults: str | None, times: int = 1) -> None:
        """Counts one time, or several of the same kind.

        Args:
            seen: what happened, as a phrase that several times may share.
            *faults: what was wrong; None counts as nothing.
            times: how often.
        """
        self._seen[seen] += times
        self._faults += [" ".join(fault.split())[:_MOST_LETTERS] for fault in faults if fault]

    def note(self, text: str, fault: bool = False) -> None:
        """Says something about all times together, such as a figure; it may be a fault."""
        (self._faults if fault else self._notes).append(text)

    def figures(self) -> dict[str, Any]:
        """The check as JSON."""
        seen = [f"{text} ({number:,})" for text, number in self._seen.most_common()]
        return {
            "done": self._done,
            "times": self.times,
            "expected": self._expected,
            "happened": "; ".join([*seen, *self._notes]) or "nothing",
            "passed": self.times > 0 and not self._faults,
            "num_faults": len(self._faults),
            "faults": self._faults[:_MOST_FAULTS],
        }
