"""Slow, endless and idle clients, while others are served."""

from __future__ import annotations

import asyncio
import dataclasses
import pathlib
import resource
import subprocess
import time
from urllib.parse import urlsplit

import numpy as np
from asr_tf.export.server import file_limit

from benchmarks import serving_load
from benchmarks.reliability import materials, server
from benchmarks.reliability.outcome import Bench, Check

__all__ = ["drip", "measure"]

TITLE = "Slow and idle clients"

_FILES = 1024  # that the server may open
_READ_S = 30.0  # for a body, as asr_serve has it; headers have a third
_HEAD_S = _READ_S / 3.0
_SLACK_S = 15.0  # for a machine that is busy
_BODIES_MIB = 256  # all of them together, see docs/SECURITY.md
_ROOM_MIB = 64  # beside them
_BODY_MIB = 32
_IDLE_S = 4.0


@dataclasses.dataclass(frozen=True)
class Attack:
    """What each of many clients sends.

    Attributes:
        done: the same in words.
        expected: of the server, in words.
        first: bytes at once.
        piece: bytes again and again.
        pause_s: between two pieces.
        longest_s: until the server has given up.
        seen: how it may have: a status, or "closed".
    """

    done: str
    expected: str
    first: bytes
    piece: bytes
    pause_s: float
    longest_s: float
    seen: tuple[str, ...]


def measure(bench: Bench) -> list[Check]:
    """Attacks one server, in one way after the other."""
    export_dir = materials.exported(bench)
    images = materials.scenes(64, seed=6).astype(np.float32) / 255.0
    expected, _ = serving_load.Expected.of(export_dir, images)
    idle = bench.many(2000, 1200)
    file_limit.raise_to(idle + 500)

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_NOFILE, (_FILES, _FILES))

    with server.serving(export_dir, preexec_fn=limit) as (process, url):
        address = urlsplit(url)
        body = f"POST {address.path}:predict HTTP/1.1\r\nHost: x\r\nContent-Length: {_BODY_MIB * 2**20}\r\n\r\n"
        slow = Attack(
            "send their headers a byte at a time",
            f"a status 408 or an end after {_HEAD_S:g} s",
            b"GET / HTTP/1.1\r\nHost:", b" ", 0.25, _HEAD_S, ("408", "closed"),
        )  # fmt: skip
        unfinished = Attack(
            f"announce bodies of {_BODY_MIB} MiB, send half of them, and then nothing",
            f"a status 408 after {_READ_S:g} s, or 503 where bodies are over their share",
            body.encode() + b" " * (_BODY_MIB * 2**19), b"", 0.25, 2.0 * _READ_S, ("408", "503", "closed"),
        )  # fmt: skip
        endless = Attack(
            "send headers without an end",
            "a status 431 or an end at once",
            b"GET / HTTP/1.1\r\nHost: x\r\n", b"X: " + b"a" * 1000 + b"\r\n", 0.001, _HEAD_S, ("431", "closed"),
        )  # fmt: skip
        checks = []
        for attack, clients in (
            (slow, bench.many(200, 20)),
            (unfinished, bench.many(60, 10)),
            (endless, bench.many(200, 20)),
        ):
            check = Check(
                f"{clients:,} clients at once {attack.done}, while two others ask for images",
                f"{attack.expected}; the others are served without a fault, and the server grows by "
                f"{_BODIES_MIB + _ROOM_MIB} MiB at most",
            )
            before = server.memory_mib(process)
            with server.Load(url, images, expected, 2) as load:
                for seen in asyncio.run(_attack(str(address.hostname), int(address.port or 0), attack, clients)):
                    check.add(seen, None if seen in attack.seen else f"a client saw: {seen}")
                load.wait(20)
            _served(check, load, process, before)
            checks.append(check)
        checks.append(_idle(url, images, expected, idle, process))
    return checks


async def drip(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, attack: Attack, longest_s: float
) -> str:
    """Sends as an attack says until an answer comes.

    Returns:
        The answer's status, "closed" where the connection ends without one, or "open" where neither comes in time.
    """
    end = time.monotonic() + longest_s
    answer = asyncio.ensure_future(reader.read(4096))
    try:
        writer.write(attack.first)
        while not answer.done() and time.monotonic() < end:
            writer.write(attack.piece)
            await asyncio.wait({answer}, timeout=attack.pause_s)
        if not answer.done():
            answer.cancel()
            return "open"
        words = answer.result().split(b" ", 2)
        return words[1].decode() if len(words) == 3 else "closed"
    except OSError:
        return "closed"
    finally:
        writer.close()


async def _attack(host: str, port: int, attack: Attack, clients: int) -> list[str]:
    async def client() -> str:
        try:
            reader, writer = await asyncio.open_connection(host, port)
        except OSError:
            return "closed"
        return await drip(reader, writer, attack, attack.longest_s + _SLACK_S)

    return list(await asyncio.gather(*(client() for _ in range(clients))))


def _served(check: Check, load: server.Load, process: subprocess.Popen[str], before: float) -> None:
    """Notes how the other clients fared, and the server's memory."""
    for fault in load.faults():
        check.note(fault, fault=True)
    if process.poll() is not None:
        check.note("the server has ended", fault=True)
        return
    growth = max(0.0, server.memory_mib(process, "VmHWM") - before)
    check.note(
        f"the others got {load.answered:,} answers, the slowest after {max(load.tally.seconds):.1f} s; "
        f"memory grew by {growth:.0f} MiB at most, from {before:.0f} MiB"
    )
    if growth > _BODIES_MIB + _ROOM_MIB:
        check.note(f"memory grew by {growth:.0f} MiB", fault=True)


def _idle(
    url: str,
    images: np.ndarray,
    expected: serving_load.Expected,
    number: int,
    process: subprocess.Popen[str],
) -> Check:
    check = Check(
        f"{number:,} connections are opened to a server that may open {_FILES:,} files, and ask nothing, while two "
        "others ask for images",
        "the others are served without a fault, and what is asked goes before what is idle",
    )
    address = urlsplit(url)
    before = server.memory_mib(process)
    open_files: list[int] = []

    async def hold() -> list[str]:
        writers, ends = [], []
        for opened in range(number):
            if opened % 100 == 0:
                open_files.append(len(list(pathlib.Path(f"/proc/{process.pid}/fd").iterdir())))
            reader, writer = await asyncio.open_connection(address.hostname, address.port)
            writers.append(writer)
            ends.append(asyncio.ensure_future(reader.read(1)))
        await asyncio.sleep(_IDLE_S)
        open_files.append(len(list(pathlib.Path(f"/proc/{process.pid}/fd").iterdir())))
        found = ["closed to make room" if end.done() else "kept" for end in ends]
        for end in ends:
            end.cancel()
        for writer in writers:
            writer.close()
        await asyncio.gather(*ends, return_exceptions=True)
        return found

    with server.Load(url, images, expected, 2) as load:
        for seen in asyncio.run(hold()):
            check.add(seen)
        load.wait(20)
    check.note(f"{max(open_files):,} files of the server were open at most")
    _served(check, load, process, before)
    return check
