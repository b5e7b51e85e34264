"""The structures that flow through the program, and the geometry of attention windows.

Axis letters, used in every docstring and shape comment of the package:

    B  images in a batch             T  steps, the most objects a scene can hold
    H, W  canvas height and width    C  channels, 1 (grey) or 3 (RGB)
    G  side of a glimpse, in pixels
    Z  size of an appearance code    M  most objects in a data set

Height comes before width in every shape; a shift is (x, y), as in the literature on spatial transformers.
Nothing here knows networks or Keras.

References:
    Eslami et al., "Attend, Infer, Repeat", NIPS 2016, arXiv:1603.08575, section 2.
    Xu et al., "Multi-object Generation with Amortized Structural Regularization", NeurIPS 2019,
    arXiv:1906.03923, section 2.1.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import tensorflow as tf

from asr_tf.checks import check_interval

__all__ = [
    "ObjectiveTerms",
    "Part",
    "PosteriorStatistics",
    "SceneLatents",
    "SceneSpec",
    "scale_prior",
    "window_boxes",
]


class Part:
    """What a model is composed of: it can be made again from the arguments of its constructor.

    A part keeps every argument in an attribute of the argument's name, as the estimators of scikit-learn do.
    """

    def get_config(self) -> dict[str, Any]:
        """The arguments of the constructor, by name."""
        parameters = inspect.signature(type(self).__init__).parameters.values()
        named = [p.name for p in parameters if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)]
        return {name: getattr(self, name) for name in named if name != "self"}


class SceneSpec(NamedTuple):
    """What all networks of a model must agree on: sizes, and what is known of scenes before anything is learned.

    Attributes:
        canvas_size: (H, W) in pixels.
        channels: C, 1 (grey) or 3 (RGB).
        num_steps: T, the most objects in a scene.
        glimpse_size: G in pixels.
        what_size: Z.
        scale_loc, scale_stddev: a normal over the scale latent; sigmoid(scale_loc) is the typical side of a window as
            a share of the shorter canvas side.
        exact_count: the number of objects where every scene has the same, None where it is to be inferred.
    """

    canvas_size: tuple[int, int]
    channels: int
    num_steps: int
    glimpse_size: int
    what_size: int
    scale_loc: float
    scale_stddev: float
    exact_count: int | None = None


# A prior over sizes that is narrower than that, in logits, would hold up windows on their way to an object.
_NARROWEST_SCALE = 0.1


def scale_prior(sides_px: Sequence[float], canvas_size: tuple[int, int]) -> tuple[float, float]:
    """The normal over the scale latent that objects of known sizes have.

    Args:
        sides_px: (low, high), between which sides lie, in pixels.
        canvas_size: (H, W) in pixels.

    Returns:
        Mean and standard deviation, such that both ends are two standard deviations away; or farther, where they are
        close to each other.

    Raises:
        ValueError: the ends aren't two numbers above 0 in order, or an object of that size doesn't fit the canvas.
    """
    low, high = check_interval("sides_px", sides_px)
    shorter = min(canvas_size)
    if high >= shorter:
        raise ValueError(f"sides_px must be below the shorter canvas side, {shorter} px, got {sides_px!r}.")
    ends = [math.log(side / (shorter - side)) for side in (low, high)]
    return sum(ends) / 2.0, max((ends[1] - ends[0]) / 4.0, _NARROWEST_SCALE)


class SceneLatents(NamedTuple):
    """One scene per batch entry, in the unbounded coordinates in which the latents are normal.

    Attributes:
        presence: float [..., T], the unary code of the count: n ones, then zeros.
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


class ObjectiveTerms(NamedTuple):
    """The bound, term by term, in nats an image; -ELBO is their sum.

    Attributes:
        nll: float [B], -E_q log p(x | z).
        kl_count: float [B], divergence of the presence code.
        kl_shift, kl_scale, kl_what: float [B], divergences of the continuous latents of present objects.
        kl_background: float [B], divergence of the background; None where there is no background.
    """

    nll: Any
    kl_count: Any
    kl_shift: Any
    kl_scale: Any
    kl_what: Any
    kl_background: Any = None

    @property
    def negative_elbo(self) -> Any:
        """float [B], -ELBO in nats an image."""
        return sum(term for term in self if term is not None)


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
    centre = (shift[..., ::-1] + 1.0) / 2.0  # (y, x)
    half = scale * tf.constant([side / height / 2.0, side / width / 2.0], scale.dtype)
    return tf.concat([centre - half, centre + half], axis=-1)
