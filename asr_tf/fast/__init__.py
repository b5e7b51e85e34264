"""What exists for speed alone: each piece has the signature of a plain twin, and is chosen here.

May import everything up to `asr_tf.data`; knows neither networks nor models: what it speeds up is handed to it.

`ASR_TF_FAST=0` in the environment switches all pieces off, `plain()` within a block; graphs that were traced before
stay as they are.  XLA and LiteRT can't compile the fast pieces.
"""

from __future__ import annotations

import contextlib
import contextvars
import functools
import os
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from asr_tf.fast.memory import tune_process

if TYPE_CHECKING:
    import tensorflow as tf

    from asr_tf.fast.present import PresentSteps

__all__ = ["enabled", "graph", "plain", "present_steps", "read_windows", "tune_process", "write_boxes"]

_PLAIN: contextvars.ContextVar[bool] = contextvars.ContextVar("plain", default=False)


def enabled() -> bool:
    """Whether the fast pieces are used."""
    return os.environ.get("ASR_TF_FAST", "1") != "0" and not _PLAIN.get()


@contextlib.contextmanager
def plain() -> Iterator[None]:
    """Within it, graphs are traced without the fast pieces, so that XLA and LiteRT can compile them."""
    token = _PLAIN.set(True)
    try:
        yield
    finally:
        _PLAIN.reset(token)


def graph(method: Callable[..., Any]) -> Callable[..., Any]:
    """A method of tensors as a `tf.function`: one graph where the fast pieces are on, another where they are off.

    (An argument would do that too, but TensorFlow takes a tenth of a millisecond to look at it.)
    """
    import tensorflow as tf

    graphs = {on: tf.function(method, reduce_retracing=True, autograph=False) for on in (False, True)}

    @functools.wraps(method)
    def call(self: Any, *tensors: Any) -> Any:
        return graphs[enabled()].__get__(self, type(self))(*tensors)

    return call


def present_steps(presence: tf.Tensor) -> PresentSteps:
    """The steps of scenes that hold an object, by their presence [B, T]; plainly, all of them."""
    from asr_tf.fast.present import PresentSteps

    return PresentSteps(presence, gather=enabled())


def read_windows(
    images: tf.Tensor, scenes: tf.Tensor, shift: tf.Tensor, scale: tf.Tensor, size: int
) -> tf.Tensor:
    """What images show in N windows, without a gradient.

    Args:
        images: float32 [B, H, W, C].
        scenes: int32 [N], the image of each window.
        shift, scale: float32 [N, 2] and [N, 1], as of `asr_tf.imaging.windows.read_windows`.
        size: G in pixels.

    Returns:
        float32 [N, G, G, C].
    """
    import tensorflow as tf

    from asr_tf.fast import crops
    from asr_tf.imaging import windows

    if enabled():
        return crops.read_windows(images, scenes, shift, scale, size)
    return windows.read_windows(tf.gather(images, scenes), shift, scale, size)


def write_boxes(contents: tf.Tensor, boxes: tf.Tensor, canvas_size: tuple[int, int]) -> tf.Tensor:
    """Contents in their boxes, without a gradient; as `asr_tf.imaging.windows.write_boxes`."""
    from asr_tf.fast import crops
    from asr_tf.imaging import windows

    return (crops if enabled() else windows).write_boxes(contents, boxes, canvas_size)
