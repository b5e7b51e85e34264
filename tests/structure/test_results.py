"""The README's table of results is the one that the stored reports give."""

import json

import pytest
import source_tree

from benchmarks import performance, reproduce, results, results_page


def test_readme_holds_the_table_of_the_stored_reports():
    readme = (source_tree.ROOT / "README.md").read_text(encoding="utf-8")
    reports = results.stored_reports()
    assert reports, "docs/results holds no report"
    assert results.with_table(readme, reports) == readme, "run python -m benchmarks.results"


def test_performance_page_holds_the_tables_of_the_stored_figures():
    page = performance.PAGE.read_text(encoding="utf-8")
    assert performance.filled(page) == page, "run python -m benchmarks.performance"


def test_results_page_is_that_of_the_stored_lines():
    page = results_page.page(reproduce.lines())
    assert results_page.PAGE.read_text(encoding="utf-8") == page, "run python -m benchmarks.reproduce --table"


def test_table_by_hand():
    report = {
        "data_set": "multi_mnist/count13",
        "seeds": {"train": 2, "evaluate": 0},
        "count_accuracy": 0.9985,
        "mean_iou": 0.8126,
        "negative_elbo_nats": 262.55,
        "samples_with_allowed_count": None,
        "train_seconds": 899.7,
        "train_steps": 14760,
    }
    row = results.table([report]).splitlines()[-1]
    assert row == "| multi_mnist/count13 | 2 | 0.999 | 0.813 | - | 262.6 | - | 900 | 14,760 |"


def test_add_names_the_file_after_data_set_and_seed(tmp_path):
    run = tmp_path / "run"
    run.mkdir()
    with pytest.raises(ValueError, match=r"has no report.json; run asr_evaluate"):
        results.add(run, tmp_path)
    (run / "report.json").write_text(json.dumps({"data_set": "a/b", "seeds": {"train": 3}}))
    assert results.add(run, tmp_path).name == "a_b_seed3.json"


def test_marks_are_needed():
    with pytest.raises(ValueError, match="must hold the marks"):
        results.with_table("# A page", [])
