import hashlib

import numpy as np
import pytest
from scipy import ndimage

from asr_tf.data import synthesis
from asr_tf.data.scenes import Scenes
from asr_tf.data.synthesis import SceneSettings, synthesize, synthesize_in_chunks


def _blobs(num=12, size=16, seed=0):
    """Ragged random objects with ink in the middle; grey levels differ, so that objects can be told apart."""
    rng = np.random.default_rng(seed)
    images = np.zeros((num, size, size), np.uint8)
    for k, image in enumerate(images):
        height, width = rng.integers(5, size - 2, size=2)
        patch = (rng.uniform(size=(height, width)) < 0.7) * (40 + 15 * k)
        patch[height // 2] = patch[:, width // 2] = 40 + 15 * k  # in one piece
        image[1 : 1 + height, 1 : 1 + width] = patch
    return images


def _pixels(boxes, canvas_size):
    height, width = canvas_size
    pixels = boxes * np.array([height, width, height, width])
    np.testing.assert_allclose(pixels, np.rint(pixels), atol=1e-4)
    return np.rint(pixels).astype(int)


BLOBS = _blobs()
VALUES = BLOBS.max(axis=(1, 2))


@pytest.mark.parametrize("gap", [1, 3])
def test_ink_of_objects_is_apart_and_boxes_hold_it(gap):
    """By brute force: each object's ink, found by its grey level, against its boxes and the others' ink."""
    settings = SceneSettings(canvas_size=(36, 44), counts=(0, 1, 3), gap_px=gap)
    scenes = synthesize(BLOBS, settings, 300, seed=1, labels=np.arange(len(BLOBS)))
    assert scenes.images.shape == (300, 36, 44, 1)
    assert (scenes.masks.dtype, scenes.masks.shape) == (np.uint8, (300, 3, 36, 44))
    squares, inks = (_pixels(b, (36, 44)) for b in (scenes.boxes, scenes.ink_boxes))
    for i in range(300):
        image, count = scenes.images[i, :, :, 0], scenes.counts[i]
        assert np.all(scenes.labels[i, :count] >= 0)
        assert np.all(scenes.labels[i, count:] == -1)
        assert not squares[i, count:].any()
        assert not inks[i, count:].any()
        assert not scenes.masks[i, count:].any()
        owner = np.zeros(image.shape, int)
        for j in range(count):
            y0, x0, y1, x1 = inks[i, j]
            bank = BLOBS[scenes.labels[i, j]]
            rows, columns = np.nonzero(bank)
            crop = bank[rows.min() : rows.max() + 1, columns.min() : columns.max() + 1]
            assert crop.shape == (y1 - y0, x1 - x0)
            own = crop > 0
            np.testing.assert_array_equal(image[y0:y1, x0:x1][own], crop[own])
            assert not owner[y0:y1, x0:x1][own].any()
            owner[y0:y1, x0:x1][own] = j + 1
            mask = np.zeros_like(image)
            mask[y0:y1, x0:x1] = crop
            np.testing.assert_array_equal(scenes.masks[i, j], mask)
            sy0, sx0, sy1, sx1 = squares[i, j]
            side = max(crop.shape)
            assert (sy1 - sy0, sx1 - sx0) == (side, side)
            assert (y0 - sy0, x0 - sx0) == ((side - y1 + y0) // 2, (side - x1 + x0) // 2)
            assert min(sy0, sx0) >= 0
            assert sy1 <= 36
            assert sx1 <= 44
        np.testing.assert_array_equal(owner > 0, image > 0)
        for j in range(count):
            near = ndimage.binary_dilation(owner == j + 1, np.ones((3, 3)), iterations=gap)
            assert not (near & (owner > 0) & (owner != j + 1)).any()


@pytest.mark.parametrize(("gap", "margin"), [(0, 0), (2, 3)])
def test_square_crops_are_apart_and_keep_the_margin(gap, margin):
    settings = SceneSettings(
        canvas_size=(60, 90), counts=(2, 4), placement="boxes", gap_px=gap, margin_px=margin
    )
    scenes = synthesize(BLOBS, settings, 200, seed=2)
    boxes = _pixels(scenes.boxes, (60, 90))
    closest = 99
    for box, count in zip(boxes, scenes.counts, strict=True):
        assert (box[:count, :2] >= margin).all()
        assert (box[:count, 2:] <= np.array([60, 90]) - margin).all()
        for a in range(count):
            for b in range(a):
                free_y = max(box[a, 0] - box[b, 2], box[b, 0] - box[a, 2])
                free_x = max(box[a, 1] - box[b, 3], box[b, 1] - box[a, 3])
                closest = min(closest, max(free_y, free_x))
    assert closest == gap  # never closer, and as close as allowed


def test_wide_canvas_needs_more_than_one_word():
    settings = SceneSettings(canvas_size=(20, 200), counts=(6,))
    scenes = synthesize(BLOBS, settings, 100, seed=3)
    squares = _pixels(scenes.boxes, (20, 200))
    assert squares[..., 3].max() > 190
    # No pixel was painted twice: the ink in the images is the ink of the objects.
    labelled = synthesize(BLOBS, settings, 100, seed=3, labels=np.arange(len(BLOBS)))
    np.testing.assert_array_equal(labelled.images, scenes.images)
    sums = BLOBS.sum(axis=(1, 2), dtype=np.int64)[labelled.labels].sum(axis=1)
    np.testing.assert_array_equal(scenes.images.sum(axis=(1, 2, 3), dtype=np.int64), sums)
    np.testing.assert_array_equal(scenes.masks.sum(axis=1), scenes.images[..., 0])


@pytest.mark.parametrize(("num_scenes", "expected"), [(300, [100, 100, 100]), (302, [101, 101, 100])])
def test_counts_are_balanced_and_mixed(num_scenes, expected):
    scenes = synthesize(BLOBS, SceneSettings(canvas_size=(64, 64), counts=(1, 2, 4)), num_scenes, 0)
    assert [int((scenes.counts == count).sum()) for count in (1, 2, 4)] == expected
    assert 0 < (scenes.counts[:100] == 1).sum() < 100


def test_bytes_depend_on_the_seed_alone():
    settings = SceneSettings(counts=(1, 3), scale_range=(0.8, 1.2), rotation_range=(-30, 30))

    def digest(seed, workers):
        scenes = synthesize(BLOBS, settings, 1100, seed, num_workers=workers)
        return hashlib.sha256(
            b"".join(a.tobytes() for a in (scenes.images, scenes.counts, scenes.boxes, scenes.masks))
        ).hexdigest()

    first = digest(5, 1)
    assert first == digest(5, 1) == digest(5, 2) == digest(5, 3)
    assert first != digest(6, 1)


@pytest.mark.parametrize("workers", [1, 3])
def test_chunks_are_the_scenes_a_few_at_a_time(workers):
    settings = SceneSettings(counts=(0, 2))
    arguments = {"num_scenes": 1100, "seed": 5, "labels": np.arange(len(BLOBS)), "num_workers": workers}
    chunks = list(synthesize_in_chunks(BLOBS, settings, **arguments))
    assert [len(chunk) for chunk in chunks] == [512, 512, 76]
    for key, array in vars(synthesize(BLOBS, settings, **arguments)).items():
        np.testing.assert_array_equal(np.concatenate([getattr(chunk, key) for chunk in chunks]), array, err_msg=key)


def test_a_chunk_is_made_when_it_is_asked_for(monkeypatch):
    made = []
    chunk = Scenes(np.zeros((1, 2, 2, 1), np.uint8))
    monkeypatch.setattr(synthesis, "_make_chunk", lambda *arguments: made.append(1) or chunk)
    chunks = synthesize_in_chunks(BLOBS, SceneSettings(), 2000, 0)
    assert len(made) == 0
    assert next(chunks) is chunk and len(made) == 1
    assert len(list(chunks)) == 3 and len(made) == 4


def test_places_and_objects_are_uniform():
    bank = np.full((4, 6, 6), 255, np.uint8)
    settings = SceneSettings(canvas_size=(12, 14), counts=(1,))
    scenes = synthesize(bank, settings, 63 * 100, seed=0, labels=np.arange(4))
    boxes = _pixels(scenes.boxes[:, 0], (12, 14))
    cells = np.bincount(boxes[:, 0] * 9 + boxes[:, 1], minlength=63)  # 7 x 9 places
    assert cells.shape == (63,)
    chi2 = ((cells - 100) ** 2 / 100).sum()
    assert chi2 < 62 + 4 * np.sqrt(2 * 62)
    labels = np.bincount(scenes.labels[:, 0], minlength=4)
    assert (abs(labels - 1575) < 5 * np.sqrt(1575)).all()


def test_crowded_scenes_keep_their_objects():
    """Scenes start afresh with the same objects: the hard, large ones are as frequent as the others."""
    bank = np.zeros((2, 12, 12), np.uint8)
    bank[0, :4, :4] = bank[1] = 255
    settings = SceneSettings(canvas_size=(31, 31), counts=(4,))
    scenes = synthesize(bank, settings, 2000, seed=0, labels=np.arange(2))
    share = scenes.labels.mean()
    assert abs(share - 0.5) < 4 * 0.5 / np.sqrt(8000)


def test_scale_and_rotation_ranges_are_honoured():
    bank = np.full((1, 20, 20), 255, np.uint8)
    settings = SceneSettings(counts=(1,), scale_range=(0.5, 1.0))
    sides = np.rint(synthesize(bank, settings, 600, 0).boxes[:, 0, 2:] * 50)
    sides -= np.rint(synthesize(bank, settings, 600, 0).boxes[:, 0, :2] * 50)
    assert (sides[:, 0] == sides[:, 1]).all()
    assert sides.min() in (10, 11)
    assert sides.max() in (20, 21)
    assert abs(sides.mean() - 15) < 0.6
    turned = synthesize(bank, SceneSettings(counts=(1,), rotation_range=(45, 45)), 10, 0)
    side = (turned.boxes[:, 0, 2] - turned.boxes[:, 0, 0]) * 50
    assert (abs(side - 20 * np.sqrt(2)) <= 1.5).all()
    assert set(np.unique(turned.images)) == {0, 255}


def test_chunks_without_an_object():
    settings = SceneSettings(counts=(0,), canvas_size=(20, 20), scale_range=(0.8, 1.2), rotation_range=(0.0, 1.0))
    scenes = synthesize(BLOBS, settings, num_scenes=3, seed=0)
    assert not scenes.images.any() and not scenes.boxes.any() and scenes.counts.tolist() == [0, 0, 0]
    assert scenes.masks.shape == (3, 0, 20, 20)


def test_what_does_not_fit_ends_in_one_line():
    bank = np.full((1, 20, 20), 255, np.uint8)
    message = "cannot place 30 objects on a canvas of 50 x 50 px .* they cover 12000 px; use fewer"
    with pytest.raises(ValueError, match=message):
        synthesize(bank, SceneSettings(counts=(1, 30)), 10, 0)
    # Little ink, yet no room: two crosses, each with arms as long as the canvas.
    cross = np.zeros((1, 20, 20), np.uint8)
    cross[0, 10] = cross[0, :, 10] = 255
    with pytest.raises(ValueError, match="cannot place 2 objects .* 22 x 22 px .*fresh starts found no room"):
        synthesize(cross, SceneSettings(canvas_size=(22, 22), counts=(2,)), 10, 0)
    with pytest.raises(ValueError, match="cannot place 1 objects .*an object is 20 px wide"):
        synthesize(bank, SceneSettings(canvas_size=(30, 19), counts=(1,)), 10, 0)
    with pytest.raises(ValueError, match="at most 62 px wide at gap_px=1, got 70"):
        synthesize(np.full((1, 70, 70), 9, np.uint8), SceneSettings((99, 99), counts=(1,)), 2, 0)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"placement": "pixel"}, "placement='pixel' is unknown .did you mean 'pixels'"),
        ({"counts": ()}, "counts must be whole numbers from 0"),
        ({"counts": (1, -2)}, "counts must be whole numbers from 0"),
        ({"counts": (1, 1)}, "counts must differ"),
        ({"scale_range": (1.0, 0.5)}, "scale_range must be .low, high."),
        ({"scale_range": (0.0, 0.5)}, "lower end of scale_range must be a number above 0"),
        ({"gap_px": 0}, "gap_px .placement 'pixels'. must be between 1"),
        ({"margin_px": -1}, "margin_px must be between 0"),
        ({"canvas_size": (0, 5)}, "canvas_size must be a number above 0"),
    ],
)
def test_wrong_settings_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        SceneSettings(**settings)


def test_wrong_banks_are_refused():
    with pytest.raises(ValueError, match=r"non-empty uint8 array \[K, h, w\], got float64"):
        synthesize(np.zeros((1, 3, 3)), SceneSettings(), 1, 0)
    with pytest.raises(ValueError, match="object 0 has no ink"):
        synthesize(np.zeros((1, 3, 3), np.uint8), SceneSettings(), 1, 0)
    with pytest.raises(ValueError, match=r"labels must have shape \[12\], got \[2\]"):
        synthesize(BLOBS, SceneSettings(), 1, 0, labels=np.arange(2))
    with pytest.raises(ValueError, match="num_scenes must be a number above 0, got 0"):
        synthesize(BLOBS, SceneSettings(), 0, 0)
    with pytest.raises(ValueError, match="num_workers must be a number above 0, got 0"):
        synthesize_in_chunks(BLOBS, SceneSettings(), 1, 0, num_workers=0)  # at once, not when the first is asked for
