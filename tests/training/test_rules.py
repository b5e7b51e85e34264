"""What is said of rules while a model is trained."""

from __future__ import annotations

import types

import pytest

from asr_tf.training.rules import RuleWatcher, rules_summary


def standing(held, multiplier=1.0, at_limit=False):
    return {
        "tolerance": 0.01,
        "unit": "share of scenes",
        "feature": 0.005 if held else 0.25,
        "held": held,
        "multiplier": multiplier,
        "at_limit": at_limit,
    }


@pytest.mark.parametrize(
    ("held", "summary"),
    [
        ({}, ""),
        ({"count_in_set": standing(True)}, "rules 1/1 held"),
        (
            {"count_in_set": standing(True), "tight_windows": standing(False), "inside_canvas": standing(False)},
            "rules 1/3 held (not tight_windows, inside_canvas)",
        ),
    ],
)
def test_summary(held, summary):
    assert rules_summary(held) == summary


def test_a_rule_at_its_limit_is_named_once_with_what_pulls_the_other_way(capsys):
    held = {
        "disjoint_boxes": standing(False, 500.0, at_limit=True),
        "size_interval": standing(True, 20.0),
        "inside_canvas": standing(True, 0.1),
        "tight_windows": standing(True, 3.0),
        "count_in_set": standing(True, 1000.0, at_limit=True),  # held
    }
    watcher = RuleWatcher()
    watcher.set_model(types.SimpleNamespace(rules_held=lambda: held))
    for epoch in range(3):
        watcher.on_epoch_end(epoch)
    assert capsys.readouterr().err == (
        "\ndisjoint_boxes can't be met: 0.25 share of scenes, where 0.01 is tolerated, "
        "with its largest multiplier, 500. "
        "It contradicts the images or count_in_set (multiplier 1e+03), size_interval (multiplier 20). "
        "Training goes on.\n"
    )
