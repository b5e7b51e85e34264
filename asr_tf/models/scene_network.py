"""The networks of a model of scenes, put together, and the bound that they are trained by.

One pass infers every step's latents, decodes and writes all steps at once, and scores them.  Randomness is a function
of an explicit seed, down to stateless samplers.

References:
    Xu et al., "Multi-object Generation with Amortized Structural Regularization", NeurIPS 2019, arXiv:1906.03923.
    Eslami et al., "Attend, Infer, Repeat", NIPS 2016, arXiv:1603.08575.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from typing import Any

import keras
import tensorflow as tf

from asr_tf.checks import check_choice, check_positive, check_range, check_whole
from asr_tf.constraints import SceneStatistics
from asr_tf.distributions import PresenceCode, certain_presence_logits
from asr_tf.fast.memory import keep_freed_memory
from asr_tf.imaging.observation import OBSERVATION_MODELS, negative_log_likelihood
from asr_tf.imaging.spatial_transformer import write_objects
from asr_tf.models import objective
from asr_tf.models.bound_model import BoundModel
from asr_tf.networks.autoencoder import ImageDecoder
from asr_tf.networks.pair_placement import PairPlacement
from asr_tf.networks.prior_network import PriorNetwork
from asr_tf.networks.recognition import LatentNoise, RecognitionNetwork
from asr_tf.scene import ObjectiveTerms, PriorStatistics, SceneLatents, steps_first, window_boxes

__all__ = ["PRIORS", "SceneNetwork"]

PRIORS = ("autoregressive", "air")

_WHOLE = ("num_steps", "glimpse_size", "what_size", "rnn_units", "head_units", "image_pool")
_POSITIVE = ("temperature", "scale_prior_scale", "scale_bound", "initial_shift_stddev", "observation_scale")


class SceneNetwork(BoundModel):
    """Recognition network, decoder and prior as one model; every weight exists after construction.

    Attributes:
        step: int64 variable, training steps taken.
    """

    def __init__(
        self,
        *,
        canvas_size: Sequence[int] = (50, 50),
        num_steps: int = 4,
        glimpse_size: int = 28,
        what_size: int = 50,
        rnn_units: int = 256,
        head_units: int = 64,
        image_pool: int = 2,
        encoder_units: Sequence[int] = (512, 256),
        decoder_units: Sequence[int] = (256, 512),
        prior: str = "autoregressive",
        scale_prior_loc: float = -1.0,
        scale_prior_scale: float = math.sqrt(0.05),
        learn_scale_prior: bool = False,
        placement_grid: int | None = 25,
        scale_bound: float | None = None,
        initial_shift_stddev: float = math.exp(-2.0),
        air_presence_logits: Sequence[float] = (4.0, -4.0),
        air_anneal_steps: int = 10_000,
        exact_count: int | None = None,
        second_look: float | None = None,
        estimator: str = "enumerate",
        temperature: float = 0.1,
        observation: str = "bernoulli",
        observation_scale: float = 0.3,
        background: float = 1e-6,
        initial_brightness: float = 0.1,
        skip_absent: bool = True,
        seed: int = 0,
        name: str = "asr",
    ):
        """Initializes the model.

        Args:
            canvas_size: (H, W) in pixels.
            num_steps: T, the most objects in a scene.
            glimpse_size: G in pixels.
            what_size: Z.
            rnn_units, head_units: widths of both LSTMs and of their heads' hidden layers.
            image_pool: the recognition LSTM sees the image in squares of that many pixels a side, averaged; glimpses
                are read from every pixel.
            encoder_units, decoder_units: hidden widths between glimpse and appearance, and back.
            prior: "autoregressive" (learned) or "air" (fixed, independent steps).
            scale_prior_loc, scale_prior_scale: normal over the scale latent; sigmoid(loc) is the typical window side
                as a share of the shorter canvas side.
            learn_scale_prior: learn the scale's normal from there (autoregressive prior only).
            placement_grid: the learned prior places objects by weights of so many times so many cells of the canvas,
                which lets it keep them apart; None for a normal a step (autoregressive prior only).
            scale_bound: how many of these standard deviations the posterior's mean may be from the prior's, None for
                any number; keeps a window from growing over several objects early in training.
            initial_shift_stddev: where the posterior's standard deviation of the shift latent starts; with more,
                windows look farther around at first.
            air_presence_logits: with prior "air", the logit of "one more object" at the first step of training and
                from `air_anneal_steps` on, linear between.
            air_anneal_steps: training steps.
            exact_count: the number of objects where every scene has the same: the count is then given, to posterior
                and prior, and neither inferred nor learned.  None infers it.
            second_look: each step of the recognition LSTM corrects its window by what it sees in a region of so many
                times the window's side around it, and blanks what lies in the window for the steps that follow; for
                scenes of small objects that lie apart.  None for neither.
            estimator: "enumerate" (exact expectation over the count) or "concrete" (published relaxation).
            temperature: of the binary Concrete.
            observation: "bernoulli" or "gaussian".
            observation_scale: standard deviation of the Gaussian, in units of the pixel range [0, 1].
            background: Bernoulli mean of a pixel that nothing is drawn on.
            initial_brightness: where the decoder's pixels start, in (0, 1).
            skip_absent: whether `infer` and `sample` leave out what absent steps would draw; False computes it and then
                masks it, which XLA can compile.
            seed: of training's randomness and of the initial weights.
            name: Keras name.

        Raises:
            ValueError, TypeError: a value is out of range, or of the wrong type.
        """
        given = dict(locals())
        super().__init__(name=name)
        for label in _WHOLE:
            check_whole(f"ASRModel.{label}", given[label])
        for label in _POSITIVE:
            if given[label] is not None or label != "scale_bound":
                check_positive(f"ASRModel.{label}", given[label])
        for i, size in enumerate(canvas_size):
            check_whole(f"ASRModel.canvas_size[{i}]", size)
        if len(canvas_size) != 2:
            raise ValueError(f"ASRModel.canvas_size must be (H, W), got {canvas_size!r}.")
        check_range("ASRModel.initial_brightness", initial_brightness, 1e-4, 1.0 - 1e-4)
        check_range("ASRModel.background", background, 1e-6, 0.5)
        if len(air_presence_logits) != 2:
            raise ValueError(f"ASRModel.air_presence_logits must be (start, end), got {air_presence_logits!r}.")
        if placement_grid is not None:
            check_range("ASRModel.placement_grid", placement_grid, 4, 200)
        if exact_count is not None:
            check_range("ASRModel.exact_count", exact_count, 0, num_steps)
        if second_look is not None:
            check_range("ASRModel.second_look", second_look, 1.0, 4.0)
        check_choice("ASRModel.prior", prior, PRIORS)
        check_choice("ASRModel.estimator", estimator, objective.ESTIMATORS)
        check_choice("ASRModel.observation", observation, OBSERVATION_MODELS)

        self.canvas_size = (int(canvas_size[0]), int(canvas_size[1]))
        self.num_steps, self.glimpse_size, self.what_size = num_steps, glimpse_size, what_size
        self.prior, self.estimator, self.temperature = prior, estimator, temperature
        self.seed, self.skip_absent = seed, skip_absent
        self.exact_count = exact_count
        self._scale_prior = (scale_prior_loc, math.log(scale_prior_scale))
        self._air_presence = (*air_presence_logits, air_anneal_steps)
        self._nll = functools.partial(
            negative_log_likelihood,
            observation=observation,
            background=background,
            scale=observation_scale,
        )
        keep_freed_memory()
        keras.utils.set_random_seed(seed)
        self.recognition = RecognitionNetwork(
            self.canvas_size,
            num_steps,
            glimpse_size,
            what_size,
            rnn_units,
            head_units,
            tuple(encoder_units),
            scale_prior_loc,
            initial_shift_stddev,
            None if scale_bound is None else scale_bound * scale_prior_scale,
            image_pool,
            exact_count,
            second_look,
        )
        units = tuple(decoder_units)
        glimpse = (glimpse_size, glimpse_size)
        self.decoder = ImageDecoder(what_size, units, glimpse, initial_brightness, "decoder")
        if prior == "autoregressive":
            self.prior_network = PriorNetwork(
                num_steps, what_size, rnn_units, head_units, *self._scale_prior, learn_scale_prior, exact_count,
                None if placement_grid is None else PairPlacement(self.canvas_size, placement_grid),
            )
        self.step = self._counter("step")
        self.built = True

    def _noise(self, batch_size: tf.Tensor, seed: tf.Tensor, **options: str) -> LatentNoise:
        return LatentNoise.draw(batch_size, self.num_steps, self.what_size, seed, **options)

    def _objects(self, latents: SceneLatents) -> tf.Tensor:
        """What each step draws in its window, [T, B, G, G]: steps first, as sums over them want it."""
        objects = self.decoder(tf.reshape(steps_first(latents.what), [-1, self.what_size]))
        side = self.glimpse_size
        return tf.reshape(objects, [self.num_steps, -1, side, side])

    def _write(self, objects: tf.Tensor, latents: SceneLatents) -> tf.Tensor:
        """Each step's object on a canvas of its own, [T, B, H, W]."""
        shift, scale = tf.tanh(latents.shift_latent), tf.sigmoid(latents.scale_latent)
        return write_objects(objects, steps_first(shift), steps_first(scale), self.canvas_size)

    def _draw(self, latents: SceneLatents) -> tf.Tensor:
        return self._write(self._objects(latents), latents)

    def _boxes(self, latents: SceneLatents) -> tf.Tensor:
        return window_boxes(
            tf.tanh(latents.shift_latent), tf.sigmoid(latents.scale_latent), self.canvas_size
        )

    def _air_presence_logits(self) -> tf.Tensor:
        """The fixed prior's logits of presence, [T]."""
        if self.exact_count is not None:
            return certain_presence_logits(self.exact_count, self.num_steps)
        start, end, steps = self._air_presence
        progress = tf.minimum(tf.cast(self.step, tf.float32) / float(max(steps, 1)), 1.0)
        return tf.fill([self.num_steps], start + (end - start) * progress)

    def _prior_statistics(self, latents: SceneLatents) -> PriorStatistics:
        """p(z_t | z_<t) of inferred latents, [B, T, ...] each."""
        if self.prior == "autoregressive":
            return self.prior_network(latents)
        zeros = tf.zeros_like(latents.shift_latent)
        one = tf.zeros_like(latents.scale_latent)
        loc, log_scale = self._scale_prior
        return PriorStatistics(
            one[..., 0] + self._air_presence_logits(), zeros, zeros, one + loc, one + log_scale
        )

    def _score(
        self, images: tf.Tensor, seed: tf.Tensor, estimator: str, **noise_options: str
    ) -> tuple[ObjectiveTerms, SceneStatistics]:
        noise_seed, presence_seed = tf.unstack(tf.random.split(seed, 2))
        noise = self._noise(tf.shape(images)[0], noise_seed, **noise_options)
        posterior, latents, glimpses = self.recognition(images, noise)
        prior = self._prior_statistics(latents)
        objects = self._objects(latents)
        drawn = self._write(objects, latents)

        def nll(canvases: tf.Tensor) -> tf.Tensor:
            return self._nll(images, canvases)

        if estimator == "enumerate":
            terms = objective.enumerated_terms(posterior, prior, drawn, nll, latents.shift_latent)
        else:
            terms = objective.concrete_terms(
                posterior, prior, drawn, nll, self.temperature, presence_seed, latents.shift_latent
            )
        code = PresenceCode(posterior.presence_logits)
        statistics = SceneStatistics(
            presence_probs=code.presence_probs(),
            count_probs=code.count_probs(),
            boxes=self._boxes(latents),
            canvas_size=self.canvas_size,
            objects=steps_first(objects),
            glimpses=glimpses,
            drawn=steps_first(drawn),
            prior_count_log_probs=(
                PresenceCode(prior.presence_logits).count_log_probs() if self.prior == "autoregressive" else None
            ),
        )
        return terms, statistics

    def objective(self, images: Any, seed: Any, estimator: str | None = None) -> ObjectiveTerms:
        """The bound's terms, with one sample of the continuous latents.

        Args:
            images: float32 [B, H, W, 1] in [0, 1].
            seed: int32 [2].
            estimator: "enumerate", "concrete", or None for the model's own.

        Returns:
            Terms, float32 [B] each, in nats.
        """
        images = tf.convert_to_tensor(images, tf.float32)[..., 0]
        return self._score(images, tf.convert_to_tensor(seed, tf.int32), estimator or self.estimator)[0]
