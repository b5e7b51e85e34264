"""Images a second of training, inference, sampling and data, and how close they come to the machine's limit.

The model has the published sizes (see `published.py`).  All rates are measured in turns that follow one another, so
that their ratios hold on a machine whose speed drifts.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import numpy as np
import tensorflow as tf

from asr_tf.data import SceneSettings, synthesize
from benchmarks import arithmetic, command, limits, published, synthesis

__all__ = ["measure"]

FIT_STEPS = {64: 120, 256: 40}
INFER_CALLS = {1: 50, 64: 10, 256: 4}
INFERRED_OBJECTS = 3
SAMPLE_SIZE = 1024
PIPELINE_BATCHES = 200
NUM_SCENES = 2048


def _fit_turns() -> tuple[dict[str, Callable[[], Any]], dict[str, Any]]:
    """Whole calls of `fit`, each with its callbacks, iterator and logs; and the models by turn."""
    turns: dict[str, Callable[[], Any]] = {}
    models: dict[str, Any] = {}
    for batch_size, steps in FIT_STEPS.items():
        name = f"train_fit_b{batch_size}"
        model = models[name] = published.compiled(published.build())
        data = published.dataset(batch_size)
        turns[name] = functools.partial(model.fit, data, steps_per_epoch=steps, epochs=1, verbose=0, shuffle=False)
    return turns, models


def _infer(model: Any, images: tf.Tensor, calls: int) -> None:
    for _ in range(calls):
        model.infer(images)["reconstruction"].numpy()


def _infer_turns() -> tuple[dict[str, Callable[[], Any]], dict[str, tuple[Any, int]]]:
    """Calls of `infer`; 3 objects in every image."""
    turns: dict[str, Callable[[], Any]] = {}
    what: dict[str, tuple[Any, int]] = {}
    for num_steps in (6, 4):
        model = published.with_count(published.build(num_steps), INFERRED_OBJECTS)
        for batch_size, calls in INFER_CALLS.items():
            name = f"infer_b{batch_size}_t{num_steps}"
            images = tf.constant(published.images(batch_size).astype(np.float32) / 255.0)
            turns[name] = functools.partial(_infer, model, images, calls)
            what[name] = (model, batch_size)
    return turns, what


def _other_turns() -> tuple[dict[str, Callable[[], Any]], dict[str, int]]:
    """Sampling with 3 and with all 6 objects a scene, the input pipeline, scene synthesis; and images a turn."""
    model = published.build()
    seed = tf.constant([0, 1])
    batches = iter(published.dataset(64))
    bank, settings = synthesis.ring_bank(), SceneSettings(canvas_size=(50, 50), counts=(3,))

    def pipeline() -> None:
        for _ in range(PIPELINE_BATCHES):
            next(batches)

    turns: dict[str, Callable[[], Any]] = {
        "sample": lambda: model.sample(SAMPLE_SIZE, seed, 3)["images"].numpy(),
        "sample_6_objects": lambda: model.sample(SAMPLE_SIZE, seed, 6)["images"].numpy(),
        "pipeline": pipeline,
        "synthesis": lambda: synthesize(bank, settings, NUM_SCENES, seed=0),
    }
    images = (SAMPLE_SIZE, SAMPLE_SIZE, 64 * PIPELINE_BATCHES, NUM_SCENES)
    return turns, dict(zip(turns, images, strict=True))


def measure(rounds: int) -> dict[str, Any]:
    """Images a second, the machine's limits, and shares of them; medians of `rounds` turns."""
    fits, models = _fit_turns()
    infers, inferred = _infer_turns()
    others, made = _other_turns()
    products = limits.product_turns(models["train_fit_b64"], 64)
    products |= limits.product_turns(models["train_fit_b256"], 256)
    turns = {**fits, **infers, **others, **{name: turn for name, (_, turn) in products.items()}}
    seconds = command.interleaved({**turns, "bandwidth": limits.bandwidth_turn()}, rounds)

    product_rates = {name: flops / seconds[name] for name, (flops, _) in products.items()}
    best = max(product_rates, key=lambda name: product_rates[name])
    limit = product_rates[best]
    figures: dict[str, Any] = {
        "limit_gflops": round(limit / 1e9, 1),
        "limit_product": best,
        "bandwidth_gb_per_s": round(2 * limits.BANDWIDTH_BYTES / seconds["bandwidth"] / 1e9, 1),
        "products_gflops": {name: round(rate / 1e9, 1) for name, rate in product_rates.items()},
    }
    for batch_size, steps in FIT_STEPS.items():
        name = f"train_fit_b{batch_size}"
        flops = arithmetic.training_step_flops(models[name], batch_size)
        share = flops * steps / seconds[name] / limit
        figures[f"train_fit_images_per_s_b{batch_size}"] = round(batch_size * steps / seconds[name], 1)
        figures[f"train_gflop_a_step_b{batch_size}"] = round(flops / 1e9, 3)
        figures["train_share_of_limit" + ("" if batch_size == 64 else f"_b{batch_size}")] = round(share, 3)
    for name, (model, batch_size) in inferred.items():
        calls = INFER_CALLS[batch_size]
        rate = batch_size * calls / seconds[name]
        figures[name.replace("infer_", "infer_images_per_s_")] = round(rate, 1)
        share = arithmetic.inference_flops(model, batch_size, INFERRED_OBJECTS) / batch_size * rate / limit
        figures[name.replace("infer_", "infer_share_of_limit_")] = round(share, 3)
    names = {
        "sample": "sample_scenes_per_s",
        "sample_6_objects": "sample_scenes_per_s_6_objects",
        "pipeline": "pipeline_images_per_s",
        "synthesis": "synthesis_scenes_per_s",
    }
    for name, images in made.items():
        figures[names[name]] = round(images / seconds[name], 1)
    return figures
