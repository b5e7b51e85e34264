"""The model of scenes: inference, drawing, sampling and scoring against slow references; its parts and settings."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from testing_asr_model import images, tiny, vary_counts

from asr_tf import fast
from asr_tf.constraints import AggregateCount, CountInSet, TightWindows
from asr_tf.distributions import PresenceCode, code_of_count, scene_posterior
from asr_tf.imaging.composition import Drawn, Sum
from asr_tf.imaging.observation import BernoulliPixels, GaussianPixels
from asr_tf.imaging.windows import write_boxes
from asr_tf.models import bound
from asr_tf.models.asr_model import ASRModel
from asr_tf.models.bound_model import BoundModel
from asr_tf.networks.contracts import Background, ObjectDecoder
from asr_tf.networks.decoder import MLPDecoder
from asr_tf.networks.prior import AIRPrior, AutoregressivePrior
from asr_tf.networks.recognition import LSTMRecognition
from asr_tf.scene import window_boxes

TERMS = ("nll", "kl_count", "kl_shift", "kl_scale", "kl_what")
RULES = (CountInSet((1, 3)), AggregateCount((1, 3)), TightWindows())


def counting(**settings):
    """A tiny model whose count depends on the image."""
    model = tiny(**settings)
    if model.spec.exact_count is None:
        vary_counts(model, varied(channels=model.channels))
    return model


def varied(n=30, channels=1):
    """Images from dark to bright, in which `counting` finds from none to all objects."""
    brightness = np.random.default_rng(1).uniform(size=(n, 1, 1, 1)).astype(np.float32)
    return brightness * images(n, channels=channels)


def on_canvases(model, latents):
    """Boxes [B, T, 4], and what each step draws on a canvas of its own, [B, T, H, W, C]."""
    boxes = window_boxes(tf.tanh(latents.shift_latent), tf.sigmoid(latents.scale_latent), model.canvas_size)
    colour = model.decoder(tf.reshape(latents.what, [-1, latents.what.shape[-1]])).colour
    colour = tf.reshape(colour, [-1, model.num_steps, *colour.shape[1:]])
    return boxes, write_boxes(colour, boxes, model.canvas_size)


# Inference.


def by_the_training_pass(model, batch):
    """What `infer` gives, from recognition without noise, masked and summed."""
    posterior, latents, _ = model.recognition(tf.constant(batch))
    if model.spec.exact_count is None:
        count_probs = PresenceCode(posterior.presence_logits).count_probs()
    else:
        count_probs = tf.one_hot(tf.fill([len(batch)], model.spec.exact_count), model.num_steps + 1)
    count = tf.argmax(count_probs, -1, output_type=tf.int32)
    presence = code_of_count(count, model.num_steps)
    boxes, drawn = on_canvases(model, latents)
    drawn *= presence[..., None, None, None]
    brightness = np.max(drawn, -1, keepdims=True)
    ink = np.max(batch, -1, keepdims=True)[:, None] / np.maximum(brightness.max((2, 3), keepdims=True), 0.1)
    return {
        "scores": tf.cumsum(count_probs, axis=1, reverse=True)[:, 1:],
        "masks": tf.constant(np.minimum(ink, 1.0) * brightness / np.maximum(brightness.sum(1, keepdims=True), 5e-3)),
        "count": count,
        "count_probs": count_probs,
        "presence": presence,
        "boxes": presence[..., None] * boxes,
        "z_what": presence[..., None] * latents.what,
        "reconstruction": np.clip(np.sum(drawn, 1), 0.0, 1.0),
        "objects": drawn,
    }


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"image_pool": 1, "scale_bound": 2.0, "num_steps": 1},
        {"scale_bound": 1.0, "second_look": 1.0, "exact_count": 2},
        {"encoder_units": (9, 7), "units": (8, 11), "prior": "air", "image_pool": 3, "num_steps": 4},
        {"channels": 3, "second_look": 2.0},
    ],
)
def test_infer_is_the_training_pass_without_noise_fast_and_plain(settings):
    model, batch = counting(**settings), varied(channels=settings.get("channels", 1))
    wanted = by_the_training_pass(model, batch)
    assert len(np.unique(wanted["count"])) > 1 or model.spec.exact_count == 2
    found = model.infer(batch, with_objects=True)
    with fast.plain():
        plain = model.infer(batch, with_objects=True)
    assert set(found) == set(plain) == set(wanted)
    for name, value in wanted.items():
        assert found[name].dtype == plain[name].dtype == value.dtype
        atol = 1e-4 if name == "masks" else 1e-5  # where a pixel is nearly black, masks are quotients of small numbers
        np.testing.assert_allclose(found[name], value, rtol=0, atol=atol, err_msg=name)
        np.testing.assert_allclose(plain[name], value, rtol=0, atol=atol, err_msg=name)


def test_infer_is_deterministic_and_consistent():
    model, batch = counting(), varied(20)
    result = {name: value.numpy() for name, value in model.infer(batch, with_objects=True).items()}
    assert {name: value.shape for name, value in result.items()} == {
        "count": (20,),
        "count_probs": (20, 4),
        "presence": (20, 3),
        "boxes": (20, 3, 4),
        "z_what": (20, 3, 4),
        "scores": (20, 3),
        "masks": (20, 3, 12, 14, 1),
        "objects": (20, 3, 12, 14, 1),
        "reconstruction": (20, 12, 14, 1),
    }
    np.testing.assert_allclose(result["count_probs"].sum(1), 1.0, rtol=1e-5)
    np.testing.assert_array_equal(result["count"], result["count_probs"].argmax(1))
    np.testing.assert_array_equal(result["presence"], np.arange(3) < result["count"][:, None])
    np.testing.assert_allclose(result["reconstruction"], np.clip(result["objects"].sum(1), 0, 1), atol=1e-6)
    absent = result["presence"] == 0
    assert absent.any() and not result["boxes"][absent].any() and not result["z_what"][absent].any()
    assert not result["masks"][absent].any() and result["masks"].sum(1).max() <= 1.0 + 1e-6
    assert (result["boxes"][~absent] != 0).all()
    again = model.infer(batch)
    assert "objects" not in again
    for name, value in again.items():
        np.testing.assert_array_equal(value, result[name], err_msg=name)


def test_levels_may_be_bytes_or_fractions_arrays_or_tensors():
    model, levels = tiny(), np.random.default_rng(0).integers(0, 256, (2, 12, 14, 1), dtype=np.uint8)
    wanted = model.infer(levels)
    for given in (levels / 255.0, tf.constant(levels), tf.constant(levels / 255.0)):
        for name, value in model.infer(given).items():
            np.testing.assert_allclose(value, wanted[name], atol=1e-5, err_msg=name)


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (np.zeros((2, 12, 14)), r"shape \[N, H, W, 1\]"),
        (np.zeros((2, 12, 14, 3)), r"shape \[N, H, W, 1\] \(grey\), got \[2, 12, 14, 3\]"),
        (np.zeros((2, 14, 12, 1)), "12 x 14 pixels"),
        (np.full((2, 12, 14, 1), np.nan), "NaN"),
        (np.full((2, 12, 14, 1), 2.0), r"\[0, 1\]"),
    ],
)
def test_what_is_wrong_with_images_is_named(bad, message):
    model = tiny()
    for ask in (model.infer, lambda x: model.log_likelihood(x, 1, (0, 0)), lambda x: model.objective(x, (0, 0))):
        for kind in (np.asarray, tf.constant):
            with pytest.raises(ValueError, match=message):
                ask(kind(bad))


@pytest.mark.parametrize("with_objects", [False, True])
def test_a_large_batch_is_the_same_in_parts(with_objects):
    model, batch = counting(), np.tile(varied(20), (30, 1, 1, 1))  # 600 = 256 + 256 + 88
    parts = model.infer(batch[:20], with_objects)
    for name, value in model.infer(batch, with_objects).items():
        assert value.shape[0] == 600 and value.dtype == parts[name].dtype, name
        for i in (0, 240, 580):
            np.testing.assert_allclose(value[i : i + 20], parts[name], atol=1e-5, err_msg=name)


def test_plain_inference_and_sampling_compile_and_give_the_same():
    model, batch = counting(), tf.constant(varied(20))
    model.prior.presence_weights.assign([0.1, -0.05, 0.02])
    results = [model.infer(batch)]
    samples = [model.sample(20, [3, 4])]
    with fast.plain():
        results.append(tf.function(model.infer, jit_compile=True)(batch))
        samples.append(model.sample(20, [3, 4]))
    assert len(np.unique(results[0]["count"])) > 2 and len(np.unique(samples[0]["count"])) > 2
    for one, other in (results, samples):
        for name, value in one.items():
            np.testing.assert_allclose(value, other[name], atol=1e-5, err_msg=name)


def test_images_without_objects_are_black():
    model = tiny()
    model.recognition.presence_output.bias.assign([-100.0])
    found = model.infer(images(3), with_objects=True)
    for name in ("count", "presence", "boxes", "z_what", "reconstruction", "objects"):
        assert not np.any(found[name]), name


def test_weights_that_change_change_what_is_inferred():
    model, batch = tiny(), images()
    before = model.infer(batch)["reconstruction"].numpy()
    for weight in model.trainable_variables:
        weight.assign_add(tf.fill(weight.shape, 0.1))
    after = model.infer(batch)["reconstruction"]
    assert np.abs(after - before).max() > 1e-2
    np.testing.assert_allclose(after, by_the_training_pass(model, batch)["reconstruction"], atol=1e-5)


# Drawing.


@pytest.fixture(scope="module", params=["fast", "plain"])
def drawing(request):
    """A model, what its decoder draws of three appearances [3, 6, 6], and those, [1, 3, Z]."""
    model = tiny()
    what = np.random.default_rng(1).normal(size=(1, 3, 4)).astype(np.float32)
    with fast.plain() if request.param == "plain" else tf.name_scope("fast"):
        yield model, model.decoder(tf.constant(what[0])).colour.numpy()[..., 0], what


def draw(drawing, boxes, presence=(1.0, 1.0, 1.0), order=(0, 1, 2)):
    model, _, what = drawing
    boxes, presence = np.float32(np.reshape(boxes, (1, 3, 4))), np.float32([presence])
    return model.render(*map(tf.constant, (what[:, list(order)], boxes, presence))).numpy()[0, ..., 0]


def box(top, left, height, width):
    """Fractions of the canvas from pixels."""
    return np.array([top, left, top + height, left + width]) / [12, 14, 12, 14]


NOWHERE = np.zeros(4)


def test_an_object_drawn_by_hand(drawing):
    """Bilinear interpolation in a box of any proportions, pixel by pixel."""
    top, left, height, width = 1.5, 2.25, 8.0, 5.0
    values, wanted = drawing[1][0], np.zeros((12, 14))
    for y, x in np.ndindex(*wanted.shape):
        row, column = (y + 0.5 - top) * 6 / height - 0.5, (x + 0.5 - left) * 6 / width - 0.5
        for i, j in np.ndindex(6, 6):
            wanted[y, x] += max(0.0, 1 - abs(row - i)) * max(0.0, 1 - abs(column - j)) * values[i, j]
    drawn = draw(drawing, [box(top, left, height, width), NOWHERE, NOWHERE], (1, 0, 0))
    np.testing.assert_allclose(drawn, wanted, atol=1e-5)


def test_objects_add_up_in_any_order_and_place(drawing):
    boxes = [box(0, 0, 5, 5), box(6, 8, 5, 5), box(3, 4, 4, 6)]
    alone = [draw(drawing, boxes, presence) for presence in np.eye(3)]
    every = draw(drawing, boxes)
    np.testing.assert_allclose(every, np.clip(sum(alone), 0, 1), atol=1e-6)
    np.testing.assert_allclose(draw(drawing, boxes, (0, 1, 1)), np.clip(alone[1] + alone[2], 0, 1), atol=1e-6)
    np.testing.assert_allclose(draw(drawing, boxes[::-1], order=(2, 1, 0)), every, atol=1e-6)
    np.testing.assert_allclose(draw(drawing, boxes, (0.25, 0, 0)), 0.25 * alone[0], atol=1e-6)


def test_a_moved_object_is_the_same_elsewhere_and_swapped_ones_change_places(drawing):
    here, there = box(0, 0, 6, 6), box(6, 8, 6, 6)
    drawn = draw(drawing, [here, there, NOWHERE], (1, 1, 0))
    swapped = draw(drawing, [here, there, NOWHERE], (1, 1, 0), order=(1, 0, 2))
    np.testing.assert_allclose(drawn[:6, :6], drawing[1][0], atol=1e-5)
    np.testing.assert_allclose(swapped[6:, 8:], drawing[1][0], atol=1e-5)
    np.testing.assert_allclose(swapped[:6, :6], drawn[6:, 8:], atol=1e-5)
    assert np.abs(swapped - drawn).max() > 1e-3


def test_boxes_far_away_of_no_size_or_not_a_number_draw_nothing(drawing):
    far, point, bad = box(1000, 1000, 6, 6), box(5, 5.25, 0, 0), np.full(4, np.nan)
    drawn = draw(drawing, [far, point, NOWHERE])
    assert not np.any(drawn)
    if fast.enabled():  # the kernel; products with NaN are NaN
        assert not np.any(draw(drawing, [far, point, bad]))


def test_drawing_has_gradients():
    model = tiny()
    boxes = tf.constant(np.stack([box(1, 2, 6, 6), box(4, 4, 5, 5), box(0, 6, 7, 7)])[np.newaxis], tf.float32)
    with fast.plain(), tf.GradientTape() as tape:
        tape.watch(boxes)
        total = tf.reduce_sum(tf.square(model.render(tf.ones([1, 3, 4]), boxes, tf.ones([1, 3]))))
    gradient = tape.gradient(total, boxes)
    assert np.all(np.isfinite(gradient)) and np.abs(gradient).min(-1).max() > 0


def test_what_infer_finds_redraws_its_reconstruction():
    model = counting()
    found = model.infer(varied())
    drawn = model.render(found["z_what"], found["boxes"], found["presence"])
    np.testing.assert_allclose(drawn, found["reconstruction"], atol=1e-5)


# Sampling.


@pytest.mark.parametrize("prior", ["autoregressive", "air"])
def test_samples_follow_the_seed_and_the_count_prior(prior):
    if prior == "autoregressive":
        model, logits = tiny(), [1.0, -0.5, 0.2]
        model.prior.presence_weights.assign([0.1, -0.05, 0.02])
    else:
        model, logits = tiny(prior="air", presence_logits=(0.5, 0.5)), [0.5] * 3
    one, same, other = (model.sample(4000, seed) for seed in ([1, 2], [1, 2], [1, 3]))
    for name, value in one.items():
        np.testing.assert_array_equal(value, same[name])
    assert np.abs(one["images"] - other["images"]).max() > 0
    share = np.bincount(one["count"], minlength=4) / 4000
    expected = PresenceCode(logits).count_probs().numpy()
    assert (np.abs(share - expected) < 5 * np.sqrt(expected * (1 - expected) / 4000)).all()
    assert one["images"].numpy().min() >= 0.0 and one["images"].numpy().max() <= 1.0
    absent = one["presence"].numpy() == 0
    assert not one["boxes"].numpy()[absent].any() and not one["z_what"].numpy()[absent].any()
    what = one["z_what"].numpy()[~absent]
    np.testing.assert_allclose(what.mean(0), 0.0, atol=5 / np.sqrt(len(what)))
    np.testing.assert_allclose(what.std(0), 1.0, atol=5 / np.sqrt(2 * len(what)))


def test_sampled_images_are_drawn_of_what_is_sampled():
    model = tiny(learn_scale=True)
    drawn = model.sample(20, [1, 2])
    again = model.render(drawn["z_what"], drawn["boxes"], drawn["presence"])
    np.testing.assert_allclose(again, drawn["images"], atol=1e-6)


def test_samples_come_with_masks_if_asked():
    model = tiny(learn_scale=True)
    drawn = model.sample(20, [1, 2], with_masks=True)
    without = model.sample(20, [1, 2])
    assert set(drawn) == {*without, "masks"}
    for name, value in without.items():
        np.testing.assert_array_equal(value, drawn[name])
    # Alone on its canvas, an object's mask is its brightness over the brightest pixel's, but where that is nothing.
    alone = drawn["count"] == 1
    brightness = drawn["images"].numpy()[alone]
    wanted = brightness / np.maximum(brightness.max((1, 2, 3), keepdims=True), 0.1)
    wanted *= brightness / np.maximum(brightness, 5e-3)
    assert len(wanted)
    np.testing.assert_allclose(drawn["masks"].numpy()[alone][:, 0], wanted, atol=1e-5)
    assert not drawn["masks"].numpy()[drawn["presence"] == 0].any()


@pytest.mark.parametrize("prior", ["autoregressive", "air"])
def test_samples_with_a_given_number_of_objects(prior):
    model = tiny() if prior == "autoregressive" else tiny(prior="air")
    for k in range(4):
        result = model.sample(50, [0, k], k)
        assert (result["count"].numpy() == k).all()
        assert (result["presence"].numpy() == (np.arange(3) < k)).all()
    with pytest.raises(ValueError, match="num_objects must be between -1 and 3, got 4"):
        model.sample(2, [0, 0], 4)


def test_given_counts_leave_the_first_objects_as_they_are_from_the_prior():
    """Presence looks at no latents, so p(z_1 | n) is p(z_1): the same draws, whatever the count."""
    model = tiny()
    two, three = (model.sample(20, [5, 5], k) for k in (2, 3))
    np.testing.assert_array_equal(two["boxes"][:, :2], three["boxes"][:, :2])


# Scoring.


def test_log_likelihood_is_the_mean_of_the_weights_of_its_particles():
    model, batch = tiny(), images(3)
    _, seed = tf.unstack(tf.random.split((4, 9), 2))
    weights = []
    for k in range(4):
        posterior, latents, _ = model.recognition(tf.constant(batch), model.draw_noise(3, seed + [0, k]))
        observations = BernoulliPixels()(Sum().canvases(Drawn(on_canvases(model, latents)[1])))
        prior = model.prior.distribution(0).given(latents)
        weights.append(
            bound.log_weights(tf.constant(batch), scene_posterior(posterior), prior, latents, observations)
        )
    np.testing.assert_allclose(model.log_likelihood(batch, 1, (4, 9)), weights[0], rtol=1e-5)
    many = np.logaddexp.reduce(weights, 0) - np.log(4.0)
    np.testing.assert_allclose(model.log_likelihood(batch, 4, (4, 9)), many, rtol=1e-5)


def test_log_likelihood_is_above_the_bound_and_grows_with_particles():
    model = tiny()
    batch = images(3)
    negative_elbo = tf.function(lambda seed: model.objective(batch, seed).negative_elbo)
    elbo = np.mean([-negative_elbo(tf.constant([0, i])) for i in range(200)], axis=0)
    few = np.mean([model.log_likelihood(batch, 1, [1, i]) for i in range(200)], axis=0)
    many = np.mean([model.log_likelihood(batch, 50, [2, 50 * i]) for i in range(20)], axis=0)
    assert (few > elbo).all() and (many > few).all()
    with pytest.raises(ValueError, match="num_particles must be a number above 0, got 0"):
        model.log_likelihood(batch, 0, [0, 0])


def test_log_likelihood_equals_a_known_integral():
    """With a blank decoder nothing depends on the latents: p(x) is the blank image's own probability."""
    model = tiny(initial_brightness=1e-4, observation=BernoulliPixels(0.2), placement_grid=None)
    for layer in model.decoder.perceptron.dense:
        layer.kernel.assign(tf.zeros_like(layer.kernel))
    batch = images(3)
    expected = (batch * np.log(0.2) + (1 - batch) * np.log(0.8)).sum((1, 2, 3))
    estimates = np.stack([model.log_likelihood(batch, 200, [0, 200 * i]) for i in range(20)])
    np.testing.assert_allclose(estimates.mean(0), expected, atol=1.0)


