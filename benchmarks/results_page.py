"""docs/RESULTS.md and its pictures, from the lines that `benchmarks.reproduce` wrote; a test holds the page to them."""

from __future__ import annotations

import json
import pathlib
from collections.abc import Sequence

from benchmarks import ablation, own_folders, result_variants
from benchmarks.cells import DATA, MODELS, PICTURES, ROOT, Cell
from benchmarks.result_goals import goal_lines
from benchmarks.result_groups import COLUMNS, TITLES, Row, group

__all__ = [
    "DETECTOR",
    "DETECTOR_FIGURES",
    "OBJECTS",
    "REFINEMENT",
    "detector_table",
    "figures_of",
    "page",
    "refined_table",
    "write",
]

PAGE = ROOT / "docs" / "RESULTS.md"
DETECTOR = ROOT / "docs" / "results" / "detector.json"
REFINEMENT = ROOT / "docs" / "performance" / "refinement.json"
DETECTOR_FIGURES = {"ap50": "AP50", "ap": "AP", "ap75": "AP75"}
"""Keys and titles of what `benchmarks.detector` measures."""
OBJECTS = {
    "count13": "1 or 3 objects",
    "count14": "1 or 4 objects",
    "count24": "2 or 4 objects",
    "overlap3": "3 small objects, apart",
}
def _table(rows: Sequence[Row], data: str, setting: str) -> list[str]:
    """Models and budgets of one setting, a row each; those that were not run are left out."""
    lines = []
    for minutes in sorted({row["minutes"] for row in rows}):
        for model in MODELS:
            runs = group(rows, Cell(model, data, setting), minutes)
            if runs.rows:
                cells = [runs.shown(metric) for metric in COLUMNS]
                lines.append(f"| {TITLES[model]} | {minutes:g} | {len(runs.rows)} | " + " | ".join(cells) + " |")
    if not lines:
        return ["No cell of this setting has been run."]
    titles = ["model", "minutes", "seeds", *(metric.title for metric in COLUMNS)]
    return ["| " + " | ".join(titles) + " |", "|---" * len(titles) + "|", *lines]


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
published recognition, with a second look (`LSTMRecognition.second_look`). Their lines are of an earlier revision, with
settings of each scene's own, which is more than the facts that AIR-ASR is told now. The VAE is told nothing.

What is wanted of -ELBO after 5 minutes is within 1 % of what AIR-ASR reached with settings that were found by hand for
each scene.

Read the figures with care. The speed of a shared machine drifts, so that the column of steps tells what a run got.
Runs on one core went two at a time on a machine of two. The dSprites test scenes show shapes at orientations that are
in no training scene, so that their bounds lie well above the curves of training batches.
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


_REFINED_ABOUT = """## More time for an image, and samples that obey

`refine` fits the posterior of each image by itself, here in {steps} steps on {images} test images of runs of five
minutes. Wanted are 5 nats an image, and boxes that fit no worse. `sample(obey=True)` draws scenes again that break one
of the model's rules; wanted are none of {samples:,} that still do. The command writes
[performance/refinement.json](performance/refinement.json):

    python -m benchmarks.refinement --output=docs/performance/refinement.json WORKDIR...
"""


def refined_table(figures: Row) -> str:
    """What `benchmarks.refinement` measured, as a Markdown table."""
    titles = (
        "scenes", "nats gained", "reached", "mean IoU before", "after", "time / that of `infer`",
        "samples that break a rule", "with `obey`", "acceptance",
    )
    lines = ["| " + " | ".join(titles) + " |", "|---" * len(titles) + "|"]
    for run in figures["runs"]:
        before, after = (run["by_steps"][steps] for steps in ("0", str(run["time"]["timed_steps"])))
        drawn = (run["samples"], run["obeying_samples"])
        any_of = [max(samples["broken"].values()) / samples["num_samples"] for samples in drawn]
        reached = after["gain_nats"] >= 5.0 and after["mean_iou"] >= before["mean_iou"]
        cells = [
            run["data_set"].removeprefix("multi_").replace("/", " "),
            f"{after['gain_nats']:.1f} ± {after['gain_standard_error_nats']:.1f}",
            "yes" if reached else "**no**",
            f"{before['mean_iou']:.3f}",
            f"{after['mean_iou']:.3f}",
            f"{run['time']['refine_to_infer']:.0f}",
            *(f"{share:.4f}" for share in any_of),
            f"{run['obeying_samples']['acceptance_rate']:.2f}",
        ]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _refined_section(figures: Row) -> list[str]:
    run = figures["runs"][0]
    about = {"steps": run["time"]["timed_steps"], "images": run["num_images"]}
    about["samples"] = run["samples"]["num_samples"]
    note = "The share of samples is that of the rule that is broken most often."
    return [_REFINED_ABOUT.format(**about), refined_table(figures), "", note, ""]


def page(
    rows: Sequence[Row],
    ablated: Sequence[Row] = (),
    detected: Row | None = None,
    refined: Row | None = None,
    folders: Sequence[Row] = (),
) -> str:
    """The page as Markdown, from the lines of the cells, and what other benchmarks wrote: `benchmarks.ablation`,
    `benchmarks.detector`, `benchmarks.refinement` and `benchmarks.own_folders`.
    """
    variants = result_variants.section(rows)
    rows = [row for row in rows if not row.get("bindings")]
    parts = [_INTRODUCTION, "## What AIR-ASR should reach, and what it reached\n", *goal_lines(rows), ""]
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
    if folders:
        parts += own_folders.section(folders)
    parts += variants
    if refined:
        parts += _refined_section(refined)
    if detected:
        parts += _detector_section(detected)
    if ablated:
        parts += ablation.section(ablated)
    return "\n".join(parts).rstrip() + "\n"


def figures_of(path: pathlib.Path) -> Row | None:
    """What a benchmark wrote last, None where it wasn't run."""
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else None


def write(rows: Sequence[Row], ablated: Sequence[Row] = (), path: pathlib.Path = PAGE) -> pathlib.Path:
    """Writes the page and its plots.

    Returns:
        The page's path.
    """
    text = page(rows, ablated, figures_of(DETECTOR), figures_of(REFINEMENT), own_folders.lines())
    path.write_text(text, encoding="utf-8")
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
