"""The command; the package's own text says what it does."""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import multiprocessing
import os
import pathlib
import signal
import sys
import tempfile
from collections.abc import Callable, Sequence
from multiprocessing.connection import Connection
from typing import Any

import benchmarks.reliability
from benchmarks import command
from benchmarks.reliability import (
    bits,
    calls,
    clients,
    disk,
    generated,
    handover,
    kills,
    page,
    soak,
)
from benchmarks.reliability.outcome import Bench, Check

__all__ = ["main", "measured"]

PARTS: dict[str, Any] = {
    "kills": kills,
    "disk": disk,
    "bits": bits,
    "clients": clients,
    "calls": calls,
    "handover": handover,
    "generated": generated,
    "soak": soak,
}


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
    signal.signal(signal.SIGTERM, _exit)
    try:
        sender.send(measure(bench))
    except Exception as error:
        sender.send(f"{type(error).__name__}: {error}")
    finally:
        os.killpg(0, signal.SIGKILL)


def _exit(number: int, _: Any) -> None:
    """Ends the process as an exception does, so that disks are released and folders removed."""
    sys.exit(128 + number)


def _parts(text: str) -> list[str]:
    names = text.split(",")
    if unknown := [name for name in names if name not in PARTS]:
        raise argparse.ArgumentTypeError(f"there is no part {unknown[0]!r}; there are {', '.join(PARTS)}")
    return names


def _machine() -> dict[str, Any]:
    used = len(os.sched_getaffinity(0))
    return {**command.machine(), "used_cores": used, "tensorflow": importlib.metadata.version("tensorflow")}


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command; returns its exit status, 1 where an expectation failed.

    Args:
        arguments: of the command line; those of the process if None.
    """
    parser = command.parser(benchmarks.reliability.__doc__)
    parser.add_argument("--quick", action="store_true", help="do everything a few times only")
    parser.add_argument("--parts", type=_parts, default=list(PARTS), help=f"of {','.join(PARTS)} (default: all)")
    parser.add_argument("--seed", type=int, default=0, help="of all that is drawn (default: 0)")
    options = parser.parse_args(arguments)
    output: pathlib.Path | None = options.output or (None if options.quick else page.FIGURES)
    if output is not None and not output.absolute().parent.is_dir():
        parser.error(f"--output={output}: there is no folder {output.absolute().parent}")
    figures: dict[str, Any] = {"parts": {}}
    if output is not None and output.exists():
        figures = json.loads(output.read_text(encoding="utf-8"))
    called = "python -m benchmarks.reliability" + (" --quick" if options.quick else "")
    is_good = True
    with tempfile.TemporaryDirectory(prefix="reliability-", ignore_cleanup_errors=True) as scratch:
        bench = Bench(pathlib.Path(scratch), options.seed, options.quick)
        for name in options.parts:
            checks = measured(PARTS[name].measure, bench)
            is_good &= all(check["passed"] for check in checks)
            about = {"command": f"{called} --parts={name}", "seed": options.seed, "machine": _machine()}
            found = {"title": PARTS[name].TITLE, **about, "checks": checks}
            print(json.dumps({name: found}, indent=2), flush=True)
            merged = {**figures["parts"], name: found}
            figures["parts"] = {part: merged[part] for part in PARTS if part in merged}
            if output is not None:
                output.write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")
                if output == page.FIGURES:
                    page.write()
    return 0 if is_good else 1


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, _exit)
    sys.exit(main())
