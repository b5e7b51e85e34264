"""docs/RESULTS.md and its pictures, from the lines that `benchmarks.reproduce` wrote; a test holds the page to them."""

from __future__ import annotations

import json
import math
import pathlib
import statistics
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from benchmarks import ablation
from benchmarks.cells import DATA, MODELS, PICTURES, ROOT, Cell, of_newest_settings

__all__ = [
    "DETECTOR",
    "DETECTOR_FIGURES",
    "OBJECTS",
    "SUMMARY_TITLES",
    "TITLES",
    "Row",
    "detector_figures",
    "detector_table",
    "page",
    "summary",
    "write",
]

PAGE = ROOT / "docs" / "RESULTS.md"
DETECTOR = ROOT / "docs" / "results" / "detector.json"
DETECTOR_FIGURES = {"ap50": "AP50", "ap": "AP", "ap75": "AP75"}
"""Keys and titles of what `benchmarks.detector` measures."""
TITLES = {"vae": "VAE", "air": "AIR", "air_pprior": "AIR-pPrior", "asr": "AIR-ASR"}
OBJECTS = {
    "count13": "1 or 3 objects",
    "count14": "1 or 4 objects",
    "count24": "2 or 4 objects",
    "overlap3": "3 small objects, apart",
}
_BUDGETS = (5.0, 20.0)

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


class _Metric(NamedTuple):
    title: str
    value: Callable[[Row], float | None]
    form: str
    varies: bool = True


def _key(name: str) -> Callable[[Row], float | None]:
    """A number of the report, NaN where it has null for what isn't finite; None where it isn't there."""
    return lambda row: math.nan if name in row and row[name] is None else row.get(name)


COUNT = _Metric("count accuracy", _key("count_accuracy"), "{:.3f}")
MAE = _Metric("count error", _count_error, "{:.3f}")
ARI_FG = _Metric("ARI-FG", _key("ari_fg"), "{:.3f}")
MSC = _Metric("mSC", _key("msc"), "{:.3f}")
AP50 = _Metric("AP50", _key("ap50"), "{:.3f}")
IOU = _Metric("mean IoU", _key("mean_iou"), "{:.3f}")
RECALL = _Metric("recall at 0.5", _recall, "{:.3f}")
ELBO = _Metric("-ELBO, nats", _key("negative_elbo_nats"), "{:.1f}")
ALLOWED = _Metric("samples with an allowed count", _key("samples_with_allowed_count"), "{:.3f}")
BROKEN = _Metric("samples that break the rule", _broken, "{:.3f}")
_COLUMNS = (
    COUNT,
    MAE,
    ARI_FG,
    MSC,
    AP50,
    IOU,
    RECALL,
    ELBO,
    _Metric("squared error", _key("squared_error"), "{:.1f}"),
    BROKEN,
    _Metric("steps", _key("train_steps"), "{:,.0f}"),
    _Metric("cores", _cores, "{:.0f}", varies=False),
)


class _Group:
    """The runs of one cell and budget, over seeds."""

    def __init__(self, rows: Sequence[Row]):
        self.rows = rows

    def values(self, metric: _Metric) -> list[float]:
        return [value for row in self.rows if (value := metric.value(row)) is not None]

    def mean(self, metric: _Metric) -> float | None:
        values = self.values(metric)
        return statistics.fmean(values) if values else None

    def shown(self, metric: _Metric) -> str:
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


def _group(rows: Sequence[Row], cell: Cell, minutes: float) -> _Group:
    return _Group(of_newest_settings([row for row in rows if (row["cell"], row["minutes"]) == (cell.name, minutes)]))


_SUMMARY = (COUNT, MAE, ARI_FG, MSC, AP50, IOU, ELBO, BROKEN)
SUMMARY_TITLES = tuple(metric.title for metric in _SUMMARY)
"""What `summary` gives, as titles of columns."""


def summary(rows: Sequence[Row], cell: Cell, minutes: float) -> list[str] | None:
    """The figures of `SUMMARY_TITLES`, means over seeds, "-" for one that wasn't measured; None if it wasn't run."""
    plain = [row for row in rows if not row.get("bindings")]
    group = _group(plain, cell, minutes)
    if not group.rows:
        return None
    means = [(metric, group.mean(metric)) for metric in _SUMMARY]
    return ["-" if mean is None else metric.form.format(mean) for metric, mean in means]


