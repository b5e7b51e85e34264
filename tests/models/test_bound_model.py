"""What models share: the loss, the step by any optimizer, its metrics, steps that aren't finite, messages."""

import os
import random

import keras
import numpy as np
import pytest
import tensorflow as tf
from testing_asr_model import images, tiny

from asr_tf.constraints import AggregateCount, CountInSet, TightWindows
from asr_tf.models.bound_model import initial_weights_from

RULES = (CountInSet((1, 3)), AggregateCount((1, 3)), TightWindows())
TERMS = ("nll", "kl_count", "kl_shift", "kl_scale", "kl_what")
OPTIMIZERS = {
    "momentum": lambda: keras.optimizers.SGD(1e-4, momentum=0.9),
    "adam": lambda: keras.optimizers.Adam(keras.optimizers.schedules.CosineDecay(1e-2, 100)),
    "adamw": lambda: keras.optimizers.AdamW(keras.optimizers.schedules.ExponentialDecay(1e-2, 10, 0.9)),
    "averaged": lambda: keras.optimizers.Adam(1e-2, use_ema=True, ema_overwrite_frequency=2),
}


def compiled(model, optimizer=None, jit_compile=False, run_eagerly=True):
    """Steps run eagerly unless it is said otherwise: a graph takes longer to trace than a few steps take."""
    optimizer = optimizer or keras.optimizers.Adam(1e-2)
    model.compile(optimizer=optimizer, jit_compile=jit_compile, run_eagerly=run_eagerly)
    return model


def values_of(variables):
    return [variable.numpy() for variable in variables]


def fit(model, *batches):
    """Steps over batches of images, an epoch; its logs."""
    data = tf.data.Dataset.from_tensor_slices({"image": np.stack(batches)})
    return {name: values[0] for name, values in model.fit(data, verbose=0).history.items()}


def evaluate(model, batch, **more):
    return model.evaluate(tf.data.Dataset.from_tensors({"image": batch, **more}), verbose=0, return_dict=True)


@pytest.mark.parametrize("optimizer", list(OPTIMIZERS))
def test_any_optimizer_trains(optimizer):
    model = compiled(tiny(constraints=RULES), OPTIMIZERS[optimizer]())
    before = evaluate(model, images())["loss"]
    logs = fit(model, *[images()] * 12)
    assert logs["skipped_steps"] == 0.0 and int(model.optimizer.iterations.numpy()) == int(model.step.numpy()) == 12
    assert evaluate(model, images())["loss"] < before - 1.0


def test_a_step_of_plain_descent_is_the_gradient_clipped_variable_by_variable():
    models = [compiled(tiny(clipnorm=clip), keras.optimizers.SGD(1e-4)) for clip in (None, 0.5)]
    variables = models[0].trainable_variables
    with tf.GradientTape() as tape:
        loss, _, _ = models[0]._loss({"image": tf.constant(images())}, models[0].step_seed(), training=True)
    gradients = [np.asarray(g) for g in tape.gradient(loss, variables, unconnected_gradients="zero")]
    before, moves = values_of(variables), []
    for model in models:
        fit(model, images())
        moves.append([(a - b) / 1e-4 for a, b in zip(before, values_of(model.trainable_variables), strict=True)])
    clipped = 0
    for gradient, free, bounded in zip(gradients, *moves, strict=True):
        norm = np.linalg.norm(gradient)
        clipped += norm > 0.6
        np.testing.assert_allclose(free, gradient, atol=5e-3 + 0.01 * norm)
        np.testing.assert_allclose(bounded, gradient * min(1.0, 0.5 / norm) if norm else 0.0, atol=1e-2)
    assert clipped > 3


