"""The signatures: what they answer, what they refuse, and what their graphs are made of."""

import re

import numpy as np
import pytest
import tensorflow as tf
import testing_export
from tensorflow.core.protobuf import saved_model_pb2

from asr_tf import fast
from asr_tf.constraints import Constraint
from asr_tf.models.asr_model import ASRModel
from asr_tf.serving import served_model as serving

INFERRED = {"count", "count_probs", "presence", "boxes", "z_what", "scores", "masks", "reconstruction"}
OUTPUTS = {
    "infer": INFERRED,
    "refine": INFERRED
    | {f"{name}_nats_{when}" for name in ("negative_elbo", "penalties") for when in ("before", "after")},
    "sample": {"images", "count", "presence", "boxes", "z_what", "obeys", "acceptance_rate"},
    "render": {"images"},
    "log_likelihood": {"log_likelihood"},
}


class ObjectsOnTheLeft(Constraint):
    """The first object's centre is left of the canvas's, and so is what an image shows."""

    def penalty(self, statistics):
        return tf.nn.relu(statistics.boxes[:, 0, 1] + statistics.boxes[:, 0, 3] - 1.0)

    def broken(self, scenes):
        return (scenes.presence_probs[:, 0] > 0.0) & (scenes.boxes[:, 0, 1] + scenes.boxes[:, 0, 3] > 1.0)


@pytest.fixture(scope="module")
def model():
    return testing_export.tiny_model(constraints=[ObjectsOnTheLeft(strength=2.0)])


@pytest.fixture(scope="module")
def coloured(tmp_path_factory):
    """An RGB model with a second look, and what is loaded of it."""
    model = testing_export.tiny_model(
        channels=3, recognition=testing_export.tiny_part("recognition", second_look=2.0)
    )
    folder = tmp_path_factory.mktemp("coloured") / "1"
    serving.ServedModel(model).save(folder)
    return model, tf.saved_model.load(str(folder))


@pytest.fixture(scope="module")
def loaded(model, tmp_path_factory):
    folder = tmp_path_factory.mktemp("served") / "1"
    serving.ServedModel(model).save(folder)
    return tf.saved_model.load(str(folder))


def call(loaded, signature, **inputs):
    if signature == "sample":
        inputs = {"obey": False, **inputs}
    return loaded.signatures[signature](**{name: tf.constant(value) for name, value in inputs.items()})


def numbers(**values):
    return {name: np.int32(value) for name, value in values.items()}


@pytest.mark.parametrize("batch", [1, 7])
@pytest.mark.parametrize("signature", ["infer", "serving_default"])
def test_infer_is_that_of_the_model(loaded, model, signature, batch):
    images = testing_export.images(batch)
    answers, wanted = call(loaded, signature, images=images), model.infer(images)
    assert set(answers) == OUTPUTS["infer"]
    for name, value in wanted.items():
        assert answers[name].dtype == value.dtype
        np.testing.assert_allclose(answers[name], value, rtol=0, atol=1e-6, err_msg=name)


def test_render_redraws_what_infer_shows(loaded):
    inferred = call(loaded, "infer", images=testing_export.images(9))
    objects = {name: inferred[name] for name in ("z_what", "boxes", "presence")}
    drawn = call(loaded, "render", **objects)
    np.testing.assert_allclose(drawn["images"], inferred["reconstruction"], rtol=0, atol=1e-5)


@pytest.mark.parametrize("num_objects", [-1, 0, 3])
def test_sample_is_that_of_the_model(loaded, model, num_objects):
    seed = np.array([1, 2], np.int32)
    asked = numbers(num_samples=5, num_objects=num_objects)
    answers, wanted = call(loaded, "sample", seed=seed, **asked), model.sample(5, seed, num_objects)
    assert set(answers) == OUTPUTS["sample"]
    np.testing.assert_allclose(answers["acceptance_rate"], np.mean(answers["obeys"]), rtol=1e-6)
    for name, value in wanted.items():
        np.testing.assert_allclose(answers[name], value, rtol=0, atol=1e-6, err_msg=name)
    if num_objects >= 0:
        assert set(answers["count"].numpy()) == {num_objects}
    else:
        other = call(loaded, "sample", seed=seed + 1, **asked)
        assert np.abs(other["z_what"] - answers["z_what"]).max() > 0.1


def test_obeying_samples_are_those_of_the_model(loaded, model):
    seed, asked = np.array([1, 2], np.int32), numbers(num_samples=20, num_objects=-1)
    plain, answers = (call(loaded, "sample", seed=seed, obey=obey, **asked) for obey in (False, True))
    assert not np.all(plain["obeys"]) and np.all(answers["obeys"])
    for name, value in model.sample(20, seed, obey=True).items():
        np.testing.assert_allclose(answers[name], value, rtol=0, atol=1e-5, err_msg=name)


