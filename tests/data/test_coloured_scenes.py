"""Scenes in colour, from synthesis to batches, and the helper that other tests make them with."""

import numpy as np
import pytest
import testing_colour

from asr_tf.data import (
    SceneSettings,
    evaluation_dataset,
    load_scenes,
    multi_object,
    synthesize,
    training_dataset,
)
from asr_tf.data.multi_sprites import MultiSprites

RED, TEAL = (1.0, 0.0, 0.0), (0.0, 0.5, 0.004)


def _bank():
    """Two objects of grey values 1 to 255: a gradient, and a bar."""
    bank = np.zeros((2, 9, 9), np.uint8)
    bank[0, 1:8, 2:7] = np.linspace(1, 255, 35).round().reshape(7, 5)
    bank[1, 4] = 200
    return bank


@pytest.mark.parametrize("scale_range", [(1.0, 1.0), (0.8, 1.2)])
def test_colours_multiply_the_grey_scene_of_the_same_seed(scale_range):
    """Against a loop over objects and pixels: each object is its grey self times one of the colours."""
    options = {"canvas_size": (24, 30), "counts": (0, 1, 3), "scale_range": scale_range}
    grey = synthesize(_bank(), SceneSettings(**options), 120, seed=4, labels=np.arange(2))
    rgb = synthesize(_bank(), SceneSettings(**options, colours=(RED, TEAL)), 120, seed=4, labels=np.arange(2))
    assert (grey.channels, rgb.channels) == (1, 3)
    for known in ("counts", "boxes", "ink_boxes", "labels", "masks"):
        np.testing.assert_array_equal(getattr(rgb, known), getattr(grey, known))
    owned = np.zeros((120, 24, 30), bool)
    seen = []
    for scene, count in enumerate(grey.counts):
        for box in np.rint(grey.ink_boxes[scene, :count] * [24, 30, 24, 30]).astype(int):
            window = (scene, slice(box[0], box[2]), slice(box[1], box[3]))
            values, painted = grey.images[window][..., 0], rgb.images[window]
            # Rectangles of ink may overlap; ink that is red and ink that isn't tell apart what is whose.
            colour = RED if painted[values > 0][:, 0].all() else TEAL
            ink = (values > 0) & ((painted[..., 0] > 0) == (colour == RED))
            for value, pixel in zip(values[ink], painted[ink], strict=True):
                wanted = [max(round(float(value) * part), 1 if part else 0) for part in colour]
                assert pixel.tolist() == wanted
            owned[window] |= ink
            seen.append(colour)
    np.testing.assert_array_equal(owned, grey.images[..., 0] > 0)
    np.testing.assert_array_equal(rgb.images.any(axis=-1), grey.images[..., 0] > 0)
    assert 0.35 < np.mean([colour == RED for colour in seen]) < 0.65


def test_bytes_of_coloured_scenes_do_not_depend_on_the_workers():
    settings = SceneSettings(canvas_size=(24, 30), counts=(1, 2), colours=(RED, TEAL))
    one, two = (synthesize(_bank(), settings, 600, seed=1, num_workers=workers) for workers in (1, 2))
    np.testing.assert_array_equal(one.images, two.images)


def test_chunks_without_an_object_are_black():
    settings = SceneSettings(canvas_size=(5, 6), counts=(0,), colours=(RED,))
    scenes = synthesize(_bank(), settings, 2, seed=0)
    assert scenes.images.shape == (2, 5, 6, 3) and not scenes.images.any()


@pytest.mark.parametrize("colour", [(1.0, 0.5), (1.0, 0.5, 1.5), (-0.1, 0.5, 1.0), (0.0, 0.0, 0.0), (1.0, 1.0, np.nan)])
def test_wrong_colours_are_refused(colour):
    with pytest.raises(ValueError, match=r"colours must each be \(red, green, blue\) in \[0, 1\] and not black, got ."):
        SceneSettings(colours=(RED, colour))