def test_score_is_the_bound_of_its_parts():
    """Likelihood by hand, given the same noise, with normal pixels."""
    model, batch = tiny(observation=GaussianPixels(0.4)), images()
    noise = model.draw_noise(5, tf.constant([1, 2]))
    terms, statistics = model.score(tf.constant(batch), noise, tf.constant([0, 0]), training=True)
    posterior, latents, glimpses = model.recognition(tf.constant(batch), noise)
    drawn = on_canvases(model, latents)[1].numpy()
    probs, nll = PresenceCode(posterior.presence_logits).count_probs().numpy(), 0.0
    for k in range(4):
        canvas = np.clip(drawn[:, :k].sum(1), 0.0, 1.0)
        density = 0.5 * ((batch - canvas) / 0.4) ** 2 + np.log(0.4) + 0.5 * np.log(2 * np.pi)
        nll += probs[:, k] * density.sum((1, 2, 3))
    np.testing.assert_allclose(terms.nll, nll, rtol=1e-4)
    np.testing.assert_allclose(statistics.drawn, drawn, atol=1e-6)
    np.testing.assert_allclose(statistics.glimpses, glimpses, atol=1e-6)
    np.testing.assert_allclose(statistics.count_probs, probs, rtol=1e-5)


def test_pixels_may_be_given_as_an_array():
    """`tfd.Bernoulli` takes NumPy's fractions for whole numbers."""
    canvas, batch = tf.fill([5, 12, 14, 1], 0.3), images()
    distribution = BernoulliPixels()(canvas)
    np.testing.assert_allclose(distribution.log_prob(batch), distribution.log_prob(tf.constant(batch)), rtol=1e-6)


