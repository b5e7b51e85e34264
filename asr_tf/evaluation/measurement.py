"""Every number that a model and scenes alone determine; `asr_tf.runs.evaluate` makes a report of them.

Contract: the same model, scenes and seed give the same numbers; what isn't known (an image folder
has neither counts nor boxes, a plain autoencoder finds none) is left out.  Counts, boxes and
reconstructions are those of the deterministic `infer`; the bound takes one sample of the continuous
latents an image and integrates the count out exactly, whatever training used.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from asr_tf import checks
from asr_tf.constraints import Constraint, CountInSet, SceneStatistics
from asr_tf.data import Scenes
from asr_tf.evaluation import calibration, metrics, score
from asr_tf.evaluation.rules import rules_report

__all__ = ["measure", "validation_metrics"]

_OF_IMAGES = ("reconstruction", "images")
_OF_OBJECTS = ("count", "count_probs", "boxes", "scores", "masks", "ink_boxes")
_OF_WINDOWS = ("shift_loc", "shift_log_scale", "scale_loc", "scale_log_scale")


def measure(
    model: Any,
    scenes: Scenes,
    *,
    rules: Sequence[Constraint] = (),
    batch_size: int = 200,
    num_samples: int = 1000,
    num_particles: int = 20,
    num_likelihood_images: int = 200,
    seed: int = 0,
) -> tuple[dict[str, Any], dict[str, dict[str, np.ndarray]]]:
    """Every number of the report that the model and the scenes alone determine.

    Args:
        model: an `ASRModel` or `ImageVAE`, restored.
        scenes: the test split.
        rules: what sampled scenes are held against.
        batch_size: images at once.
        num_samples: scenes to sample.
        num_particles: K.
        num_likelihood_images: images of the log-likelihood; 0 for none.
        seed: of every random number.

    Returns:
        (report, outputs).  The report's values, by key:

        * `num_test_images`; `negative_elbo_nats` and its terms, means over images, and
          `penalty_*`, unweighted, means over batches;
        * `squared_error`: of the reconstruction, summed over an image's pixels and channels, a mean
          over images;
        * with true counts: `count_accuracy`, `count_mae`, `count_relative_error`, `count_confusion`
          (row: true, column: inferred count), `sampled_count_accuracy`, the chance that a count drawn
          from q(n | x) is right (with the continuous latents at their mode); `count_reliability` and
          `count_ece`, see `calibration`;
        * with true boxes: `ap`, `ap50`, `ap75`, `f1_50`, `ap_stardist_50`, `mean_iou`,
          `box_precision_recall`; `box_coverage`, by latent of the window the share of true ones in
          the posterior's central intervals of `level`; with ink boxes: `mean_ink_iou`;
        * with true masks: `ari`, `ari_fg`, `ari_fg_single`, `sc`, `msc`, `mask_miou`, and the metrics
          of boxes with `mask_` before them, see `score`;
        * `num_samples`; `sample_counts`, how many sampled scenes have 0, 1, ... objects;
          `broken_rules`, by rule the `fraction` and `number` of scenes; with a `CountInSet` among
          the rules `samples_with_allowed_count`, a fraction;
        * `rules`, by rule, see `rules_report`;
        * `log_likelihood_nats` an image, a mean over `log_likelihood_images` images with
          `log_likelihood_particles` particles, and its `log_likelihood_standard_error_nats`.

        Outputs are `inferred` (arrays of `infer` without `objects`, N scenes, with `ink_boxes` of
        what was drawn, and with `masks` as uint8 [N, T, H, W] where true ones are known) and `sampled` (of `sample`).

    Raises:
        ValueError: an argument out of range, or scenes of another canvas than the model's.
    """
    checks.check_whole("evaluate.batch_size", batch_size)
    checks.check_whole("evaluate.num_samples", num_samples)
    checks.check_whole("evaluate.num_particles", num_particles)
    checks.check_whole("evaluate.num_likelihood_images", num_likelihood_images, 0)
    checks.check_range("evaluate.seed", seed, 0, 2**31 - 1)
    inferred = _infer(model, scenes, batch_size)
    sampled = _sample(model, num_samples, batch_size, seed)
    report: dict[str, Any] = {
        "num_test_images": len(scenes),
        **_objective_report(model, scenes.images, batch_size, seed),
        **_inference_report(model, scenes, inferred),
        **_sample_report(model, sampled, rules),
    }
    if model.finds_objects and rules:
        batches = _batches(scenes.images, batch_size)
        report["rules"] = rules_report(model, batches, sampled["count"], sampled["boxes"], rules, seed)
    if num_likelihood_images:
        images = scenes.images[:num_likelihood_images]
        report |= _likelihood_report(model, images, num_particles, batch_size, seed)
    return report, {"inferred": inferred, "sampled": sampled}


def validation_metrics(model: Any, scenes: Scenes) -> dict[str, float]:
    """The headline metrics of deterministic inference, for reports while training.

    Args:
        model: an `ASRModel` or `ImageVAE`.
        scenes: a few hundred at most: they pass in one batch.

    Returns:
        `squared_error` an image; `count_accuracy` and `mean_iou` where counts and boxes are known.
    """
    outputs = model.infer(checks.check_images(scenes.images))
    inferred = {name: np.asarray(value) for name, value in outputs.items()}
    values = {"squared_error": _squared_error(scenes.images, inferred["reconstruction"])}
    if model.finds_objects and scenes.counts is not None:
        values["count_accuracy"] = metrics.count_accuracy(inferred["count"], scenes.counts)
        if scenes.boxes is not None:
            values["mean_iou"] = metrics.mean_iou(
                inferred["boxes"], inferred["count"], scenes.boxes, scenes.counts
            )
    return values


def _batches(images: np.ndarray, batch_size: int) -> Iterator[tuple[np.ndarray, int]]:
    """Batches float32 [b, H, W, C] of one size, and how many images of each are wanted.

    The last batch is filled up with the first images, so that nothing has to be traced twice.
    """
    batch_size = min(batch_size, len(images))
    for start in range(0, len(images), batch_size):
        rows = np.arange(start, start + batch_size) % len(images)
        wanted = min(batch_size, len(images) - start)
        yield checks.check_images(images[rows]), wanted


def _infer(model: Any, scenes: Scenes, batch_size: int) -> dict[str, np.ndarray]:
    chunks = []
    options = {"with_objects": True} if model.finds_objects else {}
    locate = tf.function(model.recognition.locate) if model.finds_objects else None
    for batch, wanted in _batches(scenes.images, batch_size):
        outputs = dict(model.infer(batch, **options))
        if locate is not None and scenes.boxes is not None:
            posterior, _ = locate(batch)
            outputs |= {name: getattr(posterior, name) for name in _OF_WINDOWS}
        if scenes.masks is None:
            outputs.pop("masks", None)
        outputs = {name: np.asarray(value)[:wanted] for name, value in outputs.items()}
        if model.finds_objects:
            # Objects are by far the largest output: only the rectangles of their ink are kept.
            outputs["ink_boxes"] = metrics.ink_boxes_of_objects(outputs["objects"], outputs["count"])
        if "masks" in outputs:
            outputs["masks"] = np.round(255.0 * outputs["masks"][..., 0]).astype(np.uint8)
        chunks.append(outputs)
    return _joined(chunks)


def _joined(chunks: list[dict[str, np.ndarray]]) -> dict[str, np.ndarray]:
    """What the report looks at, of all batches."""
    names = [name for name in (*_OF_IMAGES, *_OF_OBJECTS, *_OF_WINDOWS) if name in chunks[0]]
    return {name: np.concatenate([chunk[name] for chunk in chunks]) for name in names}


def _sample(model: Any, number: int, batch_size: int, seed: int) -> dict[str, np.ndarray]:
    chunks = []
    batch_size = min(batch_size, number)
    for start in range(0, number, batch_size):
        outputs = model.sample(batch_size, seed=(seed, start))
        chunks.append({name: np.asarray(value) for name, value in outputs.items()})
    return {name: values[:number] for name, values in _joined(chunks).items()}


def _squared_error(images: np.ndarray, reconstruction: np.ndarray) -> float:
    difference = images / np.float32(255.0) - reconstruction
    return float(np.square(difference).sum(axis=(1, 2, 3)).mean())


def _objective_report(
    model: Any, images: np.ndarray, batch_size: int, seed: int
) -> dict[str, float]:
    """The bound's terms, means over images, and the penalties, means over batches."""
    terms_of = tf.function(model.objective)
    test_step = tf.function(lambda batch: model.test_step({"image": batch}))
    terms, penalties = [], []
    fields: tuple[str, ...] = ()
    for index, (batch, wanted) in enumerate(_batches(images, batch_size)):
        batch = tf.constant(batch)
        batch_terms = terms_of(batch, tf.constant([seed, index]))._asdict()
        batch_terms = {name: term for name, term in batch_terms.items() if term is not None}
        fields = tuple(batch_terms)
        terms.append([term[:wanted] for term in batch_terms.values()])
        # Keras's metrics accumulate: without the reset this would be the mean so far.
        for metric in model.metrics:
            metric.reset_state()
        logs = test_step(batch)
        penalties.append({k: float(v) for k, v in logs.items() if k.startswith("penalty_")})
    means = [
        float(np.mean(np.concatenate(parts), dtype=np.float64))
        for parts in zip(*terms, strict=True)
    ]
    named = {f"{k}_nats": mean for k, mean in zip(fields, means, strict=True)}
    return {
        "negative_elbo_nats": math.fsum(means) if np.isfinite(means).all() else math.nan,
        **named,
        **{name: float(np.mean([part[name] for part in penalties])) for name in penalties[0]},
    }


