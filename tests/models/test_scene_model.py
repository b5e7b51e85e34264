"""What a model of scenes does with its weights: infer, sample, score."""

import numpy as np
import pytest
import tensorflow as tf
from testing_asr_model import images, tiny

from asr_tf.distributions import PresenceCode


def test_infer_is_deterministic_and_consistent():
    model = tiny()
    result = {name: value.numpy() for name, value in model.infer(images(), with_objects=True).items()}
    assert "objects" not in model.infer(images())
    again = model.infer((images() * 255).astype(np.uint8))
    assert {name: value.shape for name, value in result.items()} == {
        "count": (5,),
        "count_probs": (5, 4),
        "presence": (5, 3),
        "boxes": (5, 3, 4),
        "z_what": (5, 3, 4),
        "objects": (5, 3, 12, 14, 1),
        "reconstruction": (5, 12, 14, 1),
    }
    np.testing.assert_allclose(result["count_probs"].sum(1), 1.0, rtol=1e-5)
    np.testing.assert_array_equal(result["count"], result["count_probs"].argmax(1))
    np.testing.assert_array_equal(result["presence"].sum(1), result["count"])
    np.testing.assert_allclose(
        result["reconstruction"], np.clip(result["objects"].sum(1), 0, 1), atol=1e-6
    )
    absent = result["presence"] == 0
    assert (result["boxes"][absent] == 0).all() and (result["z_what"][absent] == 0).all()
    np.testing.assert_array_equal(result["boxes"], model.infer(images(), with_objects=True)["boxes"])
    assert np.abs(again["count_probs"] - result["count_probs"]).max() < 0.01


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (np.zeros((2, 12, 14)), r"shape \[N, H, W, 1\]"),
        (np.zeros((2, 14, 12, 1)), "12 x 14 pixels"),
        (np.full((2, 12, 14, 1), np.nan), "NaN"),
        (np.full((2, 12, 14, 1), 2.0), r"\[0, 1\]"),
    ],
)
@pytest.mark.parametrize("kind", [np.asarray, tf.constant])
def test_infer_names_what_is_wrong_with_images(bad, message, kind):
    with pytest.raises(ValueError, match=message):
        tiny().infer(kind(bad))


def test_grey_levels_may_come_as_a_tensor():
    model, levels = tiny(), np.random.default_rng(0).integers(0, 256, (2, 12, 14, 1), dtype=np.uint8)
    wanted = model.infer(levels)
    for kind in (levels, (levels / 255.0)):
        for name, value in model.infer(tf.constant(kind)).items():
            np.testing.assert_allclose(value, wanted[name], atol=1e-5, err_msg=name)


@pytest.mark.parametrize("prior", ["autoregressive", "air"])
def test_samples_follow_the_seed_and_the_count_prior(prior):
    model = tiny(prior=prior, air_presence_logits=(0.5, 0.5))
    if prior == "autoregressive":
        model.prior_network.presence_weights.assign([0.1, -0.05, 0.02])
        logits = [1.0, -0.5, 0.2]
    else:
        logits = [0.5] * 3
    one, same, other = (model.sample(4000, seed) for seed in ([1, 2], [1, 2], [1, 3]))
    for name, value in one.items():
        np.testing.assert_array_equal(value, same[name])
    assert np.abs(one["images"] - other["images"]).max() > 0
    share = np.bincount(one["count"], minlength=4) / 4000
    expected = PresenceCode(logits).count_probs().numpy()
    assert (np.abs(share - expected) < 5 * np.sqrt(expected * (1 - expected) / 4000)).all()
    assert one["images"].numpy().min() >= 0.0 and one["images"].numpy().max() <= 1.0
    absent = one["presence"].numpy() == 0
    assert (one["boxes"].numpy()[absent] == 0).all()


@pytest.mark.parametrize("prior", ["autoregressive", "air"])
def test_samples_with_a_given_number_of_objects(prior):
    model = tiny(prior=prior)
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


def test_log_likelihood_is_above_the_bound_and_grows_with_particles():
    model = tiny()
    batch = images(3)
    negative_elbo = tf.function(lambda seed: model.objective(batch, seed).negative_elbo)
    bound = np.mean([-negative_elbo(tf.constant([0, i])) for i in range(200)], axis=0)
    few = np.mean([model.log_likelihood(batch, 1, [1, i]) for i in range(200)], axis=0)
    many = np.mean([model.log_likelihood(batch, 50, [2, 50 * i]) for i in range(20)], axis=0)
    assert (few > bound).all() and (many > few).all()
    with pytest.raises(ValueError, match="num_particles must be a number above 0, got 0"):
        model.log_likelihood(batch, 0, [0, 0])


def test_log_likelihood_equals_a_known_integral():
    """With a blank decoder nothing depends on the latents: p(x) is the blank image's own probability."""
    model = tiny(initial_brightness=1e-4, background=0.2)
    for layer in (model.decoder.mlp.dense_0, model.decoder.mlp.dense_1):
        layer.kernel.assign(tf.zeros_like(layer.kernel))
    batch = images(3)
    expected = (batch * np.log(0.2) + (1 - batch) * np.log(0.8)).sum((1, 2, 3))
    estimates = np.stack([model.log_likelihood(batch, 200, [0, 200 * i]) for i in range(20)])
    np.testing.assert_allclose(estimates.mean(0), expected, atol=1.0)


def test_leaving_out_absent_steps_changes_nothing_and_masking_them_compiles():
    sparse, dense = tiny(), tiny(skip_absent=False)
    head = sparse.recognition.presence_head.dense_1  # spread the counts
    head.kernel.assign(40.0 * tf.random.stateless_normal(head.kernel.shape, [0, 0]))
    dense.set_weights(sparse.get_weights())
    batch = tf.constant(images(40))
    results = [sparse.infer(batch), tf.function(dense.infer, jit_compile=True)(batch)]
    assert len(np.unique(results[0]["count"])) > 2
    samples = [sparse.sample(40, [3, 4]), dense.sample(40, [3, 4])]
    assert len(np.unique(samples[0]["count"])) > 2
    for one, other in (results, samples):
        for name, value in one.items():
            np.testing.assert_allclose(value, other[name], atol=1e-5, err_msg=name)


@pytest.mark.parametrize("with_objects", [False, True])
def test_a_large_batch_is_the_same_in_parts(with_objects):
    model, batch = tiny(), np.tile(images(20), (30, 1, 1, 1))  # 600 = 256 + 256 + 88
    parts = model.infer(batch[:20], with_objects)
    for name, value in model.infer(batch, with_objects).items():
        assert value.shape[0] == 600 and value.dtype == parts[name].dtype, name
        for i in (0, 240, 580):
            np.testing.assert_allclose(value[i : i + 20], parts[name], atol=1e-5, err_msg=name)
