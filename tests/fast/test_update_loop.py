"""Updates in one program against updates one by one: what they leave behind, in what order, and where the data end."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from testing_asr_model import images, tiny

from asr_tf.constraints import CountInSet
from asr_tf.fast import update_loop
from asr_tf.fast.optimizer import PackedAdam
from asr_tf.fast.update_loop import several_updates
from asr_tf.models.bound_model import BoundModel


def _numbered(number, batch=2):
    """Batches i of value i, i + 100."""
    values = np.arange(number, dtype=np.float32)[:, np.newaxis] + np.float32([[0.0, 100.0]])
    return tf.data.Dataset.from_tensor_slices({"x": values, "index": np.arange(number)}).map(
        lambda row: {"x": tf.ensure_shape(row["x"], [batch]), "index": row["index"]}
    )


def _decimal(num_updates, otherwise=None):
    """A train function that appends each batch's index to the digits of a number, and the number."""
    digits, total = tf.Variable(0.0, dtype=tf.float64), tf.Variable(0.0)

    def update(batch):
        digits.assign(10.0 * digits + tf.cast(batch["index"], tf.float64))
        total.assign_add(tf.reduce_sum(batch["x"]))

    return several_updates(update, lambda: {"total": total.value()}, num_updates, otherwise), digits


@pytest.mark.parametrize("max_bytes", [2**26, 50, 1])  # of batches of 16 bytes: all, three and one at a time
def test_every_batch_is_taken_once_and_in_order(monkeypatch, max_bytes):
    monkeypatch.setattr(update_loop, "_MAX_BYTES", max_bytes)
    function, digits = _decimal(4)
    iterator = iter(_numbered(10))
    totals = [float(function(iterator)["total"]) for _ in range(3)]
    assert int(digits.numpy()) == 123456789  # after a leading 0
    np.testing.assert_allclose(totals, [412.0, 856.0, 1090.0])
    with pytest.raises(StopIteration):
        function(iterator)
    assert int(digits.numpy()) == 123456789


def test_programs_are_of_about_the_same_size(monkeypatch):
    spec = {"x": tf.TensorSpec([10], tf.float32), "index": tf.TensorSpec([], tf.int64)}
    sizes = []
    for max_bytes in (2**26, 48 * 10, 48 * 9, 47):
        monkeypatch.setattr(update_loop, "_MAX_BYTES", max_bytes)
        sizes.append(update_loop._batches_a_program(spec, 20))
    assert sizes == [20, 10, 7, 1]


@pytest.mark.parametrize(
    "data",
    [
        _numbered(3).batch(2),
        _numbered(3).map(lambda row: {**row, "name": "a"}),
        tf.data.Dataset.from_tensors({"index": tf.ragged.constant([[1], [2, 3]])}),
    ],
    ids=["batches of several sizes", "strings", "ragged"],
)
def test_what_no_program_can_be_given_goes_another_way(data):
    function, _ = _decimal(4, otherwise=lambda iterator: next(iterator))
    assert "index" in function(iter(data))


def test_an_iterator_of_other_kinds_goes_another_way():
    function, _ = _decimal(4, otherwise=lambda iterator: list(iterator))
    assert function(range(3)) == [0, 1, 2]


def _trained(steps_per_execution, data, epochs=2, callbacks=(), **settings):
    model = tiny(constraints=(CountInSet((1, 3), strength=5.0),), **settings)
    # Adam makes steps of its rate of gradients that are next to nothing but rounding.
    model.compile(optimizer=PackedAdam(1e-4), jit_compile=True, steps_per_execution=steps_per_execution)
    history = model.fit(data, epochs=epochs, verbose=0, shuffle=False, callbacks=list(callbacks)).history
    return model, history


def _batches(number):
    rows = {"image": images(5 * number), "count": np.arange(5 * number, dtype=np.int32) % 3}
    rows["image"][12] = np.nan  # a batch that is skipped
    return tf.data.Dataset.from_tensor_slices(rows).batch(5, drop_remainder=True)


class _Seen(keras.callbacks.Callback):
    def __init__(self):
        super().__init__()
        self.logs = {}

    def on_train_batch_end(self, batch, logs=None):
        self.logs[int(self.model.step)] = {label: float(value) for label, value in logs.items()}


def test_a_model_learns_as_from_updates_one_by_one():
    seen = {size: _Seen() for size in (1, 4)}
    (model, history), (expected, expected_history) = (
        _trained(size, _batches(7), callbacks=[seen[size]]) for size in (4, 1)
    )
    assert int(model.step) == 14 and int(model.skipped_steps) == 2
    assert list(seen[4].logs) == [4, 7, 11, 14]
    assert history.keys() == expected_history.keys() and "count_accuracy" in history
    for label, values in history.items():
        np.testing.assert_allclose(values, expected_history[label], rtol=1e-4, err_msg=label)
    for step, logs in seen[4].logs.items():
        for label, value in logs.items():
            np.testing.assert_allclose(value, seen[1].logs[step][label], rtol=1e-4, err_msg=label)
    untrained, moved = tiny().trainable_variables, []
    for variable, reference, start in zip(
        model.trainable_variables, expected.trainable_variables, untrained, strict=True
    ):
        np.testing.assert_allclose(variable.numpy(), reference.numpy(), atol=1e-4, err_msg=variable.path)
        moved.append(np.abs(variable.numpy() - start.numpy()).max())
    assert np.median(moved) > 1e-3


def test_batches_of_several_sizes_are_all_taken():
    data = tf.data.Dataset.from_tensor_slices({"image": images(12)}).batch(5)
    model, _ = _trained(2, data, epochs=1)
    assert int(model.step) == 3


def test_a_train_step_of_ones_own_reports_its_own_logs():
    class Louder(type(tiny())):
        def train_step(self, data):
            return super().train_step(data) | {"twice": 2 * self.step.value}

    assert Louder.train_step is not BoundModel.train_step
    settings = {"canvas_size": (12, 14), "num_steps": 2, "glimpse_size": 6, "rnn_units": 8}
    model = Louder(**settings)
    model.compile(optimizer=PackedAdam(1e-2), jit_compile=True, steps_per_execution=2)
    history = model.fit(_batches(4), verbose=0, shuffle=False).history
    assert history["twice"] == [8]
