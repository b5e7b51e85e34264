"""A server that is loaded, watched and ended: what the parts about `asr_serve` share."""

from __future__ import annotations

import asyncio
import http.client
import itertools
import json
import pathlib
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import urlsplit

import numpy as np

from benchmarks import serving_load

__all__ = ["Load", "memory_mib", "predict", "serving"]


@contextmanager
def serving(export_dir: pathlib.Path, *flags: str, **options: Any) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """`asr_serve` of a folder of versions, as `serving_load.served`, without its log."""
    with (
        open("/dev/null", "w", encoding="utf-8") as log,
        serving_load.served(export_dir, *flags, stderr=log, **options) as server,
    ):
        yield server


def memory_mib(process: subprocess.Popen[str], name: str = "VmRSS") -> float:
    """Resident memory of a process in MiB: now, or its peak, which is `VmHWM`."""
    lines = pathlib.Path(f"/proc/{process.pid}/status").read_text(encoding="utf-8").splitlines()
    return next(int(line.split()[1]) / 1024.0 for line in lines if line.startswith(f"{name}:"))


def predict(url: str, signature: str, timeout_s: float = 600.0, **inputs: Any) -> tuple[int, Any]:
    """Status and answer of a request by column.

    Args:
        url: of the model.
        signature: its name.
        timeout_s: how long to wait; then a TimeoutError comes, and the connection is closed.
        **inputs: of the signature.
    """
    parts = urlsplit(url)
    connection = http.client.HTTPConnection(parts.netloc, timeout=timeout_s)
    try:
        connection.request("POST", f"{parts.path}:predict", json.dumps({"signature_name": signature, "inputs": inputs}))
        response = connection.getresponse()
        return response.status, json.loads(response.read())
    finally:
        connection.close()


class Load:
    """Clients that ask for one image after another as long as the block runs, in a thread; answers are checked.

    Attributes:
        tally: what came of it so far.
    """

    def __init__(self, url: str, images: np.ndarray, expected: serving_load.Expected, clients: int) -> None:
        """Begins in the block.

        Args:
            url: of the model.
            images: float32 [N, H, W, C].
            expected: what they are answered with.
            clients: connections, each with one request under way.
        """
        self.tally = serving_load.Tally()
        self._stop = threading.Event()
        numbers = itertools.takewhile(lambda _: not self._stop.is_set(), itertools.count())
        bodies = serving_load.bodies_of(images)

        def work() -> None:
            try:
                asyncio.run(serving_load.ask(url, bodies, numbers, clients, expected, self.tally))
            except OSError:  # nobody listens any more
                self.tally.errors += 1

        self._thread = threading.Thread(target=work)

    def __enter__(self) -> Load:
        """Begins, and waits until answers come."""
        self._thread.start()
        self.wait(16)
        return self

    def __exit__(self, *_: object) -> None:
        """Ends, once what is asked is answered."""
        self._stop.set()
        self._thread.join()

    @property
    def answered(self) -> int:
        """How many requests were answered."""
        return len(self.tally.seconds)

    def wait(self, answers: int, longest_s: float = 120.0) -> None:
        """Waits until so many more requests were answered, but no longer than that."""
        wanted, end = self.answered + answers, time.monotonic() + longest_s
        while self.answered < wanted and self._thread.is_alive() and time.monotonic() < end:
            time.sleep(0.01)

    def rate(self, seconds: float) -> float:
        """Answers a second, over the next seconds."""
        before, start = self.answered, time.monotonic()
        time.sleep(seconds)
        return (self.answered - before) / (time.monotonic() - start)

    def faults(self) -> list[str]:
        """What was wrong with the answers so far."""
        faults = [f"{self.tally.errors} requests weren't answered with status 200"] if self.tally.errors else []
        return faults + ([f"{self.tally.wrong} answers were wrong"] if self.tally.wrong else [])
