"""Pieces of knowledge about scenes, one small class each, declared in a gin file.

May import everything up to `asr_tf.imaging`; knows neither networks nor training.

A gin file names the rules that hold in its scenes, and their strengths:

    RULES = [@CountInSet(), @AggregateCount()]
    CountInSet.counts = (1, 3)
    AggregateCount.counts = (1, 3)

A rule of one's own is a subclass of `Constraint` that says how far a posterior is from obeying it:

>>> import gin
>>> import tensorflow as tf
>>> from asr_tf.constraints import Constraint, SceneStatistics
>>> @gin.register
... class TallEnough(Constraint):
...     '''Objects are at least `height_px` pixels high.'''
...     def __init__(self, height_px, strength=1.0):
...         super().__init__(strength)
...         self.height_px = height_px
...     def penalty(self, statistics):
...         ymin, _, ymax, _ = tf.unstack(statistics.boxes, axis=-1)
...         missing_px = tf.nn.relu(self.height_px - (ymax - ymin) * statistics.canvas_size[0])
...         return tf.reduce_sum(statistics.presence_probs * missing_px, axis=-1)

and one line of gin, after `import my_rules` at the top of the file if it lives in a module of one's own
(`RULES = [@CountInSet(), @TallEnough()]`, `TallEnough.height_px = 15`).  It can be tried on its own:

>>> statistics = SceneStatistics(
...     presence_probs=tf.constant([[1.0, 0.0]]), count_probs=tf.constant([[0.0, 1.0, 0.0]]),
...     boxes=tf.constant([[[0.0, 0.0, 0.2, 0.2], [0.0, 0.0, 0.1, 0.1]]]), canvas_size=(50, 50))
>>> TallEnough(height_px=15).penalty(statistics).numpy().tolist()
[5.0]
>>> TallEnough(height_px=15).name
'tall_enough'
"""

from asr_tf.constraints.base import Constraint, SceneStatistics
from asr_tf.constraints.count import AggregateCount, CountInSet, PriorCountInSet
from asr_tf.constraints.overlap import DisjointBoxes, DisjointObjects
from asr_tf.constraints.window import InsideCanvas, SharedSize, SizeInterval, TightWindows

__all__ = [
    "AggregateCount",
    "Constraint",
    "CountInSet",
    "DisjointBoxes",
    "DisjointObjects",
    "InsideCanvas",
    "PriorCountInSet",
    "SceneStatistics",
    "SharedSize",
    "SizeInterval",
    "TightWindows",
]
