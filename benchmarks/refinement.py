"""What amortization costs and saves, and how many samples obey: `refine` beside `infer`, and `sample(obey=True)`.

    python -m benchmarks.refinement --output=docs/performance/refinement.json WORKDIR...

Of each run: test images refined in more and more steps, with the bound, the boxes and the time beside those of `infer`;
and 10,000 scenes that obey the run's rules, held against the rules once more.
"""

from __future__ import annotations

import math
import pathlib
import time
from typing import Any

import numpy as np
import tensorflow as tf

from asr_tf.checks import check_images
from asr_tf.constraints import SceneStatistics
from asr_tf.data import DataSource, Scenes
from asr_tf.evaluation import metrics
from asr_tf.models import ASRModel
from asr_tf.runs import run_folder
from benchmarks import command

__all__ = ["measure", "obedience", "refinement"]

STEPS = (1, 5, 20, 100)
TIMED_STEPS = 20
TIMED_IMAGES = 64
NUM_IMAGES = 500
NUM_SAMPLES = 10_000
CHUNK = 500


def refinement(model: ASRModel, scenes: Scenes, steps: int, seed: int = 0) -> dict[str, float]:
    """What is gained, by image a mean, and how well boxes and counts fit where they are known.

    Args:
        model: trained.
        scenes: to refine.
        steps: of the ascent.
        seed: of its noise.
    """
    refined = _numpy(model.refine(scenes.images, steps, seed=(seed, 0)))
    gain = refined["negative_elbo_nats_before"] - refined["negative_elbo_nats_after"]
    figures = {
        "gain_nats": float(gain.mean()),
        "gain_standard_error_nats": float(gain.std() / math.sqrt(len(gain))),
        "share_of_images_refined": float(np.mean(gain != 0.0)),
        **{name: float(refined[name].mean()) for name in sorted(refined) if "_nats_" in name},
    }
    if scenes.counts is not None:
        figures["count_accuracy"] = metrics.count_accuracy(refined["count"], scenes.counts)
        if scenes.boxes is not None:
            figures["mean_iou"] = metrics.mean_iou(refined["boxes"], refined["count"], scenes.boxes, scenes.counts)
    return figures


def obedience(model: ASRModel, num_samples: int, obey: bool, seed: int = 0) -> dict[str, Any]:
    """How many scenes were drawn for so many that obey, and how many of these break which rule after all.

    Args:
        model: trained.
        num_samples: scenes.
        obey: whether those that break a rule are drawn again.
        seed: of the scenes.
    """
    broken: dict[str, int] = {}
    draws, seconds = 0.0, 0.0
    for start in range(0, num_samples, CHUNK):
        size = min(CHUNK, num_samples - start)
        begin = time.perf_counter()
        drawn = model.sample(size, (seed, start), obey=obey)
        drawn["images"].numpy()
        seconds += time.perf_counter() - begin
        draws += size / float(drawn["acceptance_rate"]) if obey else size
        for name, wrong in metrics.broken_rules(model.constraints, _finished(model, drawn)).items():
            broken[name] = broken.get(name, 0) + int(wrong.sum())
    figures = {"num_samples": num_samples, "seconds": seconds, "broken": broken}
    return figures | ({"acceptance_rate": num_samples / draws} if obey else {})


def _finished(model: ASRModel, drawn: dict[str, tf.Tensor]) -> SceneStatistics:
    """What the rules look at of scenes that are drawn, pixels included."""
    objects = model.renderer.objects(drawn["z_what"]).colour
    canvases = model.renderer.draw_present(drawn["z_what"], drawn["boxes"], drawn["presence"]).colour
    pixels = {"objects": objects, "glimpses": objects, "drawn": canvases}
    return SceneStatistics.of_finished(drawn["count"], drawn["boxes"], model.canvas_size, **pixels)


def _numpy(found: dict[str, tf.Tensor]) -> dict[str, np.ndarray]:
    return {name: np.asarray(value) for name, value in found.items()}


def _times(model: ASRModel, images: np.ndarray) -> dict[str, Any]:
    """Seconds an image, of images that are taken together."""
    batch = tf.constant(check_images(images[:TIMED_IMAGES]))
    turns = {
        "infer": lambda: model.infer(batch)["reconstruction"].numpy(),
        "refine": lambda: model.refine(batch, TIMED_STEPS)["reconstruction"].numpy(),
    }
    seconds = command.interleaved(turns)
    return {
        "timed_images": len(batch),
        "timed_steps": TIMED_STEPS,
        "infer_ms_an_image": 1e3 * seconds["infer"] / len(batch),
        "refine_ms_an_image": 1e3 * seconds["refine"] / len(batch),
        "refine_to_infer": seconds["refine"] / seconds["infer"],
    }


def measure(workdir: pathlib.Path, split: str = "test", num_images: int = NUM_IMAGES) -> dict[str, Any]:
    """All figures of a run.

    Args:
        workdir: its folder.
        split: whose images are refined.
        num_images: how many, spread over the split.

    Raises:
        Refusal: there is no run, or none of scenes.
    """
    try:
        model, info = run_folder.restore_model(workdir)
        source = DataSource()
        scenes = source.load(split, info["data_dir"], info["manual_dir"])
    except ValueError as error:
        raise command.Refusal(str(error)) from error
    if not isinstance(model, ASRModel):
        raise command.Refusal(f"{workdir} holds a {type(model).__name__}, which has no scenes to refine.")
    spread = np.unique(np.linspace(0, len(scenes) - 1, num_images).astype(int))  # a split may be sorted by count
    scenes = scenes.select(spread)
    return {
        "data_set": source.name,
        "train_steps": info["steps"],
        "split": split,
        "num_images": len(scenes),
        "rules": [rule.name for rule in model.constraints],
        "by_steps": {str(steps): refinement(model, scenes, steps) for steps in (0, *STEPS)},
        "time": _times(model, scenes.images),
        "samples": obedience(model, NUM_SAMPLES, obey=False),
        "obeying_samples": obedience(model, NUM_SAMPLES, obey=True),
    }


def main() -> None:
    """Command line."""
    parser = command.parser(__doc__)
    parser.add_argument("workdirs", nargs="+", type=pathlib.Path, metavar="WORKDIR", help="folders of runs")
    parser.add_argument("--split", default="test", choices=("validation", "test"), help="whose images are refined")
    parser.add_argument("--num_images", type=int, default=NUM_IMAGES, help="how many images of each run")
    arguments = parser.parse_args()

    def figures() -> dict[str, Any]:
        runs = [measure(workdir, arguments.split, arguments.num_images) for workdir in arguments.workdirs]
        return {"machine": command.machine(), "runs": runs}

    command.report(arguments.output, figures)


if __name__ == "__main__":
    main()
