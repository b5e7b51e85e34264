"""Margins of glimpses counted by hand."""

import numpy as np
import pytest
import tensorflow as tf

from asr_tf.constraints import SceneStatistics, SizeInterval, TightWindows

# A grey block, a white one, and one that is bright in one channel only.
COLOURS = {"grey": [1.0], "white": [1.0, 1.0, 1.0], "blue": [0.0, 0.1, 1.0]}
OF_ALL_COLOURS = pytest.mark.parametrize("colour", COLOURS.values(), ids=COLOURS.keys())


def statistics(rows, columns, presence=1.0, side_px=20.0, drawn=1.0, extra=None, colour=(1.0,)):
    """One step that shows and draws a bright block in a 10 x 10 glimpse of a `side_px` window."""
    glimpse = np.zeros((1, 1, 10, 10, len(colour)), np.float32)
    glimpse[..., rows, columns, :] = colour
    objects = glimpse * drawn
    if extra is not None:
        glimpse[..., extra[0], extra[1], :] = colour
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
@OF_ALL_COLOURS
def test_by_hand(rows, columns, expected_px, colour):
    penalty = TightWindows().penalty(statistics(rows, columns, colour=colour))
    np.testing.assert_allclose(penalty, [expected_px], atol=0.15)


def test_is_in_canvas_pixels_and_weighted_by_presence():
    block = slice(2, 8), slice(2, 8)
    full = TightWindows().penalty(statistics(*block))
    np.testing.assert_allclose(TightWindows().penalty(statistics(*block, presence=0.25)), full / 4)
    np.testing.assert_allclose(
        TightWindows().penalty(statistics(*block, side_px=10.0)), full / 2, rtol=1e-5
    )


@OF_ALL_COLOURS
def test_neighbours_and_empty_steps_do_not_count(colour):
    block = slice(0, 10), slice(3, 7)
    with_neighbour = statistics(*block, extra=(slice(0, 3), slice(9, 10)), colour=colour)
    np.testing.assert_allclose(TightWindows().penalty(with_neighbour), [0.0], atol=0.15)
    assert TightWindows().penalty(statistics(slice(2, 4), slice(2, 4), drawn=0.0, colour=colour))[0] < 0.02


def slow_tightness(objects, glimpses, presence, pixel, ink=0.4):
    """The penalty of one step, by loops over its rows and columns; objects and glimpses [G, G, C]."""
    own = glimpses.max(-1) * np.minimum(2.0 * objects.max(-1) / ink, 1.0)
    margins = []
    for profile in (own.max(1), own.max(0)):
        for run in (profile, profile[::-1]):
            length, empty = 0.0, 1.0
            for brightest in run:
                empty *= 1.0 - (1.0 - 1e-4) * min(brightest / ink, 1.0)
                length += empty
            margins.append(length)
    top, bottom, left, right = margins
    cost = abs(top - bottom) / 2.0 + abs(left - right) / 2.0 + min(top + bottom, left + right)
    return presence * min(objects.max() / ink, 1.0) * pixel * cost


@pytest.mark.parametrize("channels", [1, 3])
def test_equals_a_loop_over_rows_and_columns(channels):
    rng = np.random.default_rng(0)
    objects, glimpses = (0.5 * rng.uniform(size=(2, 3, 6, 6, channels)) ** 3 for _ in range(2))
    presence, sides = rng.uniform(size=(2, 3)), rng.uniform(0.1, 0.5, (2, 3))
    low = np.full((2, 3, 2), 0.1)
    boxes = np.concatenate([low, low + sides[..., None] * [1.0, 0.8]], -1)  # square on a canvas of 40 x 50
    given = SceneStatistics(
        tf.constant(presence), None, tf.constant(boxes), (40, 50), tf.constant(objects), tf.constant(glimpses)
    )
    expected = [
        sum(slow_tightness(objects[b, t], glimpses[b, t], presence[b, t], sides[b, t] * 40 / 6) for t in range(3))
        for b in range(2)
    ]
    np.testing.assert_allclose(TightWindows().penalty(given), expected, rtol=1e-9)


@OF_ALL_COLOURS
def test_moves_windows_and_not_the_decoder(colour):
    given = statistics(slice(0, 10), slice(0, 4), colour=colour)
    with tf.GradientTape(persistent=True) as tape:
        tape.watch([given.objects, given.glimpses])
        penalty = TightWindows().penalty(given)
    assert tape.gradient(penalty, given.objects) is None
    assert np.isfinite(tape.gradient(penalty, given.glimpses)).all()


