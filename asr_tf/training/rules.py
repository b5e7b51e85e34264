"""Rules that can't be met are named while training goes on."""

from __future__ import annotations

import math
import sys
from collections.abc import Mapping
from typing import Any

import keras

__all__ = ["RuleWatcher", "rules_summary"]

_OTHERS = 2
_NEARER = 0.95  # of what it was at the last report, or less: a rule comes nearer


def rules_summary(held: Mapping[str, Mapping[str, Any]]) -> str:
    """How many rules are held, and which aren't, on part of a line; nothing where there are none.

    Args:
        held: where each rule stands, as `BoundModel.rules_held` tells.
    """
    broken = [label for label, rule in held.items() if not rule["held"]]
    if not held:
        return ""
    return f"rules {len(held) - len(broken)}/{len(held)} held" + (f" (not {', '.join(broken)})" if broken else "")


class RuleWatcher(keras.callbacks.Callback):
    """Says once of each rule that it can't be met: its multiplier is as large as it may be, and it isn't held.

    A rule that still comes nearer from one report to the next is waited for, but not beyond the end of the training.
    """

    def __init__(self) -> None:
        """Has said nothing yet."""
        super().__init__()
        self._told: set[str] = set()
        self._before: dict[str, float] = {}  # features at the last report, of rules at their limit

    def on_epoch_end(self, epoch: int, logs: Mapping[str, Any] | None = None) -> None:
        """Looks at all rules."""
        held = self.model.rules_held()
        at_limit = {label: rule["feature"] for label, rule in held.items() if rule["at_limit"] and not rule["held"]}
        for label, feature in at_limit.items():
            if feature > _NEARER * self._before.get(label, math.inf):
                self._tell(label, held, " Training goes on.")
        self._before = at_limit

    def on_train_end(self, logs: Mapping[str, Any] | None = None) -> None:
        """Names those that were waited for."""
        held = self.model.rules_held()
        for label in self._before:
            self._tell(label, held)

    def _tell(self, label: str, held: Mapping[str, Mapping[str, Any]], ending: str = "") -> None:
        if label in self._told:
            return
        self._told.add(label)
        rule = held[label]
        others = sorted((other for other in held if other != label), key=lambda other: -held[other]["multiplier"])
        pulling = ", ".join(f"{other} (multiplier {held[other]['multiplier']:.3g})" for other in others[:_OTHERS])
        print(
            f"\n{label} can't be met: {rule['feature']:.3g} {rule['unit']}, where {rule['tolerance']:.3g} is "
            f"tolerated, with its largest multiplier, {rule['multiplier']:.3g}. It contradicts the images"
            f"{f' or {pulling}' if pulling else ''}.{ending}",
            file=sys.stderr,
            flush=True,
        )
