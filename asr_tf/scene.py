"""The structures that flow through the program, and the geometry of attention windows.

Axis letters, used in every docstring and shape comment of the package:

    B  images in a batch             T  steps, the most objects a scene can hold
    H, W  canvas height and width    G  side of a glimpse, in pixels
    Z  size of an appearance code    M  most objects in a data set

Height comes before width in every shape; a shift is (x, y), as in the literature on spatial transformers.
Nothing here knows networks or Keras.

References:
    Eslami et al., "Attend, Infer, Repeat", NIPS 2016, arXiv:1603.08575, section 2.
    Xu et al., "Multi-object Generation with Amortized Structural Regularization", NeurIPS 2019,
    arXiv:1906.03923, section 2.1.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import tensorflow as tf

__all__ = [
    "ObjectiveTerms",
    "PosteriorStatistics",
    "PriorStatistics",
    "SceneLatents",
    "steps_first",
    "window_boxes",
]


class SceneLatents(NamedTuple):
    """One scene per batch entry, in the unbounded coordinates in which the latents are normal.

    Attributes:
        presence: float [..., T], the unary code of the count: n ones, then zeros (values between where relaxed).
        shift_latent: float [..., T, 2], (x, y); its tanh is the window's centre in canvas units, (-1, 1).
        scale_latent: float [..., T, 1]; its sigmoid is window side / shorter canvas side, (0, 1).
        what: float [..., T, Z], appearance.
    """

    presence: Any
    shift_latent: Any
    scale_latent: Any
    what: Any


class PosteriorStatistics(NamedTuple):
    """Parameters of q(z | x), one row a step.

    Attributes:
        presence_logits: float [..., T], logit of "step t holds an object, given that step t - 1 does".
        shift_loc, shift_log_scale: float [..., T, 2], the normal over `shift_latent`.
        scale_loc, scale_log_scale: float [..., T, 1], the normal over `scale_latent`.
        what_loc, what_log_scale: float [..., T, Z], the normal over `what`.
    """

    presence_logits: Any
    shift_loc: Any
    shift_log_scale: Any
    scale_loc: Any
    scale_log_scale: Any
    what_loc: Any
    what_log_scale: Any


class PriorStatistics(NamedTuple):
    """Parameters of p(z_t | z_<t), one row a step; `what` is standard normal and needs none.

    Attributes: as in `PosteriorStatistics`, and
        shift_logits: float [..., T, g, g], weights of a grid's cells (`asr_tf.distributions.placement`), which stand
            for the normal over `shift_latent` where they are there; None where they aren't.
    """

    presence_logits: Any
    shift_loc: Any
    shift_log_scale: Any
    scale_loc: Any
    scale_log_scale: Any
    shift_logits: Any = None


class ObjectiveTerms(NamedTuple):
    """The bound, term by term, in nats an image; -ELBO is their sum.

    Attributes:
        nll: float [B], -E_q log p(x | z).
        kl_count: float [B], divergence of the presence code.
        kl_shift, kl_scale, kl_what: float [B], divergences of the continuous latents of present objects.
    """

    nll: Any
    kl_count: Any
    kl_shift: Any
    kl_scale: Any
    kl_what: Any

    @property
    def negative_elbo(self) -> Any:
        """float [B], -ELBO in nats an image."""
        return self.nll + self.kl_count + self.kl_shift + self.kl_scale + self.kl_what


def steps_first(values: Any) -> Any:
    """Swaps the first two axes: [B, T, ...] to [T, B, ...], and back."""
    return tf.transpose(values, [1, 0, *range(2, len(values.shape))])


def window_boxes(shift: Any, scale: Any, canvas_size: tuple[int, int]) -> Any:
    """Attention windows as boxes.

    A window is square in pixels on any canvas: its side is `scale` times the shorter canvas side.

    Args:
        shift: float [..., 2], centres (x, y) in canvas units: -1 is the left or upper edge, 1 the opposite one.
        scale: float [..., 1], side / shorter canvas side.
        canvas_size: (H, W) in pixels.

    Returns:
        float [..., 4], `[ymin, xmin, ymax, xmax]` as fractions of the canvas; parts outside it are not cut off.
    """
    height, width = canvas_size
    side = float(min(height, width))
    centre_x, centre_y = tf.unstack((shift + 1.0) / 2.0, axis=-1)
    half_y = scale[..., 0] * (side / height / 2.0)
    half_x = scale[..., 0] * (side / width / 2.0)
    return tf.stack(
        [centre_y - half_y, centre_x - half_x, centre_y + half_y, centre_x + half_x], axis=-1
    )
