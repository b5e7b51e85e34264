"""Count rules: values by hand, finite differences, zero where they hold, and messages."""

import numpy as np
import pytest
import tensorflow as tf

from asr_tf.constraints import (
    AggregateCount,
    AtMost,
    CountDistribution,
    CountInSet,
    SceneStatistics,
)
from asr_tf.distributions import PresenceCode, code_of_count


def statistics_of_counts(count_probs, dtype=np.float64):
    """Statistics from probabilities of the counts [B, T + 1]."""
    count_probs = np.asarray(count_probs, dtype)
    presence = np.cumsum(count_probs[:, ::-1], axis=1)[:, ::-1][:, 1:]
    boxes = tf.zeros([*presence.shape, 4], dtype)
    return SceneStatistics(tf.constant(presence), tf.constant(count_probs), boxes, (50, 50))


def statistics_of_logits(logits):
    code = PresenceCode(logits)
    boxes = tf.zeros([*logits.shape, 4], logits.dtype)
    return SceneStatistics(code.presence_probs(), code.count_probs(), boxes, (50, 50))


RULES = [CountInSet((1, 3)), AtMost(2), AggregateCount((1, 3)), CountDistribution((0.1, 0.3, 0.0, 0.6))]
OF_EVERY_RULE = pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.name)


def test_count_in_set_by_hand():
    # T = 3. First image: q = (0.9, 0.5, 0.2); the code of 1 is (1, 0, 0), of 3 (1, 1, 1).
    statistics = statistics_of_counts([[0.1, 0.4, 0.3, 0.2], [0.0, 0.1, 0.1, 0.8]])
    expected = [
        -np.log(0.9 * 0.5 * 0.8),
        -np.log(1.0 * 0.9 * 0.8),
    ]
    np.testing.assert_allclose(CountInSet((1, 3)).penalty(statistics), expected, rtol=1e-9)
    np.testing.assert_allclose(
        CountInSet([0]).penalty(statistics)[0], -np.log(0.1 * 0.5 * 0.8), rtol=1e-9
    )


def test_count_in_set_equals_brute_force():
    rng = np.random.default_rng(0)
    count_probs = rng.dirichlet(np.ones(6), size=20)
    statistics = statistics_of_counts(count_probs)
    q = statistics.presence_probs.numpy()
    expected = []
    for row in q:
        values = []
        for k in (0, 2, 4):
            terms = [-np.log(row[t] if t < k else 1.0 - row[t]) for t in range(5)]
            values.append(sum(terms))
        expected.append(min(values))
    np.testing.assert_allclose(CountInSet((0, 2, 4)).penalty(statistics), expected, rtol=1e-9)


def test_aggregate_count_by_hand():
    # Batch means of q: (0.95, 0.5, 0.3); mean code of {1, 3}: (1, 0.5, 0.5).
    statistics = statistics_of_counts([[0.1, 0.9, 0.0, 0.0], [0.0, 0.0, 0.4, 0.6]])
    cross_entropy = -np.log(0.95) - np.log(0.5) - 0.5 * (np.log(0.3) + np.log(0.7))
    entropy = 2.0 * np.log(2.0)
    penalty = AggregateCount((1, 3)).penalty(statistics)
    assert penalty.shape == []
    np.testing.assert_allclose(penalty, cross_entropy - entropy, rtol=1e-9)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_penalties_are_zero_where_the_rules_hold(dtype):
    counts = np.array([1, 3, 3, 1])
    statistics = statistics_of_counts(np.eye(5)[counts], dtype)
    np.testing.assert_array_equal(CountInSet((1, 3)).penalty(statistics), np.zeros(4))
    np.testing.assert_allclose(AggregateCount((1, 3)).penalty(statistics), 0.0, atol=1e-6)
    assert np.all(CountInSet((2, 4)).penalty(statistics) > 20.0)
    assert AggregateCount((2, 4)).penalty(statistics) > 1.0
    # Certain counts of the set in the wrong proportion break the aggregate rule only.
    skewed = statistics_of_counts(np.eye(5)[[1, 1, 1, 3]], dtype)
    np.testing.assert_array_equal(CountInSet((1, 3)).penalty(skewed), np.zeros(4))
    assert AggregateCount((1, 3)).penalty(skewed) > 0.2


