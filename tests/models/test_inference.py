"""Inference against the training pass without noise, and drawing against a slow reference."""

import numpy as np
import pytest
import tensorflow as tf
import testing_export
from asr_tf.models.inference import Inference

from asr_tf.distributions import PresenceCode, code_of_count
from asr_tf.networks.recognition import LatentNoise

SETTINGS = [
    {},
    {"image_pool": 1, "scale_bound": 2.0, "num_steps": 1, "second_look": None},
    {"scale_bound": 1.0, "second_look": 1.0, "exact_count": 2},
    {"encoder_units": (9, 7), "decoder_units": (8, 11), "prior": "air", "image_pool": 3, "num_steps": 4},
]


def _by_the_training_pass(model, images):
    """What `infer` gives, from recognition with its noise set to zero, masked and summed."""
    none = LatentNoise.zeros(len(images), model.num_steps, model.what_size)
    posterior, latents, _ = model.recognition(tf.constant(images[..., 0]), none)
    count_probs = PresenceCode(posterior.presence_logits).count_probs()
    count = tf.argmax(count_probs, -1, output_type=tf.int32)
    presence = code_of_count(count, model.num_steps)
    drawn = presence[..., None, None] * tf.einsum("tbhw->bthw", model._draw(latents))
    return {
        "count": count,
        "count_probs": count_probs,
        "presence": presence,
        "boxes": presence[..., None] * model._boxes(latents),
        "z_what": presence[..., None] * latents.what,
        "reconstruction": np.clip(np.sum(drawn, 1), 0.0, 1.0)[..., None],
        "objects": drawn[..., None],
    }


@pytest.mark.parametrize("way", ["model", "masking model", "frozen", "portable"])
@pytest.mark.parametrize("settings", SETTINGS)
def test_infer_equals_the_training_pass_without_noise(settings, way):
    model = testing_export.tiny_model(**settings, skip_absent=way != "masking model")
    images = testing_export.images(30)
    wanted = _by_the_training_pass(model, images)
    if way.endswith("model"):
        found = model.infer(images, with_objects=True)
    else:
        found = Inference(model, portable=way == "portable").infer(tf.constant(images), with_objects=True)
    assert set(found) == set(wanted)
    assert len(np.unique(wanted["count"])) > 1 or model.exact_count == 2
    for name, value in wanted.items():
        assert found[name].dtype == value.dtype
        np.testing.assert_allclose(found[name], value, rtol=0, atol=1e-5, err_msg=name)


def test_copies_keep_the_weights_that_they_were_made_of():
    model, images = testing_export.tiny_model(), tf.constant(testing_export.images(4))
    frozen = Inference(model)
    before = frozen.infer(images)["reconstruction"].numpy()
    np.testing.assert_allclose(model.infer(images)["reconstruction"], before, atol=1e-6)
    model.set_weights([weight + 0.1 for weight in model.get_weights()])
    np.testing.assert_array_equal(frozen.infer(images)["reconstruction"], before)
    after = model.infer(images)["reconstruction"].numpy()
    assert np.abs(after - before).max() > 1e-2
    np.testing.assert_allclose(Inference(model).infer(images)["reconstruction"], after, atol=1e-6)


def test_images_without_objects_are_black():
    model = testing_export.tiny_model()
    model.recognition.presence_head.dense_1.bias.assign([-100.0])
    found = Inference(model).infer(tf.constant(testing_export.images(3)))
    for name in ("count", "presence", "boxes", "z_what", "reconstruction"):
        assert not np.any(found[name]), name


@pytest.fixture(scope="module")
def inference():
    return Inference(testing_export.tiny_model())


@pytest.fixture(scope="module")
def what():
    """[1, 3, Z] of three objects that look different."""
    return np.random.default_rng(1).normal(size=(1, 3, 4)).astype(np.float32)


def _draw(inference, what, boxes, presence=(1.0, 1.0, 1.0)):
    boxes = np.asarray(boxes, np.float32).reshape(1, 3, 4)
    return inference.draw(what, boxes, np.float32([presence])).numpy()[0, ..., 0]


