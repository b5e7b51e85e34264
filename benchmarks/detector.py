"""Sampled scenes as labelled data: a detector that learns from them, beside one that learns from true labels.

    python -m benchmarks.detector --seed=0 --minutes=5 [--data=FOLDER] [--runs=FOLDER] [--output=FILE]

Trains the model asr/mnist/count13 as `benchmarks.reproduce` does, or takes the finished run, and draws 20,000 scenes of
its prior, those that `asr_sample --num_samples=20000` draws with the same seed.  Their labels are the tight boxes
around the objects' masks.  Two detectors with the same settings and seed learn, one from these scenes, the other from
the first 20,000 training scenes with their true boxes.  Both are measured on the true boxes of the test scenes.

The first detector learns from no label of a real image.  A pixel belongs to an object's mask from a share on that
images without labels tell, see `share_fits`; in what asr_sample writes it is a half.  The settings below, which both
detectors share, were chosen on validation scenes with their labels.

References:
    Zhou et al., "Objects as Points", 2019, arXiv:1904.07850: maps of centres, offsets and sizes, and their loss.
"""

from __future__ import annotations

import argparse
import json
import pathlib
import sys
import time
from collections.abc import Mapping
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from scipy import ndimage, special

from asr_tf import checks
from asr_tf.data import DataSource, Scenes, training_dataset
from asr_tf.evaluation import metrics, score
from asr_tf.labelled.objects import visible_objects
from asr_tf.models.bound_model import initial_weights_from
from asr_tf.runs import run_folder
from asr_tf.runs.files import json_ready, write_whole
from asr_tf.version import __version__
from benchmarks import cell_runs, command, results_page
from benchmarks.cells import ROOT, Cell

__all__ = ["decode", "detect", "encode", "measure", "share_fits", "tight_boxes", "train"]

CELL = Cell("asr", "mnist", "count13")
NUM_SCENES = 20_000  # for each detector
SHARES = (0.05, 0.1, 0.15, 0.2, 0.25, 0.3, 0.4, 0.5)

STRIDE_PX = 4  # side of a cell of the detector's maps
CHANNELS = 32
NUM_BLOCKS = 4
BATCH_SIZE = 64
EPOCHS = 20
PEAK_LEARNING_RATE = 2e-3
LEAST_SCORE = 0.02  # peaks below it aren't reported
MOST_PEAKS = 20

_CHUNK = 256  # scenes drawn at once, as in asr_sample: another number gives other scenes
_FIGURES = tuple(results_page.DETECTOR_FIGURES)


# Labels of scenes.


def tight_boxes(
    shares: np.ndarray, windows: np.ndarray, count: np.ndarray, least_share: float
) -> tuple[np.ndarray, np.ndarray]:
    """The tight box around each object's mask.

    Args:
        shares: float [N, T, H, W, 1] in [0, 1], each object's share of each pixel.
        windows: float32 [N, T, 4], those of the model.
        count: int [N]; the first `count` steps are present.
        least_share: from which on a pixel belongs to a mask.

    Returns:
        (boxes, number): float32 [N, T, 4], `[ymin, xmin, ymax, xmax]` as canvas fractions, those of objects that can be
        seen first and zeros after them; and int32 [N], how many these are.
    """
    objects = visible_objects(shares, windows, count, least_share)
    number = np.bincount(objects.images, minlength=len(count))
    row = np.arange(len(objects.images)) - np.repeat(np.cumsum(number) - number, number)
    boxes = np.zeros((*shares.shape[:2], 4), np.float32)
    boxes[objects.images, row] = objects.boxes_px / np.array(shares.shape[2:4] * 2)
    return boxes, number.astype(np.int32)


def share_fits(model: Any, images: np.ndarray) -> dict[float, float]:
    """How well the boxes of what the model draws fit the ink of the images, by the least share of a pixel.

    Looks at images in which the model finds one object.  There the true box is that of all that isn't black, without a
    label, and the object's share of a pixel is its brightness over that of its brightest pixel.

    Args:
        model: an `ASRModel`.
        images: uint8 [N, H, W, C].

    Returns:
        The mean IoU of the two boxes, by the shares of `SHARES`.

    Raises:
        ValueError: there is no image with one object.
    """
    inferred = model.infer(images, with_objects=True)
    count, objects = (np.asarray(inferred[name]) for name in ("count", "objects"))
    single = count == 1
    if not single.any():
        raise ValueError(f"the model finds one object in none of {len(images)} images: no share can be chosen.")
    count, objects = count[single], objects[single]
    true = metrics.ink_boxes_of_objects(images[single][:, np.newaxis] > 0, count)
    found = {share: metrics.ink_boxes_of_objects(objects, count, share) for share in SHARES}
    return {share: metrics.mean_iou(boxes, count, true, count) for share, boxes in found.items()}


