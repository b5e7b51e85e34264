"""The command; the package's own text says what it does."""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import os
import pathlib
import signal
import sys
import tempfile
from collections.abc import Sequence
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
from benchmarks.reliability.outcome import Bench
from benchmarks.reliability.processes import exit_with, measured

__all__ = ["main"]

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
    signal.signal(signal.SIGTERM, exit_with)
    sys.exit(main())