@pytest.mark.parametrize("prior", ["autoregressive", "air"])
@pytest.mark.parametrize("count", [0, 2, 3])
def test_an_exact_count_is_given_and_costs_nothing(prior, count):
    """The bound is that of scenes with so many objects: the term of n = k of the enumeration, and no divergence."""
    settings = {"prior": "air"} if prior == "air" else {}
    model, free = tiny(exact_count=count, **settings), tiny(**settings)
    assert len(free.trainable_variables) == len(model.trainable_variables) + 2 + (prior != "air")
    assert not any("presence" in weight.path for weight in model.trainable_variables)
    batch = images()
    terms = model.objective(batch, (0, 1))
    np.testing.assert_array_equal(terms.kl_count, np.zeros(5))
    noise_seed, _ = tf.unstack(tf.random.split((0, 1), 2))
    _, latents, _ = model.recognition(tf.constant(batch), model.draw_noise(5, noise_seed))
    drawn = on_canvases(model, latents)[1].numpy()
    canvas = np.clip(drawn[:, :count].sum(1), 1e-6, 1 - 1e-6)
    nll = -(batch * np.log(canvas) + (1 - batch) * np.log1p(-canvas)).sum((1, 2, 3))
    np.testing.assert_allclose(terms.nll, nll, rtol=1e-4)
    assert model.infer(batch)["count"].numpy().tolist() == [count] * 5
    assert model.sample(6, (0, 0))["count"].numpy().tolist() == [count] * 6
    assert np.isfinite(model.log_likelihood(batch, 3, (0, 0))).all()


