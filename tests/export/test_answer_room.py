"""Answers wait for room, small ones find some beside large ones, and who doesn't take its answer is cut off."""

from __future__ import annotations

import asyncio

import pytest
from asr_tf.export.server import answer_room
from asr_tf.export.server.answer_room import AnswerRoom, answering
from asr_tf.export.server.errors import RequestError

MOST = 3200


class Request:
    """A request that takes room, and keeps it until it is told to end or cut off."""

    def __init__(self, room, num_bytes):
        self.has_room, self.may_end = asyncio.Event(), asyncio.Event()
        self.holder = None
        self.task = asyncio.create_task(self._run(room, num_bytes))

    async def _run(self, room, num_bytes):
        with answering(self.may_end.set, room) as self.holder:
            await room.take(num_bytes)
            self.has_room.set()
            await self.may_end.wait()


async def _turns():
    for _ in range(10):
        await asyncio.sleep(0)


def test_the_next_waits_until_there_is_room():
    async def run():
        room = AnswerRoom(MOST, 20.0)
        first, second = Request(room, 2000), Request(room, 2000)
        await _turns()
        assert first.has_room.is_set() and not second.has_room.is_set()
        small = [Request(room, 100) for _ in range(12)]
        await _turns()
        assert all(request.has_room.is_set() for request in small)
        for request in (first, *small):
            request.may_end.set()
        await asyncio.wait_for(second.has_room.wait(), 20)
        second.may_end.set()
        await second.task
        largest = [Request(room, 10 * MOST), Request(room, 100)]
        await _turns()
        assert all(request.has_room.is_set() for request in largest)
        for request in largest:
            request.may_end.set()
            await request.task

    asyncio.run(run())


def test_no_room_in_time():
    async def run():
        room = AnswerRoom(MOST, 0.05)
        first, second = Request(room, 2000), Request(room, 2000)
        with pytest.raises(RequestError, match="The server is busy: the answers under way are too large") as caught:
            await second.task
        assert caught.value.status == 503
        first.may_end.set()
        await first.task

    asyncio.run(run())


def test_who_does_not_take_its_answer_is_cut_off(monkeypatch):
    monkeypatch.setattr(answer_room, "_TAKING_S", 0.1)
    monkeypatch.setattr(answer_room, "_LOOK_S", 0.01)

    async def run():
        room = AnswerRoom(MOST, 20.0)
        computing, sending = Request(room, 1300), Request(room, 1300)
        await _turns()
        sending.holder.sends()
        third = Request(room, 1300)
        await asyncio.wait_for(third.has_room.wait(), 20)
        assert sending.task.done() and not computing.may_end.is_set()
        for request in (computing, third):
            request.may_end.set()
            await request.task

    asyncio.run(run())


def test_outside_of_a_request_nothing_is_taken():
    asyncio.run(AnswerRoom(0, 0.0).take(100))
