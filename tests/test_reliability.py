"""How the benchmark of reliability counts, judges and reports; what it does many times over takes too long here."""

from __future__ import annotations

import asyncio
import json
import operator
import os
import pathlib
import re
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import tensorflow as tf

from asr_tf.runs.checkpoints import Checkpoints
from benchmarks import command, serving_load
from benchmarks.reliability import __main__ as program
from benchmarks.reliability import (
    bits,
    clients,
    commands,
    disk,
    generated,
    materials,
    page,
    processes,
    soak,
)
from benchmarks.reliability.outcome import Bench, Check

MACHINE = {"cpu": "a", "cores": 2, "used_cores": 1, "python": "3", "tensorflow": "2"}


def rng():
    return np.random.default_rng(0)


def test_a_check_counts_what_was_seen_and_what_was_wrong():
    check = Check("try", "it works")
    assert not check.figures()["passed"]  # nothing was done
    for _ in range(3):
        check.add("worked", None)
    check.note("2.0 s")
    assert check.figures() == {
        "done": "try", "times": 3, "expected": "it works", "happened": "worked (3); 2.0 s",
        "passed": True, "num_faults": 0, "faults": [],
    }  # fmt: skip
    for index in range(7):
        check.add("failed", f"fault\n {index}")
    check.note("too slow", fault=True)
    figures = check.figures()
    assert (figures["times"], figures["num_faults"], figures["passed"]) == (10, 8, False)
    assert figures["faults"] == [f"fault {index}" for index in range(5)]


def test_sizes_and_random_numbers(tmp_path):
    assert Bench(tmp_path).many(50, 3) == 50 and Bench(tmp_path, quick=True).many(50, 3) == 3
    first, again, other = (Bench(tmp_path, seed).rng(name).random() for seed, name in ((1, "a"), (1, "a"), (1, "b")))
    assert first == again != other


@pytest.mark.parametrize(
    ("measure", "argument", "fault"),
    [
        (os._exit, 3, "its process ended with status 3"),
        (operator.index, "x", "TypeError: 'str' object cannot be interpreted as an integer"),
    ],
)
def test_a_part_that_does_not_come_to_its_end_has_failed(measure, argument, fault):
    (check,) = processes.measured(measure, argument)
    assert not check["passed"] and check["faults"] == [fault]


def sleep(bench):
    """A part that has started a command and waits."""
    started = subprocess.Popen(["sleep", "600"])
    bench.folder.joinpath("new").write_text(str(started.pid))
    bench.folder.joinpath("new").rename(bench.folder / "started")
    started.wait()


def test_a_part_takes_along_what_it_has_started(tmp_path):
    waits = (
        "import pathlib, signal, sys; from benchmarks.reliability import outcome, processes; import test_reliability\n"
        "signal.signal(signal.SIGTERM, processes.exit_with)\n"
        "processes.measured(test_reliability.sleep, outcome.Bench(pathlib.Path(sys.argv[1])))"
    )
    path = os.pathsep.join([str(command.ROOT), *sys.path])
    process = subprocess.Popen([sys.executable, "-c", waits, str(tmp_path)], env={**os.environ, "PYTHONPATH": path})
    try:
        while process.poll() is None and not (tmp_path / "started").exists():
            time.sleep(0.05)
        process.terminate()
        assert process.wait(60) == 143
    finally:
        process.kill()
    started = pathlib.Path("/proc", (tmp_path / "started").read_text())
    for _ in range(200):
        if not started.exists():
            break
        time.sleep(0.05)
    assert not started.exists() or "\nState:\tZ" in (started / "status").read_text()


def test_parts_are_merged_into_the_file(tmp_path, monkeypatch, capsys):
    def measured(measure, bench):
        check = Check("try", "it works")
        check.add("worked", "fault" if bench.seed else None)
        return [check.figures()]

    monkeypatch.setattr(program, "measured", measured)
    output = tmp_path / "figures.json"
    assert program.main([f"--output={output}", "--parts=soak,kills", "--quick"]) == 0
    assert program.main([f"--output={output}", "--parts=soak", "--seed=1"]) == 1
    parts = json.loads(output.read_text())["parts"]
    assert [*parts] == ["kills", "soak"]
    assert parts["kills"]["command"] == "python -m benchmarks.reliability --quick --parts=kills"
    assert (parts["kills"]["seed"], parts["soak"]["seed"]) == (0, 1)
    assert parts["kills"]["checks"][0]["passed"] and not parts["soak"]["checks"][0]["passed"]
    assert page.text({"parts": parts}).count("**FAILED**") == 1
    capsys.readouterr()
    for wrong, message in (("--parts=kill", "no part 'kill'; there are kills"), ("--output=/no/x", "no folder")):
        with pytest.raises(SystemExit, match="2"):
            program.main([wrong])
        assert message in capsys.readouterr().err


