"""Long calls: beside `infer`, abandoned by those who asked, and under way when the server is ended."""

from __future__ import annotations

import signal
import statistics
import threading
import time

import numpy as np

from benchmarks import serving_load
from benchmarks.reliability import materials, server
from benchmarks.reliability.outcome import Bench, Check

__all__ = ["measure"]

TITLE = "Long and abandoned calls"

_IMAGES, _PARTICLES = 6, 10_000
_LEAST_SHARE = 0.5
_SAMPLES = 4096
_GRACE_S = 5.0
_DRAIN_S = 1.0  # as asr_serve has it
_SLACK_S = 10.0  # for a machine that is busy
_CALL_S = 20.0  # that a call may take
_TRIES = 100  # of scenes that obey, by the model


def measure(bench: Bench) -> list[Check]:
    """Long calls of `log_likelihood` and `sample`."""
    export_dir = materials.exported(bench)
    images = materials.scenes(64, seed=7).astype(np.float32) / 255.0
    expected, _ = serving_load.Expected.of(export_dir, images)
    with server.serving(export_dir, f"--call_timeout_seconds={_CALL_S:g}") as (_, url):
        checks = [_beside(bench, url, images, expected), _abandoned(bench, url, images, expected)]
    return [*checks, _ended(bench, images)]


def _weigh(url: str, images: np.ndarray) -> int:
    asked = {"images": images[:_IMAGES].tolist(), "num_particles": _PARTICLES, "seed": [0, 1]}
    return server.predict(url, "log_likelihood", **asked)[0]


def _beside(bench: Bench, url: str, images: np.ndarray, expected: serving_load.Expected) -> Check:
    check = Check(
        f"Two clients ask for log_likelihood of {_IMAGES} images with {_PARTICLES:,} particles, again and again, while "
        "four others ask infer for one image at a time",
        f"infer keeps {_LEAST_SHARE:g} of its rate, by the median over the periods, and its answers are right; the "
        f"long calls are answered, or refused with status 504 after the {_CALL_S:g} s that they may take here",
    )
    seconds = bench.many(10, 3)
    shares = []
    with server.Load(url, images, expected, 4) as load:
        for _ in range(bench.many(3, 1)):
            alone = load.rate(seconds)
            stop = threading.Event()
            statuses: list[int] = []

            def weigh(stop: threading.Event = stop, statuses: list[int] = statuses) -> None:
                while not stop.is_set():
                    statuses.append(_weigh(url, images))

            threads = [threading.Thread(target=weigh) for _ in range(2)]
            for thread in threads:
                thread.start()
            beside = load.rate(seconds)
            stop.set()
            for thread in threads:
                thread.join()
            alone = (alone + load.rate(seconds)) / 2.0
            shares.append(beside / alone)
            bad = [status for status in statuses if status not in (200, 504)]
            check.add("periods", f"log_likelihood was answered with status {bad[0]}" if bad else None)
            check.note(f"{beside:.0f} answers/s beside {alone:.0f}, {statuses.count(200)}/{len(statuses)} calls done")
    for fault in load.faults():
        check.note(fault, fault=True)
    share = statistics.median(shares)
    check.note(f"median share of the rate {share:.2f}", fault=share < _LEAST_SHARE)
    return check


def _abandoned(bench: Bench, url: str, images: np.ndarray, expected: serving_load.Expected) -> Check:
    number = bench.many(40, 6)
    start = time.monotonic()
    status, _ = server.predict(url, "sample", num_samples=_SAMPLES, seed=[0, 1], num_objects=-1)
    whole = time.monotonic() - start
    check = Check(
        f"Clients ask for {_SAMPLES:,} scenes with {_TRIES} tries each to obey, and go after a tenth of a second; then "
        "one asks for a single scene, and two others ask for images all the time",
        "the scene comes in less than a tenth of the time that one abandoned call would take; the others are served "
        "without a fault",
    )
    if status != 200:
        check.note(f"an undisturbed call was answered with status {status}", fault=True)
    with server.Load(url, images, expected, 2) as load:
        for index in range(number):
            try:
                status, _ = server.predict(
                    url, "sample", 0.1, num_samples=_SAMPLES, seed=[1, index], num_objects=0, obey=True
                )
            except TimeoutError:
                check.add("abandoned")
            else:
                check.add(f"answered with status {status} before")
        start = time.monotonic()
        status, _ = server.predict(url, "sample", num_samples=1, seed=[2, 0], num_objects=-1)
        waited = time.monotonic() - start
    late = status != 200 or waited > 0.1 * _TRIES * whole + _SLACK_S
    check.note(
        f"the scene came with status {status} after {waited:.2f} s; one try of {_SAMPLES:,} takes "
        f"{whole:.2f} s",
        fault=late,
    )
    for fault in load.faults():
        check.note(fault, fault=True)
    return check


def _ended(bench: Bench, images: np.ndarray) -> Check:
    check = Check(
        f"SIGTERM while a long call of log_likelihood is under way (--grace_seconds={_GRACE_S:g})",
        f"status 0 within {_DRAIN_S + _GRACE_S:g} s and what the machine takes to end a process ({_SLACK_S:g} s), and "
        "the call is answered, or told that the server stops",
    )
    for _ in range(bench.many(4, 1)):
        answers: list[str] = []
        with server.serving(materials.exported(bench), f"--grace_seconds={_GRACE_S}") as (process, url):

            def ask(url: str = url, answers: list[str] = answers) -> None:
                try:
                    answers.append(f"status {_weigh(url, images)}")
                except (OSError, ValueError) as error:
                    answers.append(type(error).__name__)

            thread = threading.Thread(target=ask)
            thread.start()
            time.sleep(0.3)
            start = time.monotonic()
            process.send_signal(signal.SIGTERM)
            status = process.wait()
            seconds = time.monotonic() - start
            thread.join()
        is_late = seconds > _DRAIN_S + _GRACE_S + _SLACK_S
        told = answers and answers[0] in ("status 200", "status 503")
        check.add(
            f"ended, and the call got {answers[0] if answers else 'nothing'}",
            f"status {status}" if status else None,
            f"it took {seconds:.1f} s" if is_late else None,
            None if told else f"the call got {answers}",
        )
        check.note(f"{seconds:.1f} s")
    return check
