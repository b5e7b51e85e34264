from __future__ import annotations

import pytest

from asr_tf.training.schedule import LearningRate, TrainingBudget


def test_budget_in_steps_ends_exactly_there():
    budget = TrainingBudget(num_steps=100)
    assert budget.fraction(25, seconds=1e9) == 0.25
    assert not budget.is_spent(99, 1e9, 1e9)
    assert budget.is_spent(100, 0.0, 0.0)


def test_budget_in_seconds_ends_before_the_execution_that_would_overrun_it():
    budget = TrainingBudget(num_steps=1, max_seconds=60.0)
    assert budget.fraction(10**6, 15.0) == 0.25
    assert not budget.is_spent(10**6, 58.0, 2.0)
    assert budget.is_spent(0, 58.5, 2.0)


def test_rate_warms_up_in_steps_then_follows_half_a_cosine():
    rate = LearningRate(peak=2.0, warmup_steps=4, final_fraction=0.1)
    assert [rate(step, 0.0) for step in range(5)] == [0.5, 1.0, 1.5, 2.0, 2.0]
    assert rate(100, 0.5) == pytest.approx(2.0 * 0.55)
    assert rate(100, 1.0) == pytest.approx(0.2)
    assert LearningRate(2.0, 0, 0.1)(0, 0.0) == 2.0


def test_in_a_longer_budget_the_rate_is_that_of_the_longer_cosine():
    rate = LearningRate(peak=2.0, warmup_steps=0, final_fraction=0.0)
    rates = [rate(100, TrainingBudget(num_steps).fraction(100, 0.0)) for num_steps in (100, 200, 400)]
    assert rates == pytest.approx([0.0, 1.0, 1.0 + 0.5**0.5])


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: TrainingBudget(0), "num_steps must be a whole number, 1 or more, got 0"),
        (lambda: TrainingBudget(1, -1.0), "max_seconds must be a number above 0, got -1.0"),
        (lambda: LearningRate(0.0, 0, 0.1), "peak_learning_rate must be a number above 0"),
        (lambda: LearningRate(1.0, -1, 0.1), "warmup_steps must be between 0"),
        (lambda: LearningRate(1.0, 0, 1.5), "final_learning_rate_fraction must be between 0.0 and 1.0, got 1.5"),
    ],
)
def test_values_out_of_range_are_named(make, message):
    with pytest.raises(ValueError, match=message):
        make()
