"""Parts of a model as plain data, for `get_config` and `from_config`."""

from __future__ import annotations

from typing import Any

from asr_tf.scene import Part

__all__ = ["described", "made_again"]


def described(part: Part | None) -> dict[str, Any] | None:
    """A part as plain data: its class and the arguments of its constructor."""
    if part is None:
        return None
    return {"class": f"{type(part).__module__}.{type(part).__qualname__}", "settings": part.get_config()}


def made_again(contract: type, description: dict[str, Any] | None) -> Any:
    """The part that `described` describes.

    Raises:
        ValueError: its class isn't known to this process.
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
