"""The detector of `benchmarks.detector`: its maps, its labels, and that it learns; what it measures takes minutes."""

import json

import numpy as np
import pytest
import tensorflow as tf

from asr_tf.data import DataSource, Scenes
from asr_tf.evaluation import score
from asr_tf.runs import run_folder
from benchmarks import cell_runs, detector, results_page

CANVAS = (30, 44)  # 8 x 11 cells, the last row of which is cut off


def encode(boxes, counts, canvas_size=CANVAS):
    return detector.encode(tf.constant(boxes, tf.float32), tf.constant(counts, tf.int32), canvas_size).numpy()


def random_boxes(rng, canvas_size, most):
    """Boxes [most, 4] in pixels within the canvas, no two centres in one cell."""
    boxes, taken = [], set()
    while len(boxes) < most:
        start, end = np.sort(rng.uniform(0.0, canvas_size, (2, 2)), axis=0)
        cell = tuple(((start + end) // (2 * detector.STRIDE_PX)).tolist())
        if cell not in taken and (end - start).min() > 1.0:
            taken.add(cell)
            boxes.append([*start, *end])
    return np.array(boxes)


def drawn_scenes(num_scenes, seed=0, canvas_size=(24, 32)):
    """Grey rectangles on black, one in the left half of the canvas and in every second scene one in the right half."""
    rng = np.random.default_rng(seed)
    images = np.zeros((num_scenes, *canvas_size, 1), np.uint8)
    counts = 1 + np.arange(num_scenes, dtype=np.int32) % 2
    boxes = np.zeros((num_scenes, 2, 4), np.float32)
    for image, count, rows in zip(images, counts, boxes, strict=True):
        for row in range(count):
            size = rng.integers(5, 12, 2)
            start = rng.integers(0, [canvas_size[0] - size[0], 15 - size[1]]) + [0, 16 * row]
            image[start[0] : start[0] + size[0], start[1] : start[1] + size[1]] = rng.integers(100, 256)
            rows[row] = [*start, *start + size] / np.array(canvas_size * 2)
    return Scenes(images, counts=counts, ink_boxes=boxes)


def test_maps_by_hand():
    # The centre lies at (5, 8) px: in cell (1, 2), a quarter of a cell below its upper edge and on its left edge.
    maps = encode([[[2 / 16, 5 / 20, 8 / 16, 11 / 20], [0.0] * 4]], [1], (16, 20))
    assert maps.shape == (1, 4, 5, 5)
    np.testing.assert_allclose(maps[0, 1, 2], [1.0, 0.25, 0.0, np.log(6.0), np.log(6.0)], rtol=1e-5, atol=1e-6)
    # A box of 6 px has a deviation of 6 / 6 / 4 = 0.25 cells.
    np.testing.assert_allclose(maps[0, 1, 3], [np.exp(-8.0), 0.0, 0.0, 0.0, 0.0], rtol=1e-5)
    assert np.count_nonzero(maps[..., 1:]) == 3


def test_decoding_is_the_inverse_of_encoding():
    rng = np.random.default_rng(0)
    counts = rng.integers(0, 5, 40)
    boxes = np.stack([random_boxes(rng, CANVAS, 4) for _ in counts]) / np.array(CANVAS * 2)
    found = detector.decode(encode(boxes, counts), CANVAS)
    np.testing.assert_array_equal(found["count"], counts)
    for index, count in enumerate(counts):
        true, decoded = (np.array(sorted(rows[index, :count].tolist())) for rows in (boxes, found["boxes"]))
        np.testing.assert_allclose(decoded, true, atol=1e-5)
        np.testing.assert_array_equal(found["scores"][index, :count], 1.0)
    # The boxes are a perfect answer to themselves.
    scores = score.score(found, {"count": counts, "boxes": boxes})
    assert scores["ap"] == scores["count_accuracy"] == 1.0


def test_of_two_centres_in_a_cell_the_first_counts():
    boxes = np.array([[[0.0, 0.0, 0.25, 0.25], [0.0, 0.0, 0.3, 0.3], [0.5, 0.5, 0.75, 1.0]]])
    found = detector.decode(encode(boxes, [3], (16, 16)), (16, 16))
    assert found["count"].tolist() == [2]
    np.testing.assert_allclose(found["boxes"][0, :2], boxes[0, [0, 2]], atol=1e-6)


def test_peaks_of_two_objects_are_separated():
    maps = np.zeros((1, 5, 9, 5), np.float32)
    maps[0, 2, :, 0] = [0.1, 0.6, 0.3, 0.9, 0.8, 0.01, 0.0, 0.0, 0.015]  # a plateau's slope and a faint spot are none
    maps[..., 3:] = np.log(8.0)
    maps[0, 2, 1, 1:3] = 0.5
    found = detector.decode(maps, (20, 36))
    assert found["count"].tolist() == [2]
    np.testing.assert_allclose(found["scores"][0, :3], [0.9, 0.6, 0.0])
    corners_px = np.array([[4.0, 8.0, 12.0, 16.0], [6.0, 2.0, 14.0, 10.0]])
    np.testing.assert_allclose(found["boxes"][0, :2] * [20, 36, 20, 36], corners_px, rtol=1e-6)


def test_tight_boxes_equal_a_slow_computation():
    rng = np.random.default_rng(1)
    shares = rng.uniform(size=(30, 3, 7, 9, 1)) ** 8
    count = rng.integers(0, 4, 30)
    windows = np.zeros((30, 3, 4), np.float32)
    for least_share in (0.1, 0.5, 0.9):
        boxes, number = detector.tight_boxes(shares, windows, count, least_share)
        assert boxes.shape == (30, 3, 4) and boxes.dtype == np.float32 and number.dtype == np.int32
        for image in range(30):
            expected = []
            for step in range(count[image]):
                pixels = [(y, x) for y in range(7) for x in range(9) if shares[image, step, y, x, 0] >= least_share]
                if pixels:
                    (ymin, xmin), (ymax, xmax) = np.min(pixels, axis=0), np.max(pixels, axis=0) + 1
                    expected.append([ymin / 7, xmin / 9, ymax / 7, xmax / 9])
            assert number[image] == len(expected)
            expected += [[0.0] * 4] * (3 - len(expected))
            np.testing.assert_allclose(boxes[image], expected, rtol=1e-6)


class Blurred:
    """A model that finds and draws rectangles with soft edges.

    A share of 1 lies within, of 0.15 in the ring around it, which is ink too, and of 0.07 in a halo that isn't.
    """

    def __init__(self, first_count=1):
        self._first_count = first_count
        self.seeds = []

    def _masks(self, number):
        masks = np.zeros((number, 2, 24, 32, 1), np.float32)
        for margin, share in ((2, 0.07), (1, 0.15), (0, 1.0)):
            masks[:, 0, 8 - margin : 14 + margin, 6 - margin : 16 + margin] = share
        masks[1::2, 1, 2:6, 20:30] = 1.0
        return masks

    def _scenes(self, number):
        masks = self._masks(number)
        count = np.where(np.arange(number) % 2, 2, self._first_count)
        return {"count": count, "boxes": np.zeros((number, 2, 4), np.float32), "masks": masks}

    def infer(self, images, with_objects):
        assert with_objects
        scenes = self._scenes(len(images))
        return {**scenes, "objects": 0.6 * scenes["masks"]}  # a grey object has its whole share too

    def sample(self, num_samples, seed, with_masks):
        assert with_masks
        self.seeds.append(seed)
        scenes = self._scenes(num_samples)
        return {"images": scenes["masks"].sum(axis=1), **scenes}


RING_PX, SECOND_PX = [7, 5, 15, 17], [2, 20, 6, 30]


def inked_scenes(number):
    """What `Blurred` finds as it really is: ink has sharp edges."""
    images = np.where(Blurred()._masks(number).sum(axis=1) > 0.1, 9, 0).astype(np.uint8)
    boxes = np.tile(np.float32([RING_PX, SECOND_PX]) / [24, 32, 24, 32], (number, 1, 1))
    return Scenes(images, counts=1 + np.arange(number, dtype=np.int32) % 2, ink_boxes=boxes)


def test_the_share_that_fits_needs_no_label():
    images = inked_scenes(4).images
    images[1::2] = 255  # where two objects are found the image isn't looked at
    fits = detector.share_fits(Blurred(), images)
    assert tuple(fits) == detector.SHARES
    halo, ring, inner = 10 * 14, 8 * 12, 6 * 10  # px
    assert fits[0.05] == pytest.approx(ring / halo) and fits[0.5] == pytest.approx(inner / ring)
    assert fits[0.1] == pytest.approx(1.0) and fits[0.2] == fits[0.5]
    with pytest.raises(ValueError, match="one object in none of 2 images"):
        detector.share_fits(Blurred(first_count=2), images[:2])


def test_sampled_scenes_are_those_of_the_seed_with_their_boxes():
    model = Blurred()
    scenes = detector.sampled_scenes(model, 300, 5, 0.1)
    assert model.seeds == [(5, 0), (5, 256)]
    assert scenes.images.shape == (300, 24, 32, 1) and set(np.unique(scenes.images)) == {0, 18, 38, 255}
    np.testing.assert_array_equal(scenes.counts, 1 + np.arange(300) % 2)
    boxes_px = scenes.ink_boxes * [24, 32, 24, 32]
    np.testing.assert_allclose(boxes_px[0], [RING_PX, [0] * 4], rtol=1e-6)
    np.testing.assert_allclose(boxes_px[1], [RING_PX, SECOND_PX], rtol=1e-6)


def test_it_overfits_a_handful_of_rectangles():
    scenes = drawn_scenes(8)
    learned = detector.train(scenes, seed=0, epochs=1600)
    scores = score.score(detector.detect(learned, scenes.images), {"count": scenes.counts, "boxes": scenes.ink_boxes})
    assert scores["ap50"] == 1.0 and scores["ap75"] > 0.9


def test_the_same_seed_gives_the_same_detector():
    scenes = drawn_scenes(20)
    first, again, other = (detector.train(scenes, seed, epochs=10).get_weights() for seed in (0, 0, 1))
    for one, same in zip(first, again, strict=True):
        np.testing.assert_allclose(one, same, atol=1e-4)
    assert np.abs(first[0] - other[0]).max() > 0.1


@pytest.fixture
def quick(monkeypatch, tmp_path):
    """Stands in for the run, its data and the training of detectors; returns what the detectors learned from."""
    splits = {"train": drawn_scenes(30, 1), "validation": inked_scenes(4), "test": drawn_scenes(6, 3)}
    learned = []
    answers = iter([(1, 2), (2, 2)])  # of each detector the objects that it finds, of the validation and test scenes

    def detect(which, images):
        (true,) = (scenes for scenes in splits.values() if scenes.images is images)
        found = np.minimum(true.counts, which)
        return {"count": found, "boxes": true.ink_boxes, "scores": np.ones(true.ink_boxes.shape[:2])}

    monkeypatch.setattr(cell_runs, "train_cell", lambda *_: (tmp_path / "run", "digest"))
    monkeypatch.setattr(run_folder, "restore_model", lambda _: (Blurred(), {"steps": 7, "train_seconds": 1.25}))
    monkeypatch.setattr(DataSource, "__init__", lambda self: None)
    monkeypatch.setattr(DataSource, "load", lambda self, split, manual_dir: splits[split])
    monkeypatch.setattr(detector, "NUM_SCENES", 20)
    monkeypatch.setattr(detector, "train", lambda scenes, seed: (learned.append(scenes), next(answers)[0])[1])
    monkeypatch.setattr(detector, "detect", detect)
    return learned


def test_both_detectors_are_measured_alike(quick, tmp_path, monkeypatch, capsys):
    output = tmp_path / "detector.json"
    flags = ["--seed=3", "--minutes=2", f"--data={tmp_path}", f"--runs={tmp_path}", f"--output={output}"]
    monkeypatch.setattr("sys.argv", ["detector", *flags])
    detector.main()
    figures = json.loads(output.read_text())
    sampled, true = quick
    np.testing.assert_array_equal(true.images, drawn_scenes(30, 1).images[:20])
    assert figures["least_share"] == 0.1 and figures["share_fits"]["0.1"] == 1.0
    np.testing.assert_allclose(sampled.ink_boxes[0, 0] * [24, 32, 24, 32], RING_PX, rtol=1e-6)
    # The first detector finds 6 of the 9 true objects of the test split: precision 1 at 67 of 101 recalls.
    assert figures["sampled"]["test"] == dict.fromkeys(("ap50", "ap", "ap75"), round(67 / 101, 4))
    assert figures["true"]["test"]["ap50"] == 1.0 and figures["ratio"]["ap50"] == round(67 / 101, 4)
    assert figures["sampled"]["scenes"] == figures["true"]["scenes"] == 20
    assert (figures["seed"], figures["minutes"], figures["train_steps"]) == (3, 2.0, 7)
    shown = results_page.detector_table(figures)
    assert capsys.readouterr().out == shown + "\n" and shown.endswith("\n| ratio | 0.663 | 0.663 | 0.663 |")
    text = results_page.page([], detected=figures)
    assert shown in text and "trained once on 20 scenes" in text and "\n0.1 on, which" in text
    assert "\n    python -m benchmarks.detector --seed=3 --minutes=2\n" in text


@pytest.mark.parametrize(
    ("flag", "message"),
    [("--output=/missing/detector.json", "there is no folder /missing."), ("--data=/missing", "no folder /missing")],
)
def test_it_refuses_in_one_line(flag, message, monkeypatch, tmp_path):
    monkeypatch.setattr("sys.argv", ["detector", f"--output={tmp_path}/x.json", f"--runs={tmp_path}", flag])
    with pytest.raises(SystemExit) as caught:
        detector.main()
    text = str(caught.value)
    assert text.startswith("benchmarks.detector: error: ") and message in text and "\n" not in text