def _box(top, left, height, width):
    """Fractions of the canvas from pixels."""
    canvas = np.array([*testing_export.CANVAS_SIZE] * 2)
    return np.array([top, left, top + height, left + width]) / canvas


NOWHERE = np.zeros(4)


def test_an_object_drawn_by_hand(inference, what):
    """Bilinear interpolation in a box of any proportions, pixel by pixel."""
    top, left, height, width = 1.5, 2.25, 8.0, 5.0
    drawn = _draw(inference, what, [_box(top, left, height, width), NOWHERE, NOWHERE], (1, 0, 0))
    # Drawn at one canvas pixel a value, the object shows its values.
    values = _draw(inference, what, [_box(3, 4, 6, 6), NOWHERE, NOWHERE], (1, 0, 0))[3:9, 4:10]
    assert values.min() > 0.0 and np.ptp(values) > 0.0
    wanted = np.zeros(testing_export.CANVAS_SIZE)
    for y, x in np.ndindex(*wanted.shape):
        row, column = (y + 0.5 - top) * 6 / height - 0.5, (x + 0.5 - left) * 6 / width - 0.5
        for i, j in np.ndindex(6, 6):
            wanted[y, x] += max(0.0, 1 - abs(row - i)) * max(0.0, 1 - abs(column - j)) * values[i, j]
    np.testing.assert_allclose(drawn, wanted, atol=1e-5)


def test_a_moved_object_is_the_same_elsewhere(inference, what):
    presence = (1, 0, 0)
    before = _draw(inference, what, [_box(1, 2, 6, 6), NOWHERE, NOWHERE], presence)
    after = _draw(inference, what, [_box(5, 6, 6, 6), NOWHERE, NOWHERE], presence)
    np.testing.assert_allclose(after[5:11, 6:12], before[1:7, 2:8], atol=1e-5)
    assert after[1:5].sum() < 1e-4


def test_objects_add_up_in_any_order_and_place(inference, what):
    boxes = [_box(0, 0, 5, 5), _box(6, 8, 5, 5), _box(3, 4, 4, 6)]
    alone = [_draw(inference, what, boxes, presence) for presence in np.eye(3)]
    np.testing.assert_allclose(_draw(inference, what, boxes), np.clip(sum(alone), 0, 1), atol=1e-6)
    np.testing.assert_allclose(_draw(inference, what, boxes, (0, 1, 1)), np.clip(alone[1] + alone[2], 0, 1), atol=1e-6)
    np.testing.assert_allclose(_draw(inference, what[:, ::-1], boxes[::-1]), _draw(inference, what, boxes), atol=1e-6)
    np.testing.assert_allclose(_draw(inference, what, boxes, (0.25, 0, 0)), 0.25 * alone[0], atol=1e-6)


def test_swapped_appearances(inference, what):
    boxes = [_box(0, 0, 6, 6), _box(6, 8, 6, 6), NOWHERE]
    presence = (1, 1, 0)
    swapped = _draw(inference, what[:, [1, 0, 2]], boxes, presence)
    drawn = _draw(inference, what, boxes, presence)
    np.testing.assert_allclose(swapped[:6, :6], drawn[6:, 8:], atol=1e-5)
    np.testing.assert_allclose(swapped[6:, 8:], drawn[:6, :6], atol=1e-5)
    assert np.abs(swapped - drawn).max() > 1e-3


def test_boxes_far_away_of_no_size_or_not_a_number_draw_nothing(inference, what):
    far, point, bad = _box(1000, 1000, 6, 6), _box(5, 5.25, 0, 0), np.full(4, np.nan)
    assert not np.any(_draw(inference, what, [far, point, bad]))


def test_drawing_has_gradients(inference, what):
    boxes = tf.constant(np.stack([_box(1, 2, 6, 6), _box(4, 4, 5, 5), _box(0, 6, 7, 7)])[np.newaxis], tf.float32)
    with tf.GradientTape() as tape:
        tape.watch(boxes)
        total = tf.reduce_sum(tf.square(inference.draw(tf.constant(what), boxes, tf.ones([1, 3]))))
    gradient = tape.gradient(total, boxes)
    assert np.all(np.isfinite(gradient)) and np.abs(gradient).min(-1).max() > 0