def _table(rows: Sequence[Row], data: str, setting: str) -> list[str]:
    """Models and budgets of one setting, a row each; those that were not run are left out."""
    lines = []
    for minutes in sorted({row["minutes"] for row in rows}):
        for model in MODELS:
            group = _group(rows, Cell(model, data, setting), minutes)
            if group.rows:
                cells = [group.shown(metric) for metric in _COLUMNS]
                lines.append(f"| {TITLES[model]} | {minutes:g} | {len(group.rows)} | " + " | ".join(cells) + " |")
    if not lines:
        return ["No cell of this setting has been run."]
    titles = ["model", "minutes", "seeds", *(metric.title for metric in _COLUMNS)]
    return ["| " + " | ".join(titles) + " |", "|---" * len(titles) + "|", *lines]


class _Goal(NamedTuple):
    """A number to reach, and whether more of it is better."""

    metric: _Metric
    bound: float
    more: bool = True

    def shown(self, group: _Group) -> tuple[str, str]:
        value = group.mean(self.metric)
        if value is None:
            return "-", "not run"
        reached = value >= self.bound if self.more else value <= self.bound
        return self.metric.form.format(value), "yes" if reached else "**no**"


# -ELBO in nats of AIR-ASR after 5 minutes with strengths, rates and bounds that were found by hand for each of these
# scenes: the published objective, on the published recognition.
_BY_HAND = {
    ("mnist", "count13"): 265.1,
    ("mnist", "count14"): 339.8,
    ("mnist", "count24"): 446.3,
    ("mnist", "overlap3"): 203.1,
    ("dsprites", "count13"): 151.2,
    ("dsprites", "count14"): 215.6,
    ("dsprites", "count24"): 285.1,
    ("dsprites", "overlap3"): 159.3,
}
_LONG = {("mnist", "count13"): 240.0, ("mnist", "overlap3"): 198.0}


def _goals(data: str, setting: str, minutes: float) -> list[_Goal]:
    short = minutes < 20.0
    if setting == "overlap3":
        found = [_Goal(IOU, 0.86 if short else 0.89), _Goal(RECALL, 0.975 if short else 0.985)]
        samples = [_Goal(BROKEN, 0.03, more=False)]
    else:
        found = [_Goal(COUNT, 0.985 if short else 0.999), *([] if short else [_Goal(IOU, 0.88)])]
        samples = [_Goal(ALLOWED, 0.99)]
    by_hand = _BY_HAND.get((data, setting))
    bound = (by_hand and round(1.01 * by_hand, 1)) if short else _LONG.get((data, setting))
    return [*found, *([_Goal(ELBO, bound, more=False)] if bound else []), *samples]


def _against(
    rows: Sequence[Row], asr: _Group, data: str, setting: str, minutes: float
) -> list[tuple[str, str, str]]:
    """AIR-ASR beside each baseline of the same budget: what is compared, the two numbers, whether it is better."""
    found = []
    for model in ("air", "air_pprior"):
        other = _group(rows, Cell(model, data, setting), minutes)
        main = IOU if setting == "overlap3" else COUNT
        for metric, better in (
            (main, lambda ours, theirs: ours > theirs),
            (ELBO, lambda ours, theirs: ours <= theirs + 0.02 * abs(theirs)),
            (BROKEN, lambda ours, theirs: ours < theirs),
        ):
            ours, theirs = asr.mean(metric), other.mean(metric)
            if ours is None or theirs is None:
                continue
            numbers = f"{metric.form.format(ours)} against {metric.form.format(theirs)}"
            found.append((f"{metric.title}, {TITLES[model]}", numbers, "yes" if better(ours, theirs) else "**no**"))
    return found


def _goal_lines(rows: Sequence[Row]) -> list[str]:
    lines = ["| setting | minutes | what | wanted | measured | reached |", "|---" * 6 + "|"]
    for data in DATA:
        for setting in DATA[data]:
            for minutes in _BUDGETS:
                asr = _group(rows, Cell("asr", data, setting), minutes)
                if not asr.rows:
                    continue
                head = f"| {data} {setting} | {minutes:g} |"
                for goal in _goals(data, setting, minutes):
                    value, reached = goal.shown(asr)
                    wanted = f"{'at least' if goal.more else 'at most'} {goal.bound:g}"
                    lines.append(f"{head} {goal.metric.title} | {wanted} | {value} | {reached} |")
                for what, numbers, reached in _against(rows, asr, data, setting, minutes):
                    wanted = "no worse than 2 %" if what.startswith(ELBO.title) else "better"
                    lines.append(f"{head} {what} | {wanted} | {numbers} | {reached} |")
    return lines


