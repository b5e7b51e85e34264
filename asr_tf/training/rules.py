"""Rules that can't be met are named while training goes on."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Any

import keras

__all__ = ["RuleWatcher", "rules_summary"]

_OTHERS = 2


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
    """Says once of each rule that it can't be met: its multiplier is as large as it may be, and it isn't held."""

    def __init__(self) -> None:
        """Has said nothing yet."""
        super().__init__()
        self._told: set[str] = set()

    def on_epoch_end(self, epoch: int, logs: Mapping[str, Any] | None = None) -> None:
        """Looks at all rules."""
        held = self.model.rules_held()
        for label, rule in held.items():
            if rule["held"] or not rule["at_limit"] or label in self._told:
                continue
            self._told.add(label)
            others = sorted((other for other in held if other != label), key=lambda other: -held[other]["multiplier"])
            pulling = ", ".join(f"{other} (multiplier {held[other]['multiplier']:.3g})" for other in others[:_OTHERS])
            print(
                f"\n{label} can't be met: {rule['feature']:.3g} {rule['unit']}, where {rule['tolerance']:.3g} is "
                f"tolerated, with its largest multiplier, {rule['multiplier']:.3g}. It contradicts the images"
                f"{f' or {pulling}' if pulling else ''}. Training goes on.",
                file=sys.stderr,
                flush=True,
            )
