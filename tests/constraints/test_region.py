"""Distances from a drawn region: by hand, by a loop over pixels, and files that are none."""

import re

import numpy as np
import PIL.Image
import pytest
import tensorflow as tf

from asr_tf.constraints import InsideRegion, SceneStatistics

HEIGHT, WIDTH = CANVAS = (8, 16)  # by which fractions are exact


def saved(tmp_path, brightness):
    """A picture [H, W] of 0..255."""
    path = tmp_path / "region.png"
    PIL.Image.fromarray(np.asarray(brightness, np.uint8)).save(path)
    return path


def left_columns(number):
    return np.where(np.arange(WIDTH) < number, 255, 0) * np.ones((HEIGHT, 1))


def statistics(centres_px, presence):
    """Steps with windows of 2 px around centres (y, x), [B, T, 2]."""
    centres = np.asarray(centres_px, np.float64)
    boxes = np.concatenate([centres - 1.0, centres + 1.0], -1) / [HEIGHT, WIDTH, HEIGHT, WIDTH]
    return SceneStatistics(tf.constant(presence, tf.float64), None, tf.constant(boxes), CANVAS)


def test_beside_a_half_plane_the_penalty_is_the_distance_weighted_by_presence(tmp_path):
    """The last bright column is the fifth, its pixels' centres at 4.5; beyond the canvas the edge counts."""
    rule = InsideRegion(saved(tmp_path, left_columns(5)))
    centres = [[[3.0, 2.0], [5.5, 4.5]], [[1.0, 5.25], [-3.0, 9.0]], [[4.0, 15.5], [7.0, 40.0]]]
    given = statistics(centres, [[1.0, 0.5], [1.0, 0.5], [1.0, 0.25]])
    expected = [0.0, 0.75 + 0.5 * 4.5, 11.0 + 0.25 * 11.0]
    with tf.GradientTape() as tape:
        tape.watch(given.boxes)
        penalty = rule.penalty(given)
    np.testing.assert_allclose(penalty, expected, rtol=1e-9)
    gradient = tape.gradient(penalty, given.boxes)
    slopes = [[0.0, 0.0], [1.0, 0.5], [0.0, 0.0]]  # px for each pixel; none beyond the canvas
    np.testing.assert_allclose(gradient[:2, :, 1] + gradient[:2, :, 3], WIDTH * np.array(slopes[:2]), atol=1e-9)
    np.testing.assert_allclose(gradient[2, 1], np.zeros(4))


def test_rows_are_rows(tmp_path):
    rule = InsideRegion(saved(tmp_path, np.tile(left_columns(5)[:1, :HEIGHT].T, (1, WIDTH))))
    np.testing.assert_allclose(rule.penalty(statistics([[[7.0, 3.0], [2.0, 12.0]]], [[1.0, 1.0]])), [2.5])


def test_equals_a_loop_over_the_pixels_of_any_region(tmp_path):
    rng = np.random.default_rng(0)
    bright = rng.uniform(size=CANVAS) < 0.06
    rule = InsideRegion(saved(tmp_path, 255 * bright))
    places = rng.integers([0, 0], [HEIGHT, WIDTH], (3, 4, 2))
    presence = np.sort(rng.uniform(size=(3, 4)))[:, ::-1].copy()
    nearest = np.sqrt(np.square(places[..., np.newaxis, :] - np.argwhere(bright)).sum(-1)).min(-1)
    expected = (presence * nearest).sum(-1)
    assert expected.min() > 1.0
    np.testing.assert_allclose(rule.penalty(statistics(places + 0.5, presence)), expected, rtol=1e-9)


def test_scenes_with_a_centre_outside_by_more_than_the_slack_are_broken(tmp_path):
    rule = InsideRegion(saved(tmp_path, left_columns(5)))
    boxes = statistics([[[3.0, 2.0], [3.0, x]] for x in (5.0, 5.25, 5.25)], np.ones((3, 2))).boxes  # 0.5 px, 0.75
    scenes = SceneStatistics.of_finished([2, 2, 1], boxes, CANVAS)
    assert rule.slack_px == 0.5
    assert rule.broken(scenes).numpy().tolist() == [False, True, False]
    assert InsideRegion(rule.path, slack_px=0.75).broken(scenes).numpy().tolist() == [False] * 3
    assert rule.broken(scenes._replace(boxes=None)) is None


def test_pixels_at_least_half_as_bright_as_white_are_allowed(tmp_path):
    """127.5 is half of 255."""
    picture = np.full(CANVAS, 127)
    picture[:, 3] = 128
    rule = InsideRegion(saved(tmp_path, picture))
    np.testing.assert_allclose(rule.penalty(statistics([[[4.0, 3.5], [4.0, 6.5]]], [[1.0, 1.0]])), [3.0])


def test_colours_are_as_bright_as_they_look(tmp_path):
    picture = np.zeros((*CANVAS, 3))
    picture[:, 2], picture[:, 9] = [0, 0, 255], [255, 255, 0]  # blue is dark
    rule = InsideRegion(saved(tmp_path, picture))
    np.testing.assert_allclose(rule.penalty(statistics([[[4.0, 2.5]]], [[1.0]])), [7.0])


def test_can_be_made_again_from_its_config(tmp_path):
    rule = InsideRegion(saved(tmp_path, left_columns(5)), slack_px=2, broken_share=0.25)
    config = rule.get_config()
    assert (config["path"], config["slack_px"], config["broken_share"]) == (str(tmp_path / "region.png"), 2, 0.25)
    again = InsideRegion(**config)
    assert again.get_config() == config and (again.name, again.limit) == ("inside_region", 0.25)
    given = statistics([[[4.0, 9.0]]], [[1.0]])
    np.testing.assert_array_equal(again.penalty(given), rule.penalty(given))
    assert (InsideRegion(rule.path).limit, InsideRegion(rule.path).start) == (0.5, 0.5)


def test_a_home_folder_may_be_named_by_its_sign(tmp_path, monkeypatch):
    saved(tmp_path, left_columns(5))
    monkeypatch.setenv("HOME", str(tmp_path))
    assert InsideRegion("~/region.png").path == "~/region.png"


def test_an_image_of_another_size_is_refused(tmp_path):
    rule = InsideRegion(saved(tmp_path, left_columns(5)))
    rule.check(3, CANVAS)
    for other in ((16, 8), (8, 15), (9, 16)):
        size = f"{other[0]} x {other[1]}"
        with pytest.raises(ValueError, match=rf"is 8 x 16 px \(height x width\), but the canvas is {size} px; give an"):
            rule.check(3, other)


def test_bad_files(tmp_path):
    with pytest.raises(ValueError, match=r"InsideRegion.path must be a PNG file that can be read: .*none\.png"):
        InsideRegion(tmp_path / "none.png")
    (tmp_path / "text.png").write_text("no picture")
    with pytest.raises(ValueError, match=r"InsideRegion.path must be a PNG file that can be read: .*text\.png"):
        InsideRegion(tmp_path / "text.png")
    path = saved(tmp_path, np.zeros(CANVAS))
    message = f"InsideRegion.path={str(path)!r} has no bright pixel: no object could be anywhere."
    with pytest.raises(ValueError, match=re.escape(message)):
        InsideRegion(path)
    with pytest.raises(ValueError, match="InsideRegion.slack_px must be between 0.0 and inf, got -1"):
        InsideRegion(path, slack_px=-1)
