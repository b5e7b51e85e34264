import numpy as np
import pytest

from asr_tf.data.scenes import Scenes


def _images(n=4, height=3, width=5):
    return np.arange(n * height * width, dtype=np.uint8).reshape(n, height, width, 1)


def test_take_and_select_keep_everything_together():
    scenes = Scenes(_images(), counts=np.arange(4), boxes=np.ones((4, 2, 4), np.float32))
    few = scenes.take(3)
    assert (len(few), few.canvas_size) == (3, (3, 5))
    picked = scenes.select(np.array([2, 0]))
    np.testing.assert_array_equal(picked.counts, [2, 0])
    np.testing.assert_array_equal(picked.images, _images()[[2, 0]])
    assert picked.boxes.shape == (2, 2, 4)
    assert picked.ink_boxes is None


def test_wrong_arrays_are_refused():
    with pytest.raises(TypeError, match="uint8, got dtype float32"):
        Scenes(_images().astype(np.float32))
    with pytest.raises(ValueError, match=r"\[N, H, W, 1\], got \[4, 3, 5\]"):
        Scenes(_images()[..., 0])
    with pytest.raises(ValueError, match="empty data set"):
        Scenes(_images(0))
    with pytest.raises(ValueError, match=r"counts of scenes must have 1 axes, 4 rows, got shape \[3\]"):
        Scenes(_images(), counts=np.arange(3))
    with pytest.raises(ValueError, match=r"4 columns, got shape \[4, 2, 3\]"):
        Scenes(_images(), boxes=np.zeros((4, 2, 3)))
