"""Count rules: values by hand, finite differences, zero where they hold, and messages."""

import numpy as np
import pytest
import tensorflow as tf

from asr_tf.constraints import AggregateCount, CountInSet, PriorCountInSet, SceneStatistics
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
    given = code.presence_probs(), code.count_probs(), boxes, (50, 50)
    return SceneStatistics(*given, prior_count_log_probs=code.count_log_probs())


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


@pytest.mark.parametrize(
    "rule", [CountInSet((1, 3)), AggregateCount((1, 3)), PriorCountInSet((1, 3))], ids=lambda r: r.name
)
def test_gradients_equal_finite_differences(rule):
    logits = tf.constant(np.random.default_rng(0).normal(size=(3, 4)))
    with tf.GradientTape() as tape:
        tape.watch(logits)
        penalty = tf.reduce_sum(rule.penalty(statistics_of_logits(logits)))
    gradient = tape.gradient(penalty, logits).numpy()
    for index in np.ndindex(3, 4):
        step = np.zeros([3, 4])
        step[index] = 1e-6
        high, low = (
            tf.reduce_sum(rule.penalty(statistics_of_logits(logits + sign * step))).numpy()
            for sign in (1.0, -1.0)
        )
        np.testing.assert_allclose(gradient[index], (high - low) / 2e-6, rtol=1e-5, atol=1e-8)


@pytest.mark.parametrize("rule", [CountInSet((1, 3)), AggregateCount((1, 3))], ids=lambda r: r.name)
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
    for slope in tape.gradient(penalty, [statistics.presence_probs, statistics.count_probs]):
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


def test_prior_count_in_set_by_hand():
    code = _code_of(np.array([0.1, 0.2, 0.3, 0.25, 0.15]))
    statistics = SceneStatistics(*[tf.zeros([1, 4])] * 3, (50, 50), prior_count_log_probs=code.count_log_probs())
    np.testing.assert_allclose(PriorCountInSet((1, 3)).penalty(statistics), [-np.log(0.45)], rtol=1e-9)
    np.testing.assert_allclose(PriorCountInSet((0, 1, 2, 3, 4)).penalty(statistics), [0.0], atol=1e-12)
    fixed = statistics._replace(prior_count_log_probs=None)
    with pytest.raises(ValueError, match=r"needs a prior that learns: set ASRModel.prior = @AutoregressivePrior\(\)"):
        PriorCountInSet((1, 3)).penalty(fixed)


@pytest.mark.parametrize("strength", [0.0, 3.0, 10.0])
def test_the_prior_ends_with_a_share_of_the_wrong_counts(strength):
    """E_q[-log p(n)] + s * penalty is least where p has 1 / (1 + s) of the wrong counts that q has."""
    inferred = np.array([0.02, 0.5, 0.05, 0.4, 0.03])
    is_wrong = np.array([True, False, True, False, True])
    wrong = inferred * is_wrong / (1.0 + strength)
    wanted = np.where(is_wrong, wrong, inferred / inferred[~is_wrong].sum() * (1.0 - wrong.sum()))
    rule = PriorCountInSet((1, 3), strength)

    def slope(probs):
        logits = tf.constant(_code_of(probs).logits)
        with tf.GradientTape() as tape:
            tape.watch(logits)
            statistics = statistics_of_logits(logits)
            loss = -tf.reduce_sum(inferred * statistics.prior_count_log_probs)
            loss += rule.strength * tf.reduce_sum(rule.penalty(statistics))
        return tape.gradient(loss, logits)

    np.testing.assert_allclose(slope(wanted), np.zeros([1, 4]), atol=1e-12)
    assert np.abs(slope(np.full(5, 0.2))).max() > 0.1


@pytest.mark.parametrize("jit_compile", [False, True])
def test_the_penalty_of_the_prior_is_finite_at_extreme_logits(jit_compile):
    @tf.function(jit_compile=jit_compile)
    def gradient(logits):
        with tf.GradientTape() as tape:
            tape.watch(logits)
            penalty = PriorCountInSet((1, 3)).penalty(statistics_of_logits(logits))
        return penalty, tape.gradient(penalty, logits)

    for value in (30.0, -30.0, 100.0, -100.0, 0.0):
        penalty, slope = gradient(tf.fill([2, 4], value))
        assert np.all(np.isfinite(penalty)) and np.all(np.isfinite(slope)) and np.all(penalty >= 0.0)


def test_broken_scenes():
    counts = np.array([0, 1, 2, 3, 4])
    broken = CountInSet((1, 3)).broken(counts, None, (50, 50))
    np.testing.assert_array_equal(broken, [True, False, True, False, True])
    assert AggregateCount((1, 3)).broken(counts, None, (50, 50)) is None


@pytest.mark.parametrize("cls", [CountInSet, AggregateCount, PriorCountInSet])
def test_a_rule_that_cannot_hold(cls):
    rule = cls((1, 7))
    rule.check(7)
    with pytest.raises(
        ValueError, match=rf"^{cls.__name__}\.counts=\(1, 7\) cannot hold with num_steps=6: "
    ) as error:
        rule.check(6)
    assert "\n" not in str(error.value)
    code = code_of_count([1], 6)
    statistics = SceneStatistics(
        code, tf.zeros([1, 7]), tf.zeros([1, 6, 4]), (50, 50), prior_count_log_probs=tf.zeros([1, 7])
    )
    with pytest.raises(ValueError, match="cannot hold with num_steps=6"):
        rule.penalty(statistics)


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
