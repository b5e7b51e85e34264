"""From scenes in memory to batches: `tf.data` pipelines for training and evaluation.

Contract: a batch is a dict of `image` float32 [B, H, W, C] in [0, 1], with the channels of the scenes, and, where they
are known, `count` int32 [B], `boxes` and `ink_boxes` float32 [B, M, 4].  Which images are in training batch i is a
function of (seed, i): a run that resumes at step i sees what an uninterrupted one would have seen, and starts at once.

Images stay uint8 until the batch is made.  Whole batches are gathered by index; nothing is handled image by image.
"""

from __future__ import annotations

import tensorflow as tf

from asr_tf import checks
from asr_tf.data.scenes import Scenes

__all__ = ["evaluation_dataset", "training_dataset"]

# With TensorFlow's default of 4, the orders of successive epochs were correlated (40,000 images: 34 standard errors).
_SHUFFLE_ROUNDS = 16


def _known(scenes: Scenes) -> dict[str, tf.Tensor]:
    """Returns the arrays of a batch that are known, as tensors, by their keys in a batch."""
    arrays = {
        "image": scenes.images,
        "count": scenes.counts,
        "boxes": scenes.boxes,
        "ink_boxes": scenes.ink_boxes,
    }
    # Held in main memory: a data set needn't fit an accelerator.
    with tf.device("CPU"):
        return {key: tf.constant(array) for key, array in arrays.items() if array is not None}


def _fixed(dataset: tf.data.Dataset) -> tf.data.Dataset:
    """The data set without TensorFlow's search for buffer sizes and threads: ours are given.

    The search sleeps for twice as long each time, 10 ms, 20 ms, up to a minute, and an iterator that `fit` or
    `evaluate` is done with isn't deleted before it wakes up: calls of 6 and of 11 s took 10.2 and 20.5 s.
    """
    options = tf.data.Options()
    options.autotune.enabled = False
    return dataset.with_options(options)


def _finish(batch: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
    return {**batch, "image": tf.cast(batch["image"], tf.float32) / 255.0}


def training_dataset(
    scenes: Scenes, batch_size: int, seed: int, start_step: int = 0
) -> tf.data.Dataset:
    """Returns an infinite data set of shuffled batches, all of the same size.

    Epochs follow one another without a gap: a batch may hold the end of one and the start of the next.  In each epoch,
    every image comes once, in a fresh order.

    Args:
        scenes: N scenes.
        batch_size: B, images a batch.
        seed: of the order; any int32.
        start_step: index of the first batch, to resume.

    Raises:
        ValueError: a batch size below 1 or a start below 0.
    """
    checks.check_positive("batch_size", batch_size)
    checks.check_range("start_step", start_step, 0, 2**62 // batch_size)
    tensors = _known(scenes)
    num_scenes = len(scenes)
    slots = tf.range(batch_size, dtype=tf.int64)

    def gather(step: tf.Tensor) -> dict[str, tf.Tensor]:
        position = step * batch_size + slots  # [B], in the endless row of epochs
        epoch, index = position // num_scenes, position % num_scenes
        # A keyed permutation of 0..N-1, computed index by index: no list of N to shuffle, or to wait for on resuming.
        keys = tf.stack(
            [
                tf.fill([batch_size], tf.constant(seed, tf.int64)),
                epoch,
                tf.zeros_like(epoch),
            ],
            axis=1,
        )
        # The raw operation: its wrapper, tf.random.experimental.index_shuffle, takes only one key for all indices.
        shuffled = tf.raw_ops.RandomIndexShuffle(
            index=index,
            seed=tf.cast(keys, tf.int32),
            max_index=tf.constant(num_scenes - 1, tf.int64),
            rounds=_SHUFFLE_ROUNDS,
        )
        return _finish({key: tf.gather(tensor, shuffled) for key, tensor in tensors.items()})

    dataset = tf.data.Dataset.counter(start=start_step)
    return _fixed(dataset.map(gather, num_parallel_calls=2, deterministic=True).prefetch(8))


def evaluation_dataset(scenes: Scenes, batch_size: int) -> tf.data.Dataset:
    """Returns a data set that goes through the scenes once, in order; the last batch may be smaller.

    Args:
        scenes: N scenes.
        batch_size: B, images a batch.

    Raises:
        ValueError: a batch size below 1.
    """
    checks.check_positive("batch_size", batch_size)
    tensors = _known(scenes)
    num_scenes = len(scenes)

    def cut(step: tf.Tensor) -> dict[str, tf.Tensor]:
        start = step * batch_size
        return _finish({key: tensor[start : start + batch_size] for key, tensor in tensors.items()})

    dataset = tf.data.Dataset.range(-(-num_scenes // batch_size))
    return _fixed(dataset.map(cut, num_parallel_calls=2, deterministic=True).prefetch(2))