def check_gradient(function, logits):
    """Holds the gradient of a number by logits against finite differences."""
    function = tf.function(function)
    with tf.GradientTape() as tape:
        tape.watch(logits)
        value = function(logits)
    gradient = tape.gradient(value, logits).numpy()
    assert np.abs(gradient).max() > 1e-3
    for index in np.ndindex(*gradient.shape):
        step = np.zeros_like(gradient)
        step[index] = 1e-6
        high, low = (function(logits + sign * step).numpy() for sign in (1.0, -1.0))
        np.testing.assert_allclose(gradient[index], (high - low) / 2e-6, rtol=1e-5, atol=1e-8)


@OF_EVERY_RULE
def test_gradients_equal_finite_differences(rule):
    logits = tf.constant(np.random.default_rng(0).normal(size=(3, 4)))
    check_gradient(lambda x: tf.reduce_sum(rule.penalty(statistics_of_logits(x))), logits)


@OF_EVERY_RULE
def test_gradients_of_what_is_drawn_equal_finite_differences(rule):
    logits = tf.constant(np.random.default_rng(1).normal(size=4))
    check_gradient(lambda x: rule.drawn_penalty(PresenceCode(x).count_log_probs()), logits)


@OF_EVERY_RULE
@pytest.mark.parametrize("jit_compile", [False, True])
def test_gradients_are_finite_at_certain_counts_and_extreme_logits(rule, jit_compile):
    @tf.function(jit_compile=jit_compile)
    def gradient(logits):
        with tf.GradientTape() as tape:
            tape.watch(logits)
            penalty = rule.penalty(statistics_of_logits(logits))
        return penalty, tape.gradient(penalty, logits)

    for value in (30.0, -30.0, 100.0, -100.0, 0.0):
        penalty, slope = gradient(tf.fill([2, 4], value))
        assert np.all(np.isfinite(penalty)) and np.all(np.isfinite(slope))
        assert np.all(penalty >= 0.0)
    statistics = statistics_of_counts(np.eye(5)[[0, 2, 4]], np.float32)
    with tf.GradientTape() as tape:
        tape.watch([statistics.presence_probs, statistics.count_probs])
        penalty = rule.penalty(statistics)
    given = [statistics.presence_probs, statistics.count_probs]
    for slope in tape.gradient(penalty, given, unconnected_gradients="zero"):
        assert np.all(np.isfinite(slope))


def test_a_confidently_wrong_posterior_is_still_pulled():
    # q(n = 0) = 1 - 1e-11: a clipped logarithm would have no gradient here.
    logits = tf.constant([[-20.0, -20.0, -20.0]])
    with tf.GradientTape() as tape:
        tape.watch(logits)
        penalty = CountInSet((1,)).penalty(statistics_of_logits(logits))
    assert tape.gradient(penalty, logits)[0, 0] < -0.9
    full = tf.constant([[20.0, 20.0, 20.0]])
    with tf.GradientTape() as tape:
        tape.watch(full)
        penalty = CountInSet((0,)).penalty(statistics_of_logits(full))
    assert tape.gradient(penalty, full)[0, 0] > 0.9


def test_descending_the_penalty_reaches_an_allowed_count():
    logits = tf.Variable([[0.5, 0.3, -0.2], [-1.0, -1.0, -1.0]])
    rule = CountInSet((1, 3))

    @tf.function
    def descend():
        with tf.GradientTape() as tape:
            penalty = tf.reduce_sum(rule.penalty(statistics_of_logits(logits)))
        logits.assign_sub(tape.gradient(penalty, logits))
        return penalty

    for _ in range(200):
        penalty = descend()
    assert penalty < 0.05
    assert set(tf.reduce_sum(PresenceCode(logits).mode(), -1).numpy()) <= {1.0, 3.0}


