"""What a rule looks at: expectations of the posterior over scenes, of which finished scenes are a case.

In a finished scene it is known which objects are there: every probability is 0 or 1, and the expectation of a number is
the number itself.  One penalty therefore serves scenes that are inferred, drawn from the prior, or finished.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from asr_tf.distributions import code_of_count, running_sum

__all__ = ["SceneStatistics", "ink"]


class SceneStatistics(NamedTuple):
    """Expectations over scenes, in the units of the image.

    Attributes:
        presence_probs: float [B, T], q(n >= t), the probability that step t holds an object.
        count_probs: float [B, T + 1], q(n = k) for k = 0..T.
        boxes: float [B, T, 4], attention windows `[ymin, xmin, ymax, xmax]` as fractions of the canvas; those of
            absent steps are there too, so weight them by `presence_probs`.  None where only counts are known.
        canvas_size: (H, W) in pixels.
        objects: float [B, T, G, G, C] in (0, 1), what each step draws in its window; this and what follows is None
            where no pixels are known.
        glimpses: float [B, T, G, G, C] in [0, 1], what the image shows there.
        drawn: float [B, T, H, W, C] in [0, 1], each step's object on a canvas of its own.
    """

    presence_probs: Any
    count_probs: Any
    boxes: Any
    canvas_size: Any
    objects: Any = None
    glimpses: Any = None
    drawn: Any = None

    @classmethod
    def of_finished(
        cls,
        counts: Any,
        boxes: Any,
        canvas_size: tuple[int, int],
        num_steps: int | None = None,
        *,
        objects: Any = None,
        glimpses: Any = None,
        drawn: Any = None,
    ) -> SceneStatistics:
        """The statistics of finished scenes, present objects first.

        Args:
            counts: integer [N], the number of objects in each scene.
            boxes: float [N, T, 4]; None where they aren't known.
            canvas_size: (H, W) in pixels.
            num_steps: T; needed where there are no boxes.
            objects, glimpses, drawn: as of the class.

        >>> scenes = SceneStatistics.of_finished([0, 2], tf.zeros([2, 3, 4]), (50, 50))
        >>> scenes.presence_probs.numpy().tolist()
        [[0.0, 0.0, 0.0], [1.0, 1.0, 0.0]]
        """
        counts = tf.convert_to_tensor(counts)
        if boxes is not None:
            boxes = tf.convert_to_tensor(boxes, dtype_hint=tf.float32)
            num_steps = boxes.shape[1]
        dtype = tf.float32 if boxes is None else boxes.dtype
        presence, probs = _certain(counts, num_steps, dtype)
        return cls(presence, probs, boxes, canvas_size, objects, glimpses, drawn)

    @classmethod
    def of_counts(cls, count_log_probs: tf.Tensor) -> SceneStatistics:
        """The statistics of the number of objects alone, given log p(n = k), float [..., T + 1]."""
        probs = tf.exp(count_log_probs)
        at_least = tf.minimum(running_sum(probs, reverse=True)[..., 1:], 1.0)
        return cls(at_least, probs, None, None)

    def likeliest(self) -> SceneStatistics:
        """Finished scenes with the likeliest number of objects of each image, all else as it is."""
        probs = tf.convert_to_tensor(self.count_probs)
        counts = tf.argmax(probs, axis=-1, output_type=tf.int32)
        presence, certain = _certain(counts, probs.shape[-1] - 1, probs.dtype)
        return self._replace(presence_probs=presence, count_probs=certain)

    @property
    def num_steps(self) -> int:
        """T."""
        return self.presence_probs.shape[-1]

    @property
    def absence_probs(self) -> tf.Tensor:
        """Float [B, T], q(n < t) = 1 - q(n >= t), summed from `count_probs` so that no digits cancel."""
        return tf.minimum(running_sum(tf.convert_to_tensor(self.count_probs)[..., :-1]), 1.0)

    @property
    def pair_probs(self) -> tf.Tensor:
        """Float [B, T, T], the probability that both steps of a pair are present, each pair once.

        Presence is a unary code: steps t > u are both present exactly where t is, so that row t, column u < t is
        q(n >= t), with no product of marginals; the rest is 0.
        """
        presence = tf.convert_to_tensor(self.presence_probs)
        earlier = np.tri(self.num_steps, k=-1, dtype=presence.dtype.as_numpy_dtype)
        return presence[..., tf.newaxis] * earlier

    def batch_mean(self, values: tf.Tensor) -> tf.Tensor:
        """Means [...] over the images of values [B, ...], those of other replicas included."""
        mean = tf.reduce_mean(values, axis=0)
        replica = tf.distribute.get_replica_context()
        if replica is None or replica.num_replicas_in_sync == 1:
            return mean
        return replica.all_reduce("MEAN", mean)

    def batch_size(self) -> tf.Tensor:
        """The number of images, those of other replicas included, in the dtype of the probabilities."""
        replica = tf.distribute.get_replica_context()
        number = tf.shape(self.presence_probs)[0] * (1 if replica is None else replica.num_replicas_in_sync)
        return tf.cast(number, self.presence_probs.dtype)

    def sides_px(self) -> tf.Tensor:
        """Float [B, T], the sides of the (square) windows in canvas pixels."""
        boxes = tf.convert_to_tensor(self.boxes)
        return (boxes[..., 2] - boxes[..., 0]) * self.canvas_size[0]

    def centres_px(self) -> tuple[tf.Tensor, tf.Tensor]:
        """Float [B, T] each, the windows' centres as y and x in canvas pixels."""
        ymin, xmin, ymax, xmax = tf.unstack(tf.convert_to_tensor(self.boxes), axis=-1)
        height, width = self.canvas_size
        return 0.5 * height * (ymin + ymax), 0.5 * width * (xmin + xmax)


def _certain(counts: tf.Tensor, num_steps: Any, dtype: tf.DType) -> tuple[tf.Tensor, tf.Tensor]:
    """Presence [N, T] and probabilities of the counts [N, T + 1] where the counts [N] are known."""
    return code_of_count(counts, num_steps, dtype), tf.one_hot(counts, num_steps + 1, dtype=dtype)


def ink(pixels: tf.Tensor) -> tf.Tensor:
    """How much ink a pixel [..., C] has, [...]: the brightest of its channels."""
    return pixels[..., 0] if pixels.shape[-1] == 1 else tf.reduce_max(pixels, axis=-1)