def test_a_data_set_in_colour_is_written_and_read_again(tmp_path, monkeypatch):
    settings = SceneSettings(canvas_size=(50, 60), counts=(1, 2), colours=(RED, TEAL))
    config = multi_object.SceneConfig(name="colour", description="", settings=settings, train_scenes_a_count=5)
    monkeypatch.setattr(MultiSprites, "builder_configs", {"colour": config})  # first: it follows from the other one
    monkeypatch.setattr(MultiSprites, "BUILDER_CONFIGS", [config])
    monkeypatch.setattr(multi_object, "TEST_SCENES", 3)
    loaded = load_scenes("multi_sprites/colour", "train", tmp_path, with_masks=True)
    bank = MultiSprites._bank(None, "train", None)
    made = synthesize(bank.images, settings, 10, 1906, labels=bank.labels)
    assert loaded.images.shape == (9, 50, 60, 3)  # the tenth is for validation
    for key, array in vars(made).items():
        np.testing.assert_array_equal(getattr(loaded, key), array[:9], err_msg=key)


def test_helper_makes_scenes_that_are_known():
    scenes = testing_colour.coloured_scenes(40, seed=3)
    assert scenes.images.shape == (40, 32, 32, 3)
    assert np.bincount(scenes.counts).tolist() == [0, 20, 20]
    # Binary sprites: every pixel is black or one of the colours.
    wanted = {(0, 0, 0), *(tuple(round(255 * part) for part in colour) for colour in testing_colour.COLOURS)}
    assert {tuple(pixel) for pixel in scenes.images.reshape(-1, 3).tolist()} == wanted
    # Where there is one object, its ink fills its rectangle to the edges and nothing is outside of it.
    for image, box in zip(scenes.images[scenes.counts == 1], scenes.ink_boxes[scenes.counts == 1, 0], strict=True):
        rows, columns = image.any(axis=(1, 2)).nonzero()[0], image.any(axis=(0, 2)).nonzero()[0]
        np.testing.assert_allclose(32 * box, [rows[0], columns[0], rows[-1] + 1, columns[-1] + 1], atol=1e-5)
        assert len(np.unique(image.reshape(-1, 3), axis=0)) == 2  # black, and one colour
    again = testing_colour.coloured_scenes(40, seed=3)
    assert again.fingerprint() == scenes.fingerprint()
    assert testing_colour.coloured_scenes(40, seed=4).fingerprint() != scenes.fingerprint()
    grey = testing_colour.coloured_scenes(40, seed=3, colours=())
    np.testing.assert_array_equal(grey.images[..., 0] > 0, scenes.images.any(axis=-1))


@pytest.mark.parametrize("canvas_size", [(12, 14), (20, 64)])
def test_helper_fits_small_and_oblong_canvases(canvas_size):
    scenes = testing_colour.coloured_scenes(6, seed=0, canvas_size=canvas_size)
    assert scenes.canvas_size == canvas_size and scenes.images.any(axis=(1, 2, 3)).all()


def test_batches_keep_the_colours():
    scenes = testing_colour.coloured_scenes(30, seed=0)
    batches = list(evaluation_dataset(scenes, 8).as_numpy_iterator())
    images = np.concatenate([batch["image"] for batch in batches])
    assert images.dtype == np.float32
    np.testing.assert_allclose(images, scenes.images / np.float32(255), rtol=1e-6)

    # A count that numbers the scenes tells which images a shuffled batch holds.
    numbered = type(scenes)(scenes.images, counts=np.arange(30, dtype=np.int32))
    dataset = training_dataset(numbered, 16, seed=0)
    assert dataset.element_spec["image"].shape == (16, 32, 32, 3)
    (batch,) = dataset.take(1).as_numpy_iterator()
    np.testing.assert_allclose(batch["image"], scenes.images[batch["count"]] / np.float32(255), rtol=1e-6)
