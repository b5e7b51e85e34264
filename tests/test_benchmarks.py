"""What the benchmarks count and set up; what they time is not a test's business."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from asr_tf.models.inference import Inference
from benchmarks import arithmetic, command, growth, kernels, published, quality

SETTINGS = [
    {},
    {
        "num_steps": 4, "image_pool": 1, "canvas_size": (30, 44), "what_size": 8, "clipnorm": None,
        "second_look": None, "placement_grid": None,
    },
    {
        "second_look": 1.5, "num_steps": 3, "rnn_units": 48, "head_units": 12,
        "encoder_units": (40,), "decoder_units": (30, 20, 10),
    },
]


def _products_in_graph(function, *arguments):
    """Operations of matrix products by TensorFlow's own counter, of what the outputs need."""
    graph = tf.function(function, autograph=False).get_concrete_function(*arguments).graph
    needed = [t.op.name for t in graph.outputs] + [op.name for op in graph.control_outputs]
    definition = tf.compat.v1.graph_util.extract_sub_graph(graph.as_graph_def(add_shapes=True), needed)
    pruned = tf.Graph()
    with pruned.as_default():
        tf.import_graph_def(definition, name="")
    options = tf.compat.v1.profiler.ProfileOptionBuilder
    options = options(options.float_operation()).with_empty_output().build()
    node = tf.compat.v1.profiler.profile(pruned, cmd="op", options=options)
    operations = {}
    while node.children:
        (node,) = node.children
        operations[node.name] = node.float_ops
    return sum(count for name, count in operations.items() if "MatMul" in name)


def _unrolled(cond, body, loop_vars, maximum_iterations):
    """What the counter can see: it doesn't know how often a loop runs."""
    for _ in range(maximum_iterations):
        loop_vars = body(*loop_vars)
    return loop_vars


@pytest.fixture
def _loops_are_unrolled(monkeypatch):
    monkeypatch.setattr(tf, "while_loop", _unrolled)


@pytest.mark.usefixtures("_loops_are_unrolled")
@pytest.mark.parametrize("settings", SETTINGS)
def test_training_arithmetic_equals_the_count_of_the_graph(settings):
    model = published.build(**settings)
    model.compile(optimizer=keras.optimizers.Adam(1e-3), jit_compile=False)
    model.optimizer.build(model.trainable_variables)
    batch = {"image": tf.TensorSpec([16, *model.canvas_size, 1]), "count": tf.TensorSpec([16], tf.int32)}
    counted = _products_in_graph(lambda data: model.train_step(data)["loss"], batch)
    assert arithmetic.training_step_flops(model, 16) == pytest.approx(counted, rel=5e-3)


@pytest.mark.parametrize("settings", SETTINGS)
def test_inference_arithmetic_equals_the_count_of_the_graph(settings):
    model = published.build(**settings, skip_absent=False)
    counted = _products_in_graph(
        lambda batch: Inference(model, frozen=False, portable=True).infer(batch),
        tf.TensorSpec([16, *model.canvas_size, 1]),
    )
    assert arithmetic.inference_flops(model, 16) == pytest.approx(counted, rel=5e-3)
    assert arithmetic.inference_flops(model, 16, count=1) == arithmetic.inference_flops(model, 16)


def test_fewer_objects_are_less_work():
    model = published.build(4)
    flops = [arithmetic.inference_flops(model, 8, count) for count in range(5)]
    assert np.ptp(np.diff(flops)) == 0 and flops[0] < flops[1] and flops[4] == arithmetic.inference_flops(model, 8)
    assert flops[4] < arithmetic.inference_flops(published.build(4, skip_absent=False), 8)
    with pytest.raises(ValueError, match="autoregressive prior"):
        arithmetic.training_step_flops(published.build(4, prior="air"), 8)


def test_weights_for_a_count_give_that_count():
    for count in (0, 2, 4):
        model = published.with_count(published.build(4), count)
        assert (model.infer(published.images(3))["count"].numpy() == count).all()


def test_growth_exponent_is_the_slope_of_the_logarithms():
    sizes = [1.0, 2.0, 4.0, 8.0]
    assert growth.exponent(sizes, [3.0 * size**1.5 for size in sizes]) == pytest.approx(1.5)


def test_turns_take_turns_and_the_first_round_is_left_out():
    calls = []
    medians = command.interleaved({name: lambda name=name: calls.append(name) for name in "ab"}, rounds=3)
    assert calls == ["a", "b"] * 4 and medians.keys() == {"a", "b"}


def test_growth_plot_is_drawn(tmp_path):
    axis = {
        "sizes": [1, 2],
        "step_s": [0.1, 0.2],
        "peak_mib": [5.0, 9.0],
        "step_exponent": 1.0,
        "peak_exponent": 0.85,
    }
    growth.draw({"T": axis, "batch": axis}, tmp_path / "growth.png")
    assert (tmp_path / "growth.png").stat().st_size > 5000


def test_time_to_quality_is_the_first_row_that_reaches_it():
    rows = [
        {"train_seconds": 10.0, "val_count_accuracy": 0.9},
        {"train_seconds": 20.0, "val_count_accuracy": 0.96},
        {"train_seconds": 30.0, "val_count_accuracy": 0.94},
    ]
    goal = quality.GOALS["count_accuracy_0.95"]
    assert quality.reached_after(rows, goal) == 20.0 and quality.reached_after(rows[:1], goal) == np.inf


@pytest.mark.parametrize(
    ("kernel", "result", "expected"),
    [
        ("MatMul.7", "f32[384,512]{1,0}", "products, two-dimensional"),
        ("MatMul_1.3", "f32[64,6,28,28]{3,2,1,0}", "products, batched"),
        ("wrapped_reduce-window.2", "f32[64,6,2,16]{3,2,1,0}", "running sums"),
        ("bitcast_concatenate_fusion", "u32[5088,4]{1,0}", "random"),
        ("multiply_add_fusion", "f32[2500,1024]{1,0}", "elementwise, half"),
        ("multiply_add_fusion", "f32[64,256]{1,0}", "elementwise, smaller"),
    ],
)
def test_kernels_are_told_apart(kernel, result, expected):
    assert kernels.kind(kernel, result).startswith(expected)


def test_kernels_of_loops_are_counted_once_and_those_within_fusions_are_not():
    program = """HloModule x
%fused_computation (a: f32[2]) -> f32[2] {
  ROOT %d = f32[2] dot(%a, %a)
}

%wide.while_body.2 (t: f32[2]) -> f32[2] {
  %f = f32[2] fusion(%t), kind=kLoop
  ROOT %d.2 = f32[2] dot(%f, %f)
}

ENTRY %main (p: f32[2]) -> f32[2] {
  ROOT %f.3 = f32[2] fusion(%p), kind=kLoop
}
"""
    assert kernels.count_kernels(program) == 3
