"""A hundred thousand requests: answers stay right, and memory stays flat."""

from __future__ import annotations

import asyncio

import numpy as np

from benchmarks import serving_load
from benchmarks.reliability import materials, server
from benchmarks.reliability.outcome import Bench, Check

__all__ = ["growth", "measure"]

TITLE = "Soak"

_CLIENTS = 8
_PIECES = 20
_WARM_PIECES = 4  # until everything has been allocated
_MOST_GROWTH = 0.05


def growth(memory: list[float]) -> float:
    """By which part memory has grown after the warm-up: the largest of later values over the first one, less one.

    Args:
        memory: after each piece of the load.
    """
    return max(memory[_WARM_PIECES:]) / memory[_WARM_PIECES - 1] - 1.0


def measure(bench: Bench) -> list[Check]:
    """Asks `infer` for one image at a time."""
    requests = bench.many(100_000, 2000)
    check = Check(
        f"{_CLIENTS} clients ask infer for one image at a time",
        f"every request is answered with status 200 and right, and after a fifth of them the server's memory grows by "
        f"{_MOST_GROWTH:.0%} at most",
    )
    export_dir = materials.exported(bench)
    images = materials.scenes(256, seed=9).astype(np.float32) / 255.0
    expected, _ = serving_load.Expected.of(export_dir, images)
    bodies = serving_load.bodies_of(images)
    tally, memory = serving_load.Tally(), []
    with server.serving(export_dir) as (process, url):
        for _ in range(_PIECES):
            asyncio.run(serving_load.ask(url, bodies, range(requests // _PIECES), _CLIENTS, expected, tally))
            memory.append(server.memory_mib(process))
    answered = len(tally.seconds) - tally.wrong
    check.add("answered right", times=answered)
    if tally.errors or tally.wrong:
        check.add("failed or wrong", f"{tally.errors} failed, {tally.wrong} wrong", times=tally.errors + tally.wrong)
    check.note(
        f"memory {memory[0]:.0f} MiB after a twentieth, {memory[_WARM_PIECES - 1]:.0f} MiB after a fifth, "
        f"{memory[-1]:.0f} MiB at the end"
    )
    check.note(f"memory grew by {growth(memory):.1%}", fault=growth(memory) > _MOST_GROWTH)
    return [check]
