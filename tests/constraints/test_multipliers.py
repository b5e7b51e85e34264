"""The controller of multipliers: a loop in NumPy, recovery from bad starts, what isn't measured, bounds, XLA."""

import numpy as np
import pytest
import tensorflow as tf

from asr_tf.constraints import (
    AggregateCount,
    CountInSet,
    SizeInterval,
    TightWindows,
    demands,
    first_multipliers,
    multipliers,
    next_multipliers,
)

RULES = (CountInSet((1, 3)), AggregateCount((1, 3)), TightWindows(tolerance=2.0))
ASKED = demands(RULES)


def slow(measured, start, highest, aims):
    """All states [steps, 3, K] after measured numbers [steps, K], one number after the other."""
    states = []
    for k, aim in enumerate(aims):
        log, average, before = np.log(start[k]), np.nan, 0.0
        low, high = log + np.log(0.01), np.log(highest[k])
        states_k = []
        for value in measured[:, k]:
            first = np.isnan(average)
            if np.isfinite(value):
                average = value if first else 0.98 * average + 0.02 * value
            violation = 0.0 if np.isnan(average) else min(max(average / aim - 1.0, -1.0), 1.0)
            lead = 0.0 if first else 100.0 * (violation - before)
            log = min(max(log + 0.005 * (violation + lead), low), high)
            before = violation
            states_k.append((log, average, violation))
        states.append(states_k)
    return np.transpose(states, (1, 2, 0))


@pytest.mark.parametrize("jit_compile", [False, True])
def test_equals_a_loop(jit_compile):
    """Numbers around what is tolerated; some steps measure nothing."""
    rng = np.random.default_rng(0)
    limits = [demand.rule.limit for demand in ASKED]
    assert limits == [0.01, 0.05, 2.0]
    measured = (rng.gamma(2.0, 0.3, (300, 3)) * limits).astype(np.float32)
    measured[rng.uniform(size=(300, 3)) < 0.3] = np.nan
    measured[:4, 1] = np.nan
    step = tf.function(lambda now, x: next_multipliers(ASKED, now, x), jit_compile=jit_compile)
    now = first_multipliers(ASKED)
    np.testing.assert_allclose(np.exp(now.logs), [1.0, 10.0, 0.5], rtol=1e-6)
    found = []
    for row in measured:
        now = step(multipliers.Multipliers(*map(tf.convert_to_tensor, now)), tf.constant(row))
        found.append([part.numpy() for part in now])
    aims = [0.5 * 0.01, 0.9 * 0.05, 0.9 * 2.0]  # less of a share of scenes
    expected = slow(measured.astype(np.float64), [1.0, 10.0, 0.5], [1000.0, 10_000.0, 5.0], aims)
    np.testing.assert_allclose(found, expected, rtol=2e-4, atol=2e-4)


def controlled(scale, steps, needed, rule=None, delay=100.0):
    """What is measured and log lambda along a training in which a rule needs a multiplier of `needed` to be held.

    What is measured falls with the multiplier, and answers with a delay, as weights have to learn.
    """
    asked = demands([rule or SizeInterval((1, 2))])
    limit = asked[0].rule.limit
    now, level, path = first_multipliers(asked, scale), 2.0 * limit, []
    step = tf.function(lambda now, x: next_multipliers(asked, now, x))
    for _ in range(steps):
        wanted = asked[0].aim * (needed / float(np.exp(now.logs[0]))) ** 1.5
        level += (min(wanted, 40.0 * limit) - level) / delay
        now = step(multipliers.Multipliers(*map(tf.convert_to_tensor, now)), tf.constant([level], tf.float32))
        path.append((level / limit, float(now.logs[0])))
    return np.array(path)


@pytest.mark.parametrize("scale", [0.01, 0.1, 1.0, 10.0, 100.0])
def test_any_start_ends_at_what_it_takes(scale):
    """The rule starts with 2 nats a pixel, and takes 2 here."""
    path = controlled(scale, 2500, needed=2.0)
    np.testing.assert_allclose(path[-300:, 1], np.log(2.0), atol=0.15)
    np.testing.assert_allclose(path[-300:, 0], 0.9, atol=0.1)  # the aim
    first = np.flatnonzero(np.abs(path[:, 1] - np.log(2.0)) < 0.7)[0]
    assert first < 1200


def test_the_lead_damps(monkeypatch):
    """Without the proportional term the multiplier swings around what it takes."""
    swings = []
    for lead in (0.0, multipliers.LEAD):
        monkeypatch.setattr(multipliers, "LEAD", lead)
        path = controlled(0.05, 3000, needed=2.0, delay=200.0)
        swings.append(np.abs(path[1500:, 1] - np.log(2.0)).max())
    assert swings[1] < 0.5 * swings[0]


def test_a_rule_that_cannot_be_held_stops_at_its_limit_and_one_that_costs_nothing_at_its_least():
    asked = demands([SizeInterval((1, 2)), CountInSet((1,))])
    now = first_multipliers(asked)
    step = tf.function(lambda now, x: next_multipliers(asked, now, x))
    for _ in range(3000):
        now = step(multipliers.Multipliers(*map(tf.convert_to_tensor, now)), tf.constant([9.0, 0.0]))
    np.testing.assert_allclose(np.exp(now.logs), [2000.0, 0.01], rtol=1e-5)
    np.testing.assert_allclose(np.exp(now.logs[0]), asked[0].highest, rtol=1e-5)


def test_multipliers_do_not_pass_what_they_are_held_down_to():
    asked = demands([SizeInterval((1, 2)), CountInSet((1,))])
    now, highest = first_multipliers(asked), tf.constant([np.log(3.0), np.log(0.4)], tf.float32)
    now = next_multipliers(asked, now, tf.constant([9.0, 0.5]), highest)
    np.testing.assert_allclose(np.exp(now.logs), [2.0 * np.exp(multipliers.RATE), 0.4], rtol=1e-5)
    for _ in range(200):
        now = next_multipliers(asked, now, tf.constant([9.0, 0.5]), highest)
    np.testing.assert_allclose(np.exp(now.logs), [3.0, 0.4], rtol=1e-5)


def test_a_tolerance_of_nothing_is_that_of_the_floor():
    asked = demands([SizeInterval((1, 2), tolerance=0.0), SizeInterval((1, 2), tolerance=1e-3)])
    now = next_multipliers(asked, first_multipliers(asked), tf.constant([4e-4, 4e-4]))
    np.testing.assert_allclose(now.violations, [4.0 / 9.0 - 1.0] * 2, rtol=1e-4)


def test_starts_are_scaled_within_bounds():
    for scale, expected in ((0.01, 0.01), (0.001, 0.01), (100.0, 100.0), (1e4, 1000.0)):
        start = np.exp(first_multipliers(ASKED, scale).logs)
        usual = [1.0, 10.0, 0.5]
        highest = [1000.0, 10_000.0, 5.0]  # that of tight windows is their own
        np.testing.assert_allclose(start, np.minimum(np.multiply(expected, usual), highest), rtol=1e-5)


def test_rules_with_a_strength_have_none():
    asked = demands([CountInSet((1, 3), strength=3.0), CountInSet((1, 3), applies_to="both"), AggregateCount((1, 3))])
    assert [(demand.label, demand.on_samples, demand.has_multiplier) for demand in asked] == [
        ("count_in_set", False, False),
        ("count_in_set_2", False, True),
        ("count_in_set_2_samples", True, True),
        ("aggregate_count", False, True),
    ]
    assert [demand.without_sampling for demand in asked] == [False, False, True, False]