def test_gradient_of_the_loss_equals_finite_differences():
    model = tiny(constraints=RULES[:2], learn_scale=True)  # the rule of tight windows leaves gradients out on purpose
    data, seed = {"image": tf.constant(images())}, tf.constant([0, 7])
    chosen = [
        model.recognition.shift_output.kernel,
        model.recognition.presence_output.bias,
        model.decoder.perceptron.dense[1].kernel,
        model.prior.shift_head.dense[1].bias,
        model.prior.scale_head.dense[1].bias,
        model.prior.presence_weights,
    ]
    loss = tf.function(lambda: model._loss(data, seed, training=True)[0], autograph=False)
    with tf.GradientTape() as tape:
        total = loss()
    for variable, gradient in zip(chosen, tape.gradient(total, [v.value for v in chosen]), strict=True):
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
        np.testing.assert_allclose(gradient.numpy()[index], slope, rtol=0.03, atol=0.1, err_msg=variable.path)


@pytest.fixture(scope="module")
def jitted():
    """A model whose step XLA compiles, once for all tests: one rule has a strength, the others a multiplier."""
    rules = (CountInSet((1, 3), strength=5.0), *RULES[1:])
    return compiled(tiny(constraints=rules), OPTIMIZERS["adam"](), jit_compile=True, run_eagerly=False)


@pytest.fixture(scope="module")
def traced(jitted):
    """The same in a plain graph."""
    return compiled(tiny(constraints=jitted.constraints), OPTIMIZERS["momentum"](), run_eagerly=False)


@pytest.fixture
def model(request):
    """One of them, as new."""
    model = request.getfixturevalue(request.param)
    fresh = compiled(tiny(constraints=model.constraints), type(model.optimizer)())
    model.set_weights(fresh.get_weights())
    for variable in model.optimizer.variables:
        if variable is not model.optimizer._learning_rate:
            variable.assign(tf.zeros_like(variable))
    return model


both = pytest.mark.parametrize("model", ["traced", "jitted"], indirect=True)


@both
def test_loss_is_bound_plus_weighted_penalties(model):
    model.rule_terms.weights.logs.assign(np.log([2.0, 30.0]))
    logs = evaluate(model, images())
    total = sum(logs[f"{name}_nats"] for name in TERMS)
    np.testing.assert_allclose(logs["negative_elbo_nats"], total, rtol=1e-5)
    total += 5.0 * logs["penalty_count_in_set"] + 2.0 * logs["penalty_aggregate_count"]
    total += 30.0 * logs["penalty_tight_windows"]
    np.testing.assert_allclose(logs["loss"], total, rtol=1e-5)
    assert "count_accuracy" not in logs


@both
def test_a_non_finite_step_changes_no_variable_and_is_counted(model):
    fit(model, images(), images())  # momenta are there
    good, bad = images(), images()
    bad[0, 3, 3, 0] = np.nan
    changing = [*model.trainable_variables, *model.optimizer.variables]
    before, held = values_of(changing), model.rules_held()
    logs = fit(model, bad)
    for variable, value in zip(changing, before, strict=True):
        np.testing.assert_array_equal(variable.numpy(), value, err_msg=variable.path)
    assert model.rules_held() == held
    assert [int(x.numpy()) for x in (model.step, model.skipped_steps, model.skipped_in_a_row)] == [3, 1, 1]
    assert {"nll_nats", "gradients", "penalty_aggregate_count"} <= set(model.nonfinite_terms())
    assert np.isnan(logs["loss"])  # a step that is left out is left out of the means too, and there is no other
    logs = fit(model, bad, good)
    assert [int(x.numpy()) for x in (model.step, model.skipped_steps, model.skipped_in_a_row)] == [5, 2, 0]
    assert np.isfinite(logs["loss"]) and logs["skipped_steps"] == 2.0
    assert max(np.abs(a - b).max() for a, b in zip(before, values_of(changing), strict=True)) > 0.0


def test_a_skipped_step_leaves_what_follows_as_if_it_had_not_been():
    """But for its randomness: the third step is the same with a bad second step as with no step at all."""
    bad = np.full_like(images(), np.nan)
    skipping, plain = (compiled(tiny(constraints=RULES), OPTIMIZERS["adamw"]()) for _ in range(2))
    fit(skipping, images(), bad, images())
    fit(plain, images())
    plain.step.assign_add(1)
    fit(plain, images())
    for a, b in zip(skipping.trainable_variables, plain.trainable_variables, strict=True):
        np.testing.assert_array_equal(a.numpy(), b.numpy(), err_msg=a.path)


