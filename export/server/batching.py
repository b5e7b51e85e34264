"""Requests of several clients become one batch, which a single thread computes.

A batch starts when the thread is free and enough examples wait, or the oldest has waited for `timeout_s`.  Enough are
half of those that were under way at once of late, at most `max_batch_size`: a caller that is alone never waits, and of
many the one half is computed while the other half comes in.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from typing import NamedTuple

import numpy as np
from asr_tf.export.server.errors import RequestError
from asr_tf.export.server.loaded_version import LoadedVersion, Signature

__all__ = ["Batcher"]

Arrays = dict[str, np.ndarray]

# What is left, after each batch, of the memory of how many were under way.
_FORGETTING = 0.95


class _Waiting(NamedTuple):
    version: LoadedVersion
    signature: Signature
    arrays: Arrays
    size: int
    arrival: float
    answer: asyncio.Future[Arrays]


class Batcher:
    """A queue in front of a model.

    It belongs to the event loop in which `run` is first called.
    """

    def __init__(
        self,
        max_batch_size: int,
        timeout_s: float,
        max_waiting: int,
        observe: Callable[[int], None] = lambda size: None,
    ) -> None:
        """Starts the thread.

        Args:
            max_batch_size: most examples of a batch; a request with more is a batch of its own.
            timeout_s: longest that the oldest example waits for others, in seconds.
            max_waiting: most examples that wait; who comes later is turned away.
            observe: told the size of each batch.
        """
        self._max_batch_size = max_batch_size
        self._timeout_s = timeout_s
        self._max_waiting = max_waiting
        self._observe = observe
        self._queue: deque[_Waiting] = deque()
        self._num_waiting = 0
        self._under_way = 0  # examples that wait or are computed
        self._most_under_way = 0.0  # of late
        self._is_closed = False
        self._changed = threading.Condition()
        self._thread = threading.Thread(target=self._work, name="batches", daemon=True)
        self._thread.start()

    @property
    def num_waiting(self) -> int:
        """Examples that wait for a batch."""
        return self._num_waiting

    async def run(self, version: LoadedVersion, signature: Signature, arrays: Arrays) -> Arrays:
        """Returns what the signature computes of these examples, in whichever batch.

        Args:
            version: that the signature belongs to.
            signature: one whose `is_batchable` holds.
            arrays: inputs by name, examples along the first axis.

        Raises:
            RequestError: the model refuses these examples (others of the batch are answered), or too many wait.
        """
        loop = asyncio.get_running_loop()
        sizes = {len(array) for array in arrays.values()}
        if len(sizes) > 1:
            raise RequestError(400, f"inputs must have one common first axis, got {sorted(sizes)}")
        answer: asyncio.Future[Arrays] = loop.create_future()
        waiting = _Waiting(version, signature, arrays, sizes.pop(), time.monotonic(), answer)
        with self._changed:
            if self._is_closed:
                raise RequestError(503, "The server is stopping")
            if self._num_waiting and self._num_waiting + waiting.size > self._max_waiting:
                raise RequestError(503, f"The server is busy: {self._num_waiting} examples wait; try again")
            self._queue.append(waiting)
            self._num_waiting += waiting.size
            self._under_way += waiting.size
            self._most_under_way = max(self._most_under_way, self._under_way)
            if len(self._queue) == 1 or self._num_waiting >= self._enough():
                self._changed.notify()
        try:
            return await answer
        except asyncio.CancelledError:  # the client has gone
            self._drop(waiting)
            raise

    def close(self) -> None:
        """Computes what waits, and ends the thread."""
        with self._changed:
            self._is_closed = True
            self._changed.notify()
        self._thread.join()

    def _drop(self, dropped: _Waiting) -> None:
        with self._changed:
            left = deque(waiting for waiting in self._queue if waiting is not dropped)
            if len(left) < len(self._queue):
                self._queue = left
                self._num_waiting -= dropped.size
                self._under_way -= dropped.size

    def _enough(self) -> float:
        return min(self._max_batch_size, self._most_under_way / 2)

    def _work(self) -> None:
        while batch := self._take():
            answers = _answers(batch)
            size = sum(waiting.size for waiting in batch)
            self._observe(size)
            with self._changed:
                self._under_way -= size
                self._most_under_way = max(self._under_way, _FORGETTING * self._most_under_way)
            try:
                batch[0].answer.get_loop().call_soon_threadsafe(_deliver, batch, answers)
            except RuntimeError:  # the event loop was closed: nobody waits any more
                continue

    def _wait_for_enough(self) -> None:
        """Waits until a batch may start, or none will any more; what waited may have been dropped meanwhile."""
        while True:
            while not self._queue and not self._is_closed:
                self._changed.wait()
            if self._is_closed or self._num_waiting >= self._enough():
                return
            remaining = self._queue[0].arrival + self._timeout_s - time.monotonic()
            if remaining <= 0.0:
                return
            self._changed.wait(remaining)

    def _take(self) -> list[_Waiting]:
        """The next batch, taken out of the queue; empty when there will be no other."""
        with self._changed:
            self._wait_for_enough()
            if not self._queue:
                return []
            first = self._queue[0]
            batch: list[_Waiting] = []
            left: deque[_Waiting] = deque()
            size = 0
            for waiting in self._queue:
                same = waiting.version is first.version and waiting.signature is first.signature
                if same and (not batch or size + waiting.size <= self._max_batch_size):
                    batch.append(waiting)
                    size += waiting.size
                else:
                    left.append(waiting)
            self._queue = left
            self._num_waiting -= size
            return batch


def _answers(batch: list[_Waiting]) -> list[Arrays | Exception]:
    """What to tell each: its share of the outputs, or why there is none."""
    try:
        signature = batch[0].signature
        if len(batch) == 1:
            return [signature(batch[0].arrays)]
        merged = {name: np.concatenate([waiting.arrays[name] for waiting in batch]) for name in signature.inputs}
        outputs = signature(merged)
        ends = np.cumsum([waiting.size for waiting in batch])
        return [_slice(outputs, end - waiting.size, end) for waiting, end in zip(batch, ends, strict=True)]
    except RequestError as error:
        # One bad example fails the whole call: each request alone tells whose it was.
        return [error] if len(batch) == 1 else [_answers([waiting])[0] for waiting in batch]
    except Exception as error:
        return [error] * len(batch)


def _slice(outputs: Mapping[str, np.ndarray], start: int, end: int) -> Arrays:
    return {name: array[start:end] for name, array in outputs.items()}


def _deliver(batch: list[_Waiting], answers: list[Arrays | Exception]) -> None:
    for waiting, answer in zip(batch, answers, strict=True):
        if waiting.answer.done():  # the client has gone
            continue
        if isinstance(answer, Exception):
            waiting.answer.set_exception(answer)
        else:
            waiting.answer.set_result(answer)
