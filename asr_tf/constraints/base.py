"""What a piece of knowledge about scenes is: a penalty on the posterior, and a test of finished scenes.

A constraint of the posterior, E_q[phi(x, z)] <= b, enters the objective as a slack penalty: zero where it holds,
differentiable where it does not, times a strength that is fixed beforehand, or grows to that as training goes on.

References:
    Xu et al., "Multi-object Generation with Amortized Structural Regularization", NeurIPS 2019,
    arXiv:1906.03923, section 3.
    Ganchev et al., "Posterior Regularization for Structured Latent Variable Models", JMLR 2010.
"""

from __future__ import annotations

import abc
import math
import re
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from asr_tf.checks import check_whole
from asr_tf.distributions import running_sum
from asr_tf.scene import Part

__all__ = ["Constraint", "SceneStatistics", "ink", "pairs_present", "sides_px", "steps_present"]


class SceneStatistics(NamedTuple):
    """What a rule may look at: expectations of the posterior, in the units of the image, and the prior's counts.

    Attributes:
        presence_probs: float [B, T], q(n >= t), the probability that step t holds an object.
        count_probs: float [B, T + 1], q(n = k) for k = 0..T.
        boxes: float [B, T, 4], attention windows `[ymin, xmin, ymax, xmax]` as fractions of the canvas; those of
            absent steps are there too, so weight them by `presence_probs`.
        canvas_size: (H, W) in pixels.
        objects: float [B, T, G, G, C] in (0, 1), what each step draws in its window.
        glimpses: float [B, T, G, G, C] in [0, 1], what the image shows there.
        drawn: float [B, T, H, W, C] in [0, 1], each step's object on a canvas of its own.
        prior_count_log_probs: float [..., T + 1], log p(n = k) of the prior; None where it has no weights to learn.
    """

    presence_probs: Any
    count_probs: Any
    boxes: Any
    canvas_size: tuple[int, int]
    objects: Any = None
    glimpses: Any = None
    drawn: Any = None
    prior_count_log_probs: Any = None

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
        num_steps = presence.shape[-1]
        earlier = np.tri(num_steps, k=-1, dtype=presence.dtype.as_numpy_dtype)
        return presence[..., tf.newaxis] * earlier

    def batch_mean(self, values: tf.Tensor) -> tf.Tensor:
        """Means [...] over the images of values [B, ...], those of other replicas included."""
        mean = tf.reduce_mean(values, axis=0)
        replica = tf.distribute.get_replica_context()
        if replica is None or replica.num_replicas_in_sync == 1:
            return mean
        return replica.all_reduce("MEAN", mean)

    def sides_px(self) -> tf.Tensor:
        """Float [B, T], the sides of the (square) windows in canvas pixels."""
        return sides_px(tf.convert_to_tensor(self.boxes), self.canvas_size)


class Constraint(Part, abc.ABC):
    """One piece of knowledge.  A rule of one's own overrides `penalty`, and the rest where it has more to say.

    Attributes:
        strength: float, nats an image for each unit of penalty.
        ramp_steps: (first, last), the training steps between which the strength grows from 0 to that.
    """

    def __init__(self, strength: float = 1.0, ramp_steps: Sequence[int] = (0, 0)) -> None:
        """Initializes the rule.

        Args:
            strength: factor of the penalty in the objective, 0 or more.
            ramp_steps: (first, last), training steps: the factor is 0 until the first and grows in a line to
                `strength` at the last; (0, 0) for all of it from the start.  A rule about windows holds up the
                learning of what is in them; one that comes later finds windows that show something.

        Raises:
            ValueError: `strength` is negative or not finite, or the steps aren't two whole numbers in order.
            TypeError: `strength` is not a number.
        """
        label = f"{type(self).__name__}.strength"
        if isinstance(strength, bool) or not isinstance(strength, (int, float)):
            raise TypeError(f"{label} must be a number, got {strength!r}.")
        if not (math.isfinite(strength) and strength >= 0):
            raise ValueError(f"{label} must be a finite number, 0 or more, got {strength!r}.")
        self.strength = float(strength)
        label = f"{type(self).__name__}.ramp_steps"
        if isinstance(ramp_steps, str) or not isinstance(ramp_steps, Sequence) or len(ramp_steps) != 2:
            raise ValueError(f"{label} must be (first, last), two training steps, got {ramp_steps!r}.")
        for i, step in enumerate(ramp_steps):
            check_whole(f"{label}[{i}]", step, 0)
        first, last = (int(step) for step in ramp_steps)
        if first >= last and last + first > 0:
            raise ValueError(f"{label} must be (first, last) with first below last, got {ramp_steps!r}.")
        self.ramp_steps = (first, last)

    def strength_at(self, step: Any) -> Any:
        """The factor of the penalty at a training step.

        Args:
            step: integer tensor or variable [], training steps taken before it.

        Returns:
            float32 [], or `strength` itself where it is the same at every step.
        """
        first, last = self.ramp_steps
        if last == 0:
            return self.strength
        taken = tf.cast(tf.convert_to_tensor(step), tf.float32) - float(first)
        return self.strength * tf.clip_by_value(taken / float(last - first), 0.0, 1.0)

    @property
    def name(self) -> str:
        """The rule's name in metrics and reports: the class name in snake case."""
        return re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", type(self).__name__).lower()

    @abc.abstractmethod
    def penalty(self, statistics: SceneStatistics) -> tf.Tensor:
        """How far the posterior is from the rule, not weighted by `strength`.

        Args:
            statistics: expectations of the posterior.

        Returns:
            float [B], or [] for a rule about the batch as a whole; 0 or more, 0 where the rule holds, with finite
            gradients everywhere.
        """

    def check(self, num_steps: int) -> None:
        """Refuses a model in which the rule can't hold.

        Args:
            num_steps: T, the most objects that the model can infer.

        Raises:
            ValueError: the rule can't hold.
        """

    def broken(
        self, counts: np.ndarray, boxes: np.ndarray | None, canvas_size: tuple[int, int]
    ) -> np.ndarray | None:
        """Which finished scenes break the rule.

        Args:
            counts: integer [N], objects in each scene.
            boxes: float [N, T, 4], their boxes as in `SceneStatistics`, zero rows for absent objects; None where
                they aren't known.
            canvas_size: (H, W) in pixels.

        Returns:
            bool [N], or None if the rule says nothing about one scene alone (or not without boxes).
        """
        return None


def ink(pixels: tf.Tensor) -> tf.Tensor:
    """How much ink a pixel [..., C] has, [...]: the brightest of its channels."""
    return pixels[..., 0] if pixels.shape[-1] == 1 else tf.reduce_max(pixels, axis=-1)


def sides_px(boxes: Any, canvas_size: tuple[int, int]) -> Any:
    """Sides in canvas pixels, [...], of (square) boxes [..., 4] as in `SceneStatistics`; an array's or a tensor's."""
    return (boxes[..., 2] - boxes[..., 0]) * canvas_size[0]


def steps_present(counts: np.ndarray, num_steps: int) -> np.ndarray:
    """Bool [N, T], which steps of finished scenes hold an object."""
    return np.arange(num_steps) < np.asarray(counts)[:, np.newaxis]


def pairs_present(counts: np.ndarray, num_steps: int) -> np.ndarray:
    """Bool [N, T, T], the pairs of present objects of finished scenes, each pair once."""
    present = steps_present(counts, num_steps)
    return present[:, :, np.newaxis] & np.tri(num_steps, k=-1, dtype=bool)