def _code_of(count_probs):
    """The presence code whose counts 0..T have these probabilities [T + 1]."""
    at_least = np.cumsum(count_probs[::-1])[::-1]
    further = at_least[1:] / at_least[:-1]
    return PresenceCode(tf.constant(np.log(further) - np.log1p(-further))[tf.newaxis])


def test_what_is_drawn_by_hand():
    """A prior that tells how it distributes the count: nothing has to be drawn."""
    probs = np.array([0.1, 0.2, 0.3, 0.25, 0.15])
    logs = _code_of(probs).count_log_probs()[0]
    np.testing.assert_allclose(CountInSet((1, 3)).drawn_penalty(logs), -np.log(0.45), rtol=1e-9)
    np.testing.assert_allclose(CountInSet((0, 1, 2, 3, 4)).drawn_penalty(logs), 0.0, atol=1e-12)
    np.testing.assert_allclose(AtMost(2).drawn_penalty(logs), -np.log(0.6), rtol=1e-9)
    np.testing.assert_allclose(AtMost(9).drawn_penalty(logs), 0.0, atol=1e-12)
    at_least = [0.9, 0.7, 0.4, 0.15]
    target = [1.0, 0.5, 0.5, 0.0]
    divergence = sum(
        t * np.log(t / q) if t else 0.0
        for pair in zip(target, at_least, strict=True)
        for t, q in (pair, 1 - np.array(pair))
    )
    np.testing.assert_allclose(AggregateCount((1, 3)).drawn_penalty(logs), divergence, rtol=1e-9)
    statistics = SceneStatistics.of_counts(logs)
    np.testing.assert_allclose(statistics.presence_probs, at_least)
    np.testing.assert_allclose(CountInSet((1, 3)).broken_probs(statistics), 0.55, rtol=1e-9)
    np.testing.assert_allclose(AtMost(2).broken_probs(statistics), 0.4, rtol=1e-9)


@pytest.mark.parametrize("factor", [0.0, 3.0, 10.0])
def test_the_prior_ends_with_a_share_of_the_wrong_counts(factor):
    """E_q[-log p(n)] + s * penalty is least where p has 1 / (1 + s) of the wrong counts that q has."""
    inferred = np.array([0.02, 0.5, 0.05, 0.4, 0.03])
    is_wrong = np.array([True, False, True, False, True])
    wrong = inferred * is_wrong / (1.0 + factor)
    wanted = np.where(is_wrong, wrong, inferred / inferred[~is_wrong].sum() * (1.0 - wrong.sum()))
    rule = CountInSet((1, 3), applies_to="samples")

    def slope(probs):
        logits = tf.constant(_code_of(probs).logits[0])
        with tf.GradientTape() as tape:
            tape.watch(logits)
            logs = PresenceCode(logits).count_log_probs()
            loss = -tf.reduce_sum(inferred * logs) + factor * rule.drawn_penalty(logs)
        return tape.gradient(loss, logits)

    np.testing.assert_allclose(slope(wanted), np.zeros(4), atol=1e-12)
    assert np.abs(slope(np.full(5, 0.2))).max() > 0.1


@OF_EVERY_RULE
@pytest.mark.parametrize("jit_compile", [False, True])
def test_the_penalty_of_what_is_drawn_is_finite_at_extreme_logits(rule, jit_compile):
    @tf.function(jit_compile=jit_compile)
    def gradient(logits):
        with tf.GradientTape() as tape:
            tape.watch(logits)
            penalty = rule.drawn_penalty(PresenceCode(logits).count_log_probs())
        return penalty, tape.gradient(penalty, logits)

    for value in (30.0, -30.0, 100.0, -100.0, 0.0):
        penalty, slope = gradient(tf.fill([4], value))
        assert np.isfinite(penalty) and np.all(np.isfinite(slope)) and penalty >= 0.0


