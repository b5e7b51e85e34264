"""New versions are published while clients ask, broken ones too: nobody notices."""

from __future__ import annotations

import os
import pathlib
import shutil
import time

import numpy as np

from asr_tf.serving.client import Client
from benchmarks import serving_load
from benchmarks.reliability import materials, server
from benchmarks.reliability.outcome import Bench, Check

__all__ = ["measure"]

TITLE = "Hand-over of versions"

_CLIENTS = 4
_LONGEST_S = 300.0


def measure(bench: Bench) -> list[Check]:
    """Publishes versions under load; every third one is damaged."""
    check = Check(
        f"A new version is published while {_CLIENTS} clients ask for images; every third one has a flipped bit, and "
        "the version before each good one is taken away",
        "every request is answered with status 200 and right; each good version is served, and no damaged one",
    )
    whole = materials.exported(bench) / "1"
    export_dir = bench.place("handed over")
    _publish(whole, export_dir, 1)
    images = materials.scenes(64, seed=8).astype(np.float32) / 255.0
    expected, _ = serving_load.Expected.of(export_dir, images)
    with server.serving(export_dir, "--poll_seconds=0.2") as (_, url), Client(url.partition("/v1/")[0]) as client:
        with server.Load(url, images, expected, _CLIENTS) as load:
            serves = 1
            for number in range(2, 2 + bench.many(12, 3)):
                is_damaged = number % 3 == 0
                _publish(whole, export_dir, number, is_damaged)
                state = _state(client, number)
                load.wait(_CLIENTS)
                if is_damaged:
                    check.add("damaged, passed over", None if state != "AVAILABLE" else f"version {number} is served")
                    shutil.rmtree(export_dir / str(number))
                else:
                    check.add("served", None if state == "AVAILABLE" else f"version {number} is {state}")
                    shutil.rmtree(export_dir / str(serves))
                    serves = number
        check.note(f"{load.answered:,} requests were answered, the slowest after {max(load.tally.seconds):.1f} s")
        for fault in load.faults():
            check.note(fault, fault=True)
    shutil.rmtree(export_dir)
    return [check]


def _publish(whole: pathlib.Path, export_dir: pathlib.Path, number: int, is_damaged: bool = False) -> None:
    """Copies a version, with a name that servers don't look at until it is whole."""
    hidden = export_dir / f".{number}"
    shutil.copytree(whole, hidden)
    if is_damaged:
        path = hidden / "variables" / "variables.data-00000-of-00001"
        data = bytearray(path.read_bytes())
        data[len(data) // 2] ^= 1
        path.write_bytes(data)
    os.rename(hidden, export_dir / str(number))


def _state(client: Client, number: int) -> str:
    """The state of a version once the server has tried it."""
    end = time.monotonic() + _LONGEST_S
    while time.monotonic() < end:
        state = client.versions().get(number)
        if state in ("AVAILABLE", "END"):
            return state
        time.sleep(0.1)
    return "never tried"
