"""A bound on log p(x), less penalties, as Keras trains it, whatever the model.

`train_step` and `test_step` share one loss: the sum of the terms that a model's `score` gives, and of the penalties of
its constraints, each times its multiplier, which training finds (see `asr_tf.constraints.multipliers`).  A step that
isn't finite changes no weight and no multiplier.  Where a `tf.distribute` strategy has several replicas, a step is that
of one replica with the whole batch.
"""

from __future__ import annotations

import abc
import contextlib
import random
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from asr_tf.checks import check_images, check_positive
from asr_tf.constraints import Constraint, SceneStatistics
from asr_tf.models.rule_terms import PriorScenes, RuleTerms
from asr_tf.networks.keras_settings import own_settings

__all__ = ["BoundModel", "initial_weights_from"]


@contextlib.contextmanager
def initial_weights_from(seed: int) -> Iterator[None]:
    """Within it, Keras initializers that are given no seed follow from this one; nothing of the process changes.

    (Keras draws their seeds from Python's generator.)  The weights are float32, whatever the user of Keras has set.
    """
    state = random.getstate()
    random.seed(seed)
    try:
        with own_settings():
            yield
    finally:
        random.setstate(state)


class _Means(keras.metrics.Metric):
    """Means of several numbers, each over the batches in which it was there and finite.

    One vector for all of them: XLA compiles a kernel for every small expression, which thirteen metrics have many of.
    """

    def __init__(self, labels: Sequence[str]):
        super().__init__(name="means")
        self._labels = tuple(labels)
        shape = (len(self._labels),)
        self._totals = self.add_weight(shape=shape, dtype="float32", initializer="zeros", name="totals")
        self._batches = self.add_weight(shape=shape, dtype="float32", initializer="zeros", name="batches")

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


def _squared_norm(gradient: tf.Tensor) -> tf.Tensor:
    """The sum of squares [] of a gradient, as a product with ones: XLA's reductions run on one core of a CPU."""
    rows = tf.reshape(tf.square(gradient), [-1, gradient.shape[-1] if gradient.shape.rank else 1])
    return tf.reduce_sum(tf.matmul(rows, tf.ones([rows.shape[-1], 1], rows.dtype)))