def test_a_default_is_in_the_signature(model, tmp_path):
    """Consumers that know of defaults may leave `obey` out."""
    serving.ServedModel(model).save(tmp_path / "1")
    saved = saved_model_pb2.SavedModel.FromString((tmp_path / "1" / "saved_model.pb").read_bytes())
    defaults = {name: dict(entry.defaults) for name, entry in saved.meta_graphs[0].signature_def.items()}
    assert {name: list(entry) for name, entry in defaults.items() if entry} == {"sample": ["obey"]}
    assert tf.make_ndarray(defaults["sample"]["obey"]) == np.False_


@pytest.mark.parametrize("steps", [0, 1, 5])
def test_refine_is_that_of_the_model(loaded, model, steps):
    images = testing_export.images(3)
    answers = call(loaded, "refine", images=images, **numbers(steps=steps))
    assert set(answers) == OUTPUTS["refine"]
    for name, value in model.refine(images, steps).items():
        assert answers[name].dtype == value.dtype
        atol = 1e-4 if name == "masks" else 1e-5  # quotients of small numbers
        np.testing.assert_allclose(answers[name], value, rtol=1e-5, atol=atol, err_msg=name)
    if steps:
        assert np.mean(answers["negative_elbo_nats_before"] - answers["negative_elbo_nats_after"]) > 0.01


def test_log_likelihood_is_that_of_the_model(loaded, model):
    images, seed = testing_export.images(3), np.array([5, 6], np.int32)
    answers = call(loaded, "log_likelihood", images=images, seed=seed, **numbers(num_particles=4))
    assert set(answers) == OUTPUTS["log_likelihood"]
    np.testing.assert_allclose(answers["log_likelihood"], model.log_likelihood(images, 4, seed), rtol=1e-5)


def test_an_rgb_model_answers_as_it_does_here(coloured):
    model, loaded = coloured
    images, seed = testing_export.images(5, channels=3), np.int32([5, 6])
    answers = call(loaded, "infer", images=images)
    for name, value in model.infer(images).items():
        np.testing.assert_allclose(answers[name], value, rtol=0, atol=1e-6, err_msg=name)
    drawn = call(loaded, "render", **{name: answers[name] for name in ("z_what", "boxes", "presence")})
    assert drawn["images"].shape == (5, 12, 14, 3)
    np.testing.assert_allclose(drawn["images"], answers["reconstruction"], rtol=0, atol=1e-5)
    sampled = call(loaded, "sample", seed=seed, **numbers(num_samples=4, num_objects=2))
    for name, value in model.sample(4, seed, 2).items():
        np.testing.assert_allclose(sampled[name], value, rtol=0, atol=1e-6, err_msg=name)
    scored = call(loaded, "log_likelihood", images=images, seed=seed, **numbers(num_particles=3))
    np.testing.assert_allclose(scored["log_likelihood"], model.log_likelihood(images, 3, seed), rtol=1e-5)
    with pytest.raises(tf.errors.InvalidArgumentError, match=misfit("images", "5,12,14,1", "?,12,14,3")):
        call(loaded, "infer", images=images[..., :1])


def test_absent_and_faint_objects_are_rendered_as_such(loaded):
    """In any order; a faint object is a share of the whole one."""
    z_what = np.random.default_rng(0).normal(size=(1, 3, 4)).astype(np.float32)
    boxes = np.float32([[[0.0, 0.0, 0.4, 0.4], [0.5, 0.5, 0.9, 0.9], [0.2, 0.6, 0.4, 0.9]]])

    def render(*presence):
        return call(loaded, "render", z_what=z_what, boxes=boxes, presence=np.float32([presence]))["images"]

    alone = [render(*row) for row in np.eye(3)]
    np.testing.assert_allclose(render(0, 1, 1), np.clip(alone[1] + alone[2], 0.0, 1.0), atol=1e-6)
    np.testing.assert_allclose(render(0.25, 0, 0.5), np.clip(0.25 * alone[0] + 0.5 * alone[2], 0, 1), atol=1e-6)
    assert not np.any(render(0, 0, 0))


def misfit(name, fed, wanted):
    """How TensorFlow refuses a shape."""
    return re.escape(f"Shape of tensor {name} [{fed}] is not compatible with expected shape [{wanted}]")


