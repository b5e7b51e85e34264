"""A part of the measurements in a process of its own, which takes along what it has started when it ends."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import Any

from benchmarks.reliability.outcome import Bench, Check

__all__ = ["exit_with", "measured"]


def measured(measure: Callable[[Bench], list[Check]], bench: Bench) -> list[dict[str, Any]]:
    """The checks of a part; a part that ends with an exception, or with its process, has failed.

    Args:
        measure: of the part; it runs in a process of its own, which ends with this one's wait for it.
        bench: where and how.
    """
    context = multiprocessing.get_context("spawn")
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=_send, args=(sender, measure, bench))
    process.start()
    sender.close()
    try:
        found = receiver.recv()
    except EOFError:
        process.join()
        found = f"its process ended with status {process.exitcode}"
    finally:
        process.terminate()
        process.join()
    if isinstance(found, str):
        check = Check("All of this part", "it comes to its end")
        check.add("it didn't", found)
        return [check.figures()]
    return [check.figures() for check in found]


def _send(sender: Connection, measure: Callable[[Bench], list[Check]], bench: Bench) -> None:
    """Sends a part's checks, or in words why there are none; then all that the part has started is killed, too."""
    os.setsid()
    signal.signal(signal.SIGTERM, exit_with)
    try:
        sender.send(measure(bench))
    except Exception as error:
        sender.send(f"{type(error).__name__}: {error}")
    finally:
        os.killpg(0, signal.SIGKILL)


def exit_with(number: int, _: Any) -> None:
    """Ends the process as an exception does, so that disks are released and folders removed."""
    sys.exit(128 + number)