def test_nothing_is_named_before_a_step_was_skipped():
    model = compiled(tiny())
    fit(model, images())
    assert model.nonfinite_terms() == []


def test_only_the_terms_that_are_not_finite_are_named():
    model = compiled(tiny())
    model.prior.presence_weights.assign([np.inf, 0.0, 0.0])
    fit(model, images())
    assert {"kl_count_nats", "gradients"} <= set(model.nonfinite_terms())
    assert not {"nll_nats", "kl_what_nats", "kl_scale_nats"} & set(model.nonfinite_terms())


def test_means_are_over_the_batches():
    model = compiled(tiny(), keras.optimizers.SGD(0.0))
    batches = [images(seed=seed) for seed in range(3)]
    counts = np.array([[1, 3, 1, 3, 1]] * 3, np.int32)
    data = tf.data.Dataset.from_tensor_slices({"image": np.stack(batches), "count": counts})
    logs = model.evaluate(data, verbose=0, return_dict=True)
    alone = [evaluate(model, batch, count=count) for batch, count in zip(batches, counts, strict=True)]
    for name, value in logs.items():
        np.testing.assert_allclose(value, np.mean([one[name] for one in alone]), rtol=1e-5, err_msg=name)
    right = np.mean([model.infer(batch)["count_probs"].numpy().argmax(-1) == counts[0] for batch in batches])
    assert abs(logs["count_accuracy"] - right) <= 0.35  # by a sample, not by the mode: not far from it


def test_evaluation_is_exact_whatever_training_estimates():
    relaxed, exact = (compiled(tiny(estimator=name, constraints=RULES)) for name in ("concrete", "enumerate"))
    for name, value in evaluate(exact, images()).items():
        np.testing.assert_allclose(evaluate(relaxed, images())[name], value, rtol=1e-6, err_msg=name)
    data = {"image": tf.constant(images())}
    losses = [float(model._loss(data, tf.constant([0, 1]), training=True)[0]) for model in (relaxed, exact)]
    assert abs(losses[0] - losses[1]) > 1e-2


def test_evaluation_changes_nothing_but_means():
    model = compiled(tiny(constraints=RULES))
    before = values_of(model.weights + model.optimizer.variables)
    assert evaluate(model, images()) == evaluate(model, images())
    for a, b in zip(before, values_of(model.weights + model.optimizer.variables), strict=True):
        np.testing.assert_array_equal(a, b)


def test_noise_in_a_batch_stands_for_what_would_be_drawn():
    model = compiled(tiny(), keras.optimizers.SGD(0.0))
    seed = tf.unstack(tf.random.split(model.step_seed(), 2))[0]
    noise = model.draw_noise(5, seed)
    drawn = fit(model, images())
    model.step.assign(99)
    given = model.fit(tf.data.Dataset.from_tensors({"image": images(), "noise": noise}), verbose=0).history
    for name in ("loss", "nll_nats", "kl_what_nats"):
        np.testing.assert_allclose(given[name][0], drawn[name], rtol=1e-6)


def test_objective_is_one_sample_of_the_bound_that_follows_its_seed():
    model = tiny()
    terms, again, other = (model.objective(images(), seed) for seed in ((0, 1), (0, 1), (0, 2)))
    np.testing.assert_array_equal(terms.nll, again.nll)
    assert np.abs(terms.nll - other.nll).min() > 0.0
    loss, named, _ = model._loss({"image": tf.constant(images())}, tf.constant([0, 1]), training=True)
    np.testing.assert_allclose(loss, np.mean(terms.negative_elbo), rtol=1e-6)
    np.testing.assert_allclose(named["kl_what_nats"], np.mean(terms.kl_what), rtol=1e-6)


def test_two_rules_of_one_class_are_two_metrics():
    rules = (CountInSet((1, 3)), CountInSet((2, 3), strength=3.0))
    logs = fit(compiled(tiny(constraints=rules)), images())
    total = sum(logs[f"{name}_nats"] for name in TERMS)
    total += logs["penalty_count_in_set"] + 3.0 * logs["penalty_count_in_set_2"]
    np.testing.assert_allclose(logs["loss"], total, rtol=1e-5)