def test_the_page_hides_nothing():
    good, bad = Check("a | b", "<c>"), Check("d", "e")
    good.add("f")
    bad.add("g", "`x` went wrong")
    part = {"title": "T", "command": "do", "seed": 7, "machine": MACHINE}
    text = page.text({"parts": {"t": part | {"checks": [good.figures(), bad.figures()]}}})
    assert "Of 2 expectations 1 held, and 1 failed. Parts without figures: kills, disk, " in text
    assert "`do`, seed 7; a, 1 of 2 cores, Python 3, TensorFlow 2." in text
    assert "| a \\| b | 1 | &lt;c> | f (1) | held |" in text
    assert "| d | 1 | e | g (1) | **FAILED** |" in text
    assert "**Failed**: d. Faults: 1, among them:\n\n* `'x' went wrong`" in text


def test_the_page_is_that_of_the_figures():
    figures = json.loads(page.FIGURES.read_text(encoding="utf-8"))
    assert page.PAGE.read_text(encoding="utf-8") == page.text(figures), "run python -m benchmarks.reliability"
    assert (*program.PARTS,) == page.PARTS


@pytest.mark.parametrize(
    ("status", "err", "fault"),
    [
        (1, "Image folder x: 4 images.\nasr_train: error: no room\n", None),
        (0, "asr_train: error: no room\n", "status 0"),
        (-9, "asr_train: error: no room\n", "status -9"),
        (1, "asr_train: error: no room\nmore\n", "one line"),
        (1, "Traceback\nasr_train: error: no room\n", "one line"),
        (1, "", "one line"),
    ],
)
def test_what_one_line_is(status, err, fault):
    found = commands.one_line(commands.Ended(status, "", err), "asr_train")
    assert found is None if fault is None else fault in found


def test_commands_are_run_and_killed(tmp_path):
    helped = commands.run("score_main", "--help", scratch=tmp_path / "tmp")
    assert helped.fault("it") is None and "--truth" in helped.out
    running = commands.Command("score_main", scratch=tmp_path / "tmp")
    running.kill_after(0.0)
    assert running.end().status == -signal.SIGKILL
    missing = commands.run("nothing_main", scratch=tmp_path / "tmp")
    assert "No module named asr_tf.nothing_main" in missing.fault("it")
    ends = commands.Command("nothing_main", scratch=tmp_path / "tmp")
    assert not ends.wait_for(lambda: False)
    assert ends.end().status == 1


def test_names_and_contents(tmp_path):
    (tmp_path / "a" / ".left-12").mkdir(parents=True)
    (tmp_path / "a" / "ckpt-7.index").write_text("x")
    assert commands.names(tmp_path) == {"a/.left-0", "a/ckpt-0.index"}
    assert commands.contents(tmp_path) == {"a/ckpt-7.index": b"x"}


def test_runs_are_compared_bit_for_bit(tmp_path):
    def write(name, value, seconds):
        folder = tmp_path / name / "checkpoints"
        for place in (folder, folder / "result"):
            weight, clock = tf.Variable(value), tf.Variable(seconds)
            Checkpoints(place, weight=weight, train_seconds=clock).save(4)
        row = {"step": 4, "loss": 1.0, "train_seconds": seconds}
        (tmp_path / name / "metrics.jsonl").write_text(json.dumps(row) + "\n")
        return tmp_path / name

    whole = write("whole", 1.0, 2.0)
    assert materials.difference(write("same", 1.0, 3.0), whole) == []
    other = write("other", float(np.nextafter(np.float32(1.0), 2)), 2.0)
    (other / "x.part").touch()
    first, left = materials.difference(other, whole)
    assert first.startswith("2 of 3 parts differ") and left == "left over: x.part"
    (whole / "metrics.jsonl").write_text(json.dumps({"step": 3, "loss": 1.0}) + "\n")
    assert len(materials.difference(write("same", 1.0, 3.0), whole)) == 1
    assert materials.difference(tmp_path / "same", whole, reports=False) == []
    assert materials.difference(other, whole, reports=False)[0].startswith("2 of 2 parts differ")


def test_a_bit_is_flipped():
    data = bytes(range(50))
    changed = bits.flip(data, rng())
    difference = int.from_bytes(data, "big") ^ int.from_bytes(changed, "big")
    assert len(changed) == 50 and difference.bit_count() == 1


def test_what_is_wrong_with_what_was_read():
    wanted = {("good.png", 0): b"a", ("bad.tfrecord", 0): b"b", ("bad.tfrecord", 1): b"c"}
    found = {key: wanted[key] for key in list(wanted)[:2]}
    assert not [*bits._faults(found, [("bad.tfrecord", 1, "damaged")], wanted)]
    assert not [*bits._faults({("good.png", 0): b"a"}, [("bad.tfrecord", None, "damaged")], wanted)]
    assert [*bits._faults(found, [], wanted)] == ["lost without a refusal: [('bad.tfrecord', 1)]"]
    assert [*bits._faults(wanted | {("bad.tfrecord", 1): b"d"}, [], wanted)] == ["other pixels, unnoticed"]
    assert [*bits._faults(found, [("bad.tfrecord", 1, "a\nb")], wanted)]


