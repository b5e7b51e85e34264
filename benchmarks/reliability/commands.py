"""The package's commands as users run them: started, waited for, killed, and what they leave behind."""

from __future__ import annotations

import dataclasses
import os
import pathlib
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from typing import Any

from benchmarks import command

__all__ = ["Command", "Ended", "contents", "names", "one_line", "run"]

_LONGEST_S = 900.0
_LOOK_S = 0.005


@dataclasses.dataclass(frozen=True)
class Ended:
    """How a command ended.

    Attributes:
        status: its exit status; negative where a signal ended it.
        out: what it wrote on stdout.
        err: what it wrote on stderr.
    """

    status: int
    out: str
    err: str

    def fault(self, what: str) -> str | None:
        """None where it ended well; else what went wrong, for a report."""
        return None if self.status == 0 else f"{what} ended with status {self.status}: {self.err.strip()[-200:]}"


class Command:
    """A command that is running."""

    def __init__(self, module: str, *flags: str, scratch: pathlib.Path, **options: Any) -> None:
        """Starts it.

        Args:
            module: below `asr_tf`, as `train_main`.
            *flags: of the command.
            scratch: folder for its temporary files.
            **options: of `subprocess.Popen`.
        """
        scratch.mkdir(exist_ok=True)
        self._files = [tempfile.TemporaryFile() for _ in range(2)]  # noqa: SIM115 (`end` closes them; a pipe may be full)
        self.process = subprocess.Popen(
            [sys.executable, "-m", f"asr_tf.{module}", *flags],
            cwd=command.ROOT,
            env=environment(scratch),
            stdout=self._files[0],
            stderr=self._files[1],
            **options,
        )

    def end(self) -> Ended:
        """Waits for its end; a command that hangs is killed, and its status says so."""
        try:
            status = self.process.wait(_LONGEST_S)
        except subprocess.TimeoutExpired:
            self.process.kill()
            status = self.process.wait()
        texts = []
        for file in self._files:
            file.seek(0)
            texts.append(file.read().decode(errors="replace"))
            file.close()
        return Ended(status, *texts)

    def wait_for(self, condition: Callable[[], bool]) -> bool:
        """Waits until something holds; False where the command ends before."""
        while self.process.poll() is None:
            if condition():
                return True
            time.sleep(_LOOK_S)
        return False

    def kill_after(self, seconds: float) -> None:
        """Sends SIGKILL after a while, if it still runs then."""
        try:
            self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            self.process.kill()


def environment(scratch: pathlib.Path) -> Mapping[str, str]:
    """That of this process, but that temporary files go to `scratch`, and that no compiled programs are kept."""
    return {**os.environ, "TMPDIR": str(scratch), "ASR_TF_COMPILE_CACHE": ""}


def run(module: str, *flags: str, scratch: pathlib.Path, **options: Any) -> Ended:
    """Runs a command to its end; arguments as of `Command`."""
    return Command(module, *flags, scratch=scratch, **options).end()


def one_line(ended: Ended, name: str) -> str | None:
    """None where a command failed with one line that says why; else what is wrong with how it ended.

    Args:
        ended: how.
        name: of the command, which the line begins with.
    """
    lines = ended.err.strip().splitlines()
    errors = [line for line in lines if line.startswith(f"{name}: error: ")]
    if ended.status <= 0:
        return f"{name} ended with status {ended.status}, not with one that says that it failed"
    if "Traceback" in ended.err or len(errors) != 1 or lines[-1] != errors[0]:
        return f"{name} didn't end with one line: {ended.err.strip()[-200:]}"
    return None


def names(folder: pathlib.Path) -> set[str]:
    """The files and empty folders below a folder, hidden ones too, with 0 in place of every number."""
    return {
        re.sub(r"\d+", "0", path.relative_to(folder).as_posix())
        for path in folder.rglob("*")
        if path.is_file() or not any(path.iterdir())
    }


def contents(folder: pathlib.Path) -> dict[str, bytes]:
    """The bytes of every file below a folder, by its path in it."""
    files = (path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}
