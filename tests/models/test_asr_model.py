"""The model as a whole: bounds, steps, sampling, settings, messages."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from testing_asr_model import images, tiny

from asr_tf.constraints import AggregateCount, CountInSet, PriorCountInSet, TightWindows
from asr_tf.distributions import PresenceCode

RULES = (CountInSet((1, 3)), AggregateCount((1, 3)), TightWindows())


def weights_of(model):
    return [variable.numpy() for variable in model.trainable_variables]


def step(model, batch):
    """One training step; its logs."""
    data = tf.data.Dataset.from_tensors({"image": batch})
    history = model.fit(data, epochs=1, verbose=0).history
    return {name: values[0] for name, values in history.items()}


def compiled(model, **settings):
    model.compile(optimizer=keras.optimizers.Adam(1e-2), **settings)
    return model


@pytest.mark.parametrize(
    ("estimator", "prior", "observation"),
    [("enumerate", "autoregressive", "gaussian"), ("concrete", "air", "bernoulli")],
)
def test_fit_lowers_the_loss_in_every_setting(estimator, prior, observation):
    model = compiled(
        tiny(estimator=estimator, prior=prior, observation=observation, constraints=RULES),
        jit_compile=False,
    )
    data = tf.data.Dataset.from_tensors(
        {"image": images(), "count": np.array([1, 3, 1, 3, 1], np.int32)}
    ).repeat()
    first = model.fit(data, steps_per_epoch=2, epochs=1, verbose=0).history
    last = model.fit(data, steps_per_epoch=20, epochs=1, verbose=0).history
    assert last["loss"][0] < first["loss"][0]
    assert int(model.step.numpy()) == 22
    for name in ("negative_elbo_nats", "kl_what_nats", "penalty_count_in_set", "count_accuracy"):
        assert np.isfinite(last[name][0])


def test_a_rule_about_the_prior_pulls_at_the_prior_alone():
    rule = PriorCountInSet((1, 3), strength=7.0)
    gradients = []
    for model in (tiny(constraints=[rule]), tiny()):  # of one seed
        weights = model.prior_network.presence_weights
        weights.assign([0.1, -0.05, 0.02])
        with tf.GradientTape(persistent=True) as tape:
            loss, named, _ = model._loss(images()[..., 0], tf.constant([0, 1]), "enumerate")
            allowed = tf.gather(PresenceCode(model.prior_network.presence_logits()).count_probs(), rule.counts)
            wanted = -tf.math.log(tf.reduce_sum(allowed))
        gradients.append(tape.gradient(loss, model.trainable_variables))
        if len(gradients) == 1:
            np.testing.assert_allclose(named["penalty_prior_count_in_set"], wanted, rtol=1e-5)
    pull = rule.strength * tape.gradient(wanted, weights.value)
    assert np.abs(pull).min() > 0.1
    for variable, one, other in zip(model.trainable_variables, *gradients, strict=True):
        more = pull if variable is weights else 0.0
        np.testing.assert_allclose(one, other + more, rtol=1e-4, atol=1e-4, err_msg=variable.path)


@pytest.mark.parametrize("jit_compile", [False, True])
def test_loss_is_bound_plus_weighted_penalties(jit_compile):
    model = compiled(tiny(constraints=RULES), jit_compile=jit_compile)
    logs = model.evaluate(
        tf.data.Dataset.from_tensors({"image": images()}), verbose=0, return_dict=True
    )
    terms = sum(
        logs[f"{name}_nats"] for name in ("nll", "kl_count", "kl_shift", "kl_scale", "kl_what")
    )
    np.testing.assert_allclose(logs["negative_elbo_nats"], terms, rtol=1e-5)
    penalties = sum(rule.strength * logs[f"penalty_{rule.name}"] for rule in RULES)
    np.testing.assert_allclose(logs["loss"], terms + penalties, rtol=1e-5)
    assert "count_accuracy" not in logs


def test_a_penalty_for_every_step_is_refused():
    """Its mean would be the penalty divided by T."""

    class EveryStep(CountInSet):
        def penalty(self, statistics):
            return statistics.presence_probs

    model = compiled(tiny(constraints=[EveryStep((1, 3))]), jit_compile=False)
    with pytest.raises(ValueError, match=r"EveryStep.penalty must give a number an image, \[B\], or one in all"):
        step(model, images())


@pytest.mark.parametrize("jit_compile", [False, True])
def test_a_ramp_follows_the_steps_of_training(jit_compile):
    """The loss holds a rule by the strength of the step; the same compiled step serves all of them."""
    rule = CountInSet((1, 3), ramp_steps=(2, 6))
    model = compiled(tiny(constraints=[rule]), jit_compile=jit_compile)
    assert int(model.step.numpy()) == 0
    weights = []
    for _ in range(8):
        logs = step(model, images())
        weights.append((logs["loss"] - logs["negative_elbo_nats"]) / logs["penalty_count_in_set"])
    np.testing.assert_allclose(weights, [0.0, 0.0, 0.0, 2.5, 5.0, 7.5, 10.0, 10.0], atol=2e-3)


def test_one_step_trains_too():
    model = compiled(tiny(num_steps=1, constraints=(CountInSet((0, 1)),)), jit_compile=False)
    before = weights_of(model)
    step(model, images())
    assert int(model.skipped_steps.numpy()) == 0 and np.abs(before[0] - weights_of(model)[0]).max() > 0


def test_two_rules_of_one_class_are_two_metrics():
    rules = (CountInSet((1, 3)), CountInSet((2,), strength=1.0))
    logs = step(compiled(tiny(constraints=rules), jit_compile=False), images())
    total = sum(logs[f"{name}_nats"] for name in ("nll", "kl_count", "kl_shift", "kl_scale", "kl_what"))
    total += 10.0 * logs["penalty_count_in_set"] + logs["penalty_count_in_set_2"]
    np.testing.assert_allclose(logs["loss"], total, rtol=1e-5)
    assert logs["skipped_steps"] == 0.0


def test_gradient_of_the_loss_equals_finite_differences():
    model = tiny(constraints=RULES[:2])  # the rule of tight windows leaves gradients out on purpose
    batch, seed = tf.constant(images()[..., 0]), tf.constant([0, 7])
    chosen = [
        model.recognition.shift_head.dense_1.kernel,
        model.recognition.presence_head.dense_1.bias,
        model.decoder.mlp.dense_1.kernel,
        model.prior_network.shift_head.dense_1.bias,
    ]

    def loss():
        return model._loss(batch, seed, "enumerate")[0]

    with tf.GradientTape() as tape:
        total = loss()
    gradients = tape.gradient(total, [variable.value for variable in chosen])
    for variable, gradient in zip(chosen, gradients, strict=True):
        start = variable.numpy()
        index = np.unravel_index(np.abs(gradient).argmax(), start.shape)
        slopes = []
        for sign in (1, -1):
            moved = start.copy()
            moved[index] += sign * 1e-3
            variable.assign(moved)
            slopes.append(float(loss()))
        variable.assign(start)
        slope = (slopes[0] - slopes[1]) / 2e-3
        np.testing.assert_allclose(gradient.numpy()[index], slope, rtol=0.03, atol=0.1)


def test_same_seed_same_weights_and_same_steps():
    first, second = (compiled(tiny(seed=3, constraints=RULES), jit_compile=False) for _ in range(2))
    for model in (first, second):
        model.fit(tf.data.Dataset.from_tensors({"image": images()}).repeat(), steps_per_epoch=3, verbose=0)
    for a, b in zip(weights_of(first), weights_of(second), strict=True):
        np.testing.assert_array_equal(a, b)
    other = tiny(seed=4)
    assert np.abs(weights_of(other)[0] - weights_of(tiny(seed=3))[0]).max() > 1e-3


@pytest.mark.parametrize("jit_compile", [False, True])
def test_a_non_finite_step_changes_no_weight_and_is_counted(jit_compile):
    model = compiled(tiny(constraints=RULES), jit_compile=jit_compile)
    model.optimizer.build(model.trainable_variables)
    good, bad = images(), images()
    bad[0, 3, 3, 0] = np.nan
    before = weights_of(model)
    logs = step(model, bad)
    for a, b in zip(before, weights_of(model), strict=True):
        np.testing.assert_array_equal(a, b)
    np.testing.assert_allclose(model.optimizer.learning_rate.numpy(), 1e-2)
    assert int(model.skipped_steps.numpy()) == int(model.skipped_in_a_row.numpy()) == 1
    assert "nll_nats" in model.nonfinite_terms() and "gradients" in model.nonfinite_terms()
    assert "penalty_aggregate_count" in model.nonfinite_terms()  # the image reaches everything
    assert np.isnan(logs["loss"])  # a step that is left out is left out of the means too, and there is no other
    step(model, good)
    assert np.abs(before[0] - weights_of(model)[0]).max() > 0
    assert int(model.skipped_steps.numpy()) == 1 and int(model.skipped_in_a_row.numpy()) == 0


def test_a_schedule_is_refused_where_it_would_fail_in_the_first_step():
    with pytest.raises(ValueError, match="learning rate must be a number, got a Keras schedule"):
        tiny().compile(optimizer=keras.optimizers.Adam(keras.optimizers.schedules.CosineDecay(1e-3, 10)))


def test_gradients_are_clipped_variable_by_variable():
    models = [compiled(tiny(clipnorm=clipnorm), jit_compile=False) for clipnorm in (None, 0.5)]
    for model in models:
        model.compile(optimizer=keras.optimizers.SGD(1e-4))
    before = weights_of(models[0])
    moves = []
    for model in models:
        step(model, images())
        moves.append([(a - b) / 1e-4 for a, b in zip(before, weights_of(model), strict=True)])
    clipped = 0
    for free, bounded in zip(*moves, strict=True):
        norm = np.linalg.norm(free)
        clipped += norm > 0.6
        np.testing.assert_allclose(bounded, free * min(1.0, 0.5 / norm), atol=5e-3 + 0.01 * norm)
    assert clipped > 3


def test_air_count_prior_is_annealed():
    model = tiny(prior="air", air_presence_logits=(2.0, -4.0), air_anneal_steps=10)
    logits = []
    for step in (0, 5, 10, 20):
        model.step.assign(step)
        logits.append(float(model._air_presence_logits()[1]))
    np.testing.assert_allclose(logits, [2.0, -1.0, -4.0, -4.0])


def test_pooling_averages_what_the_lstm_sees_and_nothing_else():
    model, pooled = tiny(image_pool=1), tiny()
    kernels = [m.recognition.image_projection.kernel for m in (model, pooled)]
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
    for value, expected in zip(a, b, strict=True):
        np.testing.assert_allclose(value, expected, rtol=1e-4, atol=1e-3)
    assert tiny(canvas_size=(9, 21), image_pool=2).recognition.image_projection.kernel.shape[0] == 5 * 11


def test_xla_and_plain_graph_agree_on_noise_passed_in():
    model = tiny()
    noise = model._noise(5, tf.constant([0, 1]))
    batch = tf.constant(images()[..., 0])
    outputs = [
        tf.function(model.recognition.call, jit_compile=jit)(batch, noise) for jit in (False, True)
    ]
    for a, b in zip(*map(tf.nest.flatten, outputs), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-4)


def test_mixed_precision_trains_and_scores_in_float32():
    previous = keras.mixed_precision.dtype_policy()
    keras.mixed_precision.set_dtype_policy("mixed_bfloat16")
    try:
        model = compiled(tiny(constraints=RULES), jit_compile=False)
        data = tf.data.Dataset.from_tensors({"image": images()}).repeat()
        history = model.fit(data, steps_per_epoch=5, verbose=0).history
    finally:
        keras.mixed_precision.set_dtype_policy(previous)
    assert np.isfinite(history["loss"][0]) and int(model.skipped_steps.numpy()) == 0
    assert model.recognition.image_projection.compute_dtype == "bfloat16"
    assert model.objective(images(), [0, 0]).nll.dtype == tf.float32


@pytest.mark.parametrize("setting", [{"canvas_size": (9, 21)}, {"num_steps": 1}, {"num_steps": 6}])
def test_any_canvas_and_any_number_of_steps(setting):
    model = tiny(**setting)
    terms = model.objective(images(2, model.canvas_size), [0, 0])
    assert np.isfinite(terms.negative_elbo.numpy()).all()
    assert model.sample(3, [0, 0])["images"].shape == (3, *model.canvas_size, 1)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"prior": "learned"}, "ASRModel.prior='learned' is unknown"),
        ({"estimator": "enumerated"}, "did you mean 'enumerate'"),
        ({"observation": "poisson"}, "ASRModel.observation='poisson' is unknown"),
        ({"num_steps": 0}, "ASRModel.num_steps must be a whole number, 1 or more, got 0"),
        ({"num_steps": 2.5}, "ASRModel.num_steps must be a whole number, 1 or more, got 2.5"),
        ({"background": 1.0}, "ASRModel.background must be between 1e-06 and 0.5, got 1.0"),
        ({"prior": "air", "air_presence_logits": (4.0,)}, r"ASRModel.air_presence_logits must be \(start, end\)"),
        ({"canvas_size": (50,)}, r"ASRModel.canvas_size must be \(H, W\)"),
        ({"initial_brightness": 1.0}, "ASRModel.initial_brightness must be between"),
        ({"constraints": ["no overlap"]}, "must hold Constraint objects, got 'no overlap'"),
        ({"constraints": [CountInSet((1, 7))], "num_steps": 6}, "cannot hold with num_steps=6"),
    ],
)
def test_bad_settings(settings, message):
    with pytest.raises((ValueError, TypeError), match=message):
        tiny(**settings)


@pytest.mark.parametrize("prior", ["autoregressive", "air"])
@pytest.mark.parametrize("count", [0, 2, 3])
def test_an_exact_count_is_given_and_costs_nothing(prior, count):
    """The bound is that of scenes with so many objects: the term of n = k of the enumeration, and no divergence."""
    model, free = tiny(prior=prior, exact_count=count), tiny(prior=prior)
    names = {weight.path for weight in model.trainable_variables}
    assert len(free.trainable_variables) > len(model.trainable_variables)
    assert not any("presence" in name for name in names)
    batch = images()
    terms = model.objective(batch, (0, 1))
    np.testing.assert_array_equal(terms.kl_count, np.zeros(5))
    noise_seed, _ = tf.unstack(tf.random.split((0, 1), 2))
    _, latents, _ = model.recognition(tf.constant(batch[..., 0]), model._noise(5, noise_seed))
    canvas = tf.reduce_sum(model._draw(latents)[:count], axis=0)
    nll = model._nll(tf.constant(batch[..., 0]), canvas)
    np.testing.assert_allclose(terms.nll, nll, rtol=1e-5)
    assert model.infer(batch)["count"].numpy().tolist() == [count] * 5
    assert model.sample(6, (0, 0))["count"].numpy().tolist() == [count] * 6
    assert np.isfinite(model.log_likelihood(batch, 3, (0, 0))).all()


def test_an_exact_count_trains_with_the_concrete_estimator_too():
    model = compiled(tiny(exact_count=2, estimator="concrete", constraints=RULES), jit_compile=False)
    logs = step(model, images())
    assert np.isfinite(logs["loss"]) and logs["kl_count_nats"] == 0.0


def test_an_exact_count_above_the_steps_is_refused():
    with pytest.raises(ValueError, match="ASRModel.exact_count must be between 0 and 3, got 4"):
        tiny(exact_count=4)
