"""Calls in the background: the answers of direct calls, one at a time, with an end, and given up when nobody waits."""

from __future__ import annotations

import asyncio
import threading
import time

import numpy as np
import pytest
import tensorflow as tf
from asr_tf.export.server.background import Background, BackgroundCalls
from asr_tf.export.server.errors import RequestError
from asr_tf.export.server.loaded_version import LoadedVersion
from testing_served import random_images, write_version


class Endless(tf.Module):
    """A signature that counts to a number, which may be far, and refuses those below zero."""

    def __init__(self):
        super().__init__()

        def count(number):
            check = tf.raw_ops.Assert(condition=number >= 0, data=[tf.constant("number is below zero:"), number])
            with tf.control_dependencies([check]):
                number = tf.identity(number)
            total = tf.while_loop(lambda i, _: i < number, lambda i, x: (i + 1, x + 1.0), (tf.zeros([], tf.int64), 0.0))
            return {"count": total[1]}

        spec = tf.TensorSpec([], tf.int64, "number")
        self.count = tf.function(count, input_signature=[spec], autograph=False)


FOR_EVER = {"number": np.asarray(2**62)}


@pytest.fixture(scope="module")
def endless(tmp_path_factory):
    """The folder of a SavedModel of `Endless`."""
    folder = tmp_path_factory.mktemp("endless") / "1"
    module = Endless()
    tf.saved_model.save(module, str(folder), signatures={"count": module.count})
    return folder


@pytest.fixture
def count(endless):
    return LoadedVersion(endless, 1).signature("count")


def test_answers_are_those_of_direct_calls(tmp_path):
    folder = write_version(tmp_path / "plain", 1)
    direct = tf.saved_model.load(str(folder)).signatures
    folder = folder.parent.rename(tmp_path / "x*[2]") / "1"
    background = Background(folder)
    images = random_images(3)
    seed = np.int32([3, 4])
    for name, arrays in {
        "sample": {"num_samples": np.int32(5), "seed": seed, "num_objects": np.int32(2), "obey": np.bool_(True)},
        "log_likelihood": {"images": images, "num_particles": np.int32(4), "seed": seed},
        "refine": {"images": images, "steps": np.int32(2)},
    }.items():
        outputs = direct[name](**{key: tf.constant(value) for key, value in arrays.items()})
        found = background(name, arrays)
        assert set(found) == set(outputs)
        for key, value in outputs.items():
            assert (found[key].dtype, found[key].shape) == (value.numpy().dtype, value.shape), key
            np.testing.assert_allclose(found[key], value, atol=1e-5)


def test_a_fault_is_told_in_plain_words(count):
    assert count({"number": np.asarray(3)})["count"] == 3.0
    with pytest.raises(RequestError) as caught:
        count({"number": np.asarray(-3)})
    assert (caught.value.status, caught.value.message) == (400, "number is below zero: -3")
    assert count({"number": np.asarray(4)})["count"] == 4.0


def test_a_call_has_a_deadline(count):
    start = time.monotonic()
    with pytest.raises(RequestError, match="The call took longer than 0.2 s: ask for less at once") as caught:
        count(FOR_EVER, 0.2)
    assert caught.value.status == 504
    assert time.monotonic() - start < 30.0
    assert count({"number": np.asarray(4)}, 30.0)["count"] == 4.0


def test_a_call_that_is_stopped_ends(count):
    caught = []

    def call():
        try:
            count(FOR_EVER)
        except RequestError as error:
            caught.append(error.message)

    thread = threading.Thread(target=call)
    thread.start()
    while thread.is_alive():  # whether it has begun or not
        count.stop()
        thread.join(0.1)
    assert caught == ["The call was broken off"]
    assert count({"number": np.asarray(4)})["count"] == 4.0


def test_one_call_after_another_and_none_for_nobody(count):
    """A call whose client has gone is broken off, one that waits isn't begun, and the next has its answer."""

    async def run():
        calls = BackgroundCalls(60.0)

        async def ask(arrays):
            async with calls.turn():
                return await calls.run(count, arrays)

        first, second = (asyncio.create_task(ask(FOR_EVER)) for _ in range(2))
        third = asyncio.create_task(ask({"number": np.asarray(7)}))
        await asyncio.sleep(0.2)
        second.cancel()
        await asyncio.sleep(0.2)
        assert not third.done()
        first.cancel()
        answer = await asyncio.wait_for(third, 60)
        assert answer["count"] == 7.0
        assert first.cancelled() and second.cancelled()
        last = asyncio.create_task(ask(FOR_EVER))
        await asyncio.sleep(0.2)
        start = time.monotonic()
        await asyncio.get_running_loop().run_in_executor(None, calls.close)
        assert time.monotonic() - start < 30.0
        with pytest.raises((RequestError, asyncio.CancelledError)):
            await last

    asyncio.run(run())


def test_too_many_wait(count):
    async def run():
        calls = BackgroundCalls(60.0)
        turns = [calls.turn() for _ in range(65)]
        entering = [asyncio.create_task(turn.__aenter__()) for turn in turns]
        await asyncio.sleep(0)
        with pytest.raises(RequestError, match="The server is busy: 64 calls wait; try again"):
            await entering[-1]
        for task in entering:
            task.cancel()
        await asyncio.gather(*entering, return_exceptions=True)
        await turns[0].__aexit__(None, None, None)
        async with calls.turn():
            assert (await calls.run(count, {"number": np.asarray(2)}))["count"] == 2.0
        calls.close()

    asyncio.run(run())