IMAGES = testing_export.images(2)
SCALED = IMAGES / IMAGES.max()


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (np.where(IMAGES > 0.2, np.nan, IMAGES), "images must not hold NaN"),
        (2.0 * SCALED, r"images must lie in \[0, 1\], got values from\] \[\S+\] \[to\] \[2\]"),
        (1.000001 * SCALED, r"images must lie in \[0, 1\], got values from\] \[\S+\] \[to\] \[1.00000095\]"),
        (-SCALED, r"images must lie in \[0, 1\], got values from\] \[-1\]"),
        (IMAGES[:0], r"images must hold one scene or more, got shape\] \[0 12 14 1\]"),
        (IMAGES[..., 0], misfit("images", "2,12,14", "?,12,14,1")),
        (IMAGES[:, :11], misfit("images", "2,11,14,1", "?,12,14,1")),
        (IMAGES[:, :, :, [0, 0, 0]], misfit("images", "2,12,14,3", "?,12,14,1")),
        (np.float32(0.5), misfit("images", "", "?,12,14,1")),
        (np.full((4, 2), 0.5, np.float32), misfit("images", "4,2", "?,12,14,1")),
        (IMAGES.astype(np.float64), "expected to be a float tensor but is a double tensor"),
    ],
)
@pytest.mark.parametrize("signature", ["infer", "log_likelihood"])
def test_images_that_are_refused(loaded, signature, images, message):
    more = {} if signature == "infer" else {"seed": np.int32([0, 1]), **numbers(num_particles=1)}
    with pytest.raises(tf.errors.InvalidArgumentError, match=message):
        call(loaded, signature, images=images, **more)


@pytest.mark.parametrize(
    ("signature", "changed", "message"),
    [
        ("sample", numbers(num_objects=4), r"num_objects must be from -1 to 3, got\] \[4\]"),
        ("sample", numbers(num_objects=-2), r"num_objects must be from -1 to 3, got\] \[-2\]"),
        ("sample", numbers(num_samples=0), r"num_samples must be from 1 to 4096, got\] \[0\]"),
        ("sample", numbers(num_samples=4097), r"num_samples must be from 1 to 4096, got\] \[4097\]"),
        ("sample", numbers(num_samples=[1, 2]), misfit("num_samples", "2", "")),
        ("sample", numbers(seed=[1, 2, 3]), misfit("seed", "3", "2")),
        ("sample", numbers(seed=1), misfit("seed", "", "2")),
        ("sample", {"obey": np.array([True])}, misfit("obey", "1", "")),
        ("refine", numbers(steps=-1), r"steps must be from 0 to 1000, got\] \[-1\]"),
        ("refine", numbers(steps=1001), r"steps must be from 0 to 1000, got\] \[1001\]"),
        ("refine", {"images": np.zeros((257, 12, 14, 1), np.float32)}, "images must hold 256 scenes at most, got sh"),
        ("refine", {"images": np.full((1, 12, 14, 1), np.nan, np.float32)}, "images must not hold NaN"),
        ("log_likelihood", numbers(seed=[1]), misfit("seed", "1", "2")),
        ("log_likelihood", numbers(num_particles=0), r"num_particles must be from 1 to 10000, got\] \[0\]"),
    ],
)
def test_numbers_that_are_refused(loaded, signature, changed, message):
    good = {
        "sample": {"seed": np.int32([0, 1]), **numbers(num_samples=2, num_objects=1)},
        "refine": {"images": IMAGES, **numbers(steps=1)},
        "log_likelihood": {"images": IMAGES, "seed": np.int32([0, 1]), **numbers(num_particles=1)},
    }
    with pytest.raises(tf.errors.InvalidArgumentError, match=message):
        call(loaded, signature, **{**good[signature], **changed})


OBJECTS = {
    "z_what": np.zeros((2, 3, 4), np.float32),
    "boxes": np.tile(np.float32([0.1, 0.1, 0.6, 0.6]), (2, 3, 1)),
    "presence": np.ones((2, 3), np.float32),
}


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"z_what": OBJECTS["z_what"] + np.inf}, "z_what must hold finite numbers"),
        ({"boxes": OBJECTS["boxes"] * np.nan}, "boxes must hold finite numbers"),
        ({"boxes": OBJECTS["boxes"] * 1e4}, r"boxes must lie within 1000 canvases"),
        ({"boxes": -OBJECTS["boxes"]}, r"boxes must be \[ymin, xmin, ymax, xmax\] with minima up to maxima"),
        ({"presence": 2 * OBJECTS["presence"]}, r"presence must lie in \[0, 1\], got values from"),
        ({"presence": OBJECTS["presence"] * np.nan}, "presence must not hold NaN"),
        ({"presence": OBJECTS["presence"][:1]}, r"of as many scenes each, got\] \[2 2 1\]"),
        ({"z_what": OBJECTS["z_what"][:, :2]}, misfit("z_what", "2,2,4", "?,3,4")),
        ({"boxes": OBJECTS["boxes"][..., :3]}, misfit("boxes", "2,3,3", "?,3,4")),
        ({name: value[:0] for name, value in OBJECTS.items()}, "must hold one scene or more"),
    ],
)
def test_objects_that_are_refused(loaded, changed, message):
    with pytest.raises(tf.errors.InvalidArgumentError, match=message):
        call(loaded, "render", **{**OBJECTS, **changed})