def test_broken_scenes():
    scenes = SceneStatistics.of_finished([0, 1, 2, 3, 4], None, (50, 50), num_steps=4)
    np.testing.assert_array_equal(CountInSet((1, 3)).broken(scenes), [True, False, True, False, True])
    np.testing.assert_array_equal(AtMost(2).broken(scenes), [False, False, False, True, True])
    assert AggregateCount((1, 3)).broken(scenes) is None
    few = SceneStatistics.of_finished([0, 1], None, (50, 50), num_steps=1)  # fewer steps than the largest count
    np.testing.assert_array_equal(CountInSet((1, 3)).broken(few), [True, False])


def test_what_is_measured_is_the_probability_of_other_counts():
    statistics = statistics_of_counts([[0.1, 0.4, 0.3, 0.2], [0.0, 1.0, 0.0, 0.0]])
    rule = CountInSet((1, 3))
    assert (rule.limit, rule.limit_unit) == (0.01, "share of scenes")
    np.testing.assert_allclose(rule.measured(statistics, rule.penalty(statistics)), [0.4, 0.0])
    by_mean = CountInSet((1, 3), tolerance=0.1)
    assert (by_mean.limit, by_mean.limit_unit) == (0.1, "nats")
    penalty = by_mean.penalty(statistics)
    np.testing.assert_array_equal(by_mean.measured(statistics, penalty), penalty)
    np.testing.assert_allclose(AtMost(1).broken_probs(statistics), [0.5, 0.0])


@pytest.mark.parametrize(("rule", "counts"), [
    (AggregateCount((1, 3)), (1, 3)), (AggregateCount((0, 1, 2)), (0, 1, 2)), (AggregateCount((2, 3, 4)), (2, 3, 4))
])  # fmt: skip
@pytest.mark.parametrize("size", [32, 64])
def test_what_a_batch_of_the_right_frequencies_has_is_left_out(rule, counts, size):
    """The mean penalty of random batches is 1 / (2 B) for each step that is sometimes there; the rest is noise."""
    drawn = np.random.default_rng(0).choice(counts, (2000, size))
    penalties, measured = [], []
    for batch in drawn[:400]:
        scenes = SceneStatistics.of_finished(batch, None, (50, 50), num_steps=4)
        penalties.append(float(rule.penalty(scenes)))
        measured.append(float(rule.measured(scenes, rule.penalty(scenes))))
    uncertain = max(counts) - min(counts)
    np.testing.assert_allclose(np.mean(penalties), uncertain / (2 * size), rtol=0.15)
    np.testing.assert_allclose(measured, np.maximum(np.array(penalties) - uncertain / (2 * size), 0.0), atol=1e-6)
    if size == 64:
        assert np.mean(measured) < 0.5 * rule.limit  # what training aims at


def test_the_tolerance_of_frequencies_in_shares():
    """0.05 nats are 0.39 and 0.61 of the images where two counts should be equally frequent."""
    count_probs = np.zeros((1, 5))
    count_probs[0, [1, 3]] = 0.39, 0.61
    np.testing.assert_allclose(AggregateCount((1, 3)).penalty(statistics_of_counts(count_probs)), 0.05, rtol=0.02)


def test_equal_frequencies_are_a_case_of_known_ones():
    statistics = statistics_of_counts(np.random.default_rng(0).dirichlet(np.ones(5), size=6))
    one, other = AggregateCount((1, 3)), CountDistribution({3: 0.5, 1: 0.5})
    assert other.probabilities == (0.0, 0.5, 0.0, 0.5) and isinstance(one, CountDistribution)
    np.testing.assert_array_equal(one.penalty(statistics), other.penalty(statistics))


