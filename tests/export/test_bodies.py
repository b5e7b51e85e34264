"""Bodies within limits: what is too large, packed, slow or one too many has its own answer, and others get through."""

from __future__ import annotations

import asyncio
import gzip
import tracemalloc

import pytest
from asr_tf.export.server import bodies as bodies_module
from asr_tf.export.server.bodies import Bodies, ClientGone
from asr_tf.export.server.errors import RequestError

MOST = 3200  # bytes of a body: all together hold 25,600, of which 3,200 are for bodies of 100


def _scope(client="192.0.2.1", **headers):
    named = [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()]
    return {"type": "http", "headers": named, "client": (client, 1234)}


def _receive(*chunks, end=True):
    """What a client sends; without an end it falls silent."""
    waiting = list(chunks)

    async def receive():
        await asyncio.sleep(0)
        if not waiting and not end:
            await asyncio.Event().wait()
        chunk = waiting.pop(0) if waiting else b""
        return {"type": "http.request", "body": chunk, "more_body": bool(waiting) or not end}

    return receive


def _read(*chunks, most=MOST, seconds=20.0, **headers):
    async def read():
        return bytes((await Bodies(most, seconds).read(_scope(**headers), _receive(*chunks))).data)

    return asyncio.run(read())


def test_pieces_become_a_body():
    assert _read() == b""
    assert _read(b"ab", b"", b"c") == b"abc"
    assert _read(b"ab", content_encoding="identity") == b"ab"
    assert _read(b"a" * MOST) == b"a" * MOST


@pytest.mark.parametrize("encoding", ["gzip", "x-gzip", "GZIP"])
def test_gzip_is_unpacked(encoding):
    text = bytes(range(256)) * 12
    packed = gzip.compress(text)
    assert _read(packed, content_encoding=encoding) == text
    assert _read(*(packed[i : i + 7] for i in range(0, len(packed), 7)), content_encoding=encoding) == text
    assert _read(gzip.compress(b""), content_encoding=encoding) == b""
    assert _read(content_encoding=encoding) == b""  # no body at all
    assert _read(gzip.compress(b"a" * MOST), content_encoding=encoding) == b"a" * MOST


PACKED = gzip.compress(b"a" * 1000)
WRONG = [
    ([b"a" * 2000, b"a" * 1201], {}, 413, "The request body is over the limit of 3200 bytes"),
    ([], {"content_length": "3201"}, 413, "The request body of 3201 bytes is over the limit of 3200"),
    ([], {"content_length": "9" * 30}, 413, "over the limit of 3200"),
    ([gzip.compress(b"a" * 3201)], {"content_encoding": "gzip"}, 413, "The request body is over the limit of 3200"),
    ([PACKED[:-1]], {"content_encoding": "gzip"}, 400, "The request body is cut short: its gzip stream has no end"),
    ([PACKED, b"x"], {"content_encoding": "gzip"}, 400, "goes on behind the end of its gzip stream"),
    ([PACKED + PACKED], {"content_encoding": "gzip"}, 400, "goes on behind the end of its gzip stream"),
    ([b"plain"], {"content_encoding": "gzip"}, 400, "The request body isn't gzip: "),
    ([b"x"], {"content_encoding": "br"}, 415, "Content-Encoding must be gzip or identity, got br"),
    ([b"x"], {"content_encoding": "gzip, gzip"}, 415, "got gzip, gzip"),
]


@pytest.mark.parametrize(("chunks", "headers", "status", "message"), WRONG)
def test_bodies_that_are_refused(chunks, headers, status, message):
    with pytest.raises(RequestError) as caught:
        _read(*chunks, **headers)
    assert caught.value.status == status
    assert message in caught.value.message


def test_a_bomb_is_not_unpacked():
    """200 MB of zeros in 200 kB: no more is unpacked than a body may hold."""
    bomb = gzip.compress(bytes(200 * 2**20), 9)
    tracemalloc.start()
    with pytest.raises(RequestError, match="over the limit of 1048576 bytes"):
        _read(bomb, most=2**20, content_encoding="gzip")
    assert tracemalloc.get_traced_memory()[1] < 8 * 2**20
    tracemalloc.stop()


