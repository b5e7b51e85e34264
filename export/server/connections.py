"""Connections that strangers open: how many there may be, and how long each may take.

Uvicorn reads a request's head without an end and keeps a connection that never asks.  Here a head has a size and a
deadline, a connection that asks nothing is closed, and of too many connections those give way that ask nothing: the
longest idle of the peer that holds most.  So a connection that asks is served whatever others keep open.

A refusal is one JSON line, as those of the application are.  What is closed is closed gently: the answer goes out with
the end of the stream, and what the peer still sends is thrown away for a moment, so that it meets no reset.
"""

from __future__ import annotations

import asyncio
import dataclasses
import functools
import http
import ipaddress
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import orjson
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

__all__ = ["ConnectionLimits", "GuardedProtocol", "peer_of"]

# After the last word to a peer, how long it is listened to.
_LINGER_S = 1.0
# A peer must take its answer at this rate; so many looks in a row at which it didn't, and it is cut off.
_LOOK_S = 1.0
_SLOWEST_BYTES_PER_S = 16 * 1024
_MOST_STALLS = 10
# Requests that one connection may send ahead of their answers.
_MOST_AHEAD = 8


@dataclasses.dataclass(frozen=True)
class ConnectionLimits:
    """What one connection, and all of them, may take.

    Attributes:
        most: connections at once.
        head_bytes: of a request's line and headers.
        head_s: seconds for a request's line and headers to come, from the connection's start or their first byte.
        idle_s: seconds that a connection is kept without a request, after its first.
    """

    most: int = 1024
    head_bytes: int = 32 * 1024
    head_s: float = 10.0
    idle_s: int = 65


class GuardedProtocol(HttpToolsProtocol):
    """Uvicorn's connection, with limits."""

    def __init__(self, *, limits: ConnectionLimits, count_refusal: Callable[[int], None], **settings: Any) -> None:
        """Makes a connection that isn't open yet.

        Args:
            limits: of the server.
            count_refusal: told the status of each answer that the application doesn't give.
            settings: what Uvicorn hands to each connection.
        """
        super().__init__(**settings)
        self._limits = limits
        self._count_refusal = count_refusal
        self._refusal = (400, "The request isn't HTTP/1.1")
        self._is_in_head = False
        self._head_bytes = 0  # of the request that comes in, as far as it is known
        self._framing_bytes = 0  # since the last piece of its body
        self._late: asyncio.TimerHandle | None = None
        self._when_lost: set[Callable[[], None]] = set()
        self.peer = ""
        self.since = 0.0

    @property
    def gives_way(self) -> bool:
        """Whether nobody waits for an answer on this connection."""
        return self.cycle is None or self.cycle.response_complete or self.cycle.more_body

    @contextmanager
    def watched(self, when_lost: Callable[[], None]) -> Iterator[None]:
        """While the block runs, `when_lost` is called where the connection breaks off."""
        self._when_lost.add(when_lost)
        try:
            yield
        finally:
            self._when_lost.discard(when_lost)

    def drain(self) -> None:
        """Makes the answer under way the last."""
        for cycle in (self.cycle, *(cycle for cycle, _ in self.pipeline)):
            if cycle is not None:
                cycle.keep_alive = False

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Takes the connection, or refuses it where there are too many at work."""
        super().connection_made(_Lingering(transport, self.loop))  # type: ignore[arg-type]
        self.peer = peer_of(self.client[0] if self.client else "")
        self.since = self.loop.time()
        if len(self.connections) > self._limits.most and not self._make_room():
            self._refuse(503, f"The server is busy: {self._limits.most} connections are at work; try again")
            return
        self._await_head()

    def connection_lost(self, exc: Exception | None) -> None:
        """Tells whoever computes for this connection."""
        super().connection_lost(exc)
        self._head_is_there()
        for when_lost in tuple(self._when_lost):
            when_lost()

    def pause_writing(self) -> None:
        """Holds the answer back, and looks whether the peer takes it."""
        super().pause_writing()
        self.transport.watch()  # type: ignore[attr-defined]

    def data_received(self, data: bytes) -> None:
        """Reads on, within the limits."""
        if self.transport.is_closing():  # what comes behind the last word
            return
        # A head that began before this piece is longer than what came of it so far.
        self._head_bytes += len(data) if self._is_in_head else 0
        if self._head_bytes > self._limits.head_bytes:
            self._refuse(*self._too_long())
            return
        self._framing_bytes += len(data)
        super().data_received(data)
        if self.transport.is_closing():
            return
        if self._is_in_head or self.cycle is None or not self.cycle.more_body:
            self._framing_bytes = 0
        elif self._framing_bytes > self._limits.head_bytes:
            self._refuse(431, f"The body's trailers are over the limit of {self._limits.head_bytes} bytes")
        if self._late is None and (self.cycle is None or self.cycle.response_complete):
            self._await_head()  # bytes that began no request

    def on_message_begin(self) -> None:
        """Starts the clock of a request."""
        super().on_message_begin()
        self.scope["extensions"] = {"asr_serve.watched": self.watched}  # type: ignore[dict-item]
        self._is_in_head, self._head_bytes = True, 0
        self._await_head()

    def on_header(self, name: bytes, value: bytes) -> None:
        """Takes a header; what comes behind a chunked body is dropped."""
        if self._is_in_head:
            super().on_header(name, value)

    def on_headers_complete(self) -> None:
        """Hands the request to the application, if its head is within the limit."""
        self._is_in_head = False
        self._head_is_there()
        self._framing_bytes = 0
        if len(self.url) + sum(len(name) + len(value) + 4 for name, value in self.headers) > self._limits.head_bytes:
            self._refusal = self._too_long()
            raise ValueError("the head is too long")
        if len(self.pipeline) >= _MOST_AHEAD:
            self._refusal = (429, f"A connection may send {_MOST_AHEAD} requests ahead of their answers")
            raise ValueError("too many requests ahead")
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        """Takes a piece of the body."""
        self._framing_bytes = 0
        super().on_body(body)

    def on_response_complete(self) -> None:
        """Waits for the next request, or for the end of one that was answered before it was whole."""
        self.since = self.loop.time()
        super().on_response_complete()
        if self.cycle.response_complete and self.cycle.more_body:
            self._await_head()

    def send_400_response(self, msg: str) -> None:
        """Says what is wrong with a request that can't be read."""
        self._refuse(*self._refusal)

    def _too_long(self) -> tuple[int, str]:
        return 431, f"The request line and headers are over the limit of {self._limits.head_bytes} bytes"

    def _make_room(self) -> bool:
        """Closes the connection that asks nothing for the longest time, of the peer that holds most of them."""
        everyone: Iterable[Any] = self.connections
        idle = [other for other in everyone if other is not self and other.gives_way and not other.transport.is_gone]
        if not idle:
            return False
        held = Counter(other.peer for other in idle)
        last = min(idle, key=lambda other: (not other.transport.is_closing(), -held[other.peer], other.since))
        last.transport.abort()
        return True

    def _await_head(self) -> None:
        self._head_is_there()
        self._late = self.loop.call_later(self._limits.head_s, self._on_late)

    def _head_is_there(self) -> None:
        if self._late is not None:
            self._late.cancel()
            self._late = None

    def _on_late(self) -> None:
        self._late = None
        if self.transport.is_closing():
            return
        if self.cycle is not None and not self.cycle.response_complete:  # the answer before it isn't through
            self._await_head()
        elif self._is_in_head:
            self._refuse(408, f"The request line and headers didn't come within {self._limits.head_s:g} s")
        else:
            self.transport.close()

    def _refuse(self, status: int, message: str) -> None:
        """Answers without the application, and closes."""
        self._count_refusal(status)
        is_begun = self.cycle is not None and not self.cycle.response_complete
        if is_begun and self.cycle.response_started:  # a second head within an answer would be taken for its body
            self.transport.abort()
            return
        body = orjson.dumps({"error": message})
        head = (
            f"HTTP/1.1 {status} {http.HTTPStatus(status).phrase}\r\ncontent-type: application/json\r\n"
            f"content-length: {len(body)}\r\nconnection: close\r\n\r\n"
        )
        self.transport.write(head.encode() + body)
        self.transport.close()
        if is_begun:
            self.cycle.disconnected = True  # whoever reads this request, or answers it, is done
            self.cycle.message_event.set()


