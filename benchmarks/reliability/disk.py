"""A full disk: at the first save, at later ones, in an export and in a batch job."""

from __future__ import annotations

import contextlib
import pathlib
import resource
import shutil
import signal
import subprocess
from collections.abc import Iterator
from typing import Any

import numpy as np

from benchmarks.reliability import commands, materials
from benchmarks.reliability.commands import Command, Ended
from benchmarks.reliability.outcome import Bench, Check

__all__ = ["measure"]

TITLE = "Full disks"

_SIZE = 32 * 2**20
_BALLAST = "ballast"
_BLOCK = 4096


class Disk:
    """A small file system with as much room as is asked for; or, where none may be mounted, a limit for files' size.

    Attributes:
        folder: for the commands' output.
        is_mounted: whether it is a file system.
    """

    def __init__(self, folder: pathlib.Path) -> None:
        """Mounts it.

        Args:
            folder: empty.
        """
        self.folder = folder
        self.is_mounted = False
        self._limit: int | None = None
        if mount := shutil.which("mount"):
            arguments = [mount, "-t", "tmpfs", "-o", f"size={_SIZE}", "tmpfs", str(folder)]
            self.is_mounted = subprocess.run(arguments, capture_output=True, check=False).returncode == 0

    def used(self) -> int:
        """Bytes that lie there, without the ballast."""
        if self.is_mounted:
            return shutil.disk_usage(self.folder).used - self._ballast
        return sum(path.stat().st_size for path in self.folder.rglob("*") if path.is_file())

    @property
    def _ballast(self) -> int:
        path = self.folder / _BALLAST
        return -(-path.stat().st_size // _BLOCK) * _BLOCK if path.exists() else 0

    def leave(self, room: int) -> None:
        """Fills the disk but for `room` bytes."""
        self._limit = room
        if self.is_mounted:
            ballast = shutil.disk_usage(self.folder).free - room
            with (self.folder / _BALLAST).open("wb") as file:
                for start in range(0, ballast, 2**20):
                    file.write(bytes(min(2**20, ballast - start)))

    def relieve(self) -> None:
        """Gives the room back."""
        self._limit = None
        (self.folder / _BALLAST).unlink(missing_ok=True)

    def options(self) -> dict[str, Any]:
        """Of the process of a command that writes there."""
        limit = self._limit
        if self.is_mounted or limit is None:
            return {}
        return {"preexec_fn": lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))}

    def release(self) -> None:
        """Ends it."""
        umount = shutil.which("umount")
        if self.is_mounted and umount:
            subprocess.run([umount, "-l", str(self.folder)], check=True)  # a command may still run there


@contextlib.contextmanager
def _disk(bench: Bench, name: str) -> Iterator[Disk]:
    disk = Disk(bench.place(name))
    try:
        yield disk
    finally:
        disk.release()


def measure(bench: Bench) -> list[Check]:
    """Fills disks under training, export and batch."""
    with _disk(bench, "disk") as disk:
        what = "a file system of 32 MiB" if disk.is_mounted else "a limit for the size of files"
        return [
            _first_save(bench, disk, what),
            _later_saves(bench, disk, what),
            _export(bench, disk, what),
            _batch(bench, disk, what),
        ]


_EXPECTED = "one line that says why, another status than 0, nothing lost that was there, and what was written is freed"


def _rooms(bench: Bench, name: str, most: int, times: int) -> list[int]:
    """Bytes that are left, spread between nothing and `most` by chance."""
    return [int(room) for room in np.sort(bench.rng(name).uniform(0, most, times))]


