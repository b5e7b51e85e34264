from __future__ import annotations

import numpy as np
import testing_labelled

from asr_tf.labelled.objects import visible_objects


def found(number):
    known = testing_labelled.drawn(0, number)
    return known, visible_objects(known["masks"], known["boxes"], known["count"])


def test_boxes_and_masks_are_those_of_plain_loops():
    known, objects = found(200)
    wanted = [(row, *entry) for row, entries in enumerate(testing_labelled.labels(200)) for entry in entries]
    assert len(wanted) > 200
    assert objects.images.tolist() == [entry[0] for entry in wanted]
    assert objects.steps.tolist() == [entry[1] for entry in wanted]
    np.testing.assert_array_equal(objects.masks, [entry[2] for entry in wanted])
    assert objects.boxes_px.tolist() == [entry[3] for entry in wanted]
    np.testing.assert_array_equal(objects.windows, [entry[4] for entry in wanted])
    assert objects.left_out == known["count"].sum() - len(wanted) > 10


def test_rows_of_each_image():
    _, objects = found(50)
    rows = objects.of_each_image(50)
    assert [row.stop - row.start for row in rows] == list(map(len, testing_labelled.labels(50)))
    assert all((objects.images[own] == image).all() for image, own in enumerate(rows))


def test_absent_objects_are_neither_found_nor_left_out():
    shares = np.ones((2, 3, 4, 5, 1), np.float32)
    objects = visible_objects(shares, np.zeros((2, 3, 4), np.float32), np.array([0, 1]))
    assert (objects.images.tolist(), objects.steps.tolist(), objects.left_out) == ([1], [0], 0)
    assert objects.boxes_px.tolist() == [[0, 0, 4, 5]]


def test_without_any_object():
    shares = np.zeros((2, 3, 4, 5, 1), np.float32)
    objects = visible_objects(shares, np.zeros((2, 3, 4), np.float32), np.array([0, 2]))
    assert objects.masks.shape == (0, 4, 5)
    assert objects.boxes_px.shape == (0, 4)
    assert objects.left_out == 2
    assert objects.of_each_image(2) == [slice(0, 0)] * 2


def test_half_of_a_pixel_is_enough():
    shares = np.zeros((1, 2, 2, 2, 1), np.float32)
    shares[0, 0, 0, 0] = shares[0, 1, 0, 0] = 0.5
    shares[0, 1, 1, 1] = 0.499
    objects = visible_objects(shares, np.zeros((1, 2, 4), np.float32), np.array([2]))
    assert objects.boxes_px.tolist() == [[0, 0, 1, 1], [0, 0, 1, 1]]


def test_a_smaller_share_makes_wider_boxes():
    shares = np.zeros((1, 1, 3, 4, 1), np.float32)
    shares[0, 0, 1, :, 0] = [0.1, 0.3, 0.9, 0.2]
    boxes = [
        visible_objects(shares, np.zeros((1, 1, 4), np.float32), np.array([1]), share).boxes_px.tolist()
        for share in (0.5, 0.25, 0.2, 0.05)
    ]
    assert boxes == [[[1, 2, 2, 3]], [[1, 1, 2, 3]], [[1, 1, 2, 4]], [[1, 0, 2, 4]]]