def _inference_report(
    model: Any, scenes: Scenes, inferred: Mapping[str, np.ndarray]
) -> dict[str, Any]:
    """What `infer` got right, as far as the truth is known."""
    truth = scenes.counts
    report: dict[str, Any] = {
        "squared_error": _squared_error(scenes.images, inferred["reconstruction"])
    }
    if truth is None or not model.finds_objects:
        return report
    counts = inferred["count"]
    found = {name: np.nan_to_num(inferred[name]) for name in score.ARRAYS if name in inferred}
    known = {"count": truth, "boxes": scenes.boxes, "masks": scenes.masks}
    report |= score.score(found, known)
    del report["num_images"]
    confidence = inferred["count_probs"].max(axis=1)
    report["count_reliability"] = calibration.reliability(confidence, counts == truth)
    report["count_ece"] = calibration.expected_calibration_error(report["count_reliability"])
    # A count beyond what the model can infer has no probability at all.
    reachable = np.minimum(truth, model.num_steps)
    right_probs = inferred["count_probs"][np.arange(len(truth)), reachable]
    report["sampled_count_accuracy"] = float(np.mean(right_probs * (truth == reachable)))
    most_objects = int(truth.max()) if scenes.boxes is None else scenes.boxes.shape[1]
    report["count_confusion"] = metrics.count_confusion(
        counts, truth, model.num_steps, most_objects
    ).tolist()
    if scenes.boxes is not None:
        pairs = (inferred["boxes"], counts, scenes.boxes, truth)
        report["mean_iou"] = metrics.mean_iou(*pairs)
        report["box_precision_recall"] = metrics.precision_recall(*pairs)
        report["box_coverage"] = _box_coverage(inferred, scenes)
    if scenes.ink_boxes is not None:
        report["mean_ink_iou"] = metrics.mean_iou(
            inferred["ink_boxes"], counts, scenes.ink_boxes, truth
        )
    return report


