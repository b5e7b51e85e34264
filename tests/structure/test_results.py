"""The README's table of results is the one that the stored reports give."""

import pytest
import source_tree

from benchmarks import ablation, own_folders, performance, reproduce, results, results_page


def test_readme_holds_the_table_of_the_stored_lines():
    readme = (source_tree.ROOT / "README.md").read_text(encoding="utf-8")
    rows = reproduce.lines()
    assert rows, f"{reproduce.LINES} holds no line"
    assert results.with_table(readme, rows) == readme, "run python -m benchmarks.results"


def test_performance_page_holds_the_tables_of_the_stored_figures():
    page = performance.PAGE.read_text(encoding="utf-8")
    assert performance.filled(page) == page, "run python -m benchmarks.performance"


def test_results_page_is_that_of_the_stored_lines():
    others = [results_page.figures_of(path) for path in (results_page.DETECTOR, results_page.REFINEMENT)]
    page = results_page.page(reproduce.lines(), reproduce.lines(ablation.LINES), *others, own_folders.lines())
    assert results_page.PAGE.read_text(encoding="utf-8") == page, "run python -m benchmarks.reproduce --table"


def test_table_by_hand():
    rows = [
        {
            "cell": "asr/mnist/count13",
            "seed": seed,
            "minutes": 5.0,
            "count_accuracy": accuracy,
            "count_confusion": [[0, 0, 0], [0, 498 + seed, 2 - seed], [0, 0, 500]],
            "ari_fg": 0.9 + 0.02 * seed,
            "mean_iou": 0.8126,
            "negative_elbo_nats": 262.55 + 2 * seed,
            "broken_rules": {"count_in_set": {"fraction": 0.01, "number": 10}},
        }
        for seed, accuracy in ((0, 0.998), (1, 1.0))
    ]
    rows.append({**rows[0], "bindings": ["ASRModel.num_steps = 5"], "count_accuracy": 0.0})
    rows.append({**rows[0], "minutes": 20.0, "count_accuracy": 0.0})
    row = results.table(rows).splitlines()[-1]
    assert row == "| mnist count13 | AIR-ASR | 0.999 | 0.002 | 0.910 | - | - | 0.813 | 263.6 | 0.010 |"


def test_marks_are_needed():
    with pytest.raises(ValueError, match="must hold the marks"):
        results.with_table("# A page", [])
