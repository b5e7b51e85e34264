"""What a model answers with time to spare: refined posteriors, and samples that obey its rules."""

import numpy as np
import pytest
import tensorflow as tf
from testing_asr_model import images, tiny, vary_counts

from asr_tf.constraints import (
    AggregateCount,
    Constraint,
    CountInSet,
    InsideCanvas,
    SceneStatistics,
    TightWindows,
)
from asr_tf.models import asr_model
from asr_tf.networks.contracts import Background, LatentNoise
from asr_tf.networks.conv_recognition import ConvRecognition

BEFORE_AND_AFTER = {f"{name}_nats_{when}" for name in ("negative_elbo", "penalties") for when in ("before", "after")}


class FirstObjectLeft(Constraint):
    """The first object's centre is in the left half of the canvas; the penalty is in pixels beyond the middle."""

    def penalty(self, statistics):
        _, x = statistics.centres_px()
        return statistics.presence_probs[:, 0] * tf.nn.relu(x[:, 0] - 0.5 * statistics.canvas_size[1])


class Shade(Background):
    """A grey that is drawn anew with every seed, around a level that is learned."""

    def build(self, spec):
        super().build(spec)
        self.level = self.add_weight(shape=(), initializer="zeros", name="level")

    def call(self, images, seed=None):
        noise = 0.0 if seed is None else tf.random.stateless_normal([tf.shape(images)[0], 1, 1, 1], seed)
        return tf.sigmoid(self.level - 2.0 + 0.1 * noise) * tf.ones_like(images), tf.ones_like(images[:, 0, 0, 0])

    def sample(self, num_samples, seed):
        shade = tf.random.stateless_uniform([num_samples, 1, 1, 1], seed)
        return shade * tf.ones([num_samples, *self.spec.canvas_size, self.spec.channels])


def varied(n, channels=1):
    """Images from dark to bright."""
    brightness = np.random.default_rng(1).uniform(size=(n, 1, 1, 1)).astype(np.float32)
    return brightness * images(n, channels=channels)


def counting(**settings):
    """A tiny model whose count depends on the image."""
    model = tiny(**settings)
    vary_counts(model, varied(30, model.channels))
    return model


def totals(refined):
    return [refined[f"negative_elbo_nats_{when}"] + refined[f"penalties_nats_{when}"] for when in ("before", "after")]


# Refined posteriors.


@pytest.mark.parametrize(
    "settings",
    [
        {"constraints": [CountInSet((1, 3)), TightWindows()]},
        {"second_look": 2.0, "exact_count": 2, "constraints": [InsideCanvas()]},
        {"prior": "air", "estimator": "concrete", "num_steps": 1},
        {"channels": 3, "background": lambda: Shade(name="background"), "learn_scale": True},
        {"recognition": lambda: ConvRecognition(4, look_units=8, encoder_units=(10,))},
    ],
)
def test_refinement_begins_at_the_amortized_posterior_and_never_ends_worse(settings):
    """Of a model that was never trained, whatever its parts."""
    model = tiny(**{name: value() if callable(value) else value for name, value in settings.items()})
    batch = varied(4, model.channels)
    weights = [weight.numpy() for weight in model.weights]
    inferred, start, refined = model.infer(batch), model.refine(batch, 0), model.refine(batch, 8)
    assert set(start) == set(refined) == set(inferred) | BEFORE_AND_AFTER
    for name, value in inferred.items():
        np.testing.assert_allclose(start[name], value, rtol=0, atol=1e-6, err_msg=name)
        assert (refined[name].dtype, refined[name].shape) == (value.dtype, value.shape), name
    before, after = totals(refined)
    np.testing.assert_allclose(totals(start)[0], before, rtol=1e-5)
    np.testing.assert_allclose(totals(start)[1], before, rtol=1e-5)
    assert np.all(np.isfinite(after)) and np.all(after <= before) and np.mean(before - after) > 0.5
    assert np.abs(refined["reconstruction"] - inferred["reconstruction"]).max() > 1e-3
    for weight, value in zip(model.weights, weights, strict=True):
        np.testing.assert_array_equal(weight, value)