def _size(folder: pathlib.Path) -> int:
    """What the files of a folder take on a disk, in bytes."""
    sizes = [path.stat().st_size for path in folder.rglob("*") if path.is_file()]
    return sum(-(-size // _BLOCK) * _BLOCK for size in sizes)


def _run(bench: Bench, disk: Disk, module: str, flags: list[str]) -> Ended:
    return commands.run(module, *flags, scratch=bench.folder / "tmp", **disk.options())


def _halves(workdir: pathlib.Path) -> str | None:
    """Files of checkpoints that aren't whole, or None."""
    folder = workdir / "checkpoints"
    found = commands.contents(folder) if folder.exists() else {}
    whole = {name.removesuffix(".index") for name in found if name.endswith(".index")}
    halves = [name for name in found if name.partition(".")[0] not in whole or ".saving" in name]
    return f"left of a save that failed: {', '.join(sorted(halves))[:200]}" if halves else None


def _first_save(bench: Bench, disk: Disk, what: str) -> Check:
    check = Check(
        f"Training with room for a part of the first checkpoint ({what}), then the same command with room enough",
        f"{_EXPECTED}; then the training ends as an undisturbed one, bit for bit",
    )
    whole = materials.trained(bench)
    for room in _rooms(bench, "first save", _checkpoint_size(whole), bench.many(5, 2)):
        workdir = disk.folder / "run"
        flags = materials.train_flags(bench, workdir)
        disk.leave(room)
        failed = _run(bench, disk, "train_main", flags)
        faults = [commands.one_line(failed, "asr_train"), _halves(workdir)]
        disk.relieve()
        faults += _goes_on(bench, disk, flags, workdir, whole)
        check.add("refused, and trained when there was room", *faults)
        shutil.rmtree(workdir)
    return check


def _checkpoint_size(whole: pathlib.Path) -> int:
    return _size(whole / "checkpoints" / "result")


def _goes_on(
    bench: Bench, disk: Disk, flags: list[str], workdir: pathlib.Path, whole: pathlib.Path, reports: bool = True
) -> list[str | None]:
    """Faults of the same training with room enough."""
    done = _run(bench, disk, "train_main", flags)
    if done.status:
        return [done.fault("the training with room enough")]
    return [*materials.difference(workdir, whole, reports)]


def _later_saves(bench: Bench, disk: Disk, what: str) -> Check:
    check = Check(
        f"Training that is interrupted after some saves, then resumed with room for a part of a checkpoint ({what}), "
        "then the same command with room enough",
        f"{_EXPECTED}; then the training ends with the weights and the optimizer of an undisturbed one, bit for bit",
    )
    whole = materials.trained(bench)
    workdir = disk.folder / "run"
    flags = materials.train_flags(bench, workdir)

    def has_saved_thrice() -> bool:
        return len(list((workdir / "checkpoints").glob("ckpt-*.index"))) == 3

    for room in _rooms(bench, "later saves", _checkpoint_size(whole), bench.many(5, 2)):
        running = Command("train_main", *flags, scratch=bench.folder / "tmp")
        running.wait_for(has_saved_thrice)
        running.process.send_signal(signal.SIGINT)
        running.end()
        before = _checkpoints(workdir)
        disk.leave(room)
        failed = _run(bench, disk, "train_main", flags)
        after = _checkpoints(workdir)
        lost = [name for name in before if after.get(name) != before[name]]
        faults = [
            commands.one_line(failed, "asr_train"),
            _halves(workdir),
            f"lost: {', '.join(lost)[:200]}" if lost else None,
        ]
        disk.relieve()
        faults += _goes_on(bench, disk, flags, workdir, whole, reports=False)
        check.add("refused, and trained on when there was room", *faults)
        shutil.rmtree(workdir)
    return check


def _checkpoints(workdir: pathlib.Path) -> dict[str, bytes]:
    """Files of the checkpoints that training goes on from."""
    found = commands.contents(workdir / "checkpoints")
    return {name: data for name, data in found.items() if "/" not in name}


def _export(bench: Bench, disk: Disk, what: str) -> Check:
    check = Check(
        f"Export beside another version, with room for a part of it ({what}); at last the same with room enough",
        f"{_EXPECTED}; at last the export succeeds",
    )
    whole = materials.exported(bench)
    export_dir = disk.folder / "export"
    shutil.copytree(whole, export_dir)
    before, used = commands.contents(export_dir), disk.used()
    flags = materials.export_flags(bench, export_dir)
    for room in _rooms(bench, "export", _largest(disk, whole), bench.many(4, 1)):
        disk.leave(room)
        failed = _run(bench, disk, "export.export_main", flags)
        faults = [commands.one_line(failed, "asr_export"), *_as_before(disk, export_dir, before, used)]
        disk.relieve()
        check.add("refused", *faults)
    if fault := _run(bench, disk, "export.export_main", flags).fault("the export with room enough"):
        check.note(fault, fault=True)
    shutil.rmtree(export_dir)
    return check


def _largest(disk: Disk, whole: pathlib.Path) -> int:
    """The most room that isn't enough for what an undisturbed command has written, in bytes."""
    if disk.is_mounted:
        return _size(whole) - _BLOCK
    return max(path.stat().st_size for path in whole.rglob("*")) - 1


def _as_before(disk: Disk, folder: pathlib.Path, before: dict[str, bytes], used: int) -> list[str | None]:
    found = commands.contents(folder) if folder.exists() else {}
    lost = [name for name in before if found.get(name) != before[name]]
    return [
        f"lost: {', '.join(lost)[:200]}" if lost else None,
        f"left over: {', '.join(found.keys() - before.keys())[:200]}" if found.keys() - before.keys() else None,
        f"{disk.used() - used:,} bytes weren't freed" if disk.used() > used else None,
    ]


def _batch(bench: Bench, disk: Disk, what: str) -> Check:
    check = Check(
        f"Batch job with room for a part of its rows ({what}); at last the same with room enough",
        f"{_EXPECTED}; at last the job gives the rows of an undisturbed one",
    )
    whole = materials.inferred(bench)
    output = disk.folder / "results"
    flags = materials.batch_flags(bench, output)
    used = disk.used()
    for room in _rooms(bench, "batch", _largest(disk, whole), bench.many(5, 2)):
        disk.leave(room)
        failed = _run(bench, disk, "export.batch_infer_main", flags)
        faults = [commands.one_line(failed, "asr_batch_infer"), *_as_before(disk, output, {}, used)]
        disk.relieve()
        check.add("refused", *faults)
    done = _run(bench, disk, "export.batch_infer_main", flags)
    if done.status or materials.rows(output) != materials.rows(whole):
        check.note(done.fault("the job with room enough") or "other rows than those of an undisturbed job", fault=True)
    shutil.rmtree(output)
    return check
