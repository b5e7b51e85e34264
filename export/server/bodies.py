"""Bodies of requests: read within limits, and unpacked.

All bodies that are read or worked on together stay below a bound.  Where there is no room left, one gives way whose
client is silent, and where there is none, the youngest: what began first comes to its end.  It is looked for at the
peer that holds most, and no peer may hold more than half, so that one peer alone doesn't shut others out.  An eighth is
kept for small bodies, as requests for a few images are.
"""

from __future__ import annotations

import dataclasses
import time
import zlib
from collections import Counter
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

import anyio
from asr_tf.export.server.connections import peer_of
from asr_tf.export.server.errors import RequestError

__all__ = ["Bodies", "Body", "ClientGone"]

Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]

# Bodies of the greatest size that all requests together may hold.
_BODIES_AT_ONCE = 8
# Part of the greatest size that a body may have to be small.
_SMALL = 1 / 32
# A client that sent nothing for so long is silent.
_SILENT_S = 1.0
_GZIP = 16 + zlib.MAX_WBITS
_BUSY = "The server is busy: the requests under way are too large; try again"


class ClientGone(Exception):
    """The client closed the connection before its request was whole."""


@dataclasses.dataclass(eq=False)
class Body:
    """The body of one request.

    Attributes:
        peer: who sends it.
        data: what came of it, unpacked.
        began: when the first of it was awaited.
        heard: when the last of it came.
        is_whole: whether it is all there.
        gave_way: whether it was dropped for another.
        reading: ends the reading where it is cancelled.
    """

    peer: str
    data: bytearray = dataclasses.field(default_factory=bytearray)
    began: float = dataclasses.field(default_factory=time.monotonic)
    heard: float = dataclasses.field(default_factory=time.monotonic)
    is_whole: bool = False
    gave_way: bool = False
    reading: anyio.CancelScope = dataclasses.field(default_factory=anyio.CancelScope)


class Bodies:
    """The bodies of all requests under way; belongs to one event loop."""

    def __init__(self, most_bytes: int, seconds: float) -> None:
        """Holds none yet.

        Args:
            most_bytes: of one body, unpacked.
            seconds: for a body to come.
        """
        self._most_bytes = most_bytes
        self._seconds = seconds
        self._most_together = _BODIES_AT_ONCE * most_bytes
        self._unread: set[Body] = set()
        self._held: Counter[str] = Counter()  # bytes of the bodies of each peer

    async def read(self, scope: MutableMapping[str, Any], receive: Receive) -> Body:
        """The body of a request; to be given back with `release`.

        Raises:
            RequestError: it is too large, packed in an unknown way, comes too slowly, or there is no room for it.
            ClientGone: the client broke off.
        """
        headers = {name.lower(): value for name, value in scope["headers"]}
        unpack = _unpacking(headers.get(b"content-encoding", b"identity"))
        length = headers.get(b"content-length", b"0")
        if length.isdigit() and (len(length) > 18 or int(length) > self._most_bytes):
            raise RequestError(
                413, f"The request body of {length[:18].decode()} bytes is over the limit of {self._most_bytes}"
            )
        body = Body(peer_of((scope.get("client") or ("",))[0]))
        body.reading.deadline = anyio.current_time() + self._seconds
        self._unread.add(body)
        try:
            with body.reading:
                await self._fill(body, receive, unpack)
            if body.gave_way:
                raise RequestError(503, _BUSY)
            if not body.is_whole:
                raise RequestError(408, f"The request body didn't come within {self._seconds:g} s")
        except BaseException:
            self.release(body)
            raise
        finally:
            self._unread.discard(body)
        return body

    def release(self, body: Body) -> None:
        """Makes room: the request is answered, or isn't going to be."""
        self._held[body.peer] -= len(body.data)
        if not self._held[body.peer]:
            del self._held[body.peer]
        body.data = bytearray()

    async def _fill(self, body: Body, receive: Receive, unpack: _Gzip | None) -> None:
        received = 0
        while True:
            message = await receive()
            if message["type"] == "http.disconnect":
                raise ClientGone
            body.heard = time.monotonic()
            chunk = message.get("body", b"")
            received += len(chunk)
            if unpack is not None:
                chunk = unpack(chunk, self._most_bytes - len(body.data))
            if max(received, len(body.data) + len(chunk)) > self._most_bytes:
                raise RequestError(413, f"The request body is over the limit of {self._most_bytes} bytes")
            self._make_room(body, len(chunk))
            self._held[body.peer] += len(chunk)
            body.data += chunk
            if not message.get("more_body", False):
                break
        if unpack is not None and received:
            unpack.end()
        body.is_whole = True

    def _make_room(self, body: Body, more: int) -> None:
        while not self._fits(body, more):
            other = self._giving_way(body, more)
            if other is body:
                raise RequestError(503, _BUSY)
            other.gave_way = True
            other.reading.cancel()
            self._unread.discard(other)
            self.release(other)

    def _fits(self, body: Body, more: int) -> bool:
        together = self._held.total() + more
        if len(body.data) + more <= _SMALL * self._most_bytes:
            return together <= self._most_together
        return together <= self._most_together * 7 // 8 and not self._is_over_share(body, more)

    def _is_over_share(self, body: Body, more: int) -> bool:
        return self._held[body.peer] + more > self._most_together // 2

    def _giving_way(self, body: Body, more: int) -> Body:
        """The body that is dropped so that there is room for `more` bytes of `body`: another, or this one itself."""
        unread = [other for other in self._unread if other.data or other is body]
        if self._is_over_share(body, more):
            peer = body.peer
        else:
            peer = max((other.peer for other in unread), key=lambda peer: self._held[peer])
        unread = [other for other in unread if other.peer == peer]
        now = time.monotonic()
        silent = [other for other in unread if now - other.heard >= _SILENT_S]
        if silent:
            return min(silent, key=lambda other: other.heard)
        return max(unread, key=lambda other: other.began)


class _Gzip:
    """Unpacks a stream piece by piece."""

    def __init__(self) -> None:
        self._stream = zlib.decompressobj(_GZIP)

    def __call__(self, chunk: bytes, most: int) -> bytes:
        """What a piece holds, of which one byte more than `most` is enough to know."""
        try:
            found = self._stream.decompress(chunk, most + 1)
        except zlib.error as error:
            raise RequestError(400, f"The request body isn't gzip: {error}") from None
        if self._stream.unused_data:
            raise RequestError(400, "The request body goes on behind the end of its gzip stream")
        return found

    def end(self) -> None:
        if not self._stream.eof:
            raise RequestError(400, "The request body is cut short: its gzip stream has no end")


def _unpacking(encoding: bytes) -> _Gzip | None:
    name = encoding.lower().strip()
    if name in (b"gzip", b"x-gzip"):
        return _Gzip()
    if name == b"identity":
        return None
    raise RequestError(415, f"Content-Encoding must be gzip or identity, got {encoding[:40].decode('latin-1')}")
