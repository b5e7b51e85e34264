"""Margins of glimpses counted by hand."""

import numpy as np
import pytest
import tensorflow as tf

from asr_tf.constraints import SceneStatistics, SizeInterval, TightWindows


def statistics(rows, columns, presence=1.0, side_px=20.0, drawn=1.0, extra=None):
    """One step that shows and draws a bright block in a 10 x 10 glimpse of a `side_px` window."""
    glimpse = np.zeros((1, 1, 10, 10), np.float32)
    glimpse[..., rows, columns] = 1.0
    objects = glimpse * drawn
    if extra is not None:
        glimpse[..., extra[0], extra[1]] = 1.0
    side = side_px / 50
    return SceneStatistics(
        presence_probs=tf.constant([[presence]]),
        count_probs=tf.constant([[1 - presence, presence]]),
        boxes=tf.constant([[[0.1, 0.1, 0.1 + side, 0.1 + side]]]),
        canvas_size=(50, 50),
        objects=tf.constant(objects),
        glimpses=tf.constant(glimpse),
    )


@pytest.mark.parametrize(
    ("rows", "columns", "expected_px"),
    [
        (slice(0, 10), slice(0, 10), 0.0),  # fills the window
        (slice(0, 10), slice(3, 7), 0.0),  # narrow, but centred and as high as the window
        (slice(0, 10), slice(0, 4), 6.0),  # at the left edge: 6 columns of 2 px off, half counts
        (slice(2, 8), slice(2, 8), 8.0),  # centred, 4 rows of 2 px to spare
        (slice(1, 10), slice(0, 10), 1.0),  # a row above: 2 px, half; touches left and right
    ],
)
def test_by_hand(rows, columns, expected_px):
    penalty = TightWindows().penalty(statistics(rows, columns))
    np.testing.assert_allclose(penalty, [expected_px], atol=0.15)


def test_is_in_canvas_pixels_and_weighted_by_presence():
    block = slice(2, 8), slice(2, 8)
    full = TightWindows().penalty(statistics(*block))
    np.testing.assert_allclose(TightWindows().penalty(statistics(*block, presence=0.25)), full / 4)
    np.testing.assert_allclose(
        TightWindows().penalty(statistics(*block, side_px=10.0)), full / 2, rtol=1e-5
    )


def test_neighbours_and_empty_steps_do_not_count():
    block = slice(0, 10), slice(3, 7)
    with_neighbour = statistics(*block, extra=(slice(0, 3), slice(9, 10)))
    np.testing.assert_allclose(TightWindows().penalty(with_neighbour), [0.0], atol=0.15)
    assert TightWindows().penalty(statistics(slice(2, 4), slice(2, 4), drawn=0.0))[0] < 0.02


def test_moves_windows_and_not_the_decoder():
    given = statistics(slice(0, 10), slice(0, 4))
    with tf.GradientTape(persistent=True) as tape:
        tape.watch([given.objects, given.glimpses])
        penalty = TightWindows().penalty(given)
    assert tape.gradient(penalty, given.objects) is None
    assert np.isfinite(tape.gradient(penalty, given.glimpses)).all()


def test_bad_ink():
    with pytest.raises(ValueError, match=r"TightWindows.ink must be in \(0, 1\), got 1.5"):
        TightWindows(ink=1.5)


def sized(sides_px, presence):
    sides = np.array(sides_px, np.float32)[None, :, None] / 50
    return SceneStatistics(
        presence_probs=tf.constant([presence]),
        count_probs=None,
        boxes=tf.constant(np.concatenate([0 * sides, 0 * sides, sides, sides], -1)),
        canvas_size=(50, 50),
    )


def test_size_interval_by_hand():
    # 3 px below, inside, 4 px above; weighted by presence.
    given = sized([9.0, 20.0, 26.0], [1.0, 1.0, 0.5])
    rule = SizeInterval(low_px=12, high_px=22)
    np.testing.assert_allclose(rule.penalty(given), [3.0 + 0.0 + 2.0], rtol=1e-5)
    boxes = given.boxes.numpy()
    for count, expected in ((0, False), (1, True), (3, True)):
        assert rule.broken(np.array([count]), boxes, (50, 50)).tolist() == [expected]
    assert rule.broken(np.array([1]), boxes[:, 1:], (50, 50)).tolist() == [False]
    assert rule.broken(np.array([1]), None, (50, 50)) is None


def test_size_interval_gradient_is_the_slope():
    sides = np.array([9.0, 20.0, 26.0])

    def penalty(values):
        return SizeInterval(low_px=12, high_px=22).penalty(sized(values, [1.0, 1.0, 0.5]))

    with tf.GradientTape() as tape:
        given = sized(sides, [1.0, 1.0, 0.5])
        tape.watch(given.boxes)
        total = SizeInterval(low_px=12, high_px=22).penalty(given)
    gradient = tape.gradient(total, given.boxes).numpy()[0, :, 2] / 50  # by the lower edge, in px
    slopes = [(penalty(sides + 0.1 * unit) - penalty(sides - 0.1 * unit))[0] / 0.2 for unit in np.eye(3)]
    np.testing.assert_allclose(gradient, slopes, atol=1e-3)


def test_bad_interval():
    with pytest.raises(ValueError, match="low_px must be at most high_px, got 22 and 12"):
        SizeInterval(low_px=22, high_px=12)
    with pytest.raises(ValueError, match="SizeInterval.low_px must be a number above 0, got 0"):
        SizeInterval(low_px=0, high_px=12)