def test_spoiled_files_are_read_or_refused(tmp_path):
    images = materials.scenes(8)
    assert images.shape == (8, *materials.CANVAS, 1) and set(np.unique(images)) == {0, 255}
    good, bad = tmp_path / "good.npy", tmp_path / "bad.png"
    good.write_bytes(bits.npy(images))
    for data, seen in ((bits.png(images[0]), "read"), (bits.png(images[0])[:-20], "refused")):
        bad.write_bytes(data)
        assert generated._read_batch(tmp_path, bad) == (seen, None)
        assert generated._read_folder(tmp_path, bad) == (seen, None)
    (tmp_path / "good.npy").write_bytes(bits.npy(images[:7]))
    assert generated._read_batch(tmp_path, bad)[1] == "bad.png: 7 of 8 good images were read"


def test_requests_are_spoiled_and_judged():
    request = generated.good_request(rng())
    text = json.dumps(request)
    draws = np.random.default_rng(1)
    found = {json.dumps(generated.spoiled_json(request, draws)) for _ in range(50)}
    assert json.dumps(request) == text and len(found - {text}) > 25
    assert generated.spoiled(b"abc" * 30, rng()) == generated.spoiled(b"abc" * 30, rng()) != b"abc" * 30
    assert generated._answer_fault(200, b"{}") is None
    assert generated._answer_fault(400, b'{"error": "images are missing"}') is None
    assert generated._answer_fault(500, b'{"error": "x"}').startswith("status 500")
    assert "no JSON" in generated._answer_fault(400, b"<html>")
    assert "not one line" in generated._answer_fault(400, b'{"error": "a\\nb"}')


def test_the_statuses_are_those_of_the_page():
    text = (command.ROOT / "docs" / "SERVING.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| ([0-9, ]+) \|", text, re.MULTILINE)
    assert tuple(int(status) for row in rows for status in row.split(", ")) == generated.STATUSES[1:]


def test_memory_counts_from_the_end_of_the_warm_up():
    assert soak.growth([1.0, 9.0, 9.0, 10.0, 10.0, 11.0, 10.5]) == pytest.approx(0.1)
    assert soak.growth([20.0, 10.0, 10.0, 10.0, 9.0]) == pytest.approx(-0.1)


def test_a_disk_that_can_not_be_mounted_is_a_limit(tmp_path, monkeypatch):
    monkeypatch.setattr(disk.shutil, "which", lambda name: None)
    small = disk.Disk(tmp_path)
    assert not small.is_mounted and small.options() == {}
    small.leave(1000)
    scratch = tmp_path / "tmp"
    ended = commands.run("score_main", "--help", scratch=scratch, **small.options())
    assert ended.status == 0 and [*small.options()] == ["preexec_fn"]
    (tmp_path / "file").write_bytes(bytes(10))
    assert small.used() == 10
    small.relieve()
    assert small.options() == {}
    small.release()


def _with_server(answer, talk):
    """What `talk(host, port)` gives while a server answers each connection by `answer(reader, writer)`."""

    async def run():
        async with await asyncio.start_server(answer, "127.0.0.1", 0) as server:
            return await talk(*server.sockets[0].getsockname())

    return asyncio.run(run())


@pytest.mark.parametrize(
    ("sent", "seen"), [(b"HTTP/1.1 408 Request Timeout\r\n\r\n", "408"), (b"", "closed"), (None, "open")]
)
def test_how_an_attack_ends(sent, seen):
    async def answer(reader, writer):
        await reader.readexactly(4)  # a piece came after the first bytes
        if sent is None:
            await reader.read()
        else:
            writer.write(sent)
        writer.close()

    async def talk(host, port):
        attack = clients.Attack("", "", b"abc", b"d", 0.01, 1.0, ())
        longest_s = 0.05 if sent is None else 30.0
        return await clients.drip(*await asyncio.open_connection(host, port), attack, longest_s)

    assert _with_server(answer, talk) == seen


def test_load_tallies_answers():
    """Every fourth answer is an error, and every fourth one is wrong."""
    counts = iter(range(100))
    outputs = {"count": np.array([1, 2])}

    async def answer(reader, writer):
        while head := await reader.readline():
            assert head == b"POST /v1/models/asr:predict HTTP/1.1\r\n"
            size = int((await reader.readuntil(b"\r\n\r\n")).lower().partition(b"content-length:")[2].split()[0])
            which = int(await reader.readexactly(size))
            number = next(counts)
            body = json.dumps({"predictions": [{"count": 7 if number % 4 == 1 else which + 1}]}).encode()
            status = b"503 No" if number % 4 == 0 else b"200 OK"
            writer.write(b"HTTP/1.1 %s\r\ncontent-length: %d\r\n\r\n%s" % (status, len(body), body))
        writer.close()

    async def talk(host, port):
        tally, expected = serving_load.Tally(), serving_load.Expected(outputs, 1e-5)
        await serving_load.ask(f"http://{host}:{port}/v1/models/asr", [b"0", b"1"], range(40), 1, expected, tally)
        return tally

    tally = _with_server(answer, talk)
    assert (len(tally.seconds), tally.errors, tally.wrong) == (40, 10, 10)
