"""The posterior of each image by itself: the inner loop of posterior regularization, which training amortizes.

Recognition turns standard normal noise into latents, each by the image and by the latents before it: loc + scale noise.
Here the noise of every latent has a mean and a standard deviation of its own, for each image and step, and every logit
of the presence code an offset.  They are as many free numbers as `PosteriorStatistics` holds.  Where all of them are 0,
the posterior is the amortized one with all of its structure: an appearance still follows the window that it was read
in.  (Free statistics without that structure start some 10 nats behind it, and end behind it too: docs/experiments.md.)

The numbers ascend the regularized bound with the weights fixed, by Adam with fresh noise at every step; its averages of
squares are those over all numbers of one kind of a step, so that noise isn't taken for a slope.  All images get the
same draws: what becomes of an image depends neither on its neighbours nor on its place among them.

References:
    Ganchev et al., "Posterior Regularization for Structured Latent Variable Models", JMLR 2010, section 2.
    Kim et al., "Semi-Amortized Variational Autoencoders", ICML 2018, arXiv:1802.02550.
    Kingma and Ba, "Adam: A Method for Stochastic Optimization", ICLR 2015, arXiv:1412.6980.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import tensorflow as tf

from asr_tf import fast
from asr_tf.models.inference import SceneInference
from asr_tf.networks.contracts import LatentNoise
from asr_tf.scene import PosteriorStatistics, SceneSpec

__all__ = ["Refiner", "Regularized", "amortized", "ascend", "means", "no_worse", "noise_of", "posterior_of"]

# What Adam's first step moves: in standard deviations of the amortized posterior, and their logarithms; logits in nats.
# Chosen on validation images, see docs/experiments.md: windows are what amortization gets wrong.
_RATES = PosteriorStatistics(
    presence_logits=0.2,
    shift_loc=0.9,
    shift_log_scale=0.03,
    scale_loc=0.4,
    scale_log_scale=0.03,
    what_loc=0.25,
    what_log_scale=0.03,
)
_GRADIENT_DECAY, _SQUARE_DECAY = 0.5, 0.99
# Nats for each unit: what matters less, as all of an absent step does, stays where it is.
_LEAST_GRADIENT = 0.1
# Bounds are compared by so many draws, which the ascent doesn't see.
_HELD_OUT_DRAWS = 8


class Regularized(NamedTuple):
    """What is ascended, of each image, in nats.

    Attributes:
        negative_elbo: float32 [B].
        penalties: float32 [B], by their strengths.
    """

    negative_elbo: tf.Tensor
    penalties: tf.Tensor

    @property
    def total(self) -> tf.Tensor:
        """float32 [B], what training minimizes."""
        return self.negative_elbo + self.penalties


# Of free numbers and of noise for one image, float32 [1, T, ...] each.
Objective = Callable[[PosteriorStatistics, LatentNoise], Regularized]


def amortized(num_images: tf.Tensor, spec: SceneSpec) -> PosteriorStatistics:
    """The free numbers of the amortized posterior: zeros, float32 [B, T, ...] each."""
    sizes: tuple[list[int], ...] = ([], [2], [2], [1], [1], [spec.what_size], [spec.what_size])
    return PosteriorStatistics(*(tf.zeros([num_images, spec.num_steps, *size]) for size in sizes))


def means(free: PosteriorStatistics) -> LatentNoise:
    """The noise whose latents are the posterior's mode."""
    return LatentNoise(free.shift_loc, free.scale_loc, free.what_loc)


def noise_of(free: PosteriorStatistics, normal: LatentNoise) -> LatentNoise:
    """The noise that recognition is given: a sample of the free distribution, of standard normal draws."""
    log_scales = (free.shift_log_scale, free.scale_log_scale, free.what_log_scale)
    parts = zip(means(free), log_scales, normal, strict=True)
    return LatentNoise(*(loc + tf.exp(log_scale) * draw for loc, log_scale, draw in parts))


