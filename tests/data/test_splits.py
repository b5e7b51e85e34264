import numpy as np
import pytest

from asr_tf.data import Scenes, splits, training_fingerprint


@pytest.mark.parametrize(
    ("num_scenes", "num_validation", "num_training"),
    [
        (40_000, 1000, 39_000),
        (40_000, 5000, 36_000),  # a tenth at most
        (10_000, 1000, 9000),
        (9999, 1000, 9000),
        (40, 3, 37),
        (40, 200, 36),
        (19, 1000, 18),
        (9, 1000, 8),  # one at least
        (2, 1000, 1),
    ],
)
def test_the_last_scenes_are_for_validation(num_scenes, num_validation, num_training):
    assert splits.num_for_training(num_scenes, num_validation, "here") == num_training


@pytest.mark.parametrize("number", [0, -1, 1.5, True, None])
def test_wrong_numbers_are_refused(number):
    with pytest.raises(ValueError, match=rf"^data.num_validation must be a whole number, 1 or more, got {number}\.$"):
        splits.num_for_training(40, number, "here")


def test_too_few_scenes_are_refused():
    with pytest.raises(ValueError, match=r"^training needs at least 2 images \(one is held out\), got 1 in '/some'\.$"):
        splits.num_for_training(1, 1000, "'/some'")


def test_the_fingerprint_of_a_training_tells_where_it_ends():
    images = np.arange(5 * 12, dtype=np.uint8).reshape(5, 3, 4, 1)
    told = training_fingerprint(Scenes(images[:4]), Scenes(images[4:]))
    assert told == f"{Scenes(images[:4]).fingerprint()}, held out {Scenes(images[4:]).fingerprint()}"
    others = [(images[:3], images[3:]), (images[:4], images[3:4]), (images[1:], images[:1])]
    assert len({told, *(training_fingerprint(Scenes(a), Scenes(b)) for a, b in others)}) == 4
