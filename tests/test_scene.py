"""Geometry of windows, the sum of the bound's terms, and parts that can be made again."""

import numpy as np
import pytest
import tensorflow as tf

from asr_tf.scene import ObjectiveTerms, Part, SceneSpec, scale_prior, window_boxes


def test_window_boxes_by_hand():
    # 50 x 50 canvas, centre (x, y) = (10, 40) px, side 20 px.
    shift = tf.constant([[-0.6, 0.6]])
    boxes = window_boxes(shift, tf.constant([[0.4]]), (50, 50)).numpy()
    np.testing.assert_allclose(boxes * 50, [[30.0, 0.0, 50.0, 20.0]], atol=1e-5)


@pytest.mark.parametrize("canvas_size", [(50, 50), (40, 80), (80, 40)])
def test_windows_are_square_in_pixels_on_any_canvas(canvas_size):
    rng = np.random.default_rng(0)
    shift, scale = rng.uniform(-1.2, 1.2, (2, 3, 2)), rng.uniform(0.01, 1.5, (2, 3, 1))
    boxes = window_boxes(tf.constant(shift), tf.constant(scale), canvas_size) * (*canvas_size, *canvas_size)
    low, high = np.split(boxes, 2, axis=-1)
    np.testing.assert_allclose(high - low, np.broadcast_to(scale * min(canvas_size), (2, 3, 2)), rtol=1e-9)
    centres = (shift[..., ::-1] + 1.0) / 2.0 * canvas_size  # (y, x) in pixels
    np.testing.assert_allclose((low + high) / 2.0, centres, rtol=1e-9, atol=1e-9)


def test_negative_elbo_is_the_sum_of_the_terms():
    terms = ObjectiveTerms(*(tf.constant([value, 10.0 * value]) for value in (1.0, 2.0, 4.0, 8.0, 16.0)))
    np.testing.assert_array_equal(terms.negative_elbo, [31.0, 310.0])


def test_the_count_is_to_be_inferred_if_nothing_is_said():
    assert SceneSpec((40, 50), 3, 6, 28, 20, -1.0, 0.2).exact_count is None


class Base(Part):
    def __init__(self, size, *, rate=0.5):
        self.size, self.rate = size, rate


class Derived(Base):
    """Has its constructor from another class."""


class Wider(Base):
    """Has a constructor of its own, with an argument less and one more."""

    def __init__(self, size, margin=2.0):
        super().__init__(size)
        self.margin = margin


@pytest.mark.parametrize(
    ("part", "config"),
    [
        (Part(), {}),
        (Base(3), {"size": 3, "rate": 0.5}),
        (Derived(3, rate=0.1), {"size": 3, "rate": 0.1}),
        (Wider((1, 2)), {"size": (1, 2), "margin": 2.0}),
    ],
    ids=lambda value: type(value).__name__,
)
def test_a_part_is_made_again_from_the_arguments_of_its_constructor(part, config):
    assert part.get_config() == config
    assert type(part)(**config).get_config() == config


def test_an_argument_that_is_not_kept_is_named():
    class Forgetful(Part):
        def __init__(self, size):
            pass

    with pytest.raises(AttributeError, match="size"):
        Forgetful(3).get_config()


def test_the_scale_prior_of_known_sizes_has_their_ends_two_standard_deviations_away():
    loc, stddev = scale_prior((10, 24), (96, 120))
    ends = 1.0 / (1.0 + np.exp(-np.array([loc - 2.0 * stddev, loc + 2.0 * stddev]))) * 96
    np.testing.assert_allclose(ends, [10.0, 24.0], rtol=1e-6)
    loc, stddev = scale_prior((20, 20), (50, 50))  # of one size
    assert stddev == 0.1
    np.testing.assert_allclose(1.0 / (1.0 + np.exp(-loc)), 0.4, rtol=1e-6)


@pytest.mark.parametrize(
    ("sides", "message"),
    [
        ((20,), r"sides_px must be \(low, high\), got \(20,\)"),
        ("20", r"sides_px must be \(low, high\), got '20'"),
        ((0, 20), r"sides_px must be a number above 0, got 0"),
        ((20, 10), r"sides_px must be \(low, high\) with low at most high, got \(20, 10\)"),
        ((20, 50), r"sides_px must be below the shorter canvas side, 50 px, got \(20, 50\)"),
    ],
)
def test_sizes_that_cannot_be(sides, message):
    with pytest.raises(ValueError, match=message):
        scale_prior(sides, (50, 60))
