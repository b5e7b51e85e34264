"""Models as Keras saves and clones them: configurations, weights, rules, and an optimizer that goes on."""

import inspect
import json

import keras
import numpy as np
import pytest
import tensorflow as tf
from testing_asr_model import images, tiny

from asr_tf.constraints import AggregateCount, CountInSet, TightWindows
from asr_tf.imaging.observation import GaussianPixels
from asr_tf.models import parts
from asr_tf.models.asr_model import ASRModel
from asr_tf.models.image_vae import ImageVAE
from asr_tf.networks.contracts import ObjectDecoder
from asr_tf.networks.decoder import MLPDecoder

RULES = (CountInSet((1, 3), applies_to="both"), AggregateCount((1, 3), strength=2.0), TightWindows(tolerance=0.5))
SETTINGS = {
    "learned": {
        "constraints": RULES,
        "multiplier_scale": 3.0,
        "second_look": 2.0,
        "learn_scale": True,
        "scale_bound": 1.5,
    },
    "fixed": {
        "prior": "air",
        "presence_logits": (1.0, -2.0),
        "observation": GaussianPixels(0.2),
        "estimator": "concrete",
        "temperature": 0.3,
        "exact_count": 2,
        "channels": 3,
        "clipnorm": None,
        "multiplier_scale": 0.1,
        "seed": 5,
        "name": "other",
    },
}
OPTIMIZERS = {
    "momentum": lambda: keras.optimizers.SGD(1e-4, momentum=0.9),
    "adamw": lambda: keras.optimizers.AdamW(keras.optimizers.schedules.ExponentialDecay(1e-2, 2, 0.5)),
}


def vae():
    sizes = {"what_size": 3, "encoder_units": (10,), "decoder_units": (10,), "initial_brightness": 0.2}
    return ImageVAE(canvas_size=(12, 14), observation=GaussianPixels(0.2), seed=4, **sizes)


def made(kind):
    return vae() if kind == "vae" else tiny(**SETTINGS[kind])


def fit(model, *batches):
    model.fit(tf.data.Dataset.from_tensor_slices({"image": np.stack(batches)}), verbose=0)


def assert_same_weights(one, other):
    for a, b in zip(one, other, strict=True):
        np.testing.assert_array_equal(a.numpy(), b.numpy(), err_msg=a.path)


@pytest.mark.parametrize("kind", [*SETTINGS, "vae"])
def test_a_model_is_made_again_from_its_configuration(kind):
    """Through JSON, as it is saved."""
    model = made(kind)
    config = model.get_config()
    again = type(model).from_config(json.loads(json.dumps(config)))
    assert type(again) is type(model) and again.name == model.name
    assert json.dumps(again.get_config()) == json.dumps(config)
    assert_same_weights(model.weights, again.weights)  # of one seed
    batch = images(channels=model.channels)
    for a, b in zip(model.objective(batch, (0, 1)), again.objective(batch, (0, 1)), strict=True):
        np.testing.assert_array_equal(a, b)


def test_the_configuration_holds_every_argument_of_the_constructor():
    for kind in (ASRModel, ImageVAE):
        model = vae() if kind is ImageVAE else tiny(**SETTINGS["fixed"])
        assert set(model.get_config()) == set(inspect.signature(kind.__init__).parameters) - {"self"}
    config = tiny(**SETTINGS["fixed"]).get_config()
    for name in ("multiplier_scale", "estimator", "temperature", "exact_count", "channels", "clipnorm", "seed", "name"):
        assert config[name] == SETTINGS["fixed"][name]
    assert config["prior"]["settings"]["presence_logits"] == (1.0, -2.0)
    assert config["observation"]["settings"] == {"stddev": 0.2}


