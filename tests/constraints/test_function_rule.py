"""Any function as a rule: by itself, by its place, and what is no such function."""

import sys
import types

import numpy as np
import pytest
import tensorflow as tf

from asr_tf.constraints import FunctionRule, SceneStatistics


def low(statistics):
    """How far the first object's lower edge is above the middle of the canvas, in pixels."""
    return tf.nn.relu(25.0 - 50.0 * statistics.boxes[:, 0, 2])


def as_two(statistics, more):
    return more


@pytest.fixture(autouse=True)
def module(monkeypatch):
    """A module `my_rules` at whose top `low` stands."""
    made = types.ModuleType("my_rules")
    made.low, made.inner, made.number = low, types.SimpleNamespace(low=low), 3
    for function in (low, as_two):
        monkeypatch.setattr(function, "__module__", "my_rules")
    monkeypatch.setitem(sys.modules, "my_rules", made)


def scenes():
    return SceneStatistics.of_finished([1, 1], [[[0.0, 0.0, 0.4, 0.4]], [[0.5, 0.5, 0.75, 0.75]]], (50, 50))


@pytest.mark.parametrize(("function", "place"), [(low, "my_rules:low"), *[(x, x) for x in (
    "my_rules:low", "my_rules:inner.low"
)]])  # fmt: skip
def test_the_penalty_is_what_the_function_gives(function, place):
    rule = FunctionRule(function)
    np.testing.assert_allclose(rule.penalty(scenes()), [5.0, 0.0], atol=1e-5)
    assert rule.broken(scenes()).numpy().tolist() == [True, False]
    assert rule.broken(scenes()._replace(boxes=None)) is None
    assert (rule.function, rule.name, rule.unit, rule.looks_at) == (place, "low", "px", ("boxes",))
    assert (rule.limit, rule.limit_unit) == (0.5, "px")
    again = FunctionRule(**rule.get_config())
    assert again.get_config() == rule.get_config()
    np.testing.assert_array_equal(again.penalty(scenes()), rule.penalty(scenes()))


def test_what_is_given_is_kept():
    rule = FunctionRule(low, "sheep", "near", ["boxes", "drawn"], strength=2, applies_to="both")
    assert (rule.unit, rule.name, rule.looks_at, rule.strength) == ("sheep", "near", ("boxes", "drawn"), 2.0)
    assert rule.asks(True) and rule.asks(False)
    assert not rule.can_see(scenes())
    assert FunctionRule(**rule.get_config()).get_config() == rule.get_config()


@pytest.mark.parametrize("shape", [[], [2, 1]])
def test_a_penalty_is_a_number_an_image(module, shape, monkeypatch):
    monkeypatch.setattr(sys.modules["my_rules"], "low", lambda statistics: tf.zeros(shape))
    rule = FunctionRule("my_rules:low")
    with pytest.raises(ValueError, match=r"^my_rules:low must give a number an image, \[B\], got shape "):
        rule.penalty(scenes())


@pytest.mark.parametrize(
    ("function", "kind", "message"),
    [
        (3, TypeError, "FunctionRule.function must be a function of a scene, got 3"),
        (SceneStatistics, TypeError, "FunctionRule.function must be a function of a scene, got <class "),
        (lambda x: x, ValueError, "FunctionRule.function must stand at the top of a module, by a name, got <func"),
        (types.SimpleNamespace(), TypeError, "FunctionRule.function must be a function of a scene, got namespace"),
        ("low", ValueError, "FunctionRule.function must be a function or 'module:name' of one, got 'low'"),
        (":low", ValueError, "FunctionRule.function must be a function or 'module:name' of one, got ':low'"),
        ("my_rules:", ValueError, "FunctionRule.function must be a function or 'module:name' of one, got 'my_rules:'"),
        ("my_rules:high", ValueError, "FunctionRule.function='my_rules:high' can't be found: .*high"),
        ("no_rules:low", ValueError, "FunctionRule.function='no_rules:low' can't be found: .*no_rules"),
        (as_two, TypeError, "FunctionRule.function='my_rules:as_two' must take one argument, a scene: .*more"),
        ("my_rules:number", TypeError, "FunctionRule.function='my_rules:number' must take one argument, a scene: "),
    ],
)
def test_what_is_no_rule(function, kind, message):
    with pytest.raises(kind, match=f"^{message}"):
        FunctionRule(function)


def test_bad_fields():
    with pytest.raises(TypeError, match=r"FunctionRule.looks_at must be a list of fields such as \('boxes',\), got"):
        FunctionRule(low, looks_at="boxes")
    with pytest.raises(ValueError, match=r"FunctionRule.looks_at='box' is unknown \(did you mean 'boxes'\?\)"):
        FunctionRule(low, looks_at=["box"])
