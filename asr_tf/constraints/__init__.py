"""Pieces of knowledge about scenes, one small class each, declared in a gin file.

May import everything up to `asr_tf.imaging`; knows neither networks nor training.

A gin file names the rules that hold in its scenes:

    RULES = [@CountInSet(), @DisjointBoxes()]
    CountInSet.counts = (1, 3)
    DisjointBoxes.broken_share = 0.01

Each rule has a tolerance: the mean of its penalty that may be left (`tolerance`, in the rule's unit), or the share of
scenes that may break it (`broken_share`).  What isn't given has a default.  Training finds the multiplier that it
takes, unless a fixed factor is given (`strength`).  `applies_to` says of what a rule is asked: of inferred scenes
('posterior', the default), of scenes that are drawn ('samples'), or of 'both'.

A rule of one's own is a subclass of `Constraint` that says how far scenes are from obeying it:

>>> import gin
>>> import tensorflow as tf
>>> from asr_tf.constraints import Constraint, SceneStatistics
>>> @gin.register
... class TallEnough(Constraint):
...     '''Objects are at least `height_px` pixels high.'''
...     def __init__(self, height_px, tolerance=None, broken_share=None):
...         super().__init__(tolerance, broken_share)
...         self.height_px = height_px
...     def penalty(self, statistics):
...         missing_px = tf.nn.relu(self.height_px - statistics.sides_px())
...         return tf.reduce_sum(statistics.presence_probs * missing_px, axis=-1)

and one line of gin, after `import my_rules` at the top of the file if it lives in a module of one's own
(`RULES = [@CountInSet(), @TallEnough()]`, `TallEnough.height_px = 15`).  It can be tried on its own, on finished
scenes:

>>> boxes = [[[0.0, 0.0, 0.2, 0.2], [0.0, 0.0, 0.1, 0.1]]]
>>> scene = SceneStatistics.of_finished(counts=[1], boxes=boxes, canvas_size=(50, 50))
>>> rule = TallEnough(height_px=15)
>>> rule.penalty(scene).numpy().tolist(), rule.broken(scene).numpy().tolist()
([5.0], [True])
>>> rule.name, rule.limit, rule.limit_unit
('tall_enough', 0.5, 'px')

docs/your_own_rules.md says more.
"""

from asr_tf.constraints.appearance import SameAppearance
from asr_tf.constraints.base import Constraint
from asr_tf.constraints.count import AggregateCount, AtMost, CountDistribution, CountInSet
from asr_tf.constraints.facts import check_rules
from asr_tf.constraints.function_rule import FunctionRule
from asr_tf.constraints.multipliers import (
    Demand,
    Multipliers,
    demands,
    first_multipliers,
    highest_multipliers,
    next_multipliers,
)
from asr_tf.constraints.overlap import AtLeastApart, DisjointBoxes, DisjointObjects
from asr_tf.constraints.region import InsideRegion
from asr_tf.constraints.relations import Aligned, LeftOf
from asr_tf.constraints.statistics import SceneStatistics
from asr_tf.constraints.window import InsideCanvas, SharedSize, SizeInterval, TightWindows

__all__ = [
    "AggregateCount",
    "Aligned",
    "AtLeastApart",
    "AtMost",
    "Constraint",
    "CountDistribution",
    "CountInSet",
    "Demand",
    "DisjointBoxes",
    "DisjointObjects",
    "FunctionRule",
    "InsideCanvas",
    "InsideRegion",
    "LeftOf",
    "Multipliers",
    "SameAppearance",
    "SceneStatistics",
    "SharedSize",
    "SizeInterval",
    "TightWindows",
    "check_rules",
    "demands",
    "first_multipliers",
    "highest_multipliers",
    "next_multipliers",
]
