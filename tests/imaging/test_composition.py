"""The clipped sum of objects against loops, with and without a background."""

import numpy as np
import pytest
import tensorflow as tf

from asr_tf.imaging.composition import Composition, Drawn, Sum

B, T, H, W = 2, 3, 4, 5


def objects(channels, seed=0):
    """Colours that add up to less than 1 here and to more there; and a background."""
    rng = np.random.default_rng(seed)
    return rng.uniform(size=(B, T, H, W, channels)) ** 2, rng.uniform(size=(B, H, W, channels)) ** 2


def slow_canvas(colour, presence, background):
    """One canvas [H, W, C] of one scene, pixel by pixel."""
    canvas = np.zeros(colour.shape[1:])
    for i, j, c in np.ndindex(*canvas.shape):
        total = 0.0 if background is None else background[i, j, c]
        for t in range(T):
            total += presence[t] * colour[t, i, j, c]
        canvas[i, j, c] = min(max(total, 0.0), 1.0)
    return canvas


@pytest.mark.parametrize("with_background", [False, True])
@pytest.mark.parametrize("channels", [1, 3])
def test_canvas_is_the_clipped_sum_of_the_present_objects(channels, with_background):
    colour, behind = objects(channels)
    presence = np.array([[1.0, 0.0, 1.0], [1.0, 0.25, 0.0]])  # one is fainter
    given = tf.constant(behind, tf.float32) if with_background else None
    found = Sum().canvas(Drawn(tf.constant(colour, tf.float32)), tf.constant(presence, tf.float32), given)
    expected = [slow_canvas(colour[b], presence[b], behind[b] if with_background else None) for b in range(B)]
    assert (np.array(expected) == 1.0).any() and (np.array(expected) < 1.0).any()
    np.testing.assert_allclose(found, expected, rtol=1e-5)


@pytest.mark.parametrize("with_background", [False, True])
@pytest.mark.parametrize("channels", [1, 3])
def test_canvases_are_those_of_the_first_objects(channels, with_background):
    colour, behind = objects(channels, seed=1)
    given = tf.constant(behind, tf.float32) if with_background else None
    found = Sum().canvases(Drawn(tf.constant(colour, tf.float32)), given)
    assert found.shape == (B, T + 1, H, W, channels)
    for b in range(B):
        for k in range(T + 1):
            expected = slow_canvas(colour[b], np.arange(T) < k, behind[b] if with_background else None)
            np.testing.assert_allclose(found[b, k], expected, rtol=1e-5)


@pytest.mark.parametrize("shade", [None, 0.5])
def test_nothing_on_nothing_is_the_background(shade):
    behind = None if shade is None else tf.fill([B, H, W, 1], shade)
    drawn = Drawn(tf.zeros([B, T, H, W, 1]))
    expected = np.full((B, H, W, 1), shade or 0.0)
    np.testing.assert_array_equal(Sum().canvas(drawn, tf.ones([B, T]), behind), expected)
    np.testing.assert_array_equal(Sum().canvases(drawn, behind)[:, 0], expected)


def test_gradients_are_the_weights_where_nothing_is_clipped():
    colour, behind = objects(3, seed=2)
    presence = tf.constant([[1.0, 0.5, 0.0], [0.25, 1.0, 1.0]], tf.float32)
    weights = np.random.default_rng(3).normal(size=(B, H, W, 3))
    given, background = tf.constant(colour, tf.float32), tf.constant(behind, tf.float32)
    with tf.GradientTape() as tape:
        tape.watch([given, presence, background])
        total = tf.reduce_sum(weights.astype(np.float32) * Sum().canvas(Drawn(given), presence, background))
    by_colour, by_presence, by_background = tape.gradient(total, [given, presence, background])
    sums = np.einsum("bt,bthwc->bhwc", presence, colour) + behind
    inside = weights * (sums < 1.0)
    np.testing.assert_allclose(by_background, inside, rtol=1e-5)
    np.testing.assert_allclose(by_colour, np.einsum("bt,bhwc->bthwc", presence, inside), rtol=1e-5)
    np.testing.assert_allclose(by_presence, np.einsum("bthwc,bhwc->bt", colour, inside), rtol=1e-4, atol=1e-5)