def posterior_of(given: PosteriorStatistics, free: PosteriorStatistics) -> PosteriorStatistics:
    """The posterior's parameters.

    Args:
        given: what recognition gives with noise of `noise_of`.
        free: the free numbers.
    """

    def moved(loc: tf.Tensor, log_scale: tf.Tensor, by: tf.Tensor, wider: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        return loc + tf.exp(log_scale) * by, log_scale + wider

    locations = (moved(*given[i : i + 2], *free[i : i + 2]) for i in (1, 3, 5))
    return PosteriorStatistics(
        given.presence_logits + free.presence_logits, *(number for pair in locations for number in pair)
    )


def ascend(
    objective: Objective, start: PosteriorStatistics, spec: SceneSpec, steps: tf.Tensor, seed: tf.Tensor
) -> PosteriorStatistics:
    """Free numbers that are better than these, for each image by itself.

    Each step takes the gradient of two draws, of which one is the other's opposite; steps become shorter in a line.

    Args:
        objective: what to ascend.
        start: float32 [B, T, ...] each.
        spec: of the model.
        steps: int32 [], 0 or more.
        seed: int32 [2].
    """

    def step(
        number: tf.Tensor, free: PosteriorStatistics, gradients: PosteriorStatistics, squares: PosteriorStatistics
    ) -> tuple[tf.Tensor, PosteriorStatistics, PosteriorStatistics, PosteriorStatistics]:
        noise = LatentNoise.draw(1, spec, tf.random.fold_in(seed, number), "philox")
        with tf.GradientTape() as tape:
            tape.watch(free)
            pair = (noise, LatentNoise(*(-draw for draw in noise)))
            loss = 0.5 * tf.add_n([tf.reduce_sum(objective(free, draws).total) for draws in pair])
        slopes = tape.gradient(loss, free, unconnected_gradients=tf.UnconnectedGradients.ZERO)
        taken = tf.cast(number, tf.float32)
        length = 1.0 - taken / tf.cast(steps, tf.float32)
        unbias = [1.0 / (1.0 - decay ** (taken + 1.0)) for decay in (_GRADIENT_DECAY, _SQUARE_DECAY)]

        def mixed(old: tf.Tensor, new: tf.Tensor, decay: float) -> tf.Tensor:
            return decay * old + (1.0 - decay) * new

        def moved(value: tf.Tensor, rate: float, gradient: tf.Tensor, square: tf.Tensor) -> tf.Tensor:
            spread = tf.sqrt(unbias[1] * square) + _LEAST_GRADIENT
            return value - length * rate * unbias[0] * gradient / spread

        each = tf.nest.map_structure
        gradients = each(lambda old, new: mixed(old, new, _GRADIENT_DECAY), gradients, slopes)
        squares = each(lambda old, new: mixed(old, _mean_square(new), _SQUARE_DECAY), squares, slopes)
        return number + 1, each(moved, free, _RATES, gradients, squares), gradients, squares

    zeros = tf.nest.map_structure(tf.zeros_like, start)
    state = (tf.constant(0), start, zeros, tf.nest.map_structure(_mean_square, zeros))
    return tf.while_loop(lambda number, *_: number < steps, step, state)[1]


def _mean_square(slope: tf.Tensor) -> tf.Tensor:
    """Of the numbers of a step, [B, T, N] to [B, T, 1]; of a single one, [B, T], its own."""
    square = tf.square(slope)
    return square if square.shape.rank == 2 else tf.reduce_mean(square, axis=-1, keepdims=True)


def no_worse(
    objective: Objective, free: PosteriorStatistics, spec: SceneSpec, seed: tf.Tensor
) -> tuple[PosteriorStatistics, Regularized, Regularized]:
    """Goes back to the amortized posterior where that is better, by the same draws for both.

    Args:
        objective: what was ascended.
        free: float32 [B, T, ...] each.
        spec: of the model.
        seed: int32 [2], of draws that the ascent hasn't seen.

    Returns:
        The free numbers, zeros where the others are worse (or not finite); and the objective before and after.
    """
    start = amortized(tf.shape(free.presence_logits)[0], spec)

    def both(number: tf.Tensor) -> tf.Tensor:
        noise = LatentNoise.draw(1, spec, tf.random.fold_in(seed, number), "philox")
        return tf.stack([tf.stack(objective(numbers, noise)) for numbers in (start, free)])  # [2, 2, B]

    of_draws = tf.map_fn(both, tf.range(_HELD_OUT_DRAWS), fn_output_signature=tf.float32)
    before, after = (Regularized(*tf.unstack(x)) for x in tf.unstack(tf.reduce_mean(of_draws, axis=0)))
    better = after.total < before.total  # not where either isn't a number

    def chosen(new: tf.Tensor, old: tf.Tensor) -> tf.Tensor:
        return tf.where(tf.reshape(better, [-1] + [1] * (new.shape.rank - 1)), new, old)

    choose = tf.nest.map_structure
    return choose(chosen, free, start), before, choose(chosen, after, before)


class Refiner:
    """Refines what a model finds."""

    def __init__(
        self,
        inference: SceneInference,
        objective: Callable[[tf.Tensor, PosteriorStatistics, LatentNoise, tf.Tensor], Regularized],
    ) -> None:
        """Takes what training minimizes: of images, free numbers, noise for one image, and a seed, int32 [2]."""
        self.inference, self.objective = inference, objective

    @fast.graph
    def refine(self, images: tf.Tensor, steps: tf.Tensor, seed: tf.Tensor) -> dict[str, tf.Tensor]:
        """Finds the objects of images; gives what `ASRModel.refine` does.

        Args:
            images: float32 [B, H, W, C] in [0, 1].
            steps: int32 [], of the ascent.
            seed: int32 [2].
        """
        ascent_seed, held_out_seed, other_seed = tf.unstack(tf.random.split(seed, 3))

        def objective(free: PosteriorStatistics, normal: LatentNoise) -> Regularized:
            return self.objective(images, free, normal, other_seed)

        spec = self.inference.spec
        free = ascend(objective, amortized(tf.shape(images)[0], spec), spec, steps, ascent_seed)
        free, before, after = no_worse(objective, free, spec, held_out_seed)
        found = self.inference.find_by(images, means(free), free.presence_logits)
        del found["objects"]
        for when, values in (("before", before), ("after", after)):
            found |= {f"{name}_nats_{when}": value for name, value in values._asdict().items()}
        return found