_INTRODUCTION = """# Results

The comparison of Xu et al. (NeurIPS 2019) on scenes of MNIST digits and dSprites shapes. It has a plain VAE of the
whole image, AIR with its fixed prior, AIR-pPrior with a learned prior, and AIR-ASR with the learned prior and the
rules. All models of one budget get the same minutes of training on as many cores, the same batches, and the same
evaluation on the same test images. `python -m benchmarks.reproduce --table` writes this page from
[results/cells.jsonl](results/cells.jsonl). `python -m benchmarks.reproduce --cell=MODEL/DATA/SETTING --seed=SEED
--minutes=MINUTES` adds a line to that file. A mean over several seeds has its standard deviation beside it.

*Count error* is the mean absolute error of the count. *ARI-FG* is the adjusted Rand index over the pixels of true
objects, *mSC* the mean over true objects of the best IoU of a mask, *AP50* COCO's average precision of boxes at an IoU
of 0.5. A dash stands where a run is older than the metric.

*Samples that break the rule* are, of 1,000 scenes drawn from the prior, those with a count that isn't allowed. For
`overlap3` they are those with two boxes that overlap by more than a pixel. *Recall* is the share of true boxes that an
inferred one meets with an IoU of 0.5. In `overlap3` every scene has three objects, and all models are told so
(`ASRModel.exact_count`), so that their counts are right by construction.

AIR-ASR is trained with the facts that the files of scenes/ state, and with one setting for all of them: counts,
sizes, what does not overlap, and default tolerances. Nothing was chosen for a scene. AIR and AIR-pPrior keep the
published recognition, with a second look (`LSTMRecognition.second_look`). Their lines are of an earlier revision,
with settings of each scene's own, and they will be run again with the same facts. The VAE is told nothing.

What is wanted of -ELBO after 5 minutes is within 1 % of what AIR-ASR reached with settings that were found by hand for
each scene.

Read the figures with care. The speed of a shared machine drifts, so that the column of steps tells what a run got.
Runs on one core went two at a time on a machine of two. The dSprites test scenes show shapes at orientations that are
in no training scene, so that their bounds lie well above the curves of training batches. There AIR-ASR knows the 96
shapes for training too well, and its bound on `count13` and `count14` isn't what was wanted; four remedies that were
tried made up a fifth of the difference at most.
[experiments.md](experiments.md) tells what was tried and dropped, and how these lines came about;
[method.md](method.md) has the method.
"""


def _command(row: Row) -> str:
    flags = f"--cell={row['cell']} --seed={row['seed']} --minutes={row['minutes']:g}"
    return f"    python -m benchmarks.reproduce {flags}"


def detector_table(figures: Row) -> str:
    """What `benchmarks.detector` measured on test scenes, as a Markdown table."""
    lines = ["| a detector learns from | " + " | ".join(DETECTOR_FIGURES.values()) + " |", "|---" * 4 + "|"]
    for title, row in (
        ("sampled scenes", figures["sampled"]["test"]),
        ("true labels", figures["true"]["test"]),
        ("ratio", figures["ratio"]),
    ):
        lines.append(f"| {title} | " + " | ".join(f"{row[name]:.3f}" for name in DETECTOR_FIGURES) + " |")
    return "\n".join(lines)


_DETECTOR_ABOUT = """## Sampled scenes as labelled data

A small detector, trained once on {scenes:,} scenes that the model of {cell} draws from its prior, and once on as many
training scenes with their true boxes; both are measured on the true boxes of the test scenes. The model learned for
{minutes:g} minutes ({steps:,} steps), without a label. A pixel belongs to an object's mask from a share of
{share:g} on, which images without labels tell. The command writes
[results/detector.json](results/detector.json):

    python -m benchmarks.detector --seed={seed} --minutes={minutes:g}
"""