# Training.


def step(model, batch=None, optimizer=None, steps=1):
    """Some training steps; the logs of the last."""
    model.compile(optimizer=optimizer or keras.optimizers.Adam(1e-2), jit_compile=False, run_eagerly=True)
    data = tf.data.Dataset.from_tensors({"image": images() if batch is None else batch}).repeat()
    return {name: x[-1] for name, x in model.fit(data, epochs=steps, steps_per_epoch=1, verbose=0).history.items()}


@pytest.mark.parametrize(
    "settings",
    [
        {"observation": GaussianPixels()},
        {"estimator": "concrete", "prior": "air"},
        {"estimator": "concrete", "exact_count": 3, "constraints": (CountInSet((3,)), TightWindows())},
        {"num_steps": 1, "constraints": (CountInSet((0, 1)),)},
        {"channels": 3, "second_look": 2.0, "learn_scale": True},
    ],
)
def test_every_setting_trains(settings):
    model = tiny(**{"constraints": RULES} | settings)
    batch = images(channels=model.channels)
    before = np.mean([np.mean(model.objective(batch, (0, i)).negative_elbo) for i in range(5)])
    logs = step(model, batch, keras.optimizers.Adam(3e-3), steps=12)
    after = np.mean([np.mean(model.objective(batch, (0, i)).negative_elbo) for i in range(5)])
    assert after < before and logs["skipped_steps"] == 0.0
    assert all(np.isfinite(value) for value in logs.values())
    if model.spec.exact_count is not None:
        assert logs["kl_count_nats"] == 0.0


