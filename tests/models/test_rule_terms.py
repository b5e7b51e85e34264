"""The multipliers of a model's rules, after a training went back."""

import keras
import numpy as np
import tensorflow as tf

from asr_tf.constraints import DisjointBoxes, SizeInterval
from asr_tf.models.rule_terms import RuleTerms


def test_what_is_asked_of_inferred_scenes_is_held_down_and_what_is_asked_of_samples_is_not():
    def add_weight(shape, initializer, dtype, trainable, name):
        return keras.Variable(initializer(shape, dtype), trainable=trainable, dtype=dtype, name=name)

    terms = RuleTerms([SizeInterval((1, 2)), DisjointBoxes(applies_to="both")], 1.0, add_weight)
    terms.weights.logs.assign(np.log([4.0, 7.0, 9.0]))
    terms.hold_down()
    measured = [tf.constant(100.0)] * 3
    for _ in range(300):
        terms.update(measured, tf.constant(False))
    assert [rule["at_limit"] for rule in terms.held().values()] == [True, True, False]
    multipliers_now = [rule["multiplier"] for rule in terms.held().values()]
    np.testing.assert_allclose(multipliers_now[:2], [4.0, 7.0], rtol=1e-5)
    assert 30.0 < multipliers_now[2] < 500.0
    terms.weights.logs.assign(np.log([2.0, 8.0, 9.0]))
    terms.hold_down()
    np.testing.assert_allclose(np.exp(terms.highest), [2.0, 7.0, 500.0], rtol=1e-5)
