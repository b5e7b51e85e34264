"""A bound on log p(x), less penalties, as Keras trains it, whatever the model.

`train_step` and `test_step` share one loss: the sum of the terms that a model's `_score` gives, and of the penalties of
its constraints.  A step that isn't finite changes no weight.
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
from asr_tf.fast.kernel_gradients import later
from asr_tf.fast.update_loop import several_updates

__all__ = ["BoundModel", "configurable_model"]


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
        """Means by label, NaN where there was none."""
        means = self._totals.value / self._batches.value
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
    return [next(means) if value.shape.rank == 1 else value for value in values]


def _penalty(rule: Constraint, statistics: SceneStatistics) -> tf.Tensor:
    """A rule's penalty, [B] or [].

    Raises:
        ValueError: it has another rank, whose mean would be the penalty divided by what should have been summed over.
    """
    penalty = tf.convert_to_tensor(rule.penalty(statistics))
    if penalty.shape.rank not in (0, 1):
        raise ValueError(
            f"{type(rule).__name__}.penalty must give a number an image, [B], or one in all, [], got shape "
            f"{penalty.shape}: sum over the other axes."
        )
    return penalty


def configurable_model(cls: type) -> type:
    """Registers a Keras model with gin under its whole signature: its own arguments, then those that it hands on.

    gin then knows each setting's name and default; Keras reads the signature too, and gin's wrapper would hide it.
    """
    parameters: dict[str, inspect.Parameter] = {}
    for base in cls.__mro__:
        if "__init__" not in vars(base):
            continue
        own = inspect.signature(base.__init__).parameters  # type: ignore[misc]
        handed_on = [p for p in own.values() if p.kind is inspect.Parameter.VAR_KEYWORD]
        parameters = {**{k: p for k, p in own.items() if p not in handed_on}, **parameters}
        if not handed_on:
            break
    signature = inspect.Signature(list(parameters.values()))
    cls.__init__.__signature__ = signature  # type: ignore[misc]
    cls = gin.configurable(cls)
    cls.__init__.__signature__ = signature  # type: ignore[misc]
    return cls


class BoundModel(keras.Model):
    """What models share that maximize a bound: the step, its metrics, and what happens where it isn't finite.

    Learning goes through Keras: `compile(optimizer)` and `fit` on batches
    `{"image": float32 [B, H, W, 1], "count": int32 [B] (optional)}`; only metrics look at the count.

    A subclass has `seed` and `estimator`, makes its weights and `step`, calls `_prepare_training` and overrides
    `_score`.

    Attributes:
        finds_objects: whether `infer` and `sample` return counts and boxes.
        constraints: the declared knowledge, a tuple of `Constraint`.
        step: int64 variable, training steps taken; the randomness of a step is a function of (seed, step).
        skipped_steps, skipped_in_a_row: int64 variables, steps that changed nothing because of a non-finite number.
    """

    finds_objects: bool
    seed: int
    estimator: str
    step: keras.Variable
    train_function: Any  # Keras's

    def _counter(self, name: str) -> keras.Variable:
        return self.add_weight(
            shape=(), dtype="int64", initializer="zeros", trainable=False, name=name
        )

    def _prepare_training(
        self, fields: Sequence[str], constraints: Sequence[Constraint], clipnorm: float | None
    ) -> None:
        """Makes what training counts and reports.

        Args:
            fields: names of the bound's terms, in the order of `_score`.
            constraints: the knowledge that training enforces.
            clipnorm: bound of each variable's gradient norm, None for no bound.
        """
        if clipnorm is not None:
            check_positive(f"{type(self).__name__}.clipnorm", clipnorm)
        self.constraints = tuple(constraints)
        self.clipnorm = clipnorm
        self.skipped_steps = self._counter("skipped_steps")
        self.skipped_in_a_row = self._counter("skipped_in_a_row")
        self._count_of_terms = len(fields)
        self._term_names = (
            *(f"{field}_nats" for field in fields),
            *(f"penalty_{label}" for label in _distinct([rule.name for rule in self.constraints])),
            "gradients",
        )
        self._nonfinite = self.add_weight(
            shape=(len(self._term_names),), dtype="bool", trainable=False, name="nonfinite"
        )
        self._means = _Means(("loss", "negative_elbo_nats", *self._term_names[:-1], "count_accuracy"))

    def _score(
        self, images: tf.Tensor, seed: tf.Tensor, estimator: str, **noise_options: str
    ) -> tuple[Sequence[tf.Tensor], SceneStatistics | None]:
        """The bound's terms, float [B] each, whose sum is -ELBO; and what the constraints look at.

        Args:
            images: float32 [B, H, W].
            seed: int32 [2].
            estimator: "enumerate" or "concrete".
            **noise_options: of the random generator.
        """
        raise NotImplementedError

    def _loss(
        self, images: tf.Tensor, seed: tf.Tensor, estimator: str, **noise_options: str
    ) -> tuple[tf.Tensor, dict[str, tf.Tensor], SceneStatistics | None]:
        """The loss, and what it is made of by name: batch means in nats, penalties unweighted."""
        terms, statistics = self._score(images, seed, estimator, **noise_options)
        penalties = [] if statistics is None else [_penalty(rule, statistics) for rule in self.constraints]
        means = _batch_means([*terms, *penalties])
        strengths = [1.0] * len(terms) + [rule.strength_at(self.step) for rule in self.constraints]
        loss = tf.add_n([weight * mean for weight, mean in zip(strengths, means, strict=True)])
        return loss, dict(zip(self._term_names, means, strict=False)), statistics

    # Training.

    def compile(self, *args: Any, **kwargs: Any) -> None:
        """As in Keras.  The optimizer's variables are made here: made in the first step, it would be traced twice.

        Raises:
            ValueError: the optimizer's learning rate is a schedule, which a step that isn't finite couldn't set to 0.
        """
        super().compile(*args, **kwargs)
        if self.optimizer is not None:
            if not hasattr(self.optimizer.learning_rate, "assign"):
                raise ValueError(
                    "the optimizer's learning rate must be a number, got a Keras schedule; a callback that assigns "
                    "optimizer.learning_rate before each batch does the same (as asr_tf.training.callbacks.Schedule)."
                )
            self.optimizer.build(self.trainable_variables)

    @property
    def metrics(self) -> list[keras.metrics.Metric]:
        """Means over an epoch, reset by Keras at its start."""
        return [self._means]

    def _update_metrics(
        self,
        loss: tf.Tensor,
        named: dict[str, tf.Tensor],
        statistics: SceneStatistics | None,
        data: dict[str, tf.Tensor],
    ) -> dict[str, tf.Tensor]:
        elbo = tf.add_n(list(named.values())[: self._count_of_terms])
        values = {"loss": loss, "negative_elbo_nats": elbo} | named
        if statistics is not None and "count" in data:
            inferred = tf.argmax(statistics.count_probs, axis=-1, output_type=tf.int32)
            right = tf.equal(inferred, tf.cast(data["count"], tf.int32))
            values["count_accuracy"] = tf.reduce_mean(tf.cast(right, tf.float32))
        self._means.update_state(values)
        self._reported = tuple(values)
        return self._reported_means()

    def _reported_means(self) -> dict[str, tf.Tensor]:
        """Means over the epoch so far, of what the last step that was traced reports."""
        return {label: mean for label, mean in self._means.result().items() if label in self._reported}

    def _step_seed(self) -> tf.Tensor:
        return tf.stack([tf.cast(self.seed, tf.int32), tf.cast(self.step, tf.int32)])

    def _noise_algorithm(self) -> str:
        """XLA runs Threefry 15 times as fast as Philox on a CPU; TensorFlow's own CPU kernels know only Philox."""
        return "threefry" if self.jit_compile and not tf.executing_eagerly() else "philox"

    def train_step(self, data: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        """One optimizer update; changes no weight where the loss or a gradient is not finite.

        (With an optimizer whose steps are its rate times something, such as Adam.  Keras's SGD adds its momentum
        whatever the rate.)
        """
        images = data["image"][..., 0]
        variables = self.trainable_variables
        with later() as of_kernels:
            with tf.GradientTape() as tape:
                loss, named, statistics = self._loss(
                    images, self._step_seed(), self.estimator, algorithm=self._noise_algorithm()
                )
            known = of_kernels.add_to(tape.gradient(loss, variables), variables)
        gradients = [
            tf.zeros_like(variable.value) if gradient is None else gradient  # idle: recurrence with T = 1
            for gradient, variable in zip(known, variables, strict=True)
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
        self._update_metrics(loss, named, statistics, data)
        return self._train_logs()

    def _train_logs(self) -> dict[str, tf.Tensor]:
        """What a training step reports, or the last of several."""
        skipped = {"skipped_steps": self.skipped_steps, "skipped_in_a_row": self.skipped_in_a_row}
        return self._reported_means() | {label: tf.cast(value, tf.float32) for label, value in skipped.items()}

    def make_train_function(self, force: bool = False) -> None:
        """As in Keras, but what XLA compiles is all updates of an execution and not one (see `several_updates`)."""
        known = self.train_function
        super().make_train_function(force)
        if self.train_function is known:
            return
        compiled = self.jit_compile and not self.run_eagerly
        alone = self.distribute_strategy.num_replicas_in_sync == 1
        if compiled and alone and self.steps_per_execution > 1 and type(self).train_step is BoundModel.train_step:
            self.train_function = several_updates(
                self.train_step, self._train_logs, self.steps_per_execution, self.train_function
            )

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