def test_known_frequencies_are_met_exactly():
    rule = CountDistribution((0.25, 0.0, 0.75))
    scenes = SceneStatistics.of_finished([0, 2, 2, 2], None, (50, 50), num_steps=3)
    np.testing.assert_allclose(rule.penalty(scenes), 0.0, atol=1e-6)
    assert rule.penalty(SceneStatistics.of_finished([0, 1, 2, 2], None, (50, 50), num_steps=3)) > 0.1
    assert rule.penalty(SceneStatistics.of_finished([0, 0, 2, 2], None, (50, 50), num_steps=3)) > 0.1


@pytest.mark.parametrize(
    ("rule", "fact"),
    [
        (CountInSet((1, 7)), r"CountInSet\.counts=\(1, 7\)"),
        (AggregateCount((1, 7)), r"AggregateCount\.counts=\(1, 7\)"),
        (CountDistribution({0: 0.5, 7: 0.5}), r"CountDistribution\.probabilities=\(0.5, .*, 0.5\)"),
    ],
)
def test_a_rule_that_cannot_hold(rule, fact):
    rule.check(7, (50, 50))
    with pytest.raises(ValueError, match=rf"^{fact} cannot hold with num_steps=6: ") as error:
        rule.check(6, (50, 50))
    assert "\n" not in str(error.value)
    code = code_of_count([1], 6)
    with pytest.raises(ValueError, match="cannot hold with num_steps=6"):
        rule.penalty(SceneStatistics(code, tf.zeros([1, 7]), tf.zeros([1, 6, 4]), (50, 50)))


@pytest.mark.parametrize(
    ("probabilities", "kind", "message"),
    [
        ({1: 0.5, 3: 0.6}, ValueError, r"must sum to 1, got 0 \+ 0.5 \+ 0 \+ 0.6 = 1.1\."),
        ((), ValueError, r"must sum to 1, got  = 0\."),
        ((0.5, -0.5, 1.0), ValueError, r"must lie in \[0, 1\], got -0.5"),
        ({1: "all"}, TypeError, r"must hold numbers, got 'all'"),
        ({-1: 1.0}, ValueError, r"must hold counts of 0 or more, got -1"),
        ({"1": 1.0}, TypeError, r"must hold integers, got '1'"),
        (1.0, TypeError, r"must be such as \{1: 0.25, 3: 0.75\}, got 1.0"),
    ],
)
def test_bad_probabilities(probabilities, kind, message):
    with pytest.raises(kind, match=rf"^CountDistribution\.probabilities {message}"):
        CountDistribution(probabilities)


def test_bad_most():
    with pytest.raises(ValueError, match="AtMost.count must be a whole number, 0 or more, got 1.5"):
        AtMost(1.5)


@pytest.mark.parametrize("cls", [CountInSet, AggregateCount])
@pytest.mark.parametrize(
    ("counts", "kind", "message"),
    [
        ((), ValueError, r"counts must name at least one count, got \(\)"),
        ((1, -3), ValueError, r"counts must hold counts of 0 or more, got -3 in \(1, -3\)"),
        ((1, 1), ValueError, r"counts must name each count once, got \(1, 1\)"),
        ((1, 2.5), TypeError, r"counts must hold integers, got 2.5 in \(1, 2.5\)"),
        ((1, True), TypeError, r"counts must hold integers, got True"),
        (3, TypeError, r"counts must be a list of integers such as \(1, 3\), got 3"),
        ("13", TypeError, r"counts must be a list of integers such as \(1, 3\), got '13'"),
    ],
)
def test_bad_counts(cls, counts, kind, message):
    with pytest.raises(kind, match=rf"^{cls.__name__}\.{message}"):
        cls(counts)


def test_counts_in_any_order_and_integer_type():
    assert CountInSet([np.int64(3), 1]).counts == (1, 3)
