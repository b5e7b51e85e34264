"""The model as Keras trains it: the bound less the penalties of the declared constraints.

AIR, AIR-pPrior and ASR are settings of this one class: the prior ("air" or "autoregressive") and the constraints.
`train_step` and `test_step` share one loss.

References:
    Xu et al., "Multi-object Generation with Amortized Structural Regularization", NeurIPS 2019, arXiv:1906.03923,
    section 3.
"""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from typing import Any

import gin
import keras
import numpy as np
import tensorflow as tf

from asr_tf.checks import check_positive
from asr_tf.constraints import Constraint, SceneStatistics
from asr_tf.scene import ObjectiveTerms
from asr_tf.scene_model import SceneModel

__all__ = ["ASRModel"]


def _distinct(names: list[str]) -> list[str]:
    """Names with `_2`, `_3` and so on where one comes again: two rules of one class are two metrics."""
    return [
        name if name not in names[:i] else f"{name}_{names[:i].count(name) + 1}"
        for i, name in enumerate(names)
    ]


class _Means(keras.metrics.Metric):
    """Means of several numbers, each over the batches in which it was there and finite.

    One vector for all of them: XLA compiles a kernel for every small expression, which thirteen metrics have many of.
    """

    def __init__(self, labels: Sequence[str]):
        super().__init__(name="means")
        self._labels = tuple(labels)
        shape = (len(self._labels),)
        self._totals = self.add_weight(shape=shape, initializer="zeros", name="totals")
        self._batches = self.add_weight(shape=shape, initializer="zeros", name="batches")

    def update_state(self, values: dict[str, tf.Tensor]) -> None:
        """Adds a batch's numbers by label; labels may be missing."""
        numbers = tf.stack([tf.cast(values.get(label, np.nan), tf.float32) for label in self._labels])
        finite = tf.math.is_finite(numbers)
        self._totals.assign_add(tf.where(finite, numbers, 0.0))
        self._batches.assign_add(tf.cast(finite, tf.float32))

    def result(self) -> dict[str, tf.Tensor]:
        """Means by label, 0 where there was none."""
        means = tf.math.divide_no_nan(self._totals.value, self._batches.value)
        return dict(zip(self._labels, tf.unstack(means), strict=True))


def _segment_sums(vectors: Sequence[tf.Tensor], power: int = 1) -> tf.Tensor:
    """Sums over each of N vectors' elements, or over their squares, [N]."""
    lengths = [int(vector.shape[0]) for vector in vectors]
    membership = np.repeat(np.eye(len(vectors), dtype=np.float32), lengths, axis=0)
    values = tf.concat(vectors, 0)[tf.newaxis] ** power
    return tf.matmul(values, tf.cast(membership, values.dtype))[0]


def _squared_norms(gradients: Sequence[tf.Tensor]) -> tf.Tensor:
    """Squared Euclidean norms of N gradients, [N].

    Sums are products with ones: XLA's reductions run on one core of a CPU, and make kernels that take time to compile.
    """
    matrices = [i for i, gradient in enumerate(gradients) if gradient.shape.rank == 2]
    others = [i for i in range(len(gradients)) if i not in matrices]
    sums = []
    if matrices:
        squares = [tf.square(gradients[i]) for i in matrices]
        rows = [tf.matmul(x, tf.ones([x.shape[1], 1], x.dtype))[:, 0] for x in squares]
        sums.append(_segment_sums(rows))
    if others:
        sums.append(_segment_sums([tf.reshape(gradients[i], [-1]) for i in others], power=2))
    return tf.gather(tf.concat(sums, 0), np.argsort([*matrices, *others]))


def _batch_means(values: Sequence[tf.Tensor]) -> list[tf.Tensor]:
    """Means [] of values [B] or []."""
    vectors = [value for value in values if value.shape.rank == 1]
    means = iter(tf.unstack(tf.reduce_mean(tf.stack(vectors), axis=1), len(vectors))) if vectors else iter(())
    return [next(means) if value.shape.rank == 1 else tf.reduce_mean(value) for value in values]