def sampled_scenes(model: Any, num_scenes: int, seed: int, least_share: float) -> Scenes:
    """Scenes of the prior with the boxes of their objects, see `tight_boxes`, as `ink_boxes`.

    Args:
        model: an `ASRModel`.
        num_scenes: N.
        seed: as of asr_sample.
        least_share: from which on a pixel belongs to a mask.
    """
    chunks = []
    for start in range(0, num_scenes, _CHUNK):
        drawn = model.sample(min(_CHUNK, num_scenes - start), seed=(seed, start), with_masks=True)
        images, count, windows, masks = (np.asarray(drawn[name]) for name in ("images", "count", "boxes", "masks"))
        chunks.append((np.rint(255.0 * images).astype(np.uint8), *tight_boxes(masks, windows, count, least_share)))
    images, boxes, counts = (np.concatenate(arrays) for arrays in zip(*chunks, strict=True))
    return Scenes(images, counts=counts, ink_boxes=boxes)


# The detector.  Its maps are [N, h, w, 5] with h = ceil(H / STRIDE_PX) and w likewise.  A cell says how near the centre
# of an object is (1 in the cell that holds it), where in the cell that centre is (y and x, in cells), and the natural
# logarithms of the object's height and width in pixels.


def encode(boxes: tf.Tensor, counts: tf.Tensor, canvas_size: tuple[int, int]) -> tf.Tensor:
    """The maps of objects.  `decode` is the inverse where no two centres lie in one cell or in neighbouring ones.

    Args:
        boxes: float32 [N, M, 4], `[ymin, xmin, ymax, xmax]` as canvas fractions; those present aren't empty.
        counts: int32 [N]; the first `counts` boxes are present.
        canvas_size: (H, W) in pixels.

    Returns:
        float32 [N, h, w, 5]; places and sizes are zeros in cells without a centre.
    """
    num_cells = [-(-side // STRIDE_PX) for side in canvas_size]
    present = tf.sequence_mask(counts, boxes.shape[1])[..., tf.newaxis]
    start_px, end_px = tf.split(boxes * tf.constant([*canvas_size] * 2, tf.float32), 2, axis=-1)
    size_px = tf.where(present, end_px - start_px, 1.0)  # [N, M, 2]
    centre = (start_px + end_px) / (2.0 * STRIDE_PX)
    cell = tf.minimum(tf.floor(centre), tf.constant(num_cells, tf.float32) - 1.0)
    deviation = tf.maximum(size_px / (6.0 * STRIDE_PX), 0.25)  # in cells: a box reaches three of them to each side

    def near(axis: int) -> tf.Tensor:
        """Gaussian along an axis, [N, M, h or w]."""
        distance = tf.range(num_cells[axis], dtype=tf.float32) - cell[..., axis, tf.newaxis]
        return tf.exp(-0.5 * tf.square(distance / deviation[..., axis, tf.newaxis]))

    heat = near(0)[..., tf.newaxis] * near(1)[..., tf.newaxis, :]  # [N, M, h, w]
    heat = tf.where(present[..., tf.newaxis], heat, 0.0)
    holds = tf.cast(heat == 1.0, tf.float32)
    holds *= tf.cast(tf.cumsum(holds, axis=1) == 1.0, tf.float32)  # of several centres in a cell the first counts
    values = tf.concat([centre - cell, tf.math.log(size_px)], axis=-1)
    return tf.concat([tf.reduce_max(heat, axis=1)[..., tf.newaxis], tf.einsum("nmyx,nmk->nyxk", holds, values)], -1)


def decode(maps: np.ndarray, canvas_size: tuple[int, int]) -> dict[str, np.ndarray]:
    """The objects that maps show: cells in which the centre is nearer than in the eight around them.

    Args:
        maps: float [N, h, w, 5].
        canvas_size: (H, W) in pixels.

    Returns:
        The surest first: `count` int64 [N]; `boxes` float [N, P, 4], `[ymin, xmin, ymax, xmax]` as canvas fractions,
        and `scores` [N, P], the height of the peak, with P = `MOST_PEAKS` or all cells if they are fewer.  Only the
        first `count` rows mean anything.
    """
    heat = maps[..., 0]
    highest = ndimage.maximum_filter(heat, size=(1, 3, 3), mode="constant")
    peaks = np.where((heat == highest) & (heat >= LEAST_SCORE), heat, 0.0).reshape(len(maps), -1)
    cells_of_peaks = np.argsort(-peaks, axis=1, kind="stable")[:, :MOST_PEAKS]
    scores = np.take_along_axis(peaks, cells_of_peaks, axis=1)
    values = np.take_along_axis(maps.reshape(*peaks.shape, 5), cells_of_peaks[..., np.newaxis], axis=1)
    centre_px = STRIDE_PX * (np.stack(np.divmod(cells_of_peaks, maps.shape[2]), axis=-1) + values[..., 1:3])
    half_px = np.exp(values[..., 3:]) / 2.0
    boxes = np.concatenate([centre_px - half_px, centre_px + half_px], axis=-1) / np.array([*canvas_size] * 2)
    return {"count": np.count_nonzero(scores, axis=1), "boxes": boxes, "scores": scores}


def _build(canvas_size: tuple[int, int], channels: int, seed: int) -> keras.Model:
    """The network: images float32 [B, H, W, C] to maps [B, h, w, 5], of which the first are logits."""
    layers = keras.layers
    with initial_weights_from(seed):
        images = keras.Input((*canvas_size, channels))
        x = layers.Conv2D(CHANNELS // 2, 3, strides=2, padding="same", activation="relu")(images)
        x = layers.Conv2D(CHANNELS, 3, strides=2, padding="same", activation="relu")(x)
        for _ in range(NUM_BLOCKS):
            x = layers.Conv2D(CHANNELS, 3, padding="same", activation="relu")(x)
        return keras.Model(images, layers.Conv2D(5, 1)(x))


def _loss(true: tf.Tensor, found: tf.Tensor) -> tf.Tensor:
    """The penalty-reduced focal loss of centres, and where there is one the L1 distance of the rest; an object's."""
    heat, logits = true[..., 0], found[..., 0]
    holds = tf.cast(heat == 1.0, tf.float32)
    probs = tf.sigmoid(logits)
    centres = holds * tf.square(1.0 - probs) * tf.math.log_sigmoid(logits)
    others = (1.0 - holds) * (1.0 - heat) ** 4 * tf.square(probs) * tf.math.log_sigmoid(-logits)
    distance = holds[..., tf.newaxis] * tf.abs(true[..., 1:] - found[..., 1:])
    total = tf.reduce_sum(distance) - tf.reduce_sum(centres + others)
    return total / tf.maximum(tf.reduce_sum(holds), 1.0)


def train(scenes: Scenes, seed: int, epochs: int = EPOCHS) -> keras.Model:
    """A detector that has learned the scenes' ink boxes.

    Args:
        scenes: with counts and ink boxes.
        seed: of the initial weights and the order of the scenes.
        epochs: how often each scene comes.
    """
    steps = -(-epochs * len(scenes) // BATCH_SIZE)
    detector = _build(scenes.canvas_size, scenes.channels, seed)
    rate = keras.optimizers.schedules.CosineDecay(PEAK_LEARNING_RATE, steps)
    # These convolutions take twice as long when XLA compiles them for a CPU.
    detector.compile(optimizer=keras.optimizers.Adam(rate), loss=_loss, jit_compile=False)
    batches = training_dataset(scenes, BATCH_SIZE, seed).map(
        lambda batch: (batch["image"], encode(batch["ink_boxes"], batch["count"], scenes.canvas_size))
    )
    detector.fit(batches, steps_per_epoch=steps, shuffle=False, verbose=0)
    return detector


def detect(detector: keras.Model, images: np.ndarray) -> dict[str, np.ndarray]:
    """What a detector finds, as `asr_tf.evaluation.score` takes it.

    Args:
        detector: as `train` gives it.
        images: uint8 [N, H, W, C], a few thousand at most: they pass in one batch.

    Returns:
        See `decode`.
    """
    maps = detector.predict_on_batch(checks.check_images(images))
    maps[..., 0] = special.expit(maps[..., 0])
    return decode(maps, images.shape[1:3])


# The measurement.


def _measured(scenes: Scenes, held_out: Mapping[str, Scenes], seed: int) -> dict[str, Any]:
    """Trains a detector on the scenes; its figures on the others, which have true boxes."""
    start = time.perf_counter()
    detector = train(scenes, seed)
    figures: dict[str, Any] = {"scenes": len(scenes), "train_seconds": round(time.perf_counter() - start, 1)}
    for split, true in held_out.items():
        scores = score.score(detect(detector, true.images), {"count": true.counts, "boxes": true.ink_boxes})
        figures[split] = {name: round(scores[name], 4) for name in _FIGURES}
    return figures


def measure(seed: int, minutes: float, data: pathlib.Path, runs: pathlib.Path) -> dict[str, Any]:
    """Both detectors' figures on validation and test scenes, the ratios of those on test scenes, and the settings.

    Args:
        seed: of the model, the scenes and the detectors.
        minutes: of the model's training.
        data: folder with mnist/.
        runs: where the runs' folders lie.

    Raises:
        ValueError: the model can't be trained, or no share can be chosen.
    """
    workdir, _ = cell_runs.train_cell(CELL, seed, minutes, data, runs)
    model, info = run_folder.restore_model(workdir)
    source = DataSource()  # the run's: gin holds its bindings
    splits = {split: source.load(split, manual_dir=data) for split in ("train", "validation", "test")}
    true = splits.pop("train").take(NUM_SCENES)
    fits = share_fits(model, splits["validation"].images)
    least_share = max(SHARES, key=lambda share: fits[share])
    sampled = sampled_scenes(model, NUM_SCENES, seed, least_share)
    figures = {"sampled": _measured(sampled, splits, seed), "true": _measured(true, splits, seed)}
    sampled_test, true_test = (figures[name]["test"] for name in ("sampled", "true"))
    return {
        "cell": CELL.name,
        "seed": seed,
        "minutes": minutes,
        "train_steps": info["steps"],
        "train_seconds": round(info["train_seconds"], 1),
        **figures,
        "ratio": {name: round(sampled_test[name] / true_test[name], 4) for name in _FIGURES},
        "least_share": least_share,
        "share_fits": {f"{share:g}": round(fit, 4) for share, fit in fits.items()},
        "settings": {
            "stride_px": STRIDE_PX,
            "channels": CHANNELS,
            "blocks": NUM_BLOCKS,
            "batch_size": BATCH_SIZE,
            "epochs": EPOCHS,
            "peak_learning_rate": PEAK_LEARNING_RATE,
            "least_score": LEAST_SCORE,
        },
        "versions": {
            "asr_tf": __version__,
            "tensorflow": tf.__version__,
            "keras": keras.__version__,
            "numpy": np.__version__,
        },
        "machine": command.machine(),
    }


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--seed", type=int, default=0, help="of model, scenes and detectors (default: 0)")
    parser.add_argument("--minutes", type=float, default=5.0, help="of the model's training (default: 5)")
    parser.add_argument("--data", type=pathlib.Path, help="folder with mnist/")
    parser.add_argument("--runs", type=pathlib.Path, default=ROOT / "runs" / "reproduce", help="where runs are kept")
    parser.add_argument("--output", type=pathlib.Path, default=results_page.DETECTOR, help="JSON file of the figures")
    arguments = parser.parse_args()
    try:
        if not arguments.output.absolute().parent.is_dir():
            raise ValueError(f"--output={arguments.output}: there is no folder {arguments.output.absolute().parent}.")
        figures = measure(arguments.seed, arguments.minutes, cell_runs.data_folder(arguments.data), arguments.runs)
    except ValueError as error:
        sys.exit(f"benchmarks.detector: error: {error}")
    write_whole(arguments.output, json.dumps(json_ready(figures), indent=2, allow_nan=False) + "\n")
    print(results_page.detector_table(figures))


if __name__ == "__main__":
    main()
