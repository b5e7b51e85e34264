"""Metrics of masks against scikit-learn and hand-computed values."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import adjusted_rand_score

from asr_tf.evaluation import segmentation


def _labels(seed, images=12, most=4, size=(7, 9)):
    rng = np.random.default_rng(seed)
    return rng.integers(0, most + 1, (images, *size))


def test_a_pixel_belongs_to_the_largest_share():
    shares = np.zeros((1, 3, 1, 4))
    shares[0, :, 0] = np.array([[0.7, 0.4, 0.3, 0.0], [0.2, 0.1, 0.6, 0.5], [0.9, 0.9, 0.9, 0.9]])
    assert segmentation.pixel_labels(shares, [2]).tolist() == [[[1, 0, 2, 0]]]  # the third is absent; ties are ground
    assert segmentation.pixel_labels(shares, [0]).tolist() == [[[0, 0, 0, 0]]]
    assert segmentation.pixel_labels(shares, [3]).tolist() == [[[3, 3, 3, 3]]]


@pytest.mark.parametrize("masks", [np.uint8([[0, 1, 0]]), np.uint8([[0, 255, 100]]), np.array([[False, True, False]])])
def test_masks_of_any_kind(masks):
    assert segmentation.pixel_labels(masks[np.newaxis, np.newaxis], [1]).tolist() == [[[0, 1, 0]]]


@pytest.mark.parametrize("most", [1, 4])
def test_adjusted_rand_index_is_that_of_scikit_learn(most):
    found, true = _labels(0, most=most), _labels(1, most=most)
    found[:4] = true[:4]
    found[1, 2] = 0
    true[5] = 0
    expected = [adjusted_rand_score(t.ravel(), f.ravel()) for f, t in zip(found, true, strict=True)]
    np.testing.assert_allclose(segmentation.adjusted_rand_index(found, true), expected, atol=1e-6)
    foreground = [
        adjusted_rand_score(t[t > 0], f[t > 0]) if t.any() else np.nan for f, t in zip(found, true, strict=True)
    ]
    np.testing.assert_allclose(segmentation.adjusted_rand_index(found, true, True), foreground, atol=1e-6)


def test_one_true_object_makes_the_foreground_index_a_yes_or_no():
    true = np.array([[[1, 1, 0, 0]], [[1, 1, 0, 0]], [[0, 0, 0, 0]]])
    found = np.array([[[2, 2, 1, 0]], [[2, 1, 0, 0]], [[0, 1, 0, 0]]])
    np.testing.assert_array_equal(segmentation.adjusted_rand_index(found, true, True), [1.0, 0.0, np.nan])


def test_covering_by_hand():
    true = np.array([[[1, 1, 1, 1, 2, 2, 0, 0]], [[0] * 8], [[1, 0, 0, 0, 0, 0, 0, 0]]])
    found = np.array([[[1, 1, 0, 0, 1, 2, 2, 0]], [[1] * 8], [[0] * 8]])
    # Object 1: IoU 2/5 with the first found, 0 with the second.  Object 2: 1/4 and 1/3.
    covering, unweighted = segmentation.segmentation_covering(found, true)
    np.testing.assert_allclose(covering, [(4 * 0.4 + 2 / 3) / 6, np.nan, 0.0])
    np.testing.assert_allclose(unweighted, [(0.4 + 1 / 3) / 2, np.nan, 0.0])


def test_matched_masks_by_hand():
    true = np.array([[[1, 1, 1, 1, 2, 2, 0, 0]], [[0] * 8], [[0] * 8]])
    found = np.array([[[1, 1, 0, 0, 1, 2, 2, 0]], [[0] * 8], [[1] * 8]])
    scores = segmentation.mean_mask_iou(found, true, [3, 0, 1], [2, 0, 0])
    np.testing.assert_allclose(scores, [(0.4 + 1 / 3) / 3, 1.0, 0.0])