def _configurable(cls: type[SceneModel]) -> type[SceneModel]:
    """Registers the class with gin under the whole signature: its own arguments and those of `SceneModel`.

    gin then knows each setting's name and default; Keras reads the signature too, and gin's wrapper would hide it.
    """
    own = inspect.signature(cls.__init__).parameters
    inherited = inspect.signature(SceneModel.__init__).parameters
    merged = {**inherited, **{k: v for k, v in own.items() if k != "settings"}}
    signature = inspect.Signature(list(merged.values()))
    cls.__init__.__signature__ = signature  # type: ignore[attr-defined]
    cls = gin.configurable(cls)
    cls.__init__.__signature__ = signature  # type: ignore[attr-defined]
    return cls


@_configurable
class ASRModel(SceneModel):
    """Attend-Infer-Repeat with amortized structural regularization.

    Learning goes through Keras: `compile(optimizer)` and `fit` on batches
    `{"image": float32 [B, H, W, 1], "count": int32 [B] (optional)}`; only metrics look at the count.

    Attributes:
        constraints: the declared knowledge, a tuple of `Constraint`.
        step: int64 variable, training steps taken; the randomness of a step is a function of (seed, step).
        skipped_steps, skipped_in_a_row: int64 variables, steps that changed nothing because of a non-finite number.
    """

    def __init__(
        self,
        *,
        constraints: Sequence[Constraint] = (),
        clipnorm: float | None = 1.0,
        num_steps: int = 4,
        **settings: Any,
    ):
        """Initializes the model.

        Args:
            constraints: the knowledge that training enforces.
            clipnorm: bound of each variable's gradient norm in `train_step`, None for no bound.  (The optimizer's own
                would compute every norm a second time.)
            num_steps: T, the most objects in a scene.
            **settings: of `SceneModel`.

        Raises:
            ValueError, TypeError: a setting is out of range, or a constraint can't hold with `num_steps`.
        """
        super().__init__(num_steps=num_steps, **settings)
        for constraint in constraints:
            if not isinstance(constraint, Constraint):
                raise TypeError(
                    f"ASRModel.constraints must hold Constraint objects, got {constraint!r}."
                )
            constraint.check(num_steps)

        if clipnorm is not None:
            check_positive("ASRModel.clipnorm", clipnorm)
        self.constraints = tuple(constraints)
        self.clipnorm = clipnorm
        self.skipped_steps = self._counter("skipped_steps")
        self.skipped_in_a_row = self._counter("skipped_in_a_row")
        self._term_names = (
            *(f"{field}_nats" for field in ObjectiveTerms._fields),
            *(f"penalty_{label}" for label in _distinct([rule.name for rule in self.constraints])),
            "gradients",
        )
        self._nonfinite = self.add_weight(
            shape=(len(self._term_names),), dtype="bool", trainable=False, name="nonfinite"
        )
        self._means = _Means(("loss", "negative_elbo_nats", *self._term_names[:-1], "count_accuracy"))

    def _loss(
        self, images: tf.Tensor, seed: tf.Tensor, estimator: str, **noise_options: str
    ) -> tuple[tf.Tensor, dict[str, tf.Tensor], SceneStatistics]:
        """The loss, and what it is made of by name: batch means in nats, penalties unweighted."""
        terms, statistics = self._score(images, seed, estimator, **noise_options)
        penalties = [rule.penalty(statistics) for rule in self.constraints]
        means = _batch_means([*terms, *penalties])
        strengths = [1.0] * len(terms) + [rule.strength for rule in self.constraints]
        loss = tf.add_n([weight * mean for weight, mean in zip(strengths, means, strict=True)])
        return loss, dict(zip(self._term_names, means, strict=False)), statistics

    # Training.

    def compile(self, *args: Any, **kwargs: Any) -> None:
        """As in Keras.  The optimizer's variables are made here: made in the first step, it would be traced twice."""
        super().compile(*args, **kwargs)
        if self.optimizer is not None:
            self.optimizer.build(self.trainable_variables)

    @property
    def metrics(self) -> list[keras.metrics.Metric]:
        """Means over an epoch, reset by Keras at its start."""
        return [self._means]

    def _update_metrics(
        self,
        loss: tf.Tensor,
        named: dict[str, tf.Tensor],
        statistics: SceneStatistics,
        data: dict[str, tf.Tensor],
    ) -> dict[str, tf.Tensor]:
        count_of_terms = len(ObjectiveTerms._fields)
        values = {"loss": loss, "negative_elbo_nats": tf.add_n(list(named.values())[:count_of_terms])}
        values |= named
        if "count" in data:
            inferred = tf.argmax(statistics.count_probs, axis=-1, output_type=tf.int32)
            right = tf.equal(inferred, tf.cast(data["count"], tf.int32))
            values["count_accuracy"] = tf.reduce_mean(tf.cast(right, tf.float32))
        self._means.update_state(values)
        return {label: mean for label, mean in self._means.result().items() if label in values}

    def _step_seed(self) -> tf.Tensor:
        return tf.stack([tf.cast(self.seed, tf.int32), tf.cast(self.step, tf.int32)])

    def _noise_algorithm(self) -> str:
        """XLA runs Threefry 15 times as fast as Philox on a CPU; TensorFlow's own CPU kernels know only Philox."""
        return "threefry" if self.jit_compile and not tf.executing_eagerly() else "philox"

    def train_step(self, data: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        """One optimizer update; changes no weight where the loss or a gradient is not finite."""
        images = data["image"][..., 0]
        variables = self.trainable_variables
        with tf.GradientTape() as tape:
            loss, named, statistics = self._loss(
                images, self._step_seed(), self.estimator, algorithm=self._noise_algorithm()
            )
        gradients = [
            tf.zeros_like(variable.value) if gradient is None else gradient  # idle: recurrence with T = 1
            for gradient, variable in zip(tape.gradient(loss, variables), variables, strict=True)
        ]
        norms = tf.sqrt(_squared_norms(gradients))
        bad = tf.logical_not(tf.math.is_finite([*named.values(), tf.reduce_sum(norms)]))
        skip = tf.reduce_any(bad)
        self._apply(gradients, norms, skip)
        self._nonfinite.assign(tf.where(skip, bad, self._nonfinite))
        self.step.assign_add(1)
        self.skipped_steps.assign_add(tf.cast(skip, tf.int64))
        self.skipped_in_a_row.assign(
            tf.where(skip, self.skipped_in_a_row + 1, tf.zeros([], tf.int64))
        )
        logs = self._update_metrics(loss, named, statistics, data)
        logs["skipped_steps"] = tf.cast(self.skipped_steps, tf.float32)
        logs["skipped_in_a_row"] = tf.cast(self.skipped_in_a_row, tf.float32)
        return logs

    def _apply(self, gradients: list[tf.Tensor], norms: tf.Tensor, skip: tf.Tensor) -> None:
        """Clips and applies gradients; where `skip`, applies zeros at rate zero, which moves nothing.

        A conditional would do, but XLA copies every weight to get it through one.
        """
        bound = np.inf if self.clipnorm is None else self.clipnorm
        factors = tf.unstack(tf.minimum(1.0, bound / norms), len(gradients))
        clipped = [
            tf.where(skip, 0.0, gradient * factor)
            for gradient, factor in zip(gradients, factors, strict=True)
        ]
        rate = tf.identity(self.optimizer.learning_rate)
        self.optimizer.learning_rate.assign(tf.where(skip, 0.0, rate))
        self.optimizer.apply(clipped, self.trainable_variables)
        self.optimizer.learning_rate.assign(rate)

    def test_step(self, data: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        """The exact bound (count enumerated, whatever training uses) and penalties of one batch."""
        seed = tf.stack([tf.cast(self.seed, tf.int32), -1])
        loss, named, statistics = self._loss(data["image"][..., 0], seed, "enumerate")
        return self._update_metrics(loss, named, statistics, data)

    def nonfinite_terms(self) -> list[str]:
        """Names of the terms that were not finite in the last skipped step ("gradients" among them)."""
        flags = keras.ops.convert_to_numpy(self._nonfinite)
        return [label for label, flag in zip(self._term_names, flags, strict=True) if flag]