def test_a_stream_without_content_has_an_end():
    """Empty blocks of deflate are bytes that unpack to none."""
    head = gzip.compress(b"")[:10]
    with pytest.raises(RequestError, match="over the limit of 3200 bytes"):
        _read(head, *([b"\x00\x00\x00\xff\xff"] * 1000), content_encoding="gzip")


def test_one_that_does_not_come_in_time():
    async def read():
        await Bodies(MOST, 0.05).read(_scope(), _receive(b"abc", end=False))

    with pytest.raises(RequestError, match="The request body didn't come within 0.05 s") as caught:
        asyncio.run(read())
    assert caught.value.status == 408


def test_a_client_that_breaks_off():
    async def receive():
        return {"type": "http.disconnect"}

    with pytest.raises(ClientGone):
        asyncio.run(Bodies(MOST, 5.0).read(_scope(), receive))


class Many:
    """Clients that send part of a body and fall silent."""

    def __init__(self):
        self.bodies = Bodies(MOST, 20.0)
        self.tasks = []

    async def begin(self, number, size=MOST - 1, client="192.0.2.1"):
        for _ in range(number):
            reading = self.bodies.read(_scope(client), _receive(b"a" * size, end=False))
            self.tasks.append(asyncio.create_task(reading))
            for _ in range(4):
                await asyncio.sleep(0)

    async def whole(self, size, client="192.0.2.1"):
        return await self.bodies.read(_scope(client), _receive(b"a" * size))

    def refused(self):
        return [i for i, task in enumerate(self.tasks) if task.done() and task.exception().status == 503]

    async def end(self):
        for task in self.tasks:
            task.cancel()
        await asyncio.gather(*self.tasks, return_exceptions=True)
        assert not +self.bodies._held and not self.bodies._unread


def _with_many(check):
    async def run():
        many = Many()
        await check(many)
        await many.end()

    asyncio.run(run())


def test_small_bodies_find_room_beside_unfinished_large_ones():
    async def check(many):
        await many.begin(8)
        assert many.refused() == [4, 5, 6, 7]  # a peer may hold half
        await many.begin(8, client="192.0.2.2")
        # All together may hold seven eighths, in large ones: the peer that holds most loses its youngest.
        assert many.refused() == [3, 4, 5, 6, 7, 12, 13, 14, 15]
        for client in ("192.0.2.1", "192.0.2.2", "192.0.2.3"):
            body = await many.whole(100, client)
            assert body.data == b"a" * 100
            many.bodies.release(body)
        with pytest.raises(RequestError, match="The server is busy: the requests under way are too large"):
            await many.whole(101, "192.0.2.2")
        assert many.refused() == [3, 4, 5, 6, 7, 12, 13, 14, 15]

    _with_many(check)


def test_what_began_first_comes_to_its_end():
    """The youngest gives way to the older, also where these grow later."""

    async def check(many):
        old = many.bodies.read(_scope(), receive := _growing())
        old = asyncio.create_task(old)
        await receive.send(b"a" * 100)
        await many.begin(4, 3000)
        assert many.refused() == []
        await receive.send(b"a" * 3000)
        assert many.refused() == [3]
        await receive.send(b"", end=True)
        assert (await old).data == b"a" * 3100
        many.bodies.release(old.result())

    _with_many(check)


def _growing():
    pieces = asyncio.Queue()

    async def receive():
        return await pieces.get()

    async def send(body, end=False):
        await pieces.put({"type": "http.request", "body": body, "more_body": not end})
        for _ in range(4):
            await asyncio.sleep(0)

    receive.send = send
    return receive


def test_who_is_silent_gives_way(monkeypatch):
    monkeypatch.setattr(bodies_module, "_SILENT_S", 0.05)

    async def check(many):
        await many.begin(4)
        await asyncio.sleep(0.1)
        bodies = []
        for refused in ([0], [0, 1]):
            bodies.append(await many.whole(MOST))
            await asyncio.sleep(0)
            assert many.refused() == refused
        for body in bodies:
            many.bodies.release(body)

    _with_many(check)


def test_a_peer_of_many_small_bodies_gives_way_to_others():
    async def check(many):
        await many.begin(300, 100)
        assert many.refused() == list(range(256, 300))
        body = await many.whole(100, "192.0.2.9")
        await asyncio.sleep(0)
        assert body.data == b"a" * 100
        assert many.refused() == list(range(255, 300))
        many.bodies.release(body)

    _with_many(check)
