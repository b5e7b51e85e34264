"""Room for answers: what is computed and not yet sent stays below a bound, whoever asks and doesn't take it.

An answer takes its room before it is computed and gives it back when it is sent.  Where another waits for room, a
client has some seconds to take its answer, and is cut off then.  An eighth is kept for small answers, as those to
requests for a few images are.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import dataclasses
import time
from collections.abc import Callable, Iterator

import anyio
from asr_tf.export.server.errors import RequestError

__all__ = ["AnswerRoom", "Holder", "answering"]

# Part of the room that an answer may take to be small.
_SMALL = 1 / 32
# How long a client has to take its answer while others wait, and how often it is looked at.
_TAKING_S = 5.0
_LOOK_S = 0.25


@dataclasses.dataclass(eq=False)
class Holder:
    """A request under way.

    Attributes:
        cut_off: ends it without an answer, or without the rest of it.
        num_bytes: that its answer takes.
        sending_since: when the answer began to be sent.
    """

    cut_off: Callable[[], None]
    num_bytes: int = 0
    sending_since: float = float("inf")

    def sends(self) -> None:
        """Notes that the answer begins to be sent."""
        self.sending_since = time.monotonic()


_HOLDER: contextvars.ContextVar[Holder | None] = contextvars.ContextVar("holder", default=None)


class AnswerRoom:
    """A number of bytes that answers share; belongs to one event loop."""

    def __init__(self, most_bytes: int, seconds: float) -> None:
        """Is empty.

        Args:
            most_bytes: of all answers together; one that needs more than three quarters counts as these.
            seconds: that an answer may wait for room.
        """
        self._most_bytes = most_bytes
        self._seconds = seconds
        self._holders: set[Holder] = set()
        self._freed = asyncio.Event()

    async def take(self, num_bytes: int) -> None:
        """Takes room for the answer to the request that is under way, once there is enough.

        Raises:
            RequestError: there is none in time.
        """
        holder = _HOLDER.get()
        if holder is None:  # nobody sends what is computed
            return
        is_small = num_bytes <= _SMALL * self._most_bytes
        most = self._most_bytes if is_small else self._most_bytes * 7 // 8
        num_bytes = min(num_bytes, self._most_bytes * 3 // 4)
        with anyio.move_on_after(self._seconds):
            while sum(other.num_bytes for other in self._holders) + num_bytes > most:
                self._cut_off_slowest()
                self._freed.clear()
                with anyio.move_on_after(_LOOK_S):
                    await self._freed.wait()
            holder.num_bytes = num_bytes
            self._holders.add(holder)
            return
        raise RequestError(503, "The server is busy: the answers under way are too large; try again")

    def free(self, holder: Holder) -> None:
        """Gives back what an answer took."""
        if holder in self._holders:
            self._holders.discard(holder)
            self._freed.set()

    def _cut_off_slowest(self) -> None:
        slowest = min(self._holders, key=lambda holder: holder.sending_since)
        if time.monotonic() - slowest.sending_since >= _TAKING_S:
            slowest.cut_off()


@contextlib.contextmanager
def answering(cut_off: Callable[[], None], *rooms: AnswerRoom) -> Iterator[Holder]:
    """A request: what it computes takes room, which is free again at the end of the block.

    Args:
        cut_off: ends the request.
        rooms: that its answer may take room in.
    """
    holder = Holder(cut_off)
    token = _HOLDER.set(holder)
    try:
        yield holder
    finally:
        _HOLDER.reset(token)
        for room in rooms:
            room.free(holder)
