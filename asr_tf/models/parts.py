"""The parts of a model of scenes: their roles, and parts as plain data for `get_config` and `from_config`."""

from __future__ import annotations

from typing import Any

from asr_tf.networks.contracts import (
    Background,
    Composition,
    Network,
    ObjectDecoder,
    Observation,
    Recognition,
    ScenePrior,
)
from asr_tf.scene import Part

__all__ = ["PARTS", "check_part", "described", "made_again"]

PARTS: dict[str, type] = {
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
        TypeError: it doesn't meet the contract.
        ValueError: another model has built it.
    """
    if part is None and role == "background":
        return
    contract = PARTS[role]
    if not isinstance(part, contract):
        kind = part.__name__ if isinstance(part, type) else type(part).__name__
        raise TypeError(f"{name} must be a {contract.__name__}, got a {kind}: {part!r}.")
    if isinstance(part, Network) and part.built:
        raise ValueError(f"{name} belongs to another model already; make a new {type(part).__name__}.")


def described(part: Part | None) -> dict[str, Any] | None:
    """A part as plain data: its class and the arguments of its constructor."""
    if part is None:
        return None
    return {"class": f"{type(part).__module__}.{type(part).__qualname__}", "settings": part.get_config()}


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