def test_the_bound_before_is_that_of_the_objective():
    """By the same eight draws, each for all images; with a rule's penalty times its strength, and no batch's rule."""
    rules = [FirstObjectLeft(strength=3.0), AggregateCount((1, 3), strength=50.0), CountInSet((1, 3), strength=2.0)]
    model, batch = counting(constraints=rules), varied(5)
    refined = model.refine(batch, 0, seed=(4, 9))
    _, held_out, other = tf.unstack(tf.random.split(tf.constant([4, 9]), 3))
    elbos, penalties = [], []
    for k in range(8):
        noise = LatentNoise.draw(1, model.spec, tf.random.fold_in(held_out, k), "philox")
        noise = LatentNoise(*(tf.repeat(part, 5, axis=0) for part in noise))
        terms, statistics = model.score(batch, noise, other, training=False)
        elbos.append(terms.negative_elbo)
        penalties.append(3.0 * rules[0].penalty(statistics) + 2.0 * rules[2].penalty(statistics))
    np.testing.assert_allclose(refined["negative_elbo_nats_before"], np.mean(elbos, 0), rtol=1e-5)
    np.testing.assert_allclose(refined["penalties_nats_before"], np.mean(penalties, 0), rtol=1e-4, atol=1e-5)
    assert np.mean(penalties) > 0.1


def test_what_is_refined_explains_more():
    """Of the likeliest scene too: more steps, a better picture."""
    model, batch = tiny(exact_count=2), varied(6)
    errors = [np.sum((model.refine(batch, steps)["reconstruction"] - batch) ** 2) for steps in (0, 5, 40)]
    assert errors[2] < errors[1] < errors[0]
    nats = [np.mean(model.refine(batch, steps)["negative_elbo_nats_after"]) for steps in (0, 5, 40)]
    assert nats[2] < nats[1] - 0.1 < nats[0] - 0.2


def test_rules_pull_by_their_factors():
    batch = varied(5)
    moved = {}
    for strength in (0.0, 200.0):
        model = tiny(exact_count=1, constraints=[FirstObjectLeft(strength=strength)])
        model.recognition.shift_output.bias.assign([0.3, 0.0, -3.0, -3.0])  # to the right, at first
        refined = model.refine(batch, 20)
        moved[strength] = refined["boxes"][:, 0, 1] + refined["boxes"][:, 0, 3]
        if strength:
            before, after = refined["penalties_nats_before"], refined["penalties_nats_after"]
            assert np.min(before) > 100.0 and np.mean(after) < 0.25 * np.mean(before)
    assert np.all(moved[200.0] < moved[0.0])
    adaptive = tiny(exact_count=1, constraints=[FirstObjectLeft()])
    adaptive.rule_terms.weights.logs.assign(np.log([200.0], dtype=np.float32))
    adaptive.recognition.shift_output.bias.assign([0.3, 0.0, -3.0, -3.0])
    np.testing.assert_allclose(adaptive.refine(batch, 0)["penalties_nats_before"], before, rtol=1e-4)


def test_an_image_is_refined_by_itself():
    """Whatever comes with it, and wherever it stands."""
    model, batch = counting(constraints=[AggregateCount((1, 3)), TightWindows()]), varied(6)
    together = model.refine(batch, 4)
    assert len(np.unique(together["count"])) > 1
    alone = model.refine(batch[3:4], 4)
    for name, value in alone.items():
        atol = 1e-3 if name == "masks" else 1e-4
        np.testing.assert_allclose(value, together[name][3:4], rtol=1e-5, atol=atol, err_msg=name)


def test_many_images_go_in_parts_and_seeds_matter(monkeypatch):
    model, batch = tiny(), varied(5)
    whole = model.refine(batch, 3)
    monkeypatch.setattr(asr_model, "_LARGEST_REFINED", 2)
    for name, value in model.refine(batch, 3).items():
        atol = 1e-3 if name == "masks" else 1e-4
        np.testing.assert_allclose(value, whole[name], rtol=1e-5, atol=atol, err_msg=name)
    other = model.refine(batch, 3, seed=(1, 0))
    assert np.abs(other["boxes"] - whole["boxes"]).max() > 1e-6


@pytest.mark.parametrize("steps", [-1, 1.5, True])
def test_steps_that_are_none(steps):
    with pytest.raises(ValueError, match=f"steps must be a whole number, 0 or more, got {steps!r}."):
        tiny().refine(varied(1), steps)


# Samples that obey.


def obeying(**settings):
    """A model of which about half of the samples break a rule."""
    return tiny(**{"constraints": [FirstObjectLeft(strength=1.0)], **settings})


def by_hand(model, scenes):
    """Which scenes have their first object on the left."""
    x = 7.0 * (scenes["boxes"][:, 0, 1] + scenes["boxes"][:, 0, 3])
    return (scenes["presence"][:, 0] == 0) | (x - 7.0 <= 1e-3)


