"""What is declared of scenes, held against itself: facts that can't all hold are refused, with the arithmetic."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import Any

from asr_tf.constraints.base import Constraint
from asr_tf.constraints.count import AllowedCounts, CountDistribution, CountInSet
from asr_tf.constraints.overlap import AtLeastApart, DisjointBoxes
from asr_tf.constraints.window import SizeInterval

__all__ = ["check_rules"]

# Sums and quotients of round numbers may come out a hair too small.
_ROUNDING = 1e-6


def check_rules(
    rules: Sequence[Any],
    num_steps: int,
    canvas_size: tuple[int, int],
    exact_count: int | None = None,
    sides_px: Sequence[float] | None = None,
) -> None:
    """Refuses rules that can't hold together.

    Args:
        rules: what is declared.
        num_steps: T, the most objects that the model can infer.
        canvas_size: (H, W) in pixels.
        exact_count: the number of objects where every scene has the same, None where it is inferred.
        sides_px: (low, high) of the objects' sides, None where they aren't stated.

    Raises:
        TypeError: one of them isn't a rule.
        ValueError: one can't hold in such scenes, or not together with another one; one line.
    """
    for rule in rules:
        if not isinstance(rule, Constraint):
            raise TypeError(f"ASRModel.constraints must hold Constraint objects, got {rule!r}.")
        rule.check(num_steps, canvas_size)
    for on_samples in (False, True):
        asked = [rule for rule in rules if rule.asks(on_samples)]
        most, source = _most_objects(asked, num_steps, exact_count)
        _check_sizes(asked)
        _check_room(asked, most, source, canvas_size, 0.0 if sides_px is None else sides_px[0])


def _most_objects(rules: Sequence[Constraint], num_steps: int, exact_count: int | None) -> tuple[int, str]:
    """The most objects that occur, 0 if nothing says so, and the fact that says so.

    Raises:
        ValueError: rules about counts contradict one another.
    """
    possible = {rule.fact: {*rule.allowed(num_steps)} for rule in rules if isinstance(rule, AllowedCounts)}
    frequent = {rule.fact: rule.probabilities for rule in rules if isinstance(rule, CountDistribution)}
    occurring = {rule.fact: possible[rule.fact] for rule in rules if isinstance(rule, CountInSet)}
    occurring |= {fact: {count for count, p in enumerate(probs) if p > 0.0} for fact, probs in frequent.items()}
    if exact_count is not None:
        exact = f"ASRModel.exact_count={exact_count}"
        possible, occurring = {exact: {exact_count}, **possible}, {exact: {exact_count}, **occurring}
    common = set(range(num_steps + 1)).intersection(*possible.values())
    if not common:
        raise ValueError(f"{' and '.join(possible)} can't hold together: they have no count in common.")
    for (one, probs), (other, other_probs) in itertools.combinations(frequent.items(), 2):
        for count, (p, q) in enumerate(itertools.zip_longest(probs, other_probs, fillvalue=0.0)):
            if not math.isclose(p, q, abs_tol=_ROUNDING):
                raise ValueError(
                    f"{one} and {other} can't both hold: {count} objects are a share of {p:.3g} of the scenes in the "
                    f"first and of {q:.3g} in the second."
                )
    for (one, counts), (other, probs) in itertools.product(possible.items(), frequent.items()):
        for count in sorted(occurring[other] - counts):
            raise ValueError(
                f"{one} and {other} can't both hold: scenes of {count} objects are none in the first and a share of "
                f"{probs[count]:.3g} in the second."
            )
    if not occurring:
        return 0, ""
    most = max(common.intersection(*occurring.values()))
    return most, next((fact for fact, counts in occurring.items() if max(counts) == most), "the counts")


def _check_sizes(rules: Sequence[Constraint]) -> None:
    """Refuses intervals of sizes without a size in common."""
    intervals = [rule for rule in rules if isinstance(rule, SizeInterval)]
    for one, other in itertools.combinations(intervals, 2):
        low, high = max(one.low_px, other.low_px), min(one.high_px, other.high_px)
        if low > high:
            raise ValueError(
                f"SizeInterval from {one.low_px:g} to {one.high_px:g} px and SizeInterval from {other.low_px:g} to "
                f"{other.high_px:g} px can't both hold: {low:g} > {high:g}."
            )


def _check_room(
    rules: Sequence[Constraint], most: int, source: str, canvas_size: tuple[int, int], least_side: float
) -> None:
    """Refuses squares that are too large, or too far apart, for as many to lie on the canvas.

    Two squares of side s with a gap of g have centres that differ by d = s + g in one direction.  Squares of side d
    about these centres don't overlap, and lie in a rectangle of (H + g) x (W + g): there are at most as many as there
    are of them in rows and columns.  A slack is a negative gap.
    """
    gaps = {}
    for rule in rules:
        if isinstance(rule, DisjointBoxes):
            gaps[f"DisjointBoxes.slack_px={rule.slack_px:g}"] = -rule.slack_px
        if isinstance(rule, AtLeastApart):
            fact = f"AtLeastApart.distance_px={rule.distance_px:g} with slack_px={rule.slack_px:g}"
            gaps[fact] = rule.distance_px - rule.slack_px
    if not gaps or most < 2:
        return
    widest = max(gaps, key=lambda fact: gaps[fact])
    gap = gaps[widest]
    side = max([least_side, *(rule.low_px for rule in rules if isinstance(rule, SizeInterval))])
    apart = side + gap
    if apart <= 0.0:
        return
    rows, columns = (math.floor((size + gap) / apart + _ROUNDING) for size in canvas_size)
    if rows * columns < most:
        height, width = canvas_size
        raise ValueError(
            f"{most} objects ({source}) of at least {side:g} px ({widest}) have no room on {height} x {width} px: "
            f"floor({height + gap:g} / {apart:g}) * floor({width + gap:g} / {apart:g}) = {rows * columns}."
        )