def test_a_rule_about_the_prior_pulls_at_the_prior_alone():
    rule = CountInSet((1, 3), strength=7.0, applies_to="samples")
    gradients = []
    for model in (tiny(constraints=[rule]), tiny()):  # of one seed
        weights = model.prior.presence_weights
        weights.assign([0.1, -0.05, 0.02])
        with tf.GradientTape(persistent=True) as tape:
            loss, named, _ = model._loss({"image": tf.constant(images())}, tf.constant([0, 1]), training=True)
            allowed = tf.gather(model.prior.distribution(0).presence.count_probs(), rule.counts)
            wanted = -tf.math.log(tf.reduce_sum(allowed))
        gradients.append(tape.gradient(loss, model.trainable_variables))
        if len(gradients) == 1:
            np.testing.assert_allclose(named["penalty_count_in_set_samples"], wanted, rtol=1e-5)
    pull = rule.strength * tape.gradient(wanted, weights.value)
    assert np.abs(pull).min() > 0.1
    for variable, one, other in zip(model.trainable_variables, *gradients, strict=True):
        more = pull if variable is weights else 0.0
        np.testing.assert_allclose(one, other + more, rtol=1e-4, atol=1e-4, err_msg=variable.path)


@pytest.mark.parametrize("frozen", ["recognition", "decoder", "prior"])
def test_a_frozen_part_stays_while_the_others_learn(frozen):
    model = tiny()
    getattr(model, frozen).trainable = False
    before = {role: getattr(model, role).get_weights() for role in ("recognition", "decoder", "prior")}
    step(model, optimizer=keras.optimizers.SGD(1e-3, momentum=0.9), steps=2)
    for role, weights in before.items():
        moved = max(
            np.abs(a - b).max() for a, b in zip(weights, getattr(model, role).get_weights(), strict=True)
        )
        assert (moved == 0.0) == (role == frozen), role


