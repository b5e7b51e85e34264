"""Requests of several callers share a call, and each gets its own share of the answer or its own fault."""

from __future__ import annotations

import asyncio
import threading

import numpy as np
import pytest
from asr_tf.export.server.batching import Batcher
from asr_tf.export.server.errors import RequestError


class Doubles:
    """A signature that doubles, refuses numbers below zero, and remembers the size of each call."""

    inputs = ("x",)

    def __init__(self):
        self.sizes = []
        self.may_go_on = threading.Event()
        self.may_go_on.set()

    def __call__(self, arrays):
        self.may_go_on.wait()
        x = arrays["x"]
        self.sizes.append(len(x))
        if (x < 0).any():
            raise RequestError(400, "x is below zero")
        if (x == 13).any():
            raise ZeroDivisionError("thirteen")
        return {"y": 2 * x}


def _x(*values):
    return {"x": np.array(values, np.float32)}


async def _all(batcher, signature, requests, version=None):
    """Asks at once, with the first call held up until all wait."""
    signature.may_go_on.clear()
    tasks = [asyncio.create_task(batcher.run(version, signature, arrays)) for arrays in requests]
    await asyncio.sleep(0.05)
    signature.may_go_on.set()
    return await asyncio.gather(*tasks, return_exceptions=True)


@pytest.fixture
def batcher():
    made = []

    def make(max_batch_size=4, timeout_s=0.0, max_waiting=100, **options):
        made.append(Batcher(max_batch_size, timeout_s, max_waiting, **options))
        return made[-1]

    yield make
    for one in made:
        one.close()


def test_each_gets_its_own_share(batcher):
    signature, sizes = Doubles(), []
    requests = [_x(i / 2, 10 * i) if i % 3 == 0 else _x(i / 2) for i in range(20)]
    answers = asyncio.run(_all(batcher(8, observe=sizes.append), signature, requests))
    for arrays, answer in zip(requests, answers, strict=True):
        np.testing.assert_array_equal(answer["y"], 2 * arrays["x"])
    assert sum(signature.sizes) == sum(len(arrays["x"]) for arrays in requests)
    assert sizes == signature.sizes
    assert max(sizes) > 4  # they did share calls
    assert max(sizes) <= 8


def test_waits_for_as_many_as_were_under_way_of_late_no_longer_than_told(batcher):
    signature = Doubles()

    async def ask(made):
        await _all(made, signature, [_x(i) for i in range(8)])
        signature.sizes.clear()
        tasks = [asyncio.create_task(made.run(None, signature, _x(1)))]
        await asyncio.sleep(0.05)
        waited = not signature.sizes
        tasks += [asyncio.create_task(made.run(None, signature, _x(i))) for i in (2, 3, 4)]
        await asyncio.gather(*tasks)
        return waited

    assert asyncio.run(ask(batcher(max_batch_size=8, timeout_s=60.0)))  # until half of the eight are there
    assert signature.sizes == [4]
    assert not asyncio.run(ask(batcher(max_batch_size=8, timeout_s=0.0)))


def test_a_caller_that_is_alone_does_not_wait(batcher):
    signature = Doubles()
    made = batcher(max_batch_size=8, timeout_s=60.0)

    async def ask():
        return [float((await made.run(None, signature, _x(i)))["y"][0]) for i in range(3)]

    assert asyncio.run(ask()) == [0.0, 2.0, 4.0]
    assert signature.sizes == [1, 1, 1]


def test_a_request_over_the_size_is_a_batch_of_its_own(batcher):
    signature = Doubles()
    answers = asyncio.run(_all(batcher(4), signature, [_x(1), _x(*range(9)), _x(2), _x(3)]))
    np.testing.assert_array_equal(answers[1]["y"], 2.0 * np.arange(9))
    assert signature.sizes.count(9) == 1
    assert all(size <= 4 or size == 9 for size in signature.sizes)


def test_one_bad_request_fails_alone(batcher):
    signature = Doubles()
    answers = asyncio.run(_all(batcher(8), signature, [_x(0), _x(1), _x(-1), _x(2), _x(3)]))
    assert isinstance(answers[2], RequestError)
    assert answers[2].message == "x is below zero"
    assert [float(answers[i]["y"][0]) for i in (0, 1, 3, 4)] == [0.0, 2.0, 4.0, 6.0]


def test_a_fault_of_the_server_reaches_all_and_it_goes_on(batcher):
    signature, made = Doubles(), batcher(8)

    async def ask():
        answers = await _all(made, signature, [_x(0), _x(1), _x(13)])
        assert isinstance(answers[2], ZeroDivisionError)
        return await made.run(None, signature, _x(7))

    assert float(asyncio.run(ask())["y"][0]) == 14.0


def test_other_signatures_and_versions_are_not_mixed(batcher):
    first, second, made = Doubles(), Doubles(), batcher(8)

    async def ask():
        first.may_go_on.clear()
        tasks = [
            asyncio.create_task(made.run(version, signature, _x(i)))
            for i, (version, signature) in enumerate([(1, first), (1, second), (2, first), (1, first), (1, second)])
        ]
        await asyncio.sleep(0.05)
        first.may_go_on.set()
        return await asyncio.gather(*tasks)

    assert [float(answer["y"][0]) for answer in asyncio.run(ask())] == [0.0, 2.0, 4.0, 6.0, 8.0]
    assert second.sizes == [2]
    assert sum(first.sizes) == 3
    assert max(first.sizes) <= 2  # two are of version 1, one is of version 2


def test_turns_away_who_comes_when_too_many_wait(batcher):
    signature = Doubles()
    answers = asyncio.run(_all(batcher(1, max_waiting=3), signature, [_x(i) for i in range(10)]))
    refused = [answer for answer in answers if isinstance(answer, RequestError)]
    assert len(refused) in (6, 7)  # one is computed, three wait
    assert refused[0].status == 503
    assert "examples wait; try again" in refused[0].message


def test_inputs_of_several_lengths_are_refused(batcher):
    arrays = {"x": np.zeros(2), "z": np.zeros(3)}
    with pytest.raises(RequestError, match="one common first axis"):
        asyncio.run(batcher().run(None, Doubles(), arrays))


def test_a_caller_that_gave_up_holds_up_nobody(batcher):
    signature, made = Doubles(), batcher(8)

    async def ask():
        signature.may_go_on.clear()
        gone = asyncio.create_task(made.run(None, signature, _x(1)))
        stays = asyncio.create_task(made.run(None, signature, _x(2)))
        await asyncio.sleep(0.02)
        gone.cancel()
        signature.may_go_on.set()
        return await stays

    assert float(asyncio.run(ask())["y"][0]) == 4.0


def test_closing_answers_what_waits_and_refuses_the_rest(batcher):
    signature, made = Doubles(), batcher(1)

    async def ask():
        signature.may_go_on.clear()
        tasks = [asyncio.create_task(made.run(None, signature, _x(i))) for i in range(4)]
        await asyncio.sleep(0.02)
        threading.Timer(0.02, signature.may_go_on.set).start()
        await asyncio.to_thread(made.close)
        with pytest.raises(RequestError, match="stopping"):
            await made.run(None, signature, _x(9))
        return await asyncio.gather(*tasks)

    assert [float(answer["y"][0]) for answer in asyncio.run(ask())] == [0.0, 2.0, 4.0, 6.0]
