"""Why a prior without overlaps is hard to write down: how rarely boxes thrown at random lie apart.

    python -m benchmarks.rejection [--workdir=RUN] [--output=docs/results/rejection.json]

Throws boxes uniformly on a canvas of 50 px and counts how often none overlap, which is what a rejection sampler of the
uniform prior without overlaps would accept.  With the folder of a run of scenes whose boxes are apart
(scenes/mnist_overlap3.gin), draws scenes of its learned prior beside it: one pass each, nothing rejected.  The picture
goes to docs/images/figure1.png.  After figure 1 of Xu et al., NeurIPS 2019, arXiv:1906.03923.
"""

from __future__ import annotations

import argparse
import json
import math
import pathlib
import sys
from typing import Any

import numpy as np

from benchmarks.command import ROOT

__all__ = ["acceptance", "acceptance_of_two"]

CANVAS_PX = 50.0
SIDES_PX = (20.0, 12.0)
MOST_BOXES = 8
_THROWS = 2_000_000
_CHUNK = 100_000
_SHOWN = 8


def acceptance_of_two(side_px: float, canvas_px: float = CANVAS_PX) -> float:
    """The exact probability that two boxes of one side, each anywhere on the canvas, don't overlap.

    Along one axis both positions are uniform on [0, c - s], so that they differ by less than s with the probability
    1 - (1 - s / (c - s))^2; boxes overlap where both axes do.
    """
    share = min(side_px / (canvas_px - side_px), 1.0)
    return 1.0 - (1.0 - (1.0 - share) ** 2) ** 2


def acceptance(
    num_boxes: int, side_px: float, canvas_px: float = CANVAS_PX, throws: int = _THROWS, seed: int = 0
) -> tuple[float, float]:
    """How often boxes of one side, thrown uniformly, are pairwise apart.

    Args:
        num_boxes: n, 1 or more.
        side_px, canvas_px: sides.
        throws: scenes to throw.
        seed: of the random numbers.

    Returns:
        The share of scenes without an overlap, and its standard error.
    """
    rng = np.random.default_rng((seed, num_boxes))
    apart = 0
    for start in range(0, throws, _CHUNK):
        size = min(_CHUNK, throws - start)
        places = rng.uniform(0.0, canvas_px - side_px, (2, num_boxes, size))
        free = np.ones(size, bool)
        for i in range(num_boxes):
            for j in range(i):
                free &= np.abs(places[:, i] - places[:, j]).max(axis=0) >= side_px
        apart += int(free.sum())
    share = apart / throws
    return share, math.sqrt(share * (1.0 - share) / throws)


def measure(workdir: pathlib.Path | None) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """The acceptance by side and number; of a run's prior, how many scenes have boxes apart, and some of them."""
    figures: dict[str, Any] = {"canvas_px": CANVAS_PX, "throws": _THROWS, "acceptance": {}}
    for side in SIDES_PX:
        shares = [acceptance(n, side) for n in range(1, MOST_BOXES + 1)]
        figures["acceptance"][f"{side:g}"] = [share for share, _ in shares]
        figures.setdefault("standard_error", {})[f"{side:g}"] = [error for _, error in shares]
    if workdir is None:
        return figures, {}
    from asr_tf.constraints import DisjointBoxes, SceneStatistics
    from asr_tf.runs import run_folder

    model, info = run_folder.restore_model(workdir)
    drawn = {key: np.asarray(value) for key, value in model.sample(1000, seed=(0, 0)).items()}
    scenes = SceneStatistics.of_finished(drawn["count"], drawn["boxes"], model.canvas_size)
    broken = np.asarray(DisjointBoxes().broken(scenes))
    figures |= {
        "prior_scenes": len(broken),
        "prior_scenes_apart": float(1.0 - np.mean(broken)),
        "prior_objects": float(np.mean(drawn["count"])),
        "prior_train_seconds": info["train_seconds"],
    }
    return figures, {key: drawn[key][:_SHOWN] for key in ("images", "boxes", "count")}


def draw(figures: dict[str, Any], drawn: dict[str, np.ndarray], path: pathlib.Path) -> None:
    """The picture: acceptance against the number of boxes, beside samples of the learned prior."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    from asr_tf.evaluation import tiles

    figure = Figure(figsize=(11, 4), dpi=100)
    FigureCanvasAgg(figure)
    axes, picture = figure.subplots(1, 2, width_ratios=(1.0, 1.2))
    for side, shares in figures["acceptance"].items():
        shown = [(n, share) for n, share in enumerate(shares, 1) if share > 0.0]
        axes.semilogy(*zip(*shown, strict=True), "o-", label=f"uniform boxes of {side} px on {CANVAS_PX:g} px")
    if drawn:
        label = "learned prior, 12 px: one pass a scene"
        axes.semilogy([figures["prior_objects"]], [figures["prior_scenes_apart"]], "r*", markersize=13, label=label)
    axes.set_xlabel("number of boxes")
    axes.set_ylabel("scenes without an overlap")
    axes.set_xlim(0.5, MOST_BOXES + 0.5)
    axes.grid(alpha=0.3)
    axes.legend(fontsize=8)
    picture.axis("off")
    if drawn:
        picture.imshow(tiles.draw_boxes_grid(drawn["images"], drawn["boxes"], drawn["count"], num_columns=4))
        picture.set_title("samples of the learned prior", fontsize=10)
    figure.set_layout_engine("constrained")
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--workdir", type=pathlib.Path, help="folder of a run of scenes/mnist_overlap3.gin")
    parser.add_argument("--output", type=pathlib.Path, default=ROOT / "docs" / "results" / "rejection.json")
    parser.add_argument("--picture", type=pathlib.Path, default=ROOT / "docs" / "images" / "figure1.png")
    arguments = parser.parse_args()
    try:
        figures, drawn = measure(arguments.workdir)
    except ValueError as error:
        sys.exit(f"benchmarks.rejection: error: {error}")
    arguments.output.write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")
    draw(figures, drawn, arguments.picture)
    print(json.dumps(figures, indent=2))


if __name__ == "__main__":
    main()