class BoundModel(keras.Model, metaclass=abc.ABCMeta):
    """What models share that maximize a bound: the step, its metrics, and what happens where it isn't finite.

    Learning goes through Keras: `compile(optimizer)` with any Keras optimizer and `fit` on batches
    `{"image": float32 [B, H, W, C], "count": int32 [B] (optional)}`; only metrics look at the count.

    A subclass overrides `score`, and calls `_prepare_training` at the end of its constructor.

    Attributes:
        finds_objects: whether `infer` and `sample` return counts and boxes.
        canvas_size: (H, W) in pixels.
        channels: C.
        seed: of training's randomness and of the initial weights.
        constraints: the declared knowledge, a tuple of `Constraint`.
        rule_terms: what they ask, and the state of their multipliers.
        step: int64 variable, training steps taken; the randomness of a step is a function of (seed, step).
        skipped_steps, skipped_in_a_row: int64 variables, steps that changed nothing because of a non-finite number.
    """

    finds_objects: bool
    canvas_size: tuple[int, int]
    channels: int
    seed: int

    def __init__(self, name: str) -> None:
        """Initializes the Keras model; a subclass goes on from there.

        Args:
            name: Keras name.
        """
        with own_settings():
            super().__init__(name=name)

    def _prepare_training(
        self,
        fields: Sequence[str],
        constraints: Sequence[Constraint],
        clipnorm: float | None,
        multiplier_scale: float = 1.0,
    ) -> None:
        """Makes what training counts and reports.

        Args:
            fields: names of the bound's terms, in the order of `score`.
            constraints: the knowledge that training enforces.
            clipnorm: bound of each variable's gradient norm, None for no bound.
            multiplier_scale: how many times higher than usual all multipliers start.
        """
        if clipnorm is not None:
            check_positive(f"{type(self).__name__}.clipnorm", clipnorm)
        self.constraints = tuple(constraints)
        self.clipnorm = clipnorm
        self.step, self.skipped_steps, self.skipped_in_a_row = (
            self.add_weight(shape=(), dtype="int64", initializer="zeros", trainable=False, name=name)
            for name in ("step", "skipped_steps", "skipped_in_a_row")
        )
        self.rule_terms = RuleTerms(self.constraints, multiplier_scale, self.add_weight)
        if self.rule_terms.weights is not None:  # TensorFlow's checkpoints find weights by the model's attributes
            self._log_multipliers, self._rule_features, self._rule_violations = self.rule_terms.weights
            self._highest_log_multipliers = self.rule_terms.highest
        self._count_of_terms = len(fields)
        self._measured_names = tuple(f"feature_{demand.label}" for demand in self.rule_terms.adaptive)
        self._term_names = (
            *(f"{field}_nats" for field in fields),
            *(f"penalty_{demand.label}" for demand in self.rule_terms.asked),
            "gradients",
        )
        self._nonfinite = self.add_weight(
            shape=(len(self._term_names),), dtype="bool", initializer="zeros", trainable=False, name="nonfinite"
        )
        self._means = _Means(("loss", "negative_elbo_nats", *self._term_names[:-1], "count_accuracy"))

    @property
    def counters(self) -> list[keras.Variable]:
        """What counts the steps of a training."""
        return [self.step, self.skipped_steps, self.skipped_in_a_row]

    @abc.abstractmethod
    def score(
        self, images: tf.Tensor, noise: Any, seed: tf.Tensor, training: bool
    ) -> tuple[Sequence[tf.Tensor | None], SceneStatistics | None]:
        """The bound's terms, and what the constraints look at.

        Args:
            images: float32 [B, H, W, C].
            noise: as `draw_noise` gives it.
            seed: int32 [2], of all other randomness.
            training: whether the bound is that which training maximizes, else the exact one.

        Returns:
            float [B] each, in nats, whose sum is -ELBO (None counts nothing); and the statistics, None where there are
            no objects.
        """

    @abc.abstractmethod
    def draw_noise(self, batch_size: tf.Tensor, seed: tf.Tensor, algorithm: str = "philox") -> Any:
        """Standard normal draws for `score`, a structure of float32 [B, ...].

        Args:
            batch_size: int32 [], B.
            seed: int32 [2].
            algorithm: of the random generator, see `tf.random.Algorithm`.
        """

    def prior_scenes(self) -> PriorScenes:
        """The scenes that the prior draws, for rules that are asked of them."""
        raise ValueError(f"{type(self).__name__} draws no scenes that rules could be asked of.")

    def objective(self, images: Any, seed: Any) -> Any:
        """The exact bound's terms, with one sample of the continuous latents.

        Args:
            images: [B, H, W, C]; float in [0, 1] or uint8.
            seed: int32 [2].

        Returns:
            Terms, float32 [B] each, in nats.

        Raises:
            ValueError, TypeError: images of another shape, size, dtype or range.
        """
        images = self._checked(images)
        noise_seed, other_seed = tf.unstack(tf.random.split(tf.convert_to_tensor(seed, tf.int32), 2))
        return self.score(images, self.draw_noise(tf.shape(images)[0], noise_seed), other_seed, training=False)[0]

    def call(self, images: Any, training: bool | None = None) -> dict[str, tf.Tensor]:
        """What `infer` gives, of images or of a batch that holds them as `image`; so `model(images)` works, too."""
        return self.infer(images["image"] if isinstance(images, Mapping) else images)

    def predict(self, x: Any, *args: Any, **kwargs: Any) -> dict[str, np.ndarray]:
        """As in Keras: what `infer` gives, as NumPy arrays.

        Args:
            x: images as of `infer`, which are looked through first, or batches of them or of what `fit` takes.
            *args, **kwargs: as of Keras.

        Raises:
            ValueError, TypeError: images of another shape, size, dtype or range.
        """
        if isinstance(x, (np.ndarray, list, tf.Tensor)):
            x = check_images(x, self.canvas_size, channels=self.channels)
        return super().predict(x, *args, **kwargs)

    @abc.abstractmethod
    def infer(self, images: Any) -> dict[str, tf.Tensor]:
        """Deterministic inference, [B, ...] by name, of images [B, H, W, C]; float in [0, 1] or uint8."""

    def _checked(self, images: Any) -> tf.Tensor:
        """Images as float32, looked through; symbolic tensors are taken as they are."""
        if not tf.is_symbolic_tensor(images):
            images = check_images(images, self.canvas_size, channels=self.channels)
        elif images.dtype == tf.uint8:
            images = tf.cast(images, tf.float32) / 255.0
        return tf.convert_to_tensor(images, tf.float32)

    def _loss(
        self, data: dict[str, Any], seed: tf.Tensor, training: bool
    ) -> tuple[tf.Tensor, dict[str, tf.Tensor], SceneStatistics | None]:
        """The loss, and what it is made of by name: batch means in nats, penalties unweighted; what is measured."""
        images = data["image"]
        number = tf.shape(images)[0]
        # XLA runs Threefry 15 times as fast as Philox on a CPU; TensorFlow's own CPU kernels know only Philox.
        algorithm = "threefry" if self.jit_compile and not tf.executing_eagerly() else "philox"
        noise_seed, other_seed = tf.unstack(tf.random.split(seed, 2))
        noise = data.get("noise")
        if noise is None:
            noise = self.draw_noise(number, noise_seed, algorithm)
        terms, statistics = self.score(images, noise, other_seed, training)
        means = [tf.reduce_mean(term) for term in terms if term is not None]
        loss = tf.add_n(means)
        measured: list[tf.Tensor] = []
        if statistics is not None:
            rules_seed = other_seed + tf.constant([0, 1])
            of_rules, penalties, measured = self.rule_terms.terms(
                statistics, self.prior_scenes, number, rules_seed, training
            )
            loss += of_rules
            means += penalties
        named = dict(zip(self._term_names, means, strict=False))
        named |= dict(zip(self._measured_names, measured, strict=True))
        return loss, named, statistics

    # Training.

    def compile(self, *args: Any, **kwargs: Any) -> None:
        """As in Keras.  The optimizer's variables are made here: made in the first step, it would be traced twice."""
        with own_settings():
            super().compile(*args, **kwargs)
            if self.optimizer is not None:
                self.optimizer.build(self.trainable_variables)

    def compile_from_config(self, config: dict[str, Any]) -> None:
        """As in Keras, for a model that is loaded; Keras leaves it out where `compile` is overridden."""
        self.compile(**keras.saving.deserialize_keras_object(config))

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
        return {label: mean for label, mean in self._means.result().items() if label in values}

    def step_seed(self) -> tf.Tensor:
        """int32 [2], of the randomness of the next training step, in this replica."""
        replica = tf.distribute.get_replica_context()
        number = tf.cast(replica.replica_id_in_sync_group, tf.int32)
        return tf.stack([self.seed, tf.cast(self.step, tf.int32) * replica.num_replicas_in_sync + number])

    def train_step(self, data: dict[str, Any]) -> dict[str, tf.Tensor]:
        """One optimizer update; changes no weight where the loss or a gradient is not finite.

        Args:
            data: a batch; it may hold `noise` in the place of what `draw_noise` would draw.
        """
        replica = tf.distribute.get_replica_context()
        variables = self.trainable_variables
        with tf.GradientTape() as tape:
            loss, named, statistics = self._loss(data, self.step_seed(), training=True)
        gradients = [
            tf.zeros(variable.shape, variable.dtype) if gradient is None else gradient  # what the loss doesn't reach
            for gradient, variable in zip(tape.gradient(loss, variables), variables, strict=True)
        ]
        if replica.num_replicas_in_sync > 1:  # what follows is about the batch as a whole
            loss, *means = replica.all_reduce("MEAN", [loss, *named.values()])
            named = dict(zip(named, means, strict=True))
            gradients = replica.all_reduce("MEAN", gradients)
        measured = [named.pop(name) for name in self._measured_names]
        norms = tf.sqrt(tf.stack([_squared_norm(gradient) for gradient in gradients]))
        bad = tf.logical_not(tf.math.is_finite([*named.values(), tf.reduce_sum(norms)]))
        skip = tf.reduce_any(bad)
        bound = np.inf if self.clipnorm is None else self.clipnorm
        factors = tf.unstack(tf.minimum(1.0, bound / norms), len(gradients))
        self._apply([gradient * factor for gradient, factor in zip(gradients, factors, strict=True)], skip)
        self.rule_terms.update(measured, skip)
        self._nonfinite.assign(tf.where(skip, bad, self._nonfinite))
        self.step.assign_add(1)
        self.skipped_steps.assign_add(tf.cast(skip, tf.int64))
        self.skipped_in_a_row.assign(tf.where(skip, self.skipped_in_a_row + 1, tf.zeros([], tf.int64)))
        skipped = {"skipped_steps": self.skipped_steps, "skipped_in_a_row": self.skipped_in_a_row}
        logs = self._update_metrics(loss, named, statistics, data)
        logs |= {label: tf.cast(value, tf.float32) for label, value in skipped.items()}
        return logs | self.rule_terms.logs()

    def _apply(self, gradients: list[tf.Tensor], skip: tf.Tensor) -> None:
        """Applies gradients, the same on every replica; where `skip`, every variable gets back the value that it had.

        A conditional would do, but XLA copies every weight to get it through one.
        """
        changed = [*self.trainable_variables, *self.optimizer.variables]
        before = [tf.identity(variable) for variable in changed]
        replicas = tf.distribute.get_strategy().num_replicas_in_sync
        if replicas > 1:  # Keras sums over them
            gradients = [gradient / replicas for gradient in gradients]
        self.optimizer.apply(gradients, self.trainable_variables)
        for variable, value in zip(changed, before, strict=True):
            variable.assign(tf.where(skip, value, variable))

    def test_step(self, data: dict[str, Any]) -> dict[str, tf.Tensor]:
        """The exact bound (count enumerated, whatever training uses) and penalties of one batch; it moves nothing."""
        loss, named, statistics = self._loss(data, tf.constant([self.seed, -1]), training=False)
        return self._update_metrics(loss, named, statistics, data)

    def nonfinite_terms(self) -> list[str]:
        """Names of the terms that were not finite in the last skipped step ("gradients" among them)."""
        flags = keras.ops.convert_to_numpy(self._nonfinite)
        return [label for label, flag in zip(self._term_names, flags, strict=True) if flag]

    def rules_held(self) -> dict[str, dict[str, Any]]:
        """Where the rules with a multiplier stand, as training sees them.

        Returns:
            By the rule's label (`<name>`, and `<name>_samples` where it is asked of samples): `tolerance` and its
            `unit`; `feature`, the average of what is measured, NaN before the first step; `held`, whether that is
            tolerated; `multiplier`, in nats for each unit of penalty; and `at_limit`, whether that can't grow any more.
        """
        return self.rule_terms.held()
