"""Geometry of windows."""

import numpy as np
import pytest
import tensorflow as tf

from asr_tf.scene import ObjectiveTerms, window_boxes


def test_window_boxes_by_hand():
    # 50 x 50 canvas, centre (x, y) = (10, 40) px, side 20 px.
    shift = tf.constant([[-0.6, 0.6]])
    boxes = window_boxes(shift, tf.constant([[0.4]]), (50, 50)).numpy()
    np.testing.assert_allclose(boxes * 50, [[30.0, 0.0, 50.0, 20.0]], atol=1e-5)


@pytest.mark.parametrize("canvas_size", [(40, 80), (80, 40)])
def test_windows_are_square_in_pixels_on_any_canvas(canvas_size):
    boxes = window_boxes(tf.constant([[0.0, 0.0]]), tf.constant([[0.5]]), canvas_size).numpy()[0]
    sides = (boxes[2:] - boxes[:2]) * np.array(canvas_size)
    np.testing.assert_allclose(sides, [20.0, 20.0], rtol=1e-6)
    np.testing.assert_allclose(boxes[:2] + boxes[2:], [1.0, 1.0], rtol=1e-6)


def test_negative_elbo_is_the_sum_of_the_terms():
    assert ObjectiveTerms(1.0, 2.0, 4.0, 8.0, 16.0).negative_elbo == 31.0
