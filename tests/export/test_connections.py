"""What strangers may do to connections: each attack has an answer, and others are served meanwhile."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import http.client
import json
import socket
import threading
import time

import pytest
import uvicorn
from asr_tf.export.server import connections
from asr_tf.export.server.connections import ConnectionLimits, GuardedProtocol, peer_of
from asr_tf.export.server.draining import DrainingServer

LARGE = 40 * 2**20


class Echo:
    """An application that answers with the number of bytes that it read."""

    def __init__(self):
        self.num_begun = 0
        self.num_lost = 0
        self.may_answer = asyncio.Event()
        self.may_answer.set()

    async def __call__(self, scope, receive, send):
        self.num_begun += 1
        size, more = 0, scope["path"] != "/unread"
        with scope["extensions"]["asr_serve.watched"](self._lost):
            while more:
                message = await receive()
                if message["type"] == "http.disconnect":
                    return
                size += len(message["body"])
                more = message.get("more_body", False)
            await self.may_answer.wait()
        body = b" " * LARGE if scope["path"] == "/large" else str(size).encode()
        headers = [(b"content-length", str(len(body)).encode())]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        for start in range(0, len(body), 65536):
            piece = body[start : start + 65536]
            await send({"type": "http.response.body", "body": piece, "more_body": start + len(piece) < len(body)})

    def _lost(self):
        self.num_lost += 1


class Running:
    """A server in a thread."""

    def __init__(self, loop, drain_s=0.0, **limits):
        self.app = Echo()
        self.refused = []
        self.listening = socket.create_server(("127.0.0.1", 0))
        self.port = self.listening.getsockname()[1]
        config = uvicorn.Config(self.app, ws="none", lifespan="off", loop=loop, log_config=None)
        config.timeout_graceful_shutdown = 5
        settings = ConnectionLimits(**limits)
        config.timeout_keep_alive = settings.idle_s
        config.http = functools.partial(GuardedProtocol, limits=settings, count_refusal=self.refused.append)
        self.server = DrainingServer(config, drain_s)
        self.thread = threading.Thread(target=self.server.run, args=([self.listening],))
        self.thread.start()
        while not self.server.started:
            time.sleep(0.01)

    def connect(self, sent=b""):
        connection = socket.create_connection(("127.0.0.1", self.port), timeout=20)
        connection.sendall(sent)
        return connection

    def get(self, path="/", headers=None):
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=20)
        with contextlib.closing(connection):
            connection.request("GET", path, headers=headers or {})
            response = connection.getresponse()
            return response.status, response.read()

    @property
    def num_open(self):
        return len(self.server.server_state.connections)

    def close(self):
        self.server.should_exit = True
        self.thread.join()


@pytest.fixture(params=["asyncio", "uvloop"])
def run(request):
    pytest.importorskip(request.param)
    made = []

    def make(**settings):
        made.append(Running(request.param, **settings))
        return made[-1]

    yield make
    for one in made:
        one.close()


def _until(condition, seconds=20.0):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.02)


def _rest(connection):
    """All that comes until the other side ends the stream; a reset would be an error."""
    with connection:
        return b"".join(iter(lambda: connection.recv(65536), b""))


def _answer(connection, body):
    """An answer with this body, whose connection stays open."""
    found = b""
    while not found.endswith(b"\r\n\r\n" + body):
        piece = connection.recv(65536)
        assert piece, found
        found += piece
    return found


def _refusal(answer):
    """Status and message of an answer, whose form is checked."""
    head, _, body = answer.partition(b"\r\n\r\n")
    lines = head.split(b"\r\n")
    assert b"connection: close" in lines and b"content-type: application/json" in lines
    assert f"content-length: {len(body)}".encode() in lines
    (message,) = json.loads(body).values()
    assert set(json.loads(body)) == {"error"}
    return int(lines[0].split()[1]), message


ENDLESS = [
    b"GET / HTTP/1.1\r\nHost: x\r\nX: " + b"a" * 300_000,
    b"GET / HTTP/1.1\r\nHost: x\r\n" + b"X: abcdefgh\r\n" * 30_000,
    b"GET /" + b"a" * 300_000,
    b"GET / HTTP/1.1\r\nHost: x\r\nX: " + b"a" * 40_000 + b"\r\n\r\n",
    b"GET /" + b"a" * 40_000 + b" HTTP/1.1\r\nHost: x\r\n\r\n",
]


@pytest.mark.parametrize("sent", ENDLESS, ids=["header", "headers", "path", "whole header", "whole path"])
def test_a_head_over_the_limit(run, sent):
    server = run(head_bytes=32_768)
    status, message = _refusal(_rest(server.connect(sent)))
    assert (status, message) == (431, "The request line and headers are over the limit of 32768 bytes")
    assert server.refused == [431]
    assert server.app.num_begun == 0
    assert server.get(headers={"X": "a" * 30_000}) == (200, b"0")


def test_trailers_are_dropped_and_bounded(run):
    server = run(head_bytes=10_000)
    start = b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n"
    with server.connect(start + b"X: y\r\n\r\n") as connection:
        assert _answer(connection, b"3")
    with server.connect(start) as connection:
        with contextlib.suppress(ConnectionError):
            for _ in range(1000):
                connection.sendall(b"X: " + b"y" * 10_000 + b"\r\n")
                time.sleep(0.001)
        _until(lambda: server.refused == [431])
    assert server.get() == (200, b"0")


def test_what_is_no_http(run):
    server = run()
    assert _refusal(_rest(server.connect(b"\x16\x03\x01\x02\x00\x01\x00\r\n\r\n"))) == (
        400,
        "The request isn't HTTP/1.1",
    )
    upgrade = b"GET / HTTP/1.1\r\nHost: x\r\nConnection: Upgrade, close\r\nUpgrade: websocket\r\n\r\n"
    assert _rest(server.connect(upgrade)).startswith(b"HTTP/1.1 200 ")
    assert server.get() == (200, b"0")


def test_a_head_that_does_not_come(run):
    server = run(head_s=0.4)
    start = time.monotonic()
    slow = server.connect(b"GET / HTTP/1.1\r\nHost:")
    for _ in range(6):  # bytes that drip keep it no longer
        time.sleep(0.05)
        slow.sendall(b" ")
    assert _refusal(_rest(slow)) == (408, "The request line and headers didn't come within 0.4 s")
    assert 0.3 < time.monotonic() - start < 5.0
    silent = server.connect()
    assert _rest(silent) == b""
    only_lines = server.connect(b"\r\n\r\n")
    assert _rest(only_lines) == b""


def test_a_connection_that_asks_nothing_more_is_closed(run):
    server = run(idle_s=1)
    with server.connect(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n") as connection:
        assert _answer(connection, b"0")
        start = time.monotonic()
        assert connection.recv(4096) == b""
        assert 0.5 < time.monotonic() - start < 10.0


def test_idle_connections_give_way(run):
    """Far more are opened than are allowed; whoever asks is served, and the longest idle are closed."""
    server = run(most=20)
    kept = [server.connect(b"GET / HTTP/1.1\r\n") for _ in range(60)]
    for _ in range(30):
        assert server.get() == (200, b"0")
    _until(lambda: server.num_open <= 21)
    gone = 0
    for connection in kept:
        connection.setblocking(False)
        try:
            gone += connection.recv(1) == b""
        except BlockingIOError:
            continue
        except ConnectionError:
            gone += 1
    assert gone >= 40
    with kept[-1] as youngest:
        youngest.settimeout(20)
        youngest.sendall(b"Host: x\r\n\r\n")
        assert youngest.recv(4096).startswith(b"HTTP/1.1 200 ") or gone > 59
    for connection in kept:
        connection.close()


def test_connections_at_work_do_not_give_way(run):
    server = run(most=5)
    server.app.may_answer.clear()
    asked = [server.connect(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n") for _ in range(5)]
    _until(lambda: server.app.num_begun == 5)
    assert _refusal(_rest(server.connect())) == (503, "The server is busy: 5 connections are at work; try again")
    loop = server.server.servers[0].get_loop()
    loop.call_soon_threadsafe(server.app.may_answer.set)
    for connection in asked:
        assert _answer(connection, b"0")
        connection.close()
    _until(lambda: server.num_open == 0)
    assert server.get() == (200, b"0")


def test_the_peer_with_most_connections_loses_them(run, monkeypatch):
    """A peer with few keeps its own, though they are the longest idle."""
    peers = iter(["192.0.2.7"] * 2 + ["192.0.2.8"] * 100)
    monkeypatch.setattr(connections, "peer_of", lambda host: next(peers))
    server = run(most=10)
    few = [server.connect() for _ in range(2)]
    _until(lambda: server.num_open == 2)
    many = [server.connect() for _ in range(40)]
    for connection in few:
        connection.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        assert _answer(connection, b"0")
    for connection in (*few, *many):
        connection.close()


def test_whoever_computes_is_told_that_the_client_has_gone(run):
    server = run()
    server.app.may_answer.clear()
    connection = server.connect(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
    _until(lambda: server.app.num_begun == 1)
    connection.close()
    _until(lambda: server.app.num_lost == 1)
    server.server.servers[0].get_loop().call_soon_threadsafe(server.app.may_answer.set)
    assert server.get() == (200, b"0")
    assert server.app.num_lost == 1


def test_a_client_that_does_not_take_its_answer_is_cut_off(run, monkeypatch):
    monkeypatch.setattr(connections, "_LOOK_S", 0.05)
    monkeypatch.setattr(connections, "_MOST_STALLS", 4)
    server = run()
    with server.connect(b"GET /large HTTP/1.1\r\nHost: x\r\n\r\n") as silent:
        _until(lambda: server.num_open == 1)
        _until(lambda: server.num_open == 0)
        with contextlib.suppress(ConnectionError):
            assert sum(map(len, iter(lambda: silent.recv(2**20), b""))) < LARGE
    assert len(server.get("/large")[1]) == LARGE


def test_a_large_answer_before_the_end_comes_whole(run):
    server = run()
    answer = _rest(server.connect(b"GET /large HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"))
    assert len(answer.partition(b"\r\n\r\n")[2]) == LARGE


def test_an_answer_before_the_body_is_whole(run):
    """The rest is thrown away, and the connection can be used on; one whose rest doesn't come is closed."""
    server = run(head_s=0.5)
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=20)
    connection.request("POST", "/unread", b" " * 2_000_000)
    assert connection.getresponse().read() == b"0"
    connection.request("POST", "/", b" " * 1000)
    assert connection.getresponse().read() == b"1000"
    connection.close()
    unread = server.connect(b"POST /unread HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000\r\n\r\n1")
    assert _rest(unread).endswith(b"\r\n\r\n0")


