"""Several replicas: a step of a `MirroredStrategy` is that of one device with the whole batch.

Logical devices must be made before TensorFlow starts, so each case is a process of its own.
"""

from __future__ import annotations

import os
import subprocess
import sys

import numpy as np
import pytest
import source_tree

_PROGRAM = """
import sys
import numpy as np
import keras
import tensorflow as tf

tf.config.set_logical_device_configuration(
    tf.config.list_physical_devices("CPU")[0], [tf.config.LogicalDeviceConfiguration()] * 2
)
from asr_tf.constraints import AggregateCount, CountInSet, DisjointBoxes, TightWindows
from asr_tf.models import ASRModel
from asr_tf.networks.contracts import LatentNoise
from asr_tf.networks.decoder import MLPDecoder
from asr_tf.networks.prior import AutoregressivePrior
from asr_tf.networks.recognition import LSTMRecognition

target, replicas, with_noise = sys.argv[1], int(sys.argv[2]), sys.argv[3] == "noise"
strategy = (
    tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"]) if replicas == 2 else tf.distribute.get_strategy()
)
BATCH, STEPS = 8, 20
with strategy.scope():
    model = ASRModel(
        canvas_size=(12, 14),
        num_steps=3,
        glimpse_size=6,
        what_size=4,
        recognition=LSTMRecognition(rnn_units=8, head_units=6, encoder_units=(10,)),
        decoder=MLPDecoder(units=(10,)),
        prior=AutoregressivePrior(rnn_units=8, head_units=6, placement_grid=5, learn_scale=True),
        constraints=(
            CountInSet((1, 3), applies_to="both"),
            AggregateCount((1, 3)),
            TightWindows(broken_share=0.1),
            DisjointBoxes(strength=2.0),
        ),
    )
    model.compile(optimizer=keras.optimizers.Adam(3e-4), jit_compile=False)
images = np.random.default_rng(0).uniform(size=(BATCH * STEPS, 12, 14, 1)).astype(np.float32)
data = {"image": images, "count": np.resize([1, 3], BATCH * STEPS).astype(np.int32)}
if with_noise:
    rng = np.random.default_rng(1)
    spec = model.spec
    sizes = (2, 1, spec.what_size)
    data["noise"] = LatentNoise(
        *(rng.normal(size=(BATCH * STEPS, spec.num_steps, size)).astype(np.float32) for size in sizes)
    )
logs = model.fit(
    tf.data.Dataset.from_tensor_slices(data).batch(BATCH), epochs=1, verbose=0, shuffle=False
).history
noises = strategy.run(lambda: model.draw_noise(2, model.step_seed()).shift)
noises = [np.asarray(noise) for noise in strategy.experimental_local_results(noises)]
np.savez(
    target,
    *[variable.numpy() for variable in model.trainable_variables],
    *[np.asarray(weight) for weight in model.rule_terms.weights],
    **{f"log_{name}": values[0] for name, values in logs.items()},
    steps=int(model.step.numpy()),
    noises=np.stack(noises),
)
"""


def _trained(folder, replicas, noise):
    target = folder / f"{replicas}_{noise}.npz"
    done = subprocess.run(
        [sys.executable, "-c", _PROGRAM, str(target), str(replicas), noise],
        cwd=source_tree.ROOT,
        env={**os.environ, "PYTHONPATH": f"{source_tree.ROOT}:{source_tree.TESTS}"},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return dict(np.load(target))


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    folder = tmp_path_factory.mktemp("replicas")
    return {replicas: _trained(folder, replicas, "noise") for replicas in (1, 2)}


def test_two_replicas_train_as_one_device_with_the_whole_batch(trained):
    """Weights after 20 steps, with rules about the batch as a whole among the constraints."""
    one, two = trained[1], trained[2]
    assert one["steps"] == two["steps"] == 20
    weights = [name for name in one if name.startswith("arr_")]
    assert weights
    for name in weights:
        np.testing.assert_allclose(two[name], one[name], atol=1e-5, err_msg=name)


def test_the_logs_are_those_of_the_whole_batch(trained):
    one, two = trained[1], trained[2]
    names = [name for name in one if name.startswith("log_")]
    assert {"log_loss", "log_penalty_aggregate_count", "log_count_accuracy"} <= set(names)
    assert {"log_feature_tight_windows", "log_multiplier_count_in_set_samples"} <= set(names)
    for name in names:
        np.testing.assert_allclose(two[name], one[name], rtol=1e-5, atol=1e-5, err_msg=name)


def test_each_replica_has_noise_of_its_own(trained):
    first, second = trained[2]["noises"]
    assert np.abs(first - second).min() > 0.0
