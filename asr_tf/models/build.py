"""Which model a run trains: one of scenes, or the plain autoencoder; the gin root `model`."""

from __future__ import annotations

from collections.abc import Sequence

import gin

from asr_tf.checks import check_choice
from asr_tf.models.asr_model import ASRModel
from asr_tf.models.bound_model import BoundModel
from asr_tf.models.image_vae import ImageVAE

__all__ = ["build_model"]

_KINDS = {"scenes": ASRModel, "vae": ImageVAE}


@gin.configurable("model", denylist=["canvas_size", "channels", "seed", "sides_px"])
def build_model(
    canvas_size: Sequence[int],
    channels: int,
    seed: int,
    sides_px: Sequence[float] | None = None,
    kind: str = "scenes",
) -> BoundModel:
    """The configured model, with initial weights.

    Args:
        canvas_size: (H, W) in pixels.
        channels: C, 1 (grey) or 3 (RGB).
        seed: of the initial weights and of training's randomness.
        sides_px: (low, high) of the objects of a model of scenes, as found from images; None for what is bound.
        kind: "scenes" (`ASRModel`) or "vae" (`ImageVAE`); each has a gin root of its own for the rest.

    Raises:
        ValueError: an unknown kind.
    """
    check_choice("model.kind", kind, list(_KINDS))
    found = {} if sides_px is None or kind != "scenes" else {"sides_px": sides_px}
    return gin.get_configurable(_KINDS[kind])(canvas_size=canvas_size, channels=channels, seed=seed, **found)