@pytest.mark.parametrize("with_masks", [False, True])
def test_scenes_that_break_a_rule_are_drawn_again_and_others_stay(with_masks):
    model = obeying(background=Shade(name="background"))
    plain = model.sample(40, (2, 3), with_masks=with_masks)
    found = model.sample(40, (2, 3), with_masks=with_masks, obey=True)
    assert set(found) == set(plain) | {"obeys", "acceptance_rate"}
    first = np.asarray(by_hand(model, plain))
    assert 5 < first.sum() < 38
    assert np.all(by_hand(model, found)) and np.all(found["obeys"])
    for name, value in plain.items():
        np.testing.assert_array_equal(found[name][first], value[first], err_msg=name)
        assert np.any(np.asarray(found[name][~first]) != value[~first]), name
    # What was drawn again is drawn of what is sampled: a picture, its objects, its count.
    drawn = model.render(found["z_what"], found["boxes"], found["presence"], found["images"][:, :1, :1] * 0.0)
    shade = np.min(found["images"] - drawn, axis=(1, 2, 3))
    assert np.all(shade > -1e-5)
    np.testing.assert_array_equal(np.sum(found["presence"], 1), found["count"])
    again = model.sample(40, (2, 3), with_masks=with_masks, obey=True)
    for name, value in found.items():
        np.testing.assert_array_equal(again[name], value, err_msg=name)


def test_ten_thousand_scenes_obey_and_are_spread_as_obeying_scenes_are():
    model = obeying()
    found = model.sample(10_000, (0, 0), obey=True)
    assert np.sum(~np.asarray(by_hand(model, found))) == 0
    plain = model.sample(10_000, (5, 5))
    obeys = np.asarray(by_hand(model, plain))
    np.testing.assert_allclose(found["acceptance_rate"], obeys.mean(), atol=0.02)
    for name in ("count", "boxes", "z_what"):
        np.testing.assert_allclose(np.mean(found[name], 0), np.mean(plain[name][obeys], 0), atol=0.06, err_msg=name)


def test_counts_are_those_of_the_prior_that_obey():
    model = tiny(constraints=[CountInSet((1, 3), strength=1.0)])
    counts = np.asarray(model.sample(2000, (0, 1), obey=True)["count"])
    probs = model.prior.distribution(0).presence.count_probs().numpy()
    assert set(counts) == {1, 3}
    np.testing.assert_allclose(np.mean(counts == 1), probs[1] / (probs[1] + probs[3]), atol=0.03)
    given = model.sample(5, (0, 1), num_objects=3, obey=True)
    assert given["acceptance_rate"] == 1.0 and given["count"].numpy().tolist() == [3] * 5


def test_rules_about_pixels_are_asked_too():
    """In a drawn scene, windows show what is drawn in them."""

    def margins(model, scenes):
        objects = model.decoder(scenes["z_what"][:, 0]).colour[:, tf.newaxis]
        boxes = scenes["boxes"][:, :1]
        return TightWindows().penalty(
            SceneStatistics.of_finished(scenes["count"], boxes, (12, 14), objects=objects, glimpses=objects)
        ).numpy()

    plain = tiny(constraints=[TightWindows(strength=1.0)])
    slack = np.median(margins(plain, plain.sample(60, (0, 0), num_objects=1)))
    model = tiny(constraints=[TightWindows(slack_px=float(slack), strength=1.0)])
    found = model.sample(60, (0, 0), num_objects=1, obey=True)
    assert np.all(margins(model, found) <= slack + 1e-4)
    np.testing.assert_allclose(found["acceptance_rate"], 0.5, atol=0.15)


def test_a_call_says_that_it_can_not():
    model = tiny(constraints=[CountInSet((1, 3), strength=1.0), AggregateCount((1, 3), strength=1.0)])
    message = "4 of 4 scenes still break a rule after 3 tries each: of all drawn, 0.00% obey "
    with pytest.raises(ValueError, match=message + "count_in_set, aggregate_count."):
        model.sample(4, (0, 0), num_objects=2, obey=True, max_tries=3)
    graph = tf.function(lambda seed: model.sample(4, seed, num_objects=2, obey=True, max_tries=3), autograph=False)
    found = graph(tf.constant([0, 0]))
    assert not np.any(found["obeys"]) and found["acceptance_rate"] == 0.0
    with pytest.raises(ValueError, match="max_tries must be"):
        model.sample(4, (0, 0), obey=True, max_tries=0)
    free = tiny().sample(4, (0, 0), obey=True)
    assert np.all(free["obeys"]) and free["acceptance_rate"] == 1.0