def test_a_weight_that_nothing_depends_on_stays():
    """With one step nothing is fed back; the rest trains."""
    model = tiny(num_steps=1)
    unused, used = (layer.get_weights() for layer in (model.recognition.state_gates, model.recognition.image_gates))
    step(model, optimizer=keras.optimizers.SGD(1e-3))
    np.testing.assert_array_equal(model.recognition.state_gates.get_weights(), unused)
    assert np.abs(model.recognition.image_gates.get_weights()[0] - used[0]).max() > 0.0


@pytest.mark.parametrize("prior", ["air", "autoregressive"])
def test_mixed_precision_trains_and_scores_in_float32(prior):
    wanted = tiny(prior="air").objective(images(), [0, 0]).nll
    previous = keras.mixed_precision.dtype_policy()
    keras.mixed_precision.set_dtype_policy("mixed_bfloat16")
    try:
        model = tiny(constraints=RULES, second_look=2.0, **({"prior": "air"} if prior == "air" else {}))
        terms = model.objective(images(), [0, 0])
        logs = step(model, steps=3)
    finally:
        keras.mixed_precision.set_dtype_policy(previous)
    assert np.isfinite(logs["loss"]) and logs["skipped_steps"] == 0.0
    assert {weight.dtype for weight in model.trainable_variables} == {"float32"}
    assert model.recognition.image_gates.compute_dtype == "bfloat16"
    assert {getattr(terms, field).dtype for field in TERMS} == {tf.float32} and terms.nll.shape == wanted.shape
    assert model.infer(images())["reconstruction"].dtype == tf.float32


def test_pooling_averages_what_the_lstm_sees_and_nothing_else():
    model, pooled = tiny(image_pool=1), tiny()
    kernels = [m.recognition.image_gates.kernel for m in (model, pooled)]
    assert kernels[1].shape == (6 * 7, 32)
    # The same weight for the four pixels of a square, and their sum for the square's mean.
    mean = kernels[0].numpy().reshape(6, 2, 7, 2, -1).mean((1, 3), keepdims=True)
    weights = [np.broadcast_to(mean, (6, 2, 7, 2, 32)).reshape(12 * 14, 32), 4 * mean.reshape(42, 32)]
    for variable, kernel in zip(kernels, weights, strict=True):
        variable.assign(kernel)
    for variable, other in zip(pooled.weights, model.weights, strict=True):
        if variable is not kernels[1]:
            variable.assign(other)
    a, b = model.objective(images(), [0, 0]), pooled.objective(images(), [0, 0])
    for field in TERMS:
        np.testing.assert_allclose(getattr(a, field), getattr(b, field), rtol=1e-4, atol=1e-3)


# Colour.


def in_colour(grey, **settings):
    """An RGB model that does with grey pictures in three equal channels what the grey one does with them."""
    model = tiny(channels=3, **settings)
    values = []
    for variable, old in zip(model.weights, grey.get_weights(), strict=True):
        if old.ndim == 2 and variable.shape[0] == 3 * old.shape[0]:
            old = np.repeat(old, 3, axis=0) / 3.0  # it sees each pixel three times
        elif variable.shape != old.shape:
            old = np.repeat(old, 3, axis=-1)  # it draws each pixel three times
        values.append(old)
    model.set_weights(values)
    return model