def _box_coverage(inferred: Mapping[str, np.ndarray], scenes: Scenes) -> dict[str, list[float]]:
    """By latent, how often the true one of a matched object lies in the posterior's central intervals of `level`."""
    matching = metrics.match_boxes(inferred["boxes"], inferred["count"], scenes.boxes, scenes.counts)
    scene, step = np.nonzero(matching.ious > 0.0)
    assert scenes.boxes is not None
    true = scenes.boxes[scene, matching.indices[scene, step]]
    report: dict[str, list[float]] = {"level": list(calibration.LEVELS)}
    latents = zip(("shift", "scale"), calibration.window_latents(true, scenes.canvas_size), strict=True)
    for name, latent in latents:
        loc, log_scale = (inferred[f"{name}_{part}"][scene, step] for part in ("loc", "log_scale"))
        report[name] = calibration.coverage(((latent - loc) / np.exp(log_scale)).ravel())
    return report


def _sample_report(
    model: Any, sampled: Mapping[str, np.ndarray], rules: Sequence[Constraint]
) -> dict[str, Any]:
    """How many sampled scenes have which count and break which rule."""
    number = len(sampled["images"])
    if not model.finds_objects:
        return {"num_samples": number}
    counts = sampled["count"]
    scenes = SceneStatistics.of_finished(counts, sampled["boxes"], model.canvas_size)
    report: dict[str, Any] = {
        "num_samples": number,
        "sample_counts": np.bincount(counts, minlength=model.num_steps + 1).tolist(),
        "broken_rules": {
            name: {"fraction": float(broken.mean()), "number": int(broken.sum())}
            for name, broken in metrics.broken_rules(rules, scenes).items()
        },
    }
    count_rules = [rule for rule in rules if isinstance(rule, CountInSet)]
    if count_rules:
        allowed = [np.isin(counts, rule.counts) for rule in count_rules]
        report["samples_with_allowed_count"] = float(np.mean(np.all(allowed, axis=0)))
    return report


def _likelihood_report(
    model: Any, images: np.ndarray, num_particles: int, batch_size: int, seed: int
) -> dict[str, Any]:
    """The importance-weighted bound of log p(x), a mean over images."""
    values = []
    for index, (batch, wanted) in enumerate(_batches(images, batch_size)):
        # The model counts the second number up by particle.
        batch_seed = (seed, index * num_particles)
        log_likelihood = model.log_likelihood(batch, num_particles, seed=batch_seed)
        values.append(np.asarray(log_likelihood)[:wanted])
    nats = np.concatenate(values).astype(np.float64)
    return {
        "log_likelihood_nats": float(nats.mean()),
        "log_likelihood_standard_error_nats": float(nats.std() / math.sqrt(len(nats))),
        "log_likelihood_particles": num_particles,
        "log_likelihood_images": len(nats),
    }
