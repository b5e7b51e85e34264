"""The runs of a cell, over seeds: what is told of them, as means and deviations."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from benchmarks.cells import Cell, of_newest_settings

__all__ = [
    "ALLOWED",
    "BROKEN",
    "COLUMNS",
    "COUNT",
    "ELBO",
    "IOU",
    "RECALL",
    "STEPS",
    "SUMMARY_TITLES",
    "TITLES",
    "Group",
    "Metric",
    "Row",
    "group",
    "summary",
]

TITLES = {"vae": "VAE", "air": "AIR", "air_pprior": "AIR-pPrior", "asr": "AIR-ASR"}

Row = Mapping[str, Any]


def _recall(row: Row) -> float | None:
    boxes = row.get("box_precision_recall")
    return None if boxes is None else boxes["recall"][boxes["thresholds"].index(0.5)]


def _broken(row: Row) -> float | None:
    """Share of sampled scenes that break what the setting is about: the count, or that boxes are apart."""
    rule = "disjoint_boxes" if row["cell"].endswith("overlap3") else "count_in_set"
    return row["broken_rules"][rule]["fraction"] if rule in row.get("broken_rules", {}) else None


def _count_error(row: Row) -> float | None:
    """Mean absolute error of the count, from the table of true and inferred counts, which older reports have too."""
    if "count_confusion" not in row:
        return None
    scenes = [(true, found, n) for true, line in enumerate(row["count_confusion"]) for found, n in enumerate(line)]
    return sum(abs(true - found) * n for true, found, n in scenes) / sum(n for *_, n in scenes)


def _cores(row: Row) -> float | None:
    return row.get("machine", {}).get("cpu_count")


class Metric(NamedTuple):
    """A column: its title, how to read it from a run's line, how it is written, and whether seeds make it vary."""

    title: str
    value: Callable[[Row], float | None]
    form: str
    varies: bool = True


def _key(name: str) -> Callable[[Row], float | None]:
    """A number of the report, NaN where it has null for what isn't finite; None where it isn't there."""
    return lambda row: math.nan if name in row and row[name] is None else row.get(name)


COUNT = Metric("count accuracy", _key("count_accuracy"), "{:.3f}")
MAE = Metric("count error", _count_error, "{:.3f}")
ARI_FG = Metric("ARI-FG", _key("ari_fg"), "{:.3f}")
MSC = Metric("mSC", _key("msc"), "{:.3f}")
AP50 = Metric("AP50", _key("ap50"), "{:.3f}")
IOU = Metric("mean IoU", _key("mean_iou"), "{:.3f}")
RECALL = Metric("recall at 0.5", _recall, "{:.3f}")
ELBO = Metric("-ELBO, nats", _key("negative_elbo_nats"), "{:.1f}")
ALLOWED = Metric("samples with an allowed count", _key("samples_with_allowed_count"), "{:.3f}")
STEPS = Metric("steps", _key("train_steps"), "{:,.0f}")
BROKEN = Metric("samples that break the rule", _broken, "{:.3f}")
COLUMNS = (
    COUNT,
    MAE,
    ARI_FG,
    MSC,
    AP50,
    IOU,
    RECALL,
    ELBO,
    Metric("squared error", _key("squared_error"), "{:.1f}"),
    BROKEN,
    STEPS,
    Metric("cores", _cores, "{:.0f}", varies=False),
)


class Group:
    """The runs of one cell and budget, over seeds."""

    def __init__(self, rows: Sequence[Row]):
        self.rows = rows

    def values(self, metric: Metric) -> list[float]:
        """Of the runs that have it."""
        return [value for row in self.rows if (value := metric.value(row)) is not None]

    def mean(self, metric: Metric) -> float | None:
        """Over seeds; None where no run has it."""
        values = self.values(metric)
        return statistics.fmean(values) if values else None

    def shown(self, metric: Metric) -> str:
        """As it stands in a table: mean and deviation, "-" where no run has it."""
        values = self.values(metric)
        if not values:
            return "-"
        if not metric.varies:
            return ", ".join(metric.form.format(value) for value in sorted(set(values)))
        mean = statistics.fmean(values)
        text = metric.form.format(mean)
        if len(values) > 1 and math.isfinite(mean):
            text += " ± " + metric.form.format(statistics.stdev(values))
        return text


def group(rows: Sequence[Row], cell: Cell, minutes: float) -> Group:
    """The runs of a cell and budget, of the newest settings alone."""
    return Group(of_newest_settings([row for row in rows if (row["cell"], row["minutes"]) == (cell.name, minutes)]))


_SUMMARY = (COUNT, MAE, ARI_FG, MSC, AP50, IOU, ELBO, BROKEN)
SUMMARY_TITLES = tuple(metric.title for metric in _SUMMARY)
"""What `summary` gives, as titles of columns."""


def summary(rows: Sequence[Row], cell: Cell, minutes: float) -> list[str] | None:
    """The figures of `SUMMARY_TITLES`, means over seeds, "-" for one that wasn't measured; None if it wasn't run."""
    plain = [row for row in rows if not row.get("bindings")]
    runs = group(plain, cell, minutes)
    if not runs.rows:
        return None
    means = [(metric, runs.mean(metric)) for metric in _SUMMARY]
    return ["-" if mean is None else metric.form.format(mean) for metric, mean in means]
