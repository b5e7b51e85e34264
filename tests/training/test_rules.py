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


def watched(*reports):
    """What a watcher has said after each of these reports, and at the end."""
    watcher = RuleWatcher()
    for epoch, held in enumerate(reports):
        watcher.set_model(types.SimpleNamespace(rules_held=lambda held=held: held))
        watcher.on_epoch_end(epoch)
        yield
    watcher.on_train_end()
    yield


def test_a_rule_at_its_limit_is_named_once_with_what_pulls_the_other_way(capsys):
    held = {
        "disjoint_boxes": standing(False, 500.0, at_limit=True),
        "size_interval": standing(True, 20.0),
        "inside_canvas": standing(True, 0.1),
        "tight_windows": standing(True, 3.0),
        "count_in_set": standing(True, 1000.0, at_limit=True),  # held
    }
    said = [capsys.readouterr().err for _ in watched(held, held, held)]
    line = (
        "\ndisjoint_boxes can't be met: 0.25 share of scenes, where 0.01 is tolerated, "
        "with its largest multiplier, 500. "
        "It contradicts the images or count_in_set (multiplier 1e+03), size_interval (multiplier 20). "
        "Training goes on.\n"
    )
    assert said == ["", line, "", ""]


@pytest.mark.parametrize(
    ("features", "named_at"),
    [
        ((3.0, 2.0, 1.5), [3]),  # at the end, for it isn't held yet
        ((3.0, 2.0, 1.96), [2]),
        ((3.0, 2.0, None), []),  # held in time
        ((3.0, None, 3.0, 2.0, 2.0), [4]),
        ((3.0,), [1]),
    ],
)
def test_a_rule_that_comes_nearer_is_waited_for(capsys, features, named_at):
    def report(feature):
        rule = standing(feature is None, 5.0, at_limit=feature is not None)
        return {"tight_windows": rule if feature is None else {**rule, "feature": feature}}

    said = [capsys.readouterr().err for _ in watched(*map(report, features))]
    assert [i for i, text in enumerate(said) if text] == named_at
    assert ("goes on" in "".join(said)) == (named_at != [] and named_at[0] < len(features))