def test_a_penalty_for_every_step_is_refused():
    """Its mean would be the penalty divided by T."""

    class EveryStep(CountInSet):
        def penalty(self, statistics):
            return statistics.presence_probs

    with pytest.raises(ValueError, match=r"EveryStep.penalty must give a number an image, \[B\], or one in all"):
        fit(compiled(tiny(constraints=[EveryStep((1, 3))])), images())


def test_same_seed_same_weights_and_same_steps():
    first, second = (compiled(tiny(seed=3, constraints=RULES)) for _ in range(2))
    for model in (first, second):
        fit(model, *[images()] * 3)
    for a, b in zip(first.weights, second.weights, strict=True):
        np.testing.assert_array_equal(a.numpy(), b.numpy())


def test_initial_weights_follow_from_the_seed_and_leave_the_process_alone():
    random.seed(5)
    state = random.getstate()
    made = []
    for seed in (1, 1, 2):
        with initial_weights_from(seed):
            layer = keras.layers.Dense(3)
            layer.build((None, 4))
        made.append(layer.kernel.numpy())
        assert random.getstate() == state
    np.testing.assert_array_equal(made[0], made[1])
    assert np.abs(made[0] - made[2]).max() > 1e-3
    with pytest.raises(RuntimeError), initial_weights_from(3):
        raise RuntimeError
    assert random.getstate() == state


def _process():
    kind, keys, *rest = np.random.get_state()  # noqa: NPY002
    drawn = tf.random.get_global_generator().state.numpy().tolist()
    return (
        (random.getstate(), kind, keys.tolist(), rest, drawn, dict(os.environ)),
        keras.mixed_precision.dtype_policy().name,
        keras.utils.get_random_seed() if hasattr(keras.utils, "get_random_seed") else None,
    )


@pytest.mark.parametrize("process_seed", [1, 2])
def test_a_model_follows_from_its_seed_alone_and_making_one_changes_nothing(process_seed):
    wanted = values_of(tiny(second_look=1.5, learn_scale=True, seed=7).weights)
    keras.utils.set_random_seed(process_seed)
    upcoming = float(tf.random.normal([]))
    keras.utils.set_random_seed(process_seed)
    before = _process()
    model = tiny(second_look=1.5, learn_scale=True, seed=7)
    assert _process() == before
    assert float(tf.random.normal([])) == upcoming
    for weight, value in zip(model.weights, wanted, strict=True):
        np.testing.assert_array_equal(weight.numpy(), value, err_msg=weight.path)
    others = tiny(second_look=1.5, learn_scale=True, seed=8)
    for weight, other in zip(model.trainable_variables, others.trainable_variables, strict=True):
        if weight.path.endswith("kernel"):
            assert np.abs(weight.numpy() - other.numpy()).max() > 1e-3, weight.path


def test_keras_predicts_what_is_inferred():
    model, batch = tiny(), images(7)
    found = {name: value.numpy() for name, value in model.infer(batch).items()}
    as_bytes = (255.0 * batch).astype(np.uint8)
    dataset = tf.data.Dataset.from_tensor_slices({"image": batch, "count": np.ones(7, np.int32)}).batch(3)
    for predicted in (model.predict(batch, batch_size=3, verbose=0), model.predict(dataset, verbose=0), model(batch)):
        assert set(predicted) == set(found)
        for name, value in found.items():
            np.testing.assert_allclose(predicted[name], value, atol=1e-5, err_msg=name)
    predicted = model.predict(as_bytes, verbose=0)["reconstruction"]
    np.testing.assert_allclose(predicted, model.infer(as_bytes)["reconstruction"], atol=1e-5)
    with pytest.raises(ValueError, match=r"images in floating point must lie in \[0, 1\]"):
        model.predict(2.0 + batch, verbose=0)


def test_bad_settings():
    with pytest.raises(ValueError, match="ASRModel.clipnorm must be a number above 0, got 0"):
        tiny(clipnorm=0)
