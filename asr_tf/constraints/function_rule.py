"""A rule that is any function of a scene, named in gin."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Callable, Sequence
from typing import Any

import gin
import tensorflow as tf

from asr_tf.checks import check_choice
from asr_tf.constraints.base import Constraint
from asr_tf.constraints.statistics import SceneStatistics

__all__ = ["FunctionRule"]

_FIELDS = ("boxes", "objects", "glimpses", "drawn")


@gin.register
class FunctionRule(Constraint):
    """What a function of the scene says: `SceneStatistics` to a penalty, float [B], 0 where the rule holds.

    A model is saved with the function's place, 'module:name', so that it must stand at the top of a module.
    """

    def __init__(
        self,
        function: Callable[[SceneStatistics], Any] | str = gin.REQUIRED,
        unit: str = "px",
        name: str | None = None,
        looks_at: Sequence[str] = ("boxes",),
        tolerance: float | None = None,
        broken_share: float | None = None,
        strength: float | None = None,
        applies_to: str = "posterior",
    ) -> None:
        """Initializes the rule.

        Args:
            function: of one argument, or 'module:name' of it.
            unit: of the penalty.
            name: of the rule in metrics and reports; None for the function's name.
            looks_at: the fields of `SceneStatistics` that the function needs beside the counts: of 'boxes', 'objects',
                'glimpses' and 'drawn'.
            tolerance, broken_share, strength, applies_to: as of `Constraint`; 0.5 units are tolerated by default.

        Raises:
            TypeError: the function isn't one, or takes other arguments.
            ValueError: it can't be found, or doesn't stand at the top of a module.
        """
        super().__init__(tolerance, broken_share, strength, applies_to)
        self._function = _found(function) if isinstance(function, str) else function
        self.function = function if isinstance(function, str) else _place(function)
        _check_arguments(self.function, self._function)
        if isinstance(looks_at, str):
            raise TypeError(f"FunctionRule.looks_at must be a list of fields such as ('boxes',), got {looks_at!r}.")
        self.looks_at = tuple(check_choice("FunctionRule.looks_at", field, _FIELDS) for field in looks_at)
        self.unit = unit
        self._name = name

    @property
    def name(self) -> str:
        """The function's name, if no other is given."""
        return self._name or self.function.rpartition(":")[2].rpartition(".")[2]

    def penalty(self, statistics: SceneStatistics) -> tf.Tensor:
        """What the function gives.

        Raises:
            ValueError: that isn't one number an image.
        """
        penalty = tf.convert_to_tensor(self._function(statistics))
        if penalty.shape.rank != 1:
            raise ValueError(f"{self.function} must give a number an image, [B], got shape {penalty.shape}.")
        return penalty


def _place(function: Any) -> str:
    """'module:name' of a function."""
    if not callable(function) or isinstance(function, type):
        raise TypeError(f"FunctionRule.function must be a function of a scene, got {function!r}.")
    module, name = (getattr(function, key, "") for key in ("__module__", "__qualname__"))
    if not module or not name or "<" in name:
        raise ValueError(f"FunctionRule.function must stand at the top of a module, by a name, got {function!r}.")
    return f"{module}:{name}"


def _found(place: str) -> Any:
    """The function at 'module:name'."""
    module, colon, names = place.partition(":")
    if not (module and colon and names):
        raise ValueError(f"FunctionRule.function must be a function or 'module:name' of one, got {place!r}.")
    try:
        found = importlib.import_module(module)
        for name in names.split("."):
            found = getattr(found, name)
    except (ImportError, AttributeError) as error:
        raise ValueError(f"FunctionRule.function={place!r} can't be found: {error}.") from error
    return found


def _check_arguments(place: str, function: Callable[..., Any]) -> None:
    """Refuses a function that can't be called with a scene alone."""
    try:
        inspect.signature(function).bind(None)
    except TypeError as error:
        raise TypeError(f"FunctionRule.function={place!r} must take one argument, a scene: {error}.") from error
