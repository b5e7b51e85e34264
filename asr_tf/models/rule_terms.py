"""The part of the objective that the rules make: penalties times multipliers, and the state of the multipliers.

A rule is asked of the posterior, and is then a mean over the images of a batch; or of what the prior draws.  There it
is exact where the rule looks at counts alone and the prior tells how it distributes them.  Otherwise as many scenes are
drawn as the batch has images, and the gradient is that of the score function,

    grad E_p[R(z)] = E_p[(R(z) - mean of the other scenes' R) grad log p(z)]

since neither counts nor the cells of a grid can be differentiated through.  It moves the prior alone.

References:
    Williams, "Simple statistical gradient-following algorithms for connectionist reinforcement learning", Machine
    Learning 8, 1992. Kool et al., "Buy 4 REINFORCE samples, get a baseline for free!", ICLR 2019 workshop, for the mean
    of the others.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import keras
import numpy as np
import tensorflow as tf

from asr_tf.checks import check_positive
from asr_tf.constraints import (
    Constraint,
    Demand,
    Multipliers,
    SceneStatistics,
    demands,
    first_multipliers,
    highest_multipliers,
    next_multipliers,
)
from asr_tf.models.renderer import Renderer
from asr_tf.networks.contracts import ScenePrior

__all__ = ["DRAWN_EVERY", "PriorScenes", "RuleTerms", "expected_penalty"]

DRAWN_EVERY = 4  # training steps; to draw scenes and score them takes a quarter of a step
_PIXELS = {"objects", "glimpses", "drawn"}

def expected_penalty(penalty: tf.Tensor, log_prob: tf.Tensor) -> tf.Tensor:
    """The mean penalty of drawn scenes, with the score function's gradient.

    Args:
        penalty: float [N], of each scene.
        log_prob: float [N], of each scene, with gradients.

    Returns:
        float [].
    """
    penalty = tf.stop_gradient(penalty)
    number = tf.cast(tf.size(penalty), penalty.dtype)
    total = tf.reduce_sum(penalty)
    others = (total - penalty) / tf.maximum(number - 1.0, 1.0)
    pull = tf.reduce_mean((penalty - others) * log_prob)
    return total / number + pull - tf.stop_gradient(pull)


class PriorScenes(NamedTuple):
    """What rules can be asked of beside the posterior: the scenes of a model's prior.

    Attributes:
        prior, renderer: the model's.
        step: integer [], training steps taken.
    """

    prior: ScenePrior
    renderer: Renderer
    step: Any

    def count_log_probs(self) -> tf.Tensor:
        """Float [T + 1], log p(n = k), with gradients."""
        return self.prior.distribution(self.step).presence.count_log_probs()

    def draw(self, number: Any, seed: tf.Tensor, with_pixels: bool) -> tuple[SceneStatistics, tf.Tensor]:
        """Draws scenes.

        What a window shows of a drawn scene is taken to be what the step draws in it.

        Args:
            number: int32 [], N.
            seed: int32 [2].
            with_pixels: whether `objects`, `glimpses` and `drawn` are asked for.

        Returns:
            Finished scenes, without gradients, and the log-density of each, float [N], with gradients.
        """
        scenes = self.prior.distribution(self.step)
        latents = tf.nest.map_structure(tf.stop_gradient, scenes.sample_given_count(tf.fill([number], -1), seed))
        pixels = {}
        if with_pixels:
            objects, boxes, drawn = self.renderer.draw(latents)
            pixels = {"objects": objects.colour, "glimpses": objects.colour, "drawn": drawn.colour}
            pixels = {name: tf.stop_gradient(value) for name, value in pixels.items()}
        else:
            boxes = self.renderer.boxes(latents)
        counts = tf.cast(tf.reduce_sum(latents.presence, axis=-1), tf.int32)
        finished = SceneStatistics.of_finished(counts, boxes, self.renderer.spec.canvas_size, **pixels)
        return finished, scenes.log_prob(latents)


class RuleTerms:
    """What a model's rules ask, and with what multipliers.

    Attributes:
        asked: all demands.
        adaptive: those with a multiplier, in the order of the weights.
        weights: log multipliers, averages of what is measured and last violations, float32 variables [K]; None where
            K is 0.
        highest: the log multipliers that aren't passed, a float32 variable [K], see `hold_down`; None where K is 0.
    """

    def __init__(
        self, rules: Sequence[Constraint], scale: float, add_weight: Callable[..., keras.Variable]
    ) -> None:
        """Makes the weights.

        Args:
            rules: the declared knowledge.
            scale: how many times higher than usual all multipliers start.
            add_weight: of a Keras layer.
        """
        check_positive("multiplier_scale", scale)
        self.asked = demands(rules)
        self.adaptive = tuple(demand for demand in self.asked if demand.has_multiplier)
        self.weights: Multipliers | None = None
        self.highest: keras.Variable | None = None
        if self.adaptive:

            def weight(values: np.ndarray, name: str) -> keras.Variable:
                return add_weight(
                    shape=values.shape, initializer=_constant(values), dtype="float32", trainable=False, name=name
                )

            start = first_multipliers(self.adaptive, scale)
            names = ("log_multipliers", "rule_features", "rule_violations")
            self.weights = Multipliers(*map(weight, start, names))
            self.highest = weight(highest_multipliers(self.adaptive), "highest_log_multipliers")

    def factors(self) -> list[Any]:
        """What each penalty is multiplied by, [] each, in the order of `asked`; without gradients."""
        found = iter(() if self.weights is None else tf.unstack(tf.stop_gradient(tf.exp(self.weights.logs))))
        return [next(found) if demand.has_multiplier else demand.rule.strength for demand in self.asked]

    def terms(
        self,
        statistics: SceneStatistics,
        prior_scenes: Callable[[], PriorScenes],
        number: Any,
        seed: tf.Tensor,
        training: bool,
    ) -> tuple[tf.Tensor, list[tf.Tensor], list[tf.Tensor]]:
        """What the rules add to the loss, and what that is made of.

        In training, scenes are drawn at every `DRAWN_EVERY`th step, where they count so many times more; at all others
        their penalties are 0, and NaN is measured.

        Args:
            statistics: of the posterior.
            prior_scenes: gives the scenes of the prior.
            number: int32 [], how many scenes to draw.
            seed: int32 [2], of these.
            training: whether gradients are asked for.

        Returns:
            The sum of all penalties times their factors; the mean penalties of all demands; what is measured of those
            with a multiplier; [] each.
        """
        factors = self.factors()
        pairs: dict[int, tuple[tf.Tensor, tf.Tensor]] = {}
        drawing = []
        for i, demand in enumerate(self.asked):
            if not demand.on_samples:
                pairs[i] = demand.of_statistics(statistics)
            elif demand.without_sampling:
                pairs[i] = demand.of_drawn_counts(prior_scenes().count_log_probs())
            else:
                drawing.append(i)
        total = sum((factors[i] * tf.reduce_mean(penalty) for i, (penalty, _) in pairs.items()), tf.constant(0.0))
        if drawing:
            given = [(self.asked[i], factors[i]) for i in drawing]
            weighted, drawn = _drawn_terms(given, prior_scenes(), number, seed, training)
            total += weighted
            pairs |= dict(zip(drawing, drawn, strict=True))
        means = [tuple(map(tf.reduce_mean, pairs[i])) for i in range(len(self.asked))]
        measured = [feature for demand, (_, feature) in zip(self.asked, means, strict=True) if demand.has_multiplier]
        return total, [penalty for penalty, _ in means], measured

    def of_images(self, statistics: SceneStatistics) -> tf.Tensor:
        """Penalties times factors, float [B], of the rules about inferred images by themselves."""
        total = tf.zeros_like(statistics.presence_probs[..., 0])
        for demand, factor in zip(self.asked, self.factors(), strict=True):
            if not demand.on_samples and demand.rule.of_one_scene:
                penalty, _ = demand.of_statistics(statistics)
                total += factor * penalty if penalty.shape.rank == 1 else 0.0
        return total

    @property
    def looks_into_windows(self) -> bool:
        """Whether a rule looks at what windows show, or at what is drawn in them."""
        return any({"objects", "glimpses"} & {*demand.rule.looks_at} for demand in self.asked)

    def broken(self, scenes: SceneStatistics) -> tf.Tensor:
        """Bool [N], which finished scenes break one of the rules, whatever these are asked of."""
        found = tf.zeros_like(scenes.presence_probs[..., 0], tf.bool)
        for demand in self.asked:
            broken = demand.rule.broken(scenes)
            found = found if broken is None else found | broken
        return found

    def update(self, measured: Sequence[tf.Tensor], skip: tf.Tensor) -> None:
        """Moves the multipliers after a step, unless `skip`.

        Args:
            measured: float32 [] each, means over the batch, in the order of `adaptive`.
            skip: bool [].
        """
        if self.weights is None:
            return
        now = Multipliers(*(tf.convert_to_tensor(weight) for weight in self.weights))
        moved = next_multipliers(self.adaptive, now, tf.stack(measured), tf.convert_to_tensor(self.highest))
        for weight, old, new in zip(self.weights, now, moved, strict=True):
            weight.assign(tf.where(skip, old, new))

    def hold_down(self) -> None:
        """From now on no multiplier of a demand on inferred scenes becomes larger than it is.

        Demands on scenes that are drawn move the prior alone.
        """
        if self.weights is not None and self.highest is not None:
            on_samples = [demand.on_samples for demand in self.adaptive]
            self.highest.assign(tf.where(on_samples, self.highest, tf.minimum(self.highest, self.weights.logs)))

    def logs(self) -> dict[str, tf.Tensor]:
        """`multiplier_<label>` and `feature_<label>`, [] each, of the demands with a multiplier."""
        if self.weights is None:
            return {}
        labels = [demand.label for demand in self.adaptive]
        columns = {"multiplier": tf.exp(self.weights.logs), "feature": tf.convert_to_tensor(self.weights.features)}
        return {
            f"{name}_{label}": value
            for name, column in columns.items()
            for label, value in zip(labels, tf.unstack(column), strict=True)
        }

    def held(self) -> dict[str, dict[str, Any]]:
        """Where each demand with a multiplier stands, by label; see `BoundModel.rules_held`."""
        if self.weights is None:
            return {}
        columns = Multipliers(*(keras.ops.convert_to_numpy(weight) for weight in self.weights))
        return {
            demand.label: {
                "tolerance": demand.rule.limit,
                "unit": demand.rule.limit_unit,
                "feature": float(feature),
                "held": bool(feature <= demand.rule.limit),
                "multiplier": float(np.exp(log)),
                "at_limit": bool(log >= highest - 1e-3),
            }
            for demand, log, feature, highest in zip(
                self.adaptive, columns.logs, columns.features, keras.ops.convert_to_numpy(self.highest), strict=True
            )
        }


def _drawn_terms(
    given: Sequence[tuple[Demand, Any]], scenes: PriorScenes, number: Any, seed: tf.Tensor, training: bool
) -> tuple[tf.Tensor, list[tuple[tf.Tensor, tf.Tensor]]]:
    """What demands with these factors add to the loss on scenes that are drawn; of each, penalty and what is measured.

    Gradients are taken where scenes are drawn: XLA can't differentiate through a conditional.
    """
    weights = [variable.value for variable in scenes.prior.trainable_variables] if training else []
    with_pixels = any(_PIXELS & {*demand.rule.looks_at} for demand, _ in given)
    times = float(DRAWN_EVERY) if training else 1.0

    def draw() -> list[tf.Tensor]:
        with tf.GradientTape() as tape:
            finished, log_prob = scenes.draw(number, seed, with_pixels)
            both = [demand.of_statistics(finished) for demand, _ in given]
            penalties = [times * expected_penalty(penalty, log_prob) for penalty, _ in both]
            total = tf.add_n([factor * penalty for (_, factor), penalty in zip(given, penalties, strict=True)])
        gradients = tape.gradient(total, weights, unconnected_gradients="zero")
        return [total, *penalties, *(tf.reduce_mean(measured) for _, measured in both), *gradients]

    def leave() -> list[tf.Tensor]:
        none = [tf.zeros([])] * (1 + len(given)) + [tf.constant(np.nan)] * len(given)
        return [*none, *(tf.zeros(weight.shape, weight.dtype) for weight in weights)]

    found = tf.cond(tf.equal(scenes.step % DRAWN_EVERY, 0), draw, leave) if training else draw()
    total, numbers, gradients = found[0], found[1 : 1 + 2 * len(given)], found[1 + 2 * len(given) :]

    @tf.custom_gradient
    def with_gradients(*tensors: tf.Tensor) -> tuple[tf.Tensor, Callable[..., list[tf.Tensor]]]:
        return tf.identity(total), lambda upstream: [upstream * gradient for gradient in gradients]

    pairs = list(zip(numbers[: len(given)], numbers[len(given) :], strict=True))
    return with_gradients(*map(tf.convert_to_tensor, weights)) if weights else total, pairs


def _constant(values: np.ndarray) -> Callable[..., tf.Tensor]:
    """A Keras initializer that gives these values."""
    return lambda shape, dtype=None: tf.constant(values, dtype)