def test_infer_is_a_small_graph_without_randomness():
    """At the sizes of scenes/mnist_count13.gin, functions that it calls included."""
    served = serving.ServedModel(ASRModel())
    definition = served.infer.get_concrete_function().graph.as_graph_def()
    nodes = [*definition.node, *(node for function in definition.library.function for node in function.node_def)]
    assert len(nodes) < 1500
    operations = {node.op for node in nodes}
    assert not [name for name in operations if "Random" in name or name in ("While", "StatelessWhile", "PyFunc")]
    assert "MatMul" in operations and ("CropAndResize" in operations) == fast.enabled()


def test_saved_weights_are_those_at_the_time(tmp_path):
    model, images = testing_export.tiny_model(seed=1), testing_export.images(4)
    served = serving.ServedModel(model)
    served.save(tmp_path / "1")
    before = model.infer(images)["z_what"].numpy()
    model.recognition.encoder.dense[-1].bias.assign_add(np.ones(8, np.float32))
    loaded = tf.saved_model.load(str(tmp_path / "1"))
    np.testing.assert_allclose(call(loaded, "infer", images=images)["z_what"], before, atol=1e-6)
    assert np.abs(model.infer(images)["z_what"] - before).max() > 0.5


@pytest.mark.parametrize("channels", [1, 3])
def test_lite_infers_as_the_model_does_plainly(channels):
    """Of LiteRT's own operations only: the interpreter here has no others."""
    recognition = testing_export.tiny_part("recognition", second_look=2.0)
    model = testing_export.tiny_model(channels=channels, recognition=recognition)
    interpreter = tf.lite.Interpreter(model_content=serving.to_tflite(model))
    run = interpreter.get_signature_runner("infer")
    for batch in (1, 7):
        images = testing_export.images(batch, channels=channels)
        with fast.plain():
            wanted = model.infer(images)
        answers = run(images=images)
        assert set(answers) == OUTPUTS["infer"]
        for name, value in wanted.items():
            assert answers[name].dtype == value.dtype.as_numpy_dtype
            np.testing.assert_allclose(answers[name], value, rtol=0, atol=1e-5, err_msg=name)
    assert {detail["op_name"][:4] for detail in interpreter._get_ops_details()}.isdisjoint({"Flex", "CUST"})


def test_description_tells_shapes_and_meanings(model):
    described = serving.ServedModel(model).description()
    assert {name: set(entry["outputs"]) for name, entry in described.items()} == {
        **OUTPUTS,
        "serving_default": OUTPUTS["infer"],
    }
    infer, sample = described["infer"], described["sample"]
    assert infer["inputs"]["images"]["shape"] == [None, 12, 14, 1]
    assert infer["outputs"]["boxes"]["shape"] == [None, 3, 4]
    assert infer["outputs"]["count"] == {"dtype": "int32", "shape": [None], "meaning": "objects in the image"}
    assert {name: (entry["dtype"], entry["shape"]) for name, entry in sample["inputs"].items()} == {
        "num_samples": ("int32", []),
        "seed": ("int32", [2]),
        "num_objects": ("int32", []),
        "obey": ("bool", []),
    }
    assert described["refine"]["inputs"]["steps"]["shape"] == []
    assert described["render"]["inputs"]["z_what"]["shape"] == [None, 3, 4]
    assert described["log_likelihood"]["outputs"]["log_likelihood"]["shape"] == [None]


def test_shapes_of_what_is_loaded(loaded):
    for name, outputs in OUTPUTS.items():
        structured = loaded.signatures[name].structured_outputs
        assert set(structured) == outputs
        assert all(value.shape.rank == 0 or value.shape[0] is None for value in structured.values()), name
    assert loaded.signatures["infer"].structured_outputs["reconstruction"].shape.as_list() == [None, 12, 14, 1]
