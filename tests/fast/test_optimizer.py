"""Packed Adam against Keras's own."""

import functools
import subprocess
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf

from asr_tf.fast.optimizer import PackedAdam

SHAPES = [(3,), (200, 130), (), (4, 5), (20_000,)]


def _variables(shapes=SHAPES):
    rng = np.random.default_rng(0)
    return [keras.Variable(rng.normal(size=shape).astype(np.float32)) for shape in shapes]


def _gradients(step, shapes=SHAPES):
    rng = np.random.default_rng(1 + step)
    scales = 10.0 ** rng.integers(-4, 3, len(shapes))
    values = (rng.normal(size=shape, scale=scale) for shape, scale in zip(shapes, scales, strict=True))
    return [tf.constant(np.asarray(value, np.float32)) for value in values]


def _called(update):
    return lambda gradients: update(gradients)


@pytest.mark.parametrize("shapes", [SHAPES, [(3,), (4, 5)], [(20_000,)]], ids=["mixed", "small", "large"])
@pytest.mark.parametrize("mode", ["eager", "graph", "xla"])
def test_updates_are_those_of_keras(mode, shapes):
    results = []
    for optimizer in (PackedAdam(0.01, beta_2=0.98), keras.optimizers.Adam(0.01, beta_2=0.98)):
        variables = _variables(shapes)
        optimizer.build(variables)
        update = functools.partial(optimizer.apply, trainable_variables=variables)
        if mode != "eager":
            update = tf.function(_called(update), jit_compile=mode == "xla", autograph=False)
        for step in range(4):
            update(_gradients(step, shapes))
            optimizer.learning_rate.assign(0.02)
        assert int(optimizer.iterations) == 4
        results.append([variable.numpy() for variable in variables])
    for value, expected in zip(*results, strict=True):
        np.testing.assert_allclose(value, expected, rtol=1e-5, atol=1e-6)


def test_small_variables_share_their_moments():
    optimizer = PackedAdam()
    optimizer.build(_variables())
    sizes = sorted(int(np.prod(v.shape)) for v in optimizer.variables if "momentum" in v.path)
    assert sizes == [3 + 1 + 20, 20_000, 26_000]


def test_state_can_be_saved_and_restored(tmp_path):
    def trained(steps, optimizer, variables):
        for step in steps:
            optimizer.apply(_gradients(step), variables)
        return [variable.numpy() for variable in variables]

    variables, optimizer = _variables(), PackedAdam(0.01)
    optimizer.build(variables)
    trained(range(2), optimizer, variables)
    path = tf.train.Checkpoint(optimizer=optimizer, variables=variables).write(str(tmp_path / "state"))
    expected = trained(range(2, 4), optimizer, variables)

    others, other = _variables(), PackedAdam(0.01)
    other.build(others)
    tf.train.Checkpoint(optimizer=other, variables=others).read(path).assert_consumed()
    for value, reference in zip(trained(range(2, 4), other, others), expected, strict=True):
        np.testing.assert_array_equal(value, reference)


_TWO_REPLICAS = """
import keras, numpy as np, tensorflow as tf
from asr_tf.fast.optimizer import PackedAdam
cpu = tf.config.list_physical_devices("CPU")[0]
tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
strategy = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
values = {}
with strategy.scope():
    mirrored, optimizer = [keras.Variable([1.0, 2.0])], PackedAdam(0.1)
    optimizer.build(mirrored)
@tf.function
def update():
    def one():
        context = tf.distribute.get_replica_context()
        scale = tf.cast(context.replica_id_in_sync_group + 1, tf.float32)
        optimizer.apply([scale * tf.constant([0.3, -2.0])], mirrored)
    strategy.run(one)
single, reference = [keras.Variable([1.0, 2.0])], keras.optimizers.Adam(0.1)
for _ in range(3):
    update()
    reference.apply([3.0 * tf.constant([0.3, -2.0])], single)
np.testing.assert_allclose(mirrored[0].numpy(), single[0].numpy(), rtol=1e-5)
print("equal")
"""


def test_gradients_of_several_replicas_are_summed():
    process = subprocess.run([sys.executable, "-c", _TWO_REPLICAS], capture_output=True, text=True, timeout=300)
    assert process.stdout.strip() == "equal", process.stderr[-2000:]


def test_settings_come_back_from_the_configuration():
    optimizer = PackedAdam.from_config(PackedAdam(0.5, beta_2=0.9).get_config())
    assert optimizer.beta_2 == 0.9 and float(optimizer.learning_rate) == 0.5


def test_some_of_the_variables_are_refused():
    optimizer, variables = PackedAdam(), _variables()
    optimizer.build(variables)
    with pytest.raises(ValueError, match="all 5 variables at once"):
        optimizer.apply(_gradients(0)[:2], variables[:2])