@pytest.mark.parametrize("observation", [BernoulliPixels, GaussianPixels])
def test_three_equal_channels_are_three_grey_pictures(observation):
    """Three times the nats of the pixels, and everything else as it is."""
    settings = {"second_look": 2.0, "learn_scale": True}
    grey = counting(observation=observation(), **settings)
    colour = in_colour(grey, observation=observation(), **settings)
    batch = varied(12)
    thrice = np.repeat(batch, 3, -1)
    terms, wanted = colour.objective(thrice, (1, 2)), grey.objective(batch, (1, 2))
    np.testing.assert_allclose(terms.nll, 3.0 * wanted.nll, rtol=1e-4)
    for field in TERMS[1:]:
        np.testing.assert_allclose(getattr(terms, field), getattr(wanted, field), rtol=1e-3, atol=1e-4)
    found, wanted = colour.infer(thrice, with_objects=True), grey.infer(batch, with_objects=True)
    drawn, sampled = colour.sample(9, (3, 4)), grey.sample(9, (3, 4))
    for mine, theirs in ((found, wanted), (drawn, sampled)):
        for name, value in theirs.items():
            value = np.repeat(value, 3, -1) if name in ("reconstruction", "objects", "images") else value
            np.testing.assert_allclose(mine[name], value, atol=1e-4, err_msg=name)
    again = colour.render(found["z_what"], found["boxes"], found["presence"])
    np.testing.assert_allclose(again, found["reconstruction"], atol=1e-5)


def test_an_rgb_model_in_shapes():
    model, batch = tiny(channels=3), images(4, channels=3)
    assert model.infer(batch, with_objects=True)["objects"].shape == (4, 3, 12, 14, 3)
    assert model.sample(2, (0, 1))["images"].shape == (2, 12, 14, 3)
    assert model.log_likelihood(batch, 2, (0, 1)).shape == (4,)
    _, statistics = model.score(tf.constant(batch), model.draw_noise(4, (0, 1)), tf.constant([0, 0]), training=True)
    assert statistics.objects.shape == statistics.glimpses.shape == (4, 3, 6, 6, 3)
    with pytest.raises(ValueError, match=r"images must have shape \[N, H, W, 3\] \(RGB\)"):
        model.infer(images(2))


def test_colours_stay_apart():
    """An image's red channel alone changes what is inferred otherwise than its blue one."""
    model, batch = tiny(channels=3), np.zeros((2, 12, 14, 3), np.float32)
    batch[0, 3:9, 4:10, 0] = batch[1, 3:9, 4:10, 2] = 1.0
    found = model.infer(batch)
    assert np.abs(found["count_probs"][0] - found["count_probs"][1]).max() > 1e-4


# Parts.


class Sheet(Background):
    """A flat level, learned, that costs a nat for each tenth."""

    def __init__(self, start=0.2, name="background"):
        super().__init__(name=name)
        self.start = start

    def build(self, spec):
        super().build(spec)
        self.level = self.add_weight(shape=(), initializer=keras.initializers.Constant(self.start), name="level")

    def call(self, images, seed=None):
        level = tf.convert_to_tensor(self.level)
        return tf.fill(tf.shape(images), level), tf.fill(tf.shape(images)[:1], 10.0 * level)

    def sample(self, num_samples, seed):
        spec = self.spec
        shade = tf.random.stateless_uniform([num_samples, 1, 1, 1], seed)
        return shade * tf.ones([num_samples, *spec.canvas_size, spec.channels])


class Blank(ObjectDecoder):
    """Objects of one level, with masks that a sum doesn't look at."""

    def __init__(self, level=0.25, name="decoder"):
        super().__init__(name=name)
        self.level = level

    def call(self, what):
        side = self.spec.glimpse_size
        shape = [tf.shape(what)[0], side, side]
        return Drawn(tf.fill([*shape, self.spec.channels], self.level), tf.ones([*shape, 1]))


def test_a_background_lies_behind_and_costs_its_divergence():
    model = counting(background=Sheet(0.2), decoder=Blank())
    found = model.infer(varied(), with_objects=True)
    np.testing.assert_allclose(
        found["reconstruction"], np.clip(np.sum(found["objects"], 1) + 0.2, 0.0, 1.0), atol=1e-6
    )
    drawn = model.sample(5, (1, 2), 0)["images"]  # no objects: the background alone
    assert np.ptp(drawn, (1, 2, 3)).max() == 0.0 and np.ptp(drawn) > 0.01
    # Where an object's level is none, nothing but the background is seen, whatever the count.
    model = tiny(background=Sheet(0.2), decoder=Blank(0.0), prior="air")
    batch = images(3)
    seen = -(batch * np.log(0.2) + (1 - batch) * np.log(0.8)).sum((1, 2, 3))
    terms = model.objective(batch, (0, 1))
    np.testing.assert_allclose(terms.nll, seen, rtol=1e-5)
    np.testing.assert_allclose(terms.kl_background, [2.0] * 3, rtol=1e-5)
    np.testing.assert_allclose(terms.negative_elbo, sum(terms), rtol=1e-5)
    plain = tiny(observation=BernoulliPixels(0.2), decoder=Blank(0.0), prior="air")
    with_sheet, without = (m.log_likelihood(batch, 5, (0, 1)) for m in (model, plain))
    np.testing.assert_allclose(with_sheet, without - 2.0, rtol=1e-5)