def test_requests_ahead_of_their_answers(run):
    server = run()
    one = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"
    with server.connect(5 * one) as connection:
        answers = b""
        while answers.count(b"HTTP/1.1 200 OK") < 5:
            answers += connection.recv(65536)
    server.app.may_answer.clear()
    flooding = server.connect(1000 * one)
    _until(lambda: server.refused == [429])
    server.server.servers[0].get_loop().call_soon_threadsafe(server.app.may_answer.set)
    _rest(flooding)
    assert server.app.num_begun <= 5 + 10


def test_kept_connections_meet_no_reset_while_the_server_drains(run):
    """Each answer after the signal says that it is the last; a kept connection that asks nothing sees an end."""
    server = run(drain_s=2.0)
    busy, idle = server.connect(), server.connect()
    one = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"
    for connection in (busy, idle):
        connection.sendall(one)
        assert b"connection: close" not in _answer(connection, b"0")
    server.server.should_exit = True
    _until(lambda: b"close" in dict(server.server.server_state.default_headers).get(b"connection", b""))
    late = server.connect(one)  # still taken
    busy.sendall(one)
    for connection in (busy, late):
        answer = _rest(connection)
        assert answer.startswith(b"HTTP/1.1 200 OK\r\n") and b"\r\nconnection: close\r\n" in answer
        assert answer.endswith(b"\r\n\r\n0")
    assert idle.recv(4096) == b""
    idle.sendall(one)  # too late for an answer, but no reset while it is listened to
    time.sleep(0.2)
    idle.sendall(one)
    idle.close()
    server.thread.join(timeout=20)
    assert not server.thread.is_alive()
    with pytest.raises(ConnectionRefusedError):
        server.connect()


def test_a_request_under_way_is_answered_while_the_server_drains(run):
    server = run(drain_s=0.1)
    with server.connect(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\n\r\nab") as connection:
        _until(lambda: server.app.num_begun == 1)
        server.server.should_exit = True
        time.sleep(0.5)
        connection.sendall(b"cd")
        answer = _rest(connection)
    assert b"\r\nconnection: close\r\n" in answer and answer.endswith(b"\r\n\r\n4")


@pytest.mark.parametrize(
    ("host", "peer"),
    [
        ("192.0.2.1", "192.0.2.1"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("fe80::1%eth0", "fe80::/64"),
        ("::ffff:192.0.2.1", "192.0.2.1"),
        ("", ""),
    ],
)
def test_who_is_one_peer(host, peer):
    assert peer_of(host) == peer
