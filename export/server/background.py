"""Calls that don't share a batch, such as samples, likelihoods and refinements: one at a time, behind all others.

TensorFlow's threads go on with whatever has work ready, and a long loop always has: two such calls would stop `infer`
for everybody.  So they run in a session with a thread of its own, which the system lets run when others rest.  A call
has a deadline, and one whose client has gone is broken off, or isn't begun.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
import threading
from collections.abc import AsyncIterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import tensorflow as tf
from asr_tf.export.plain_folder import plain_folder
from asr_tf.export.server.errors import RequestError
from asr_tf.export.server.tensorflow_errors import request_error

__all__ = ["Background", "BackgroundCalls"]

Arrays = Mapping[str, np.ndarray]

_NICENESS = 10
_MOST_WAITING = 64
_BROKEN_OFF = "The call was broken off"


class Background:
    """A SavedModel in a session of its own, which opens at its first call.

    It is called by one thread at a time; `stop` may be called by any.
    """

    def __init__(self, folder: Path) -> None:
        """Opens nothing yet.

        Args:
            folder: of the SavedModel.
        """
        self._folder = folder
        self._session: Any = None
        self._signatures: Any = None
        self._num_stops = 0
        self._lock = threading.Lock()

    def __call__(self, name: str, arrays: Arrays, seconds: float | None = None) -> dict[str, np.ndarray]:
        """Computes a signature's outputs by name.

        Args:
            name: of the signature.
            arrays: all its inputs.
            seconds: that it may take, None for any.

        Raises:
            RequestError: what TensorFlow says against the values, it took too long, or was stopped.
        """
        session = self._open()
        signature = self._signatures[name]
        feed = {signature.inputs[key].name: array for key, array in arrays.items()}
        outputs = {key: tensor.name for key, tensor in signature.outputs.items()}
        try:
            options = tf.compat.v1.RunOptions(timeout_in_ms=0 if seconds is None else max(1, round(1000 * seconds)))
            return {key: np.asarray(value) for key, value in session.run(outputs, feed, options).items()}
        except tf.errors.DeadlineExceededError:
            raise RequestError(504, f"The call took longer than {seconds:g} s: ask for less at once") from None
        except (tf.errors.CancelledError, RuntimeError):  # the second where it hadn't begun
            raise RequestError(503, _BROKEN_OFF) from None
        except tf.errors.OpError as error:
            raise request_error(error) from error

    def stop(self) -> None:
        """Breaks off the call that is under way; the next one opens another session."""
        with self._lock:
            self._num_stops += 1
            session, self._session = self._session, None
        if session is not None:  # it takes a moment, in which others are served
            threading.Thread(target=session.close, name="stop", daemon=True).start()

    def _open(self) -> Any:
        with self._lock:
            num_stops, session = self._num_stops, self._session
        if session is not None:
            return session
        session = _session()
        with session.graph.as_default(), plain_folder(self._folder) as plain:
            loaded = tf.compat.v1.saved_model.load(session, ["serve"], plain)
        with self._lock:
            self._signatures = loaded.signature_def
            if num_stops == self._num_stops:
                self._session = session
                return session
        session.close()
        raise RequestError(503, _BROKEN_OFF)


class Call(Protocol):
    """What can be computed in the background, as a signature can."""

    def __call__(self, arrays: Arrays, seconds: float | None) -> dict[str, np.ndarray]:
        """Computes within the time."""

    def stop(self) -> None:
        """Breaks off."""


class _Waiting:
    """A call that somebody waits for: whether it is under way, and whether they still do."""

    def __init__(self, call: Call) -> None:
        self.call = call
        self.is_begun = False
        self.is_left = False


class BackgroundCalls:
    """The calls of all versions, one after another."""

    def __init__(self, seconds: float) -> None:
        """Starts no thread yet.

        Args:
            seconds: that a call may take once it has begun.
        """
        self._seconds = seconds
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="calls")
        self._waiting: set[_Waiting] = set()
        self._num_waiting = 0
        self._turn = asyncio.Lock()
        self._lock = threading.Lock()

    @contextlib.asynccontextmanager
    async def turn(self) -> AsyncIterator[None]:
        """One caller after another may `run` within this block.

        Raises:
            RequestError: too many wait.
        """
        if self._num_waiting >= _MOST_WAITING:
            raise RequestError(503, f"The server is busy: {self._num_waiting} calls wait; try again")
        self._num_waiting += 1
        try:
            async with self._turn:
                yield
        finally:
            self._num_waiting -= 1

    async def run(self, call: Call, arrays: Arrays) -> dict[str, np.ndarray]:
        """Computes, and breaks off where nobody waits for it any more.

        Raises:
            RequestError: what the call raises; also where it is broken off.
        """
        waiting = _Waiting(call)
        self._waiting.add(waiting)
        try:
            return await asyncio.get_running_loop().run_in_executor(self._thread, self._compute, waiting, arrays)
        finally:
            self._waiting.discard(waiting)
            self._leave(waiting)

    def close(self) -> None:
        """Breaks off what was begun, drops what waits, and ends the thread."""
        self._thread.shutdown(wait=False, cancel_futures=True)
        for waiting in tuple(self._waiting):
            self._leave(waiting)
        self._thread.shutdown()

    def _compute(self, waiting: _Waiting, arrays: Arrays) -> dict[str, np.ndarray]:
        with self._lock:
            if waiting.is_left:
                raise RequestError(503, _BROKEN_OFF)
            waiting.is_begun = True
        try:
            return waiting.call(arrays, self._seconds)
        finally:
            with self._lock:
                waiting.is_begun = False

    def _leave(self, waiting: _Waiting) -> None:
        with self._lock:
            waiting.is_left = True
            if waiting.is_begun:
                waiting.call.stop()


def _session() -> Any:
    """A session whose threads, which it starts at once, have the low priority of the one that makes it."""
    config = tf.compat.v1.ConfigProto(
        use_per_session_threads=True, inter_op_parallelism_threads=1, intra_op_parallelism_threads=1
    )
    made: list[Any] = []

    def make() -> None:
        if sys.platform == "linux":  # elsewhere it would be that of the whole process
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), os.getpriority(os.PRIO_PROCESS, 0) + _NICENESS)
        made.append(tf.compat.v1.Session(graph=tf.Graph(), config=config))

    thread = threading.Thread(target=make, name="session")
    thread.start()
    thread.join()
    return made[0]