def test_gradients_by_what_windows_show_equal_finite_differences():
    rng = np.random.default_rng(1)
    objects, glimpses = (0.3 * rng.uniform(size=(1, 1, 5, 5, 3)) for _ in range(2))  # no row is surely occupied
    boxes = tf.constant([[[0.1, 0.1, 0.5, 0.5]]], tf.float64)

    def penalty(shown):
        given = tf.constant([[0.7]], tf.float64), None, boxes, (50, 50), tf.constant(objects), shown
        return TightWindows().penalty(SceneStatistics(*given))[0]

    shown = tf.constant(glimpses)
    with tf.GradientTape() as tape:
        tape.watch(shown)
        total = penalty(shown)
    units = 1e-6 * np.eye(75).reshape(75, *glimpses.shape)
    slopes = [(penalty(shown + unit) - penalty(shown - unit)) / 2e-6 for unit in units]
    assert np.abs(slopes).max() > 0.1
    np.testing.assert_allclose(np.ravel(tape.gradient(total, shown)), slopes, rtol=1e-5, atol=1e-6)


def test_scenes_with_a_loose_window_are_broken():
    loose = statistics(slice(2, 8), slice(2, 8))  # 8 px
    tight = statistics(slice(0, 10), slice(0, 10))
    for given, slack, expected in ((loose, 2.0, True), (loose, 8.5, False), (tight, 0.5, False)):
        rule = TightWindows(slack_px=slack)
        assert rule.broken(given).numpy().tolist() == [expected]
        assert rule.broken(given._replace(presence_probs=tf.zeros([1, 1]))).numpy().tolist() == [False]
    assert TightWindows().broken(loose._replace(glimpses=None)) is None
    at_slack = TightWindows(slack_px=float(TightWindows().penalty(loose)[0]))
    assert at_slack.broken(loose).numpy().tolist() == [False]


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
    rule = SizeInterval((12, 22))
    np.testing.assert_allclose(rule.penalty(given), [3.0 + 0.0 + 2.0], rtol=1e-5)
    for count, first, expected in ((0, 0, 0), (1, 0, 1), (3, 0, 1), (1, 1, 0)):
        boxes = given.boxes[:, first:]
        scenes = SceneStatistics.of_finished([count], boxes, (50, 50))
        assert rule.broken(scenes).numpy().tolist() == [bool(expected)]


def test_size_interval_gradient_is_the_slope():
    sides = np.array([9.0, 20.0, 26.0])

    def penalty(values):
        return SizeInterval((12, 22)).penalty(sized(values, [1.0, 1.0, 0.5]))

    with tf.GradientTape() as tape:
        given = sized(sides, [1.0, 1.0, 0.5])
        tape.watch(given.boxes)
        total = SizeInterval((12, 22)).penalty(given)
    gradient = tape.gradient(total, given.boxes).numpy()[0, :, 2] / 50  # by the lower edge, in px
    slopes = [(penalty(sides + 0.1 * unit) - penalty(sides - 0.1 * unit))[0] / 0.2 for unit in np.eye(3)]
    np.testing.assert_allclose(gradient, slopes, atol=1e-3)


def test_bad_interval():
    with pytest.raises(ValueError, match=r"SizeInterval.sides_px must be .* with low at most high, got \(22, 12\)"):
        SizeInterval((22, 12))
    with pytest.raises(ValueError, match="SizeInterval.sides_px must be a number above 0, got 0"):
        SizeInterval((0, 12))
    SizeInterval((30, 60)).check(3, (40, 50))
    with pytest.raises(ValueError, match=r"SizeInterval.sides_px=\(41.0, 60.0\) cannot hold on a canvas of 40 x 50 px"):
        SizeInterval((41, 60)).check(3, (40, 50))


def test_a_tolerated_margin_is_one_of_objects_whatever_their_number():
    """Two scenes, of one and of three objects, whose margins are 1.5 px each on average."""
    statistics = SceneStatistics.of_finished([1, 3], tf.zeros([2, 3, 4]), (50, 50))
    measured = TightWindows().measured(statistics, tf.constant([1.5, 4.5]))
    np.testing.assert_allclose(tf.reduce_mean(measured), 1.5, rtol=1e-6)