@pytest.mark.parametrize(("kind", "optimizer"), [("learned", "adamw"), ("learned", "momentum"), ("vae", "adamw")])
def test_a_saved_model_goes_on_as_if_nothing_had_been(kind, optimizer, tmp_path):
    """The same rules, inference and next steps, those of the optimizer and of the randomness included."""
    model = made(kind)
    model.compile(optimizer=OPTIMIZERS[optimizer](), jit_compile=False, run_eagerly=True)
    fit(model, images(), images(seed=1))
    model.save(tmp_path / "m.keras")
    loaded = keras.models.load_model(tmp_path / "m.keras")
    assert type(loaded) is type(model)
    rules, wanted = ([parts.described(rule) for rule in one.constraints] for one in (loaded, model))
    assert rules == wanted and len(rules) == (0 if kind == "vae" else 3)
    for name, value in model.infer(images()).items():
        np.testing.assert_array_equal(loaded.infer(images())[name], value, err_msg=name)
    assert_same_weights(model.weights, loaded.weights)
    assert_same_weights(model.optimizer.variables, loaded.optimizer.variables)
    loaded.run_eagerly = True
    for one in (model, loaded):
        fit(one, images(seed=2), images(seed=3))
    assert int(loaded.step.numpy()) == int(loaded.optimizer.iterations.numpy()) == 4
    assert loaded.rules_held() == model.rules_held()
    assert len(model.rules_held()) == (0 if kind == "vae" else 3)
    assert_same_weights(model.weights, loaded.weights)
    assert_same_weights(model.optimizer.variables, loaded.optimizer.variables)


def test_a_model_that_was_never_compiled_is_saved_too(tmp_path):
    model = made("fixed")
    model.save(tmp_path / "m.keras")
    loaded = keras.models.load_model(tmp_path / "m.keras")
    batch = images(channels=3)
    for name, value in model.infer(batch).items():
        np.testing.assert_array_equal(loaded.infer(batch)[name], value, err_msg=name)


def test_weights_alone_are_saved_and_loaded(tmp_path):
    model, other = tiny(second_look=2.0), tiny(second_look=2.0, seed=1)
    model.save_weights(tmp_path / "m.weights.h5")
    assert np.abs(model.infer(images())["z_what"] - other.infer(images())["z_what"]).max() > 1e-4
    other.load_weights(tmp_path / "m.weights.h5")
    assert_same_weights(model.weights, other.weights)


def test_a_checkpoint_holds_all(tmp_path):
    model, other = (tiny(constraints=RULES, seed=seed) for seed in (0, 1))
    for one in (model, other):
        one.compile(optimizer=OPTIMIZERS["adamw"](), jit_compile=False, run_eagerly=True)
    fit(model, images(), images())
    path = tf.train.Checkpoint(model=model).save(str(tmp_path / "c"))
    tf.train.Checkpoint(model=other).restore(path).assert_existing_objects_matched()
    assert_same_weights(model.weights, other.weights)
    assert_same_weights(model.optimizer.variables, other.optimizer.variables)
    assert other.rules_held() == model.rules_held()


class Inverted(MLPDecoder):
    """A decoder of one's own."""

    def __init__(self, units=(10,), level=1.0, name="decoder"):
        super().__init__(units=units, name=name)
        self.level = level
        self.initial_brightness = 0.1

    def get_config(self):
        return {"units": self.units, "level": self.level, "name": self.name}

    def call(self, what):
        return super().call(what).__class__(self.level - super().call(what).colour)


def test_a_part_of_ones_own_is_saved_with_the_model(tmp_path):
    model = tiny(decoder=Inverted(level=0.9))
    model.save(tmp_path / "m.keras")
    loaded = keras.models.load_model(tmp_path / "m.keras")
    assert type(loaded.decoder).__name__ == "Inverted" and loaded.decoder.level == 0.9
    np.testing.assert_array_equal(
        loaded.infer(images())["reconstruction"], model.infer(images())["reconstruction"]
    )


def test_a_part_whose_class_is_not_there_is_named():
    described = {"class": "mine.decoders.Fancy", "settings": {}}
    with pytest.raises(ValueError, match="part of class mine.decoders.Fancy: import mine.decoders first"):
        parts.made_again(ObjectDecoder, described)
    assert parts.made_again(ObjectDecoder, parts.described(None)) is None
