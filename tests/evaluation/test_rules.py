"""Where rules stand: intervals against closed forms, features against what rules say of each scene."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.stats
import testing_asr_model

from asr_tf.constraints import (
    AggregateCount,
    CountInSet,
    DisjointBoxes,
    SceneStatistics,
    TightWindows,
)
from asr_tf.evaluation.rules import interval, rules_report


@pytest.mark.parametrize(("broken", "number"), [(0, 50), (3, 100), (100, 100)])
def test_the_interval_of_a_share_is_wilsons(broken, number):
    values = np.repeat([1.0, 0.0], [broken, number - broken])
    expected = scipy.stats.binomtest(broken, number).proportion_ci(0.95, method="wilson")
    np.testing.assert_allclose(interval(values), [expected.low, expected.high], atol=1e-6)


def test_the_interval_of_a_mean_is_that_of_a_normal():
    values = np.random.default_rng(0).gamma(2.0, 1.0, 400)
    expected = scipy.stats.norm.interval(0.95, values.mean(), values.std() / 20.0)
    np.testing.assert_allclose(interval(values), expected, rtol=1e-6)
    assert interval(np.array([0.0, 0.5]))[0] == 0.0  # nothing is below 0


def test_each_rule_is_measured_on_images_and_on_samples():
    rules = (CountInSet((1, 2), applies_to="both"), AggregateCount((1, 2)), DisjointBoxes(), TightWindows(strength=2.0))
    model = testing_asr_model.tiny(constraints=rules, num_steps=2)
    images = testing_asr_model.images()
    number = len(images)
    counts = np.array([0, 1, 2, 2])
    boxes = np.zeros((4, 2, 4), np.float32)
    boxes[2] = [[0.0, 0.0, 0.5, 0.5], [0.25, 0.25, 0.75, 0.75]]  # these two overlap
    boxes[3] = [[0.0, 0.0, 0.4, 0.4], [0.5, 0.5, 0.9, 0.9]]
    report = rules_report(model, [(images, number), (images, number - 1)], counts, boxes, rules, seed=0)
    names = ["count_in_set", "count_in_set_samples", "aggregate_count", "disjoint_boxes", "tight_windows"]
    assert list(report) == names

    samples = {name: row["samples"] and row["samples"]["feature"] for name, row in report.items()}
    assert samples["count_in_set"] == samples["count_in_set_samples"] == 0.25  # one of four has none
    assert samples["disjoint_boxes"] == 0.25 and samples["tight_windows"] is None
    scenes = SceneStatistics.of_finished(counts, boxes, model.canvas_size)
    assert samples["aggregate_count"] == pytest.approx(float(rules[1].measured(scenes, rules[1].penalty(scenes))))

    assert report["count_in_set_samples"]["inferred"] is None
    for name in ("count_in_set", "aggregate_count", "disjoint_boxes", "tight_windows"):
        row = report[name]["inferred"]
        low, high = row["interval"]
        assert low <= row["feature"] <= high
        assert row["held"] == (row["feature"] <= report[name]["tolerance"])
    assert report["tight_windows"]["strength"] == 2.0 and report["tight_windows"]["multiplier"] is None
    assert report["count_in_set"]["multiplier"] == pytest.approx(1.0)
    assert (report["count_in_set"]["tolerance"], report["count_in_set"]["unit"]) == (0.01, "share of scenes")
