"""The model of the published sizes, and what the benchmarks feed it.

Canvas 50 x 50, glimpses of 28 x 28, LSTMs of 256, encoder 784-512-256-50 and its mirror image, and the three rules of
`scenes/mnist_count13.gin`.  No weight is learned: how long an operation takes doesn't depend on the values, but for the
number of present objects, which `with_count` sets.
"""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import tensorflow as tf

from asr_tf.constraints import AggregateCount, CountInSet, TightWindows
from asr_tf.data import Scenes, training_dataset
from asr_tf.fast import tune_process
from asr_tf.models import ASRModel

__all__ = ["STEPS_PER_EXECUTION", "build", "compiled", "dataset", "images", "with_count"]

STEPS_PER_EXECUTION = 20


def build(num_steps: int = 6, **settings: Any) -> ASRModel:
    """The model with T steps, at least 3."""
    counts = (1, min(3, num_steps)) if num_steps > 1 else (1,)
    rules = (CountInSet(counts), AggregateCount(counts), TightWindows())
    tune_process()
    return ASRModel(num_steps=num_steps, constraints=rules, **settings)


def compiled(model: ASRModel, steps_per_execution: int = STEPS_PER_EXECUTION) -> ASRModel:
    """The model, ready for `fit` as `asr_train` does it; at a rate at which nothing changes much."""
    model.compile(optimizer=keras.optimizers.Adam(1e-6), jit_compile=True, steps_per_execution=steps_per_execution)
    return model


def images(number: int, canvas_size: tuple[int, int] = (50, 50), seed: int = 0) -> np.ndarray:
    """uint8 [number, H, W, 1], a tenth of the pixels inked."""
    rng = np.random.default_rng(seed)
    inked = rng.uniform(size=(number, *canvas_size, 1)) < 0.1
    return np.where(inked, rng.integers(1, 256, inked.shape), 0).astype(np.uint8)


def dataset(batch_size: int, number: int = 10_000) -> tf.data.Dataset:
    """The endless training data set of `asr_train`, of images with counts."""
    counts = np.random.default_rng(0).integers(1, 4, number).astype(np.int32)
    return training_dataset(Scenes(images=images(number), counts=counts), batch_size, seed=0)


def with_count(model: ASRModel, count: int) -> ASRModel:
    """The model with weights by which every image has `count` objects.

    The first unit of the recognition LSTM becomes a clock, h = tanh(t / 4), that the presence head compares with
    count + 1/2; every other product is as it was.
    """
    recognition, units = model.recognition, model.recognition.rnn_units
    for layer in (recognition.image_gates, recognition.state_gates):
        kernel = layer.kernel.numpy()
        kernel[:, ::units] = 0.0
        layer.kernel.assign(kernel)
    bias = recognition.image_gates.bias.numpy()
    bias[::units] = 30.0, 30.0, 30.0, np.arctanh(0.25)  # input, forget and output gate, candidate
    recognition.image_gates.bias.assign(bias)
    hidden, output, last = recognition.head_hidden, recognition.presence_output, -recognition.head_units
    kernel, bias = hidden.kernel.numpy(), hidden.bias.numpy()
    kernel[:, last:] = 0.0
    kernel[0, last] = 1.0
    bias[last:] = 0.0
    hidden.kernel.assign(kernel)
    hidden.bias.assign(bias)
    kernel = np.zeros(output.kernel.shape, np.float32)
    kernel[0, 0] = -400.0
    output.kernel.assign(kernel)
    output.bias.assign([400.0 * np.tanh((count + 0.5) / 4)])
    return model
