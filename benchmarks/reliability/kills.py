"""SIGKILL at random moments of a training, of exports and of batch jobs: the same command makes good what was cut."""

from __future__ import annotations

import pathlib
import shutil
import signal
from collections.abc import Callable

from asr_tf.export import artifact
from benchmarks.reliability import commands, materials
from benchmarks.reliability.commands import Command
from benchmarks.reliability.outcome import Bench, Check

__all__ = ["measure"]

TITLE = "Kills"


def measure(bench: Bench) -> list[Check]:
    """Kills training, export and batch."""
    return [_training(bench), _export(bench), _batch(bench)]


def _training(bench: Bench) -> Check:
    check = Check(
        "SIGKILL of a small training (drawn sprites, a tiny model), at a random moment after it has begun to write "
        "or after the first save of this start; the same command goes on each time, and a training that comes to its "
        "end is followed by a new one",
        "each training that ends has the weights, the optimizer and the reports of an undisturbed one, bit for bit, "
        "and its files alone",
    )
    whole, rng, ended = materials.trained(bench), bench.rng("kills of trainings"), 0
    wanted, longest = bench.many(50, 3), materials.seconds_of(whole)
    workdir = bench.folder / "killed training"
    while True:
        touched, saves = _is_new(workdir / "run.json"), _saves(workdir)
        running = Command("train_main", *materials.train_flags(bench, workdir), scratch=bench.folder / "tmp")
        if check.times < wanted:
            after_a_save = bool(rng.integers(2))
            running.wait_for(saves if after_a_save else touched)
            running.kill_after(rng.uniform(0.0, longest * (0.25 if after_a_save else 0.75)))
        done = running.end()
        if done.status == -signal.SIGKILL:
            check.add("killed")
            continue
        ended += 1
        fault = done.fault("a training that was resumed")
        for text in [fault] if fault else materials.difference(workdir, whole):
            check.note(text, fault=True)
        shutil.rmtree(workdir)
        if fault or check.times >= wanted:
            check.note(f"{ended} trainings came to their end, each compared with the undisturbed one")
            return check


def _is_new(file: pathlib.Path) -> Callable[[], bool]:
    """Whether a file has been written since this was made."""

    def stamp() -> int | None:
        try:
            return file.stat().st_mtime_ns
        except FileNotFoundError:
            return None

    before = stamp()
    return lambda: stamp() not in (None, before)


def _saves(workdir: pathlib.Path) -> Callable[[], bool]:
    """Whether a checkpoint has been saved since this was made."""
    folder = workdir / "checkpoints"

    def saved() -> set[str]:
        return {path.name for path in folder.glob("ckpt-*.index")}

    before = saved()
    return lambda: bool(saved() - before)


def _export(bench: Bench) -> Check:
    check = Check(
        "SIGKILL of an export, at a random moment after it has begun to write; then the same command, undisturbed",
        "no half version is ever there, the last command succeeds, and nothing is left but its version, which "
        "asr_check_export finds good",
    )
    whole = materials.exported(bench)
    rng, export_dir = bench.rng("kills of exports"), bench.folder / "killed export"
    wanted = {f"0/{name}" for name in commands.names(whole / "1")}
    while check.times < bench.many(10, 2):
        before = artifact.versions(export_dir)
        running = Command(
            "export.export_main", *materials.export_flags(bench, export_dir), scratch=bench.folder / "tmp"
        )
        running.wait_for(lambda: any(export_dir.glob(".*")))
        running.kill_after(rng.uniform(0.0, 1.1 * materials.seconds_of(whole)))
        status = running.end().status
        new = artifact.versions(export_dir)[len(before) :]
        if status == -signal.SIGKILL or new:
            half = [number for number in new if commands.names(export_dir / str(number)) != commands.names(whole / "1")]
            check.add(
                "killed" if status == -signal.SIGKILL else "done before the kill",
                f"version {half[0]} isn't whole" if half else None,
            )
    done = commands.run(
        "export.export_main", *materials.export_flags(bench, export_dir), scratch=bench.folder / "tmp"
    )
    verdict = commands.run("export.check_main", str(export_dir), scratch=bench.folder / "tmp")
    for fault in (done.fault("the last export"), verdict.fault("asr_check_export of the last export")):
        if fault:
            check.note(fault, fault=True)
    if left := commands.names(export_dir) - wanted:
        check.note(f"left over: {', '.join(sorted(left))[:200]}", fault=True)
    shutil.rmtree(export_dir)
    return check


def _batch(bench: Bench) -> Check:
    check = Check(
        "SIGKILL of a batch job, at a random moment after it has begun to write; then the same command, undisturbed",
        "results are marked as whole only if they are, the last command succeeds, and its rows and files are those of "
        "an undisturbed job",
    )
    whole = materials.inferred(bench)
    rng, output = bench.rng("kills of jobs"), bench.folder / "killed job"
    flags = materials.batch_flags(bench, output)
    expected = materials.rows(whole)
    while check.times < bench.many(12, 2):
        begins = _is_new(output / "_unfinished" / "job")
        running = Command("export.batch_infer_main", *flags, scratch=bench.folder / "tmp")
        running.wait_for(begins)
        running.kill_after(rng.uniform(0.0, 1.1 * materials.seconds_of(whole)))
        status = running.end().status
        if (output / "_SUCCESS").exists():
            is_whole = materials.rows(output) == expected
            check.add("done before the kill", None if is_whole else "marked as whole, and isn't")
            shutil.rmtree(output)
        elif status == -signal.SIGKILL:
            check.add("killed")
        else:
            check.add("failed", f"ended with status {status} and without results")
    done = commands.run("export.batch_infer_main", *flags, scratch=bench.folder / "tmp")
    if fault := done.fault("the last job"):
        check.note(fault, fault=True)
    elif materials.rows(output) != expected:
        check.note("the last job's rows aren't those of an undisturbed one", fault=True)
    if other := commands.names(output) ^ commands.names(whole):
        check.note(f"other files than those of an undisturbed job: {', '.join(sorted(other))[:200]}", fault=True)
    shutil.rmtree(output)
    return check
