import time

import numpy as np
import pytest

from asr_tf.data.pipeline import evaluation_dataset, training_dataset
from asr_tf.data.scenes import Scenes


def _scenes(n, side=2, **known):
    images = np.zeros((n, side, side, 1), np.uint8)
    images[:, 0, 0, 0] = np.arange(n) % 256
    return Scenes(images, counts=np.arange(n, dtype=np.int32), **known)


def _rows(scenes, batch_size, seed, start, steps):
    """Which images the batches hold, one row a step."""
    batches = training_dataset(scenes, batch_size, seed, start).take(steps)
    return np.stack([batch["count"] for batch in batches.as_numpy_iterator()])


@pytest.mark.parametrize(("num_scenes", "batch_size"), [(97, 8), (64, 64), (5, 12), (1, 3)])
def test_each_epoch_has_every_image_once(num_scenes, batch_size):
    steps = 6 * num_scenes // batch_size + 1
    rows = _rows(_scenes(num_scenes), batch_size, 3, 0, steps).reshape(-1)
    epochs = [rows[i * num_scenes : (i + 1) * num_scenes] for i in range(6)]
    for epoch in epochs:
        np.testing.assert_array_equal(np.sort(epoch), np.arange(num_scenes))
    if num_scenes > 60:
        assert len({epoch.tobytes() for epoch in epochs}) == 6  # a fresh order each


@pytest.mark.parametrize(("num_scenes", "seed"), [(2000, 0), (40_000, 7)])
def test_order_is_shuffled(num_scenes, seed):
    """Places before and after are uncorrelated, and so are neighbours and epochs."""
    order = _rows(_scenes(num_scenes), 500, seed, 0, num_scenes // 250).reshape(2, -1).astype(float)
    place = np.arange(num_scenes)
    limit = 4 / np.sqrt(num_scenes)
    assert abs(np.corrcoef(order[0], place)[0, 1]) < limit
    assert abs(np.corrcoef(order[0], order[1])[0, 1]) < limit
    assert abs(np.corrcoef(order[0, 1:], order[0, :-1])[0, 1]) < limit


def test_resumed_order_is_the_uninterrupted_one():
    scenes = _scenes(97)
    whole = _rows(scenes, 8, 5, 0, 40)
    np.testing.assert_array_equal(_rows(scenes, 8, 5, 27, 13), whole[27:])
    assert (_rows(scenes, 8, 6, 0, 40) != whole).mean() > 0.9
    started = time.perf_counter()
    assert _rows(scenes, 8, 5, 10**12, 1).shape == (1, 8)  # no time is spent on what came before
    assert time.perf_counter() - started < 5


def test_batches_hold_what_is_known_and_rows_stay_together():
    boxes = np.random.default_rng(0).uniform(size=(30, 3, 4)).astype(np.float32)
    scenes = _scenes(30, side=4, boxes=boxes, ink_boxes=boxes / 2)
    (batch,) = training_dataset(scenes, 16, 0).take(1).as_numpy_iterator()
    assert {key: (value.dtype, value.shape) for key, value in batch.items()} == {
        "image": (np.float32, (16, 4, 4, 1)),
        "count": (np.int32, (16,)),
        "boxes": (np.float32, (16, 3, 4)),
        "ink_boxes": (np.float32, (16, 3, 4)),
    }
    rows = batch["count"]
    np.testing.assert_allclose(batch["image"], scenes.images[rows] / np.float32(255), rtol=1e-6)
    np.testing.assert_array_equal(batch["boxes"], boxes[rows])
    np.testing.assert_array_equal(batch["ink_boxes"], boxes[rows] / 2)
    assert training_dataset(scenes, 16, 0).element_spec["image"].shape == (16, 4, 4, 1)
    unlabelled = Scenes(scenes.images)
    assert set(training_dataset(unlabelled, 4, 0).element_spec) == {"image"}
    assert set(evaluation_dataset(unlabelled, 4).element_spec) == {"image"}


def test_evaluation_goes_through_once_in_order():
    scenes = _scenes(30)
    dataset = evaluation_dataset(scenes, 8)
    assert int(dataset.cardinality()) == 4
    batches = list(dataset.as_numpy_iterator())
    assert [len(batch["image"]) for batch in batches] == [8, 8, 8, 6]
    np.testing.assert_array_equal(np.concatenate([b["count"] for b in batches]), np.arange(30))
    image = np.concatenate([b["image"] for b in batches])
    assert image.dtype == np.float32
    np.testing.assert_allclose(image, scenes.images / np.float32(255), rtol=1e-6)


def test_nothing_searches_for_buffer_sizes():
    """TensorFlow's search for them would hold up the end of `fit` and `evaluate`, by up to a minute."""
    scenes = Scenes(images=np.zeros((4, 8, 8, 1), np.uint8))
    for dataset in (training_dataset(scenes, 2, seed=0), evaluation_dataset(scenes, 2)):
        assert dataset.options().autotune.enabled is False


def test_wrong_arguments():
    with pytest.raises(ValueError, match="batch_size must be a number above 0, got 0"):
        training_dataset(_scenes(3), 0, 0)
    with pytest.raises(ValueError, match="start_step must be between 0"):
        training_dataset(_scenes(3), 1, 0, -1)
    with pytest.raises(ValueError, match="batch_size must be a number above 0, got -4"):
        evaluation_dataset(_scenes(3), -4)


@pytest.mark.slow
def test_forty_thousand_images_a_second():
    scenes = Scenes(np.zeros((40_000, 50, 50, 1), np.uint8), counts=np.zeros(40_000, np.int32))
    batches = iter(training_dataset(scenes, 64, 0))
    next(batches)
    rates = []
    for _ in range(3):
        started = time.perf_counter()
        for _ in range(500):
            next(batches)
        rates.append(500 * 64 / (time.perf_counter() - started))
    assert max(rates) > 40_000