def test_the_number_of_images_may_be_unknown():
    @tf.function(jit_compile=True)
    def compose(colour, presence):
        return Sum().canvases(Drawn(colour)), Sum().canvas(Drawn(colour), presence)

    colour, _ = objects(3)
    many, one = compose(tf.constant(colour, tf.float32), tf.ones([B, T]))
    np.testing.assert_allclose(many[:, T], one, rtol=1e-6)
    traced = compose.get_concrete_function(tf.TensorSpec([None, T, H, W, 3]), tf.TensorSpec([None, T]))
    assert [shape.as_list() for shape in traced.output_shapes] == [[None, T + 1, H, W, 3], [None, H, W, 3]]


def test_a_mask_is_no_matter_to_a_sum():
    colour, _ = objects(3)
    bare = Drawn(tf.constant(colour, tf.float32))
    masked = bare._replace(mask=tf.zeros([B, T, H, W, 1]))
    np.testing.assert_array_equal(Sum().canvases(masked), Sum().canvases(bare))


def test_a_composition_says_how_it_composes():
    assert Sum().get_config() == {}
    with pytest.raises(TypeError, match="abstract"):
        Composition()


def test_masks_are_shares_of_pixels_hand_computed():
    """A bright object, and a dim one whose brightest pixel is 0.2; the image is darker than drawn in one pixel."""
    colour = np.reshape([[0.8, 0.4, 0.8, 0.0], [0.0, 0.2, 0.1, 0.05]], [1, 2, 1, 4, 1]).astype(np.float32)
    image = tf.constant([0.8, 0.6, 0.4, 0.05], shape=[1, 1, 4, 1])
    masks = Sum().masks(Drawn(tf.constant(colour)), tf.constant([[1.0, 1.0]]), image)
    ink = np.array([[1.0, 0.6 / 0.8, 0.4 / 0.8, 0.05 / 0.8], [1.0, 1.0, 1.0, 0.05 / 0.2]])
    shares = np.array([[0.8 / 0.8, 0.4 / 0.6, 0.8 / 0.9, 0.0], [0.0, 0.2 / 0.6, 0.1 / 0.9, 0.05 / 0.05]])
    np.testing.assert_allclose(masks[0, :, 0, :, 0], ink * shares, atol=1e-6)
    alone = Sum().masks(Drawn(tf.constant(colour)), tf.constant([[1.0, 0.0]]), image)
    expected = ink[0] * [0.8 / 0.8, 0.4 / 0.4, 0.8 / 0.8, 0.0]
    np.testing.assert_allclose(alone[0, :, 0, :, 0], [expected, [0.0] * 4], atol=1e-6)


def test_a_bright_ground_and_dark_pixels_and_what_is_hardly_drawn_are_no_objects():
    colour = tf.constant([0.9, 0.9, 0.1, 0.001], shape=[1, 1, 1, 4, 1])
    image = tf.constant([0.9, 0.0, 0.8, 0.9], shape=[1, 1, 4, 1])
    ground = tf.constant([0.0, 0.0, 0.7, 0.0], shape=[1, 1, 4, 1])
    masks = Sum().masks(Drawn(colour), tf.ones([1, 1]), image, ground)
    np.testing.assert_allclose(masks[0, 0, 0, :, 0], [1.0, 0.0, 0.8 / 0.9 * 0.1 / 0.8, 0.2], atol=1e-6)


def test_masks_of_colours_go_by_the_brightest_channel_and_an_object_that_is_hardly_drawn_covers_little():
    colour = np.zeros([1, 2, 1, 2, 3], np.float32)
    colour[0, 0, 0] = [[0.2, 0.6, 0.0], [0.3, 0.0, 0.0]]
    colour[0, 1, 0] = [[0.0, 0.0, 0.01], [0.0, 0.0, 0.0]]
    masks = Sum().masks(Drawn(tf.constant(colour)), tf.ones([1, 2]), tf.constant(colour.sum(1)))
    expected = [[0.6 / 0.61, 0.5 * 0.3 / 0.3], [0.01 / 0.61, 0.0]]
    np.testing.assert_allclose(masks[0, :, 0, :, 0], expected, atol=1e-6)


def test_masks_that_objects_have_are_taken_as_they_are():
    mask = tf.constant([0.3, 1.0, 0.9, 0.5], shape=[1, 2, 1, 2, 1])
    masks = Sum().masks(Drawn(tf.ones([1, 2, 1, 2, 1]), mask), tf.ones([1, 2]), tf.zeros([1, 1, 2, 1]))
    np.testing.assert_allclose(masks[0, :, 0, :, 0], [[0.3 / 1.2, 1.0 / 1.5], [0.9 / 1.2, 0.5 / 1.5]], atol=1e-6)