class _Lingering:
    """A transport that ends gently, and not without an end.

    `close` sends what is left and the end of the stream, and throws away what the peer sends until it is done too, or
    a moment has passed.  A peer that doesn't take what is sent is cut off.
    """

    def __init__(self, transport: asyncio.Transport, loop: asyncio.AbstractEventLoop) -> None:
        self._transport = transport
        self._loop = loop
        self._is_ending = False
        self._is_watched = False
        self._written = 0
        self._taken = 0
        self._stalls = 0
        self._linger_until = 0.0

    @property
    def is_gone(self) -> bool:
        return self._transport.is_closing()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)

    def write(self, data: bytes) -> None:
        if not self._is_ending:
            self._written += len(data)
            self._transport.write(data)

    def is_closing(self) -> bool:
        return self._is_ending or self._transport.is_closing()

    def close(self) -> None:
        if self.is_closing():
            return
        self._is_ending = True
        self._linger_until = self._loop.time() + _LINGER_S
        if not self._transport.can_write_eof():
            self._transport.close()
            return
        self._transport.write_eof()
        self._transport.resume_reading()
        self.watch()

    def watch(self) -> None:
        """Looks again and again whether the peer takes what is sent, until all is."""
        if not self._is_watched:
            self._is_watched = True
            self._stalls = 0
            self._taken = self._written - self._transport.get_write_buffer_size()
            self._loop.call_later(_LOOK_S, self._look)

    def _look(self) -> None:
        self._is_watched = False
        if self._transport.is_closing():
            return
        left = self._transport.get_write_buffer_size()
        taken = self._written - left
        is_slow = left > 0 and taken - self._taken < _LOOK_S * _SLOWEST_BYTES_PER_S
        self._stalls = self._stalls + 1 if is_slow else 0
        self._taken = taken
        if left and self._stalls >= _MOST_STALLS:
            self._transport.abort()
        elif left or self._loop.time() < self._linger_until:
            self._is_watched = True
            self._loop.call_later(_LOOK_S, self._look)
        elif self._is_ending:
            self._transport.close()


@functools.lru_cache(maxsize=4096)
def peer_of(host: str) -> str:
    """Who shares a budget: a host, or a network of IPv6, of which one host has all addresses.

    >>> peer_of("192.0.2.1"), peer_of("2001:db8::1:2")
    ('192.0.2.1', '2001:db8::/64')
    """
    try:
        address = ipaddress.ip_address(host.partition("%")[0])
    except ValueError:  # no host, as of a socket of this machine
        return host
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is None:
        return str(ipaddress.ip_network((address, 64), strict=False))
    return str(getattr(address, "ipv4_mapped", None) or address)
