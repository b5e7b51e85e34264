"""docs/RELIABILITY.md, from docs/performance/reliability.json."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from benchmarks import command

__all__ = ["FIGURES", "PAGE", "PARTS", "text", "write"]

PAGE = command.ROOT / "docs" / "RELIABILITY.md"
FIGURES = command.ROOT / "docs" / "performance" / "reliability.json"
PARTS = ("kills", "disk", "bits", "clients", "calls", "handover", "generated", "soak")

_HEAD = """# Reliability

What happens where things go wrong: `python -m benchmarks.reliability` does it many times over, with the commands as
users run them, and writes this page from [its figures](performance/reliability.json). `--parts=NAME,...` does some
parts again, and keeps the figures of the others. `--quick` does everything a few times only, and writes nothing unless
`--output` names a file. All that is drawn by chance comes from the seed. The model is tiny (canvas 16 x 18, at most
two objects), because what is tried here are files, processes and connections; [PERFORMANCE.md](PERFORMANCE.md) has
figures of larger ones.

A number in brackets says how often something happened.
"""


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|").replace("<", "&lt;")


def _part(name: str, part: Mapping[str, Any]) -> str:
    machine = part["machine"]
    cores = f"{machine['used_cores']} of {machine['cores']} cores"
    lines = [
        f"## {part['title']}",
        "",
        f"`{part['command']}`, seed {part['seed']}; {machine['cpu']}, {cores}, "
        f"Python {machine['python']}, TensorFlow {machine['tensorflow']}.",
        "",
        "| what was done | times | expected | happened | |",
        "|---|---|---|---|---|",
    ]
    for check in part["checks"]:
        verdict = "held" if check["passed"] else "**FAILED**"
        cells = (check["done"], f"{check['times']:,}", check["expected"], check["happened"], verdict)
        lines.append("| " + " | ".join(map(_cell, cells)) + " |")
    for check in part["checks"]:
        if not check["passed"]:
            lines += ["", f"**Failed**: {_cell(check['done'])}. Faults: {check['num_faults']:,}, among them:", ""]
            quoted = (_cell(fault).replace("`", "'") for fault in check["faults"] or ["nothing was done"])
            lines += [f"* `{fault}`" for fault in quoted]
    return "\n".join(lines)


def text(figures: Mapping[str, Any]) -> str:
    """The page.

    Args:
        figures: parts by name, as the command writes them.
    """
    checks = [check for part in figures["parts"].values() for check in part["checks"]]
    failed = sum(not check["passed"] for check in checks)
    verdict = f"Of {len(checks)} expectations {len(checks) - failed} held, and {failed} failed."
    if missing := [name for name in PARTS if name not in figures["parts"]]:
        verdict += f" Parts without figures: {', '.join(missing)}."
    return "\n\n".join([f"{_HEAD}\n{verdict}", *(_part(*item) for item in figures["parts"].items())]) + "\n"


def write() -> None:
    """Writes the page from the file."""
    PAGE.write_text(text(json.loads(FIGURES.read_text(encoding="utf-8"))), encoding="utf-8")
