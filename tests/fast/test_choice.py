"""The pieces for speed are used where they may be, and give the numbers of their plain twins."""

import subprocess
import sys

import numpy as np
import pytest
import tensorflow as tf

from asr_tf import fast
from asr_tf.fast import crops
from asr_tf.imaging import windows

CANVAS = (12, 17)


@pytest.fixture(autouse=True)
def _no_variable(monkeypatch):
    monkeypatch.delenv("ASR_TF_FAST", raising=False)


@pytest.mark.parametrize(("value", "expected"), [(None, True), ("1", True), ("", True), ("0", False)])
def test_a_variable_switches_them_off(monkeypatch, value, expected):
    if value is not None:
        monkeypatch.setenv("ASR_TF_FAST", value)
    assert fast.enabled() == expected
    with fast.plain():
        assert not fast.enabled()


def test_plain_holds_within_its_block_even_after_an_error():
    with fast.plain():
        with fast.plain():
            assert not fast.enabled()
        assert not fast.enabled()
    assert fast.enabled()
    with pytest.raises(KeyError), fast.plain():
        raise KeyError
    assert fast.enabled()


def inputs(channels):
    rng = np.random.default_rng(0)
    images, contents = rng.uniform(size=(3, *CANVAS, channels)), rng.uniform(size=(5, 6, 6, channels))
    shift, scale = rng.uniform(-1.1, 1.1, (5, 2)), rng.uniform(0.05, 1.5, (5, 1))
    low = rng.uniform(-0.4, 0.9, (5, 2))
    boxes = np.concatenate([low, low + rng.uniform(0.1, 1.0, (5, 2))], -1)
    images, contents, shift, scale, boxes = (
        tf.constant(part, tf.float32) for part in (images, contents, shift, scale, boxes)
    )
    return images, tf.constant([2, 0, 1, 1, 0]), shift, scale, contents, boxes


def read_and_write(images, scenes, shift, scale, contents, boxes):
    return fast.read_windows(images, scenes, shift, scale, 7), fast.write_boxes(contents, boxes, CANVAS)


@pytest.mark.parametrize("channels", [1, 3])
def test_both_give_the_same_numbers(channels):
    given = inputs(channels)
    results = [read_and_write(*given)]
    with fast.plain():
        results.append(read_and_write(*given))
    for value, expected in zip(*results, strict=True):
        assert value.shape == expected.shape
        np.testing.assert_allclose(value, expected, atol=5e-5)


def test_each_is_the_piece_that_was_chosen():
    images, scenes, shift, scale, contents, boxes = given = inputs(3)
    seen, written = read_and_write(*given)
    np.testing.assert_array_equal(seen, crops.read_windows(images, scenes, shift, scale, 7))
    np.testing.assert_array_equal(written, crops.write_boxes(contents, boxes, CANVAS))
    with fast.plain():
        seen, written = read_and_write(*given)
    np.testing.assert_array_equal(seen, windows.read_windows(tf.gather(images, scenes), shift, scale, 7))
    np.testing.assert_array_equal(written, windows.write_boxes(contents, boxes, CANVAS))


@pytest.mark.parametrize("channels", [1, 3])
def test_what_is_plain_can_be_compiled(channels):
    given = inputs(channels)

    @tf.function(jit_compile=True)
    def compiled(*given):
        with fast.plain():
            steps = fast.present_steps(tf.constant([[1.0, 0.0], [1.0, 1.0]]))
            taken = steps.put(steps.take(tf.ones([2, 2, 4, 4, channels])))
            return *read_and_write(*given), taken

    *found, taken = compiled(*given)
    for value, expected in zip(found, read_and_write(*given), strict=True):
        np.testing.assert_allclose(value, expected, atol=5e-5)
    np.testing.assert_array_equal(taken[:, :, 0, 0, 0], [[1.0, 0.0], [1.0, 1.0]])


def test_a_graph_stays_as_it_was_traced():
    count = tf.function(lambda presence: tf.shape(fast.present_steps(presence).scenes())[0])
    presence = tf.constant([[1.0, 0.0], [1.0, 1.0]])
    assert count(presence) == 3
    with fast.plain():
        assert count(presence) == 3
        assert tf.shape(fast.present_steps(presence).scenes())[0] == 4


def test_choosing_needs_no_tensorflow():
    """The commands set up the process before TensorFlow is imported."""
    program = "import sys, asr_tf.fast, asr_tf.fast.compile_cache; print('tensorflow' in sys.modules)"
    process = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert process.stdout.strip() == "False"
