"""The parts of a model of scenes: their roles, what they give, and parts as plain data.

What a part gives is looked through where it enters the model, while a graph is traced: a shape that is wrong could
train without a word.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import keras
import tensorflow as tf

from asr_tf.constraints import Constraint
from asr_tf.distributions import certain_presence_logits
from asr_tf.networks.contracts import (
    Background,
    Composition,
    Drawn,
    Network,
    ObjectDecoder,
    Observation,
    Recognition,
    Recognized,
    ScenePrior,
)
from asr_tf.scene import Part, PosteriorStatistics, SceneLatents, SceneSpec

__all__ = [
    "PARTS",
    "build_part",
    "check_learns",
    "check_part",
    "checked_background",
    "checked_located",
    "checked_objects",
    "checked_recognized",
    "described",
    "made_again",
]

PARTS: dict[str, type[Part]] = {
    "recognition": Recognition,
    "decoder": ObjectDecoder,
    "prior": ScenePrior,
    "background": Background,
    "composition": Composition,
    "observation": Observation,
}
"""Role to contract, see `asr_tf.networks.contracts`; a background may be missing."""


def check_part(name: str, role: str, part: Any) -> None:
    """Passes a part that fits its role and is free.

    Args:
        name: what the messages call it.
        role: of `PARTS`.
        part: None is a background that is black.

    Raises:
        TypeError: it doesn't meet the contract, or doesn't keep an argument of its constructor.
        ValueError: another model has built it.
    """
    if part is None and role == "background":
        return
    contract = PARTS[role]
    if not isinstance(part, contract):
        hint = f"; write @{part.__name__}() with parentheses" if isinstance(part, type) else ""
        kind = part if isinstance(part, type) else type(part)
        raise TypeError(f"{name} must be a {contract.__name__}, got {kind.__name__}{hint}.")
    try:
        part.get_config()
    except AttributeError as error:
        raise TypeError(
            f"{name}: {type(part).__name__} must keep each argument of its constructor in an attribute of its name, "
            f"so that a saved model can be made again; there is no {error.name!r}."
        ) from error
    if isinstance(part, Network) and part.built:
        raise ValueError(f"{name} belongs to another model already; make a new {type(part).__name__}.")


def build_part(name: str, part: Part | None, spec: SceneSpec) -> None:
    """Makes the weights of a part, if it has any.

    Raises:
        ValueError: it leaves a layer unbuilt, whose weights the optimizer wouldn't know.
    """
    if not isinstance(part, Network):
        return
    part.build(spec)
    for layer in part._flatten_layers(include_self=False):
        # A layer without a `build` of its own has no weights.
        if not layer.built and type(layer).build is not keras.layers.Layer.build:
            raise ValueError(
                f"{name}: {type(part).__name__}.build must build every layer that it makes; "
                f"{layer.name!r} isn't built."
            )


def check_learns(name: str, prior: ScenePrior, rules: Sequence[Constraint]) -> None:
    """Refuses rules about what a prior draws, if it has no weights that could learn them."""
    for rule in rules:
        if rule.asks(on_samples=True) and not prior.weights:
            raise ValueError(
                f"{type(rule).__name__}.applies_to={rule.applies_to!r} needs a prior that learns, and "
                f"{type(prior).__name__} has no weights: set {name} = @AutoregressivePrior()."
            )


def _check(name: str, value: Any, *shape: int | None) -> None:
    """Raises TypeError or ValueError where a part's output isn't float32 of this shape; None stands for any size."""
    wanted = f"float32 [{', '.join('N' if size is None else str(size) for size in shape)}]"
    if not tf.is_tensor(value):
        raise TypeError(f"ASRModel.{name} must be a tensor {wanted}, got {type(value).__name__}.")
    if value.dtype != tf.float32 or not value.shape.is_compatible_with(shape):
        raise ValueError(f"ASRModel.{name} must be {wanted}, got {value.dtype.name} {value.shape}.")


def checked_located(
    located: tuple[PosteriorStatistics, SceneLatents], spec: SceneSpec
) -> tuple[PosteriorStatistics, SceneLatents]:
    """What `Recognition.locate` gives, with the count that every scene has, if there is one."""
    posterior, latents = located
    _check("recognition: presence_logits", posterior.presence_logits, None, spec.num_steps)
    _check("recognition: shift_latent", latents.shift_latent, None, spec.num_steps, 2)
    _check("recognition: scale_latent", latents.scale_latent, None, spec.num_steps, 1)
    if spec.exact_count is None:
        return posterior, latents
    certain = certain_presence_logits(spec.exact_count, spec.num_steps)
    return posterior._replace(presence_logits=certain + tf.zeros_like(latents.shift_latent[..., 0])), latents


def checked_recognized(recognized: Recognized, spec: SceneSpec) -> Recognized:
    """What recognition gives, likewise."""
    posterior, latents = checked_located((recognized.posterior, recognized.latents), spec)
    _check("recognition: what", latents.what, None, spec.num_steps, spec.what_size)
    return recognized._replace(posterior=posterior)


def checked_objects(objects: Drawn, spec: SceneSpec) -> Drawn:
    """What an object decoder gives."""
    if not isinstance(objects, Drawn):
        raise TypeError(f"ASRModel.decoder must give Drawn(colour, mask), got {type(objects).__name__}.")
    _check("decoder: colour", objects.colour, None, spec.glimpse_size, spec.glimpse_size, spec.channels)
    if objects.mask is not None:
        _check("decoder: mask", objects.mask, None, spec.glimpse_size, spec.glimpse_size, 1)
    return objects


def checked_background(given: tuple[tf.Tensor, tf.Tensor], spec: SceneSpec) -> tuple[tf.Tensor, tf.Tensor]:
    """What a background gives."""
    image, divergence = given
    _check("background: image", image, None, *spec.canvas_size, spec.channels)
    _check("background: divergence", divergence, None)
    return image, divergence


def described(part: Part | None) -> dict[str, Any] | None:
    """A part as plain data: its class and the arguments of its constructor.

    Raises:
        TypeError: an argument isn't plain data.
    """
    if part is None:
        return None
    settings = part.get_config()
    for name, value in settings.items():
        try:
            json.dumps(value)
        except TypeError as error:
            raise TypeError(
                f"{type(part).__name__}.{name} must be numbers, strings or lists of them to be saved, got {value!r}."
            ) from error
    return {"class": f"{type(part).__module__}.{type(part).__qualname__}", "settings": settings}


def made_again(contract: type, description: dict[str, Any] | None) -> Any:
    """The part that `described` describes.

    Args:
        contract: a class that the part's class descends from.
        description: None for None.

    Raises:
        ValueError: the part's class isn't known to this process.
    """
    if description is None:
        return None
    known: dict[str, type] = {}
    waiting = [contract]
    while waiting:
        cls = waiting.pop()
        waiting += cls.__subclasses__()
        known.setdefault(f"{cls.__module__}.{cls.__qualname__}", cls)  # gin's own subclasses come after the class
    if description["class"] not in known:
        module = description["class"].rpartition(".")[0]
        raise ValueError(f"the saved model has a part of class {description['class']}: import {module} first.")
    return known[description["class"]](**description["settings"])
