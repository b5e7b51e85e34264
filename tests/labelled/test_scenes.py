from __future__ import annotations

import io

import numpy as np
import PIL.Image
import pytest
import testing_labelled

from asr_tf.labelled import scenes


@pytest.mark.parametrize("channels", [1, 3])
def test_images_are_png_of_the_nearest_levels(channels):
    known = testing_labelled.drawn(5, 4, channels)
    known["images"][0, 0, 0] = 1.001  # rounding of a sum can exceed 1
    labelled = scenes.label(known, 6)
    decoded = [np.asarray(PIL.Image.open(io.BytesIO(image))) for image in labelled.images]
    wanted = np.rint(np.minimum(known["images"], 1.0) * 255)
    np.testing.assert_array_equal(np.reshape(decoded, known["images"].shape), wanted)


def test_scenes_one_by_one():
    labelled = testing_labelled.draw(5, 4)
    each = list(labelled.each())
    assert [scene.id for scene in each] == [6, 7, 8, 9]
    assert [scene.count for scene in each] == testing_labelled.drawn(5, 4)["count"].tolist()
    assert [scene.image for scene in each] == labelled.images
    wanted = testing_labelled.labels(9)[5:]
    assert [labelled.objects.steps[scene.rows].tolist() for scene in each] == [[o[0] for o in w] for w in wanted]