def _detector_section(figures: Row) -> list[str]:
    about = {"scenes": figures["sampled"]["scenes"], "steps": figures["train_steps"]}
    about["share"] = figures["least_share"]
    known = {name: figures[name] for name in ("cell", "minutes", "seed")}
    return [_DETECTOR_ABOUT.format(**about, **known), detector_table(figures), ""]


def page(rows: Sequence[Row], ablated: Sequence[Row] = (), detected: Row | None = None) -> str:
    """The page as Markdown, from the lines of the cells, those of `benchmarks.ablation`, and `benchmarks.detector`."""
    rows = [row for row in rows if not row.get("bindings")]
    parts = [_INTRODUCTION, "## What AIR-ASR should reach, and what it reached\n", *_goal_lines(rows), ""]
    for data in DATA:
        for setting in DATA[data]:
            parts += [f"## {data} {setting}: {OBJECTS[setting]}\n", *_table(rows, data, setting), ""]
            seen = [row for row in rows if row["cell"].split("/")[1:] == [data, setting]]
            if any(row.get("curve") for row in seen):
                parts.append(f"![learning curves](images/curves_{data}_{setting}.png)\n")
            for model in MODELS:
                strip = f"{model}_{data}_{setting}_seed0_5min.png"
                if (PICTURES / strip).is_file():
                    parts.append(f"{TITLES[model]}, sampled: ![samples](results/samples/{strip})\n")
            run = {row["cell"].split("/")[0] for row in seen}
            missing = [TITLES[model] for model in MODELS if model not in run]
            if missing:
                parts.append(f"Not run yet: {', '.join(missing)}.\n")
            if seen:
                parts += ["Commands:\n", *sorted(_command(row) for row in seen), ""]
    if detected:
        parts += _detector_section(detected)
    if ablated:
        parts += ablation.section(ablated)
    return "\n".join(parts).rstrip() + "\n"


def detector_figures() -> Row | None:
    """What `benchmarks.detector` wrote last, None where it wasn't run."""
    return json.loads(DETECTOR.read_text(encoding="utf-8")) if DETECTOR.is_file() else None


def write(rows: Sequence[Row], ablated: Sequence[Row] = (), path: pathlib.Path = PAGE) -> pathlib.Path:
    """Writes the page and its plots.

    Returns:
        The page's path.
    """
    path.write_text(page(rows, ablated, detector_figures()), encoding="utf-8")
    if ablated:
        ablation.draw(ablated, path.parent / "images" / ablation.PICTURE.name)
    for data in DATA:
        for setting in DATA[data]:
            seen = [
                row
                for row in rows
                if row["cell"].split("/")[1:] == [data, setting] and row.get("curve") and not row.get("bindings")
            ]
            if seen:
                _draw_curves(seen, path.parent / "images" / f"curves_{data}_{setting}.png")
    return path


def _draw_curves(rows: Sequence[Row], path: pathlib.Path) -> None:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    panels = (
        ("negative_elbo_nats", "-ELBO on training batches, nats"),
        ("val_count_accuracy", "count accuracy, held-out"),
        ("val_mean_iou", "mean IoU, held-out"),
    )
    figure = Figure(figsize=(13, 3.4), dpi=90)
    FigureCanvasAgg(figure)
    for axes, (key, title) in zip(figure.subplots(1, 3), panels, strict=True):
        for row in rows:
            model = row["cell"].split("/")[0]
            curve = row["curve"]
            if key not in curve:
                continue
            first = row["seed"] == min(other["seed"] for other in rows if other["cell"] == row["cell"])
            axes.plot(
                [seconds / 60.0 for seconds in curve["train_seconds"]],
                curve[key],
                color=f"C{MODELS.index(model)}",
                linestyle="-" if row["minutes"] < 20.0 else "--",
                label=f"{TITLES[model]}, {row['minutes']:g} min" if first else None,
            )
        axes.set_title(title, fontsize=10)
        axes.set_xlabel("minutes of training")
        axes.grid(alpha=0.3)
        if key == "negative_elbo_nats":
            last = [value for row in rows for value in row["curve"][key][-1:] if value is not None]
            if last:
                axes.set_ylim(0.95 * min(last), 2.0 * max(last))
            axes.legend(fontsize=7)
        else:
            axes.set_ylim(-0.02, 1.02)
    figure.set_layout_engine("constrained")
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path)