def test_a_background_learns_with_the_rest():
    model = tiny(background=Sheet(0.2))
    step(model)
    assert abs(model.background.level.numpy() - 0.2) > 1e-3


@pytest.mark.parametrize("role", ["recognition", "decoder", "prior", "background"])
def test_a_part_of_another_model_is_refused(role):
    first = tiny(background=Sheet())
    with pytest.raises(ValueError, match=f"ASRModel.{role} belongs to another model already"):
        tiny(**{role: getattr(first, role)})


@pytest.mark.parametrize(
    ("role", "part", "contract"),
    [
        ("recognition", MLPDecoder(), "Recognition"),
        ("decoder", AIRPrior(), "ObjectDecoder"),
        ("prior", LSTMRecognition(), "ScenePrior"),
        ("prior", "learned", "ScenePrior"),
        ("background", 0.5, "Background"),
        ("composition", GaussianPixels(), "Composition"),
        ("observation", "bernoulli", "Observation"),
        ("observation", "", "Observation"),
        ("observation", BernoulliPixels, "Observation"),
    ],
)
def test_a_part_of_a_wrong_class_is_refused(role, part, contract):
    with pytest.raises(TypeError, match=f"ASRModel.{role} must be a {contract}, got "):
        tiny(**{role: part})


def test_a_refused_part_can_still_be_used():
    """Nothing is built before everything is looked at."""
    recognition = LSTMRecognition(rnn_units=8, head_units=6, encoder_units=(10,))
    with pytest.raises(TypeError, match="ASRModel.prior must be a ScenePrior"):
        tiny(recognition=recognition, prior="learned")
    assert np.isfinite(tiny(recognition=recognition).objective(images(), (0, 1)).nll).all()


def test_parts_that_are_not_given_are_the_published_ones():
    model = ASRModel(canvas_size=(12, 14))
    kinds = {"recognition": LSTMRecognition, "decoder": MLPDecoder, "prior": AutoregressivePrior}
    for role, kind in kinds.items():
        assert type(getattr(model, role)).__name__ == kind.__name__
        assert getattr(model, role).get_config() == kind().get_config()
    assert isinstance(model.composition, Sum) and isinstance(model.observation, BernoulliPixels)
    assert model.background is None and isinstance(model, BoundModel) and model.finds_objects


def test_the_summary_names_the_parts():
    lines = []
    tiny(second_look=2.0).summary(print_fn=lambda line, **_: lines.append(line))
    for name in ("recognition (LSTMRecognition)", "decoder (MLPDecoder)", "prior (AutoregressivePrior)"):
        assert name in "\n".join(lines)


def test_the_description_names_the_parts():
    rules = (CountInSet((1, 3)), TightWindows())
    described = tiny(constraints=rules, prior="air", exact_count=3).description()
    assert described == {
        "kind": "scenes",
        "recognition": "LSTMRecognition",
        "decoder": "MLPDecoder",
        "prior": "AIRPrior",
        "background": None,
        "composition": "Sum",
        "observation": "BernoulliPixels",
        "estimator": "enumerate",
        "num_steps": 3,
        "exact_count": 3,
        "constraints": ["count_in_set", "tight_windows"],
    }


def test_weights_have_paths_of_their_own():
    paths = [weight.path for weight in tiny(second_look=2.0, learn_scale=True).weights]
    assert len(set(paths)) == len(paths)


# Settings.


@pytest.mark.parametrize("setting", [{"canvas_size": (9, 21)}, {"num_steps": 1}, {"num_steps": 6}])
def test_any_canvas_and_any_number_of_steps(setting):
    model = tiny(**setting)
    terms = model.objective(images(2, model.canvas_size), [0, 0])
    assert np.isfinite(terms.negative_elbo.numpy()).all()
    assert model.sample(3, [0, 0])["images"].shape == (3, *model.canvas_size, 1)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"estimator": "enumerated"}, "did you mean 'enumerate'"),
        ({"num_steps": 0}, "ASRModel.num_steps must be a whole number, 1 or more, got 0"),
        ({"num_steps": 2.5}, "ASRModel.num_steps must be a whole number, 1 or more, got 2.5"),
        ({"canvas_size": (50,)}, r"ASRModel.canvas_size must be \(H, W\)"),
        ({"canvas_size": (50, 0)}, r"ASRModel.canvas_size\[1\] must be a whole number"),
        ({"channels": 2}, r"ASRModel.channels=2 is unknown; choose one of \[1, 3\]"),
        ({"scale_prior_scale": 0.0}, "ASRModel.scale_prior_scale must be a number above 0"),
        ({"temperature": -1.0}, "ASRModel.temperature must be a number above 0"),
        ({"constraints": ["no overlap"]}, "must hold Constraint objects, got 'no overlap'"),
        ({"constraints": [CountInSet((1, 7))], "num_steps": 6}, "cannot hold with num_steps=6"),
        ({"exact_count": 4}, "ASRModel.exact_count must be between 0 and 3, got 4"),
    ],
)
def test_bad_settings(settings, message):
    with pytest.raises((ValueError, TypeError), match=message):
        tiny(**settings)
