"""What the benchmarks count and set up; what they time is not a test's business."""

import ast
import graphlib
import io
import json
import math
import pathlib
import shutil
import subprocess
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf
import testing_asr_model

from asr_tf.constraints import CountInSet, TightWindows
from asr_tf.data import Scenes
from asr_tf.networks.decoder import MLPDecoder
from asr_tf.networks.prior import AIRPrior, AutoregressivePrior
from asr_tf.networks.recognition import LSTMRecognition
from benchmarks import (
    arithmetic,
    command,
    growth,
    kernels,
    multipliers,
    published,
    quality,
    refinement,
    versus,
    worker,
)

# Each makes its parts anew: a part belongs to one model.
SETTINGS = [
    dict,
    lambda: {
        "num_steps": 4, "canvas_size": (30, 44), "what_size": 8, "clipnorm": None,
        "recognition": LSTMRecognition(image_pool=1),
        "prior": AutoregressivePrior(placement_grid=None),
    },
    lambda: {
        "num_steps": 3,
        "recognition": LSTMRecognition(48, 12, encoder_units=(40,), second_look=1.5),
        "decoder": MLPDecoder((30, 20, 10)),
        "prior": AutoregressivePrior(40, 16),
    },
]


def _products_in_graph(function, *arguments):
    """Operations of matrix products by TensorFlow's own counter, of what the outputs need."""
    tf.config.run_functions_eagerly(True)  # the counter doesn't look into functions within the graph
    try:
        graph = tf.function(function, autograph=False).get_concrete_function(*arguments).graph
    finally:
        tf.config.run_functions_eagerly(False)
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


@pytest.mark.parametrize("settings", SETTINGS)
def test_training_arithmetic_equals_the_count_of_the_graph(settings):
    model = published.build(**settings())
    model.compile(optimizer=keras.optimizers.Adam(1e-3), jit_compile=False)
    batch = {"image": tf.TensorSpec([16, *model.canvas_size, 1]), "count": tf.TensorSpec([16], tf.int32)}
    counted = _products_in_graph(lambda data: model.train_step(data)["loss"], batch)
    # TensorFlow leaves out a part of the interpolations' gradients, by up to 1.6 % of the smallest of these models.
    assert arithmetic.training_step_flops(model, 16) == pytest.approx(counted, rel=2e-2)


@pytest.mark.parametrize("settings", SETTINGS)
@pytest.mark.parametrize("count", [None, 0])
def test_inference_arithmetic_equals_the_count_of_the_graph(settings, count, monkeypatch):
    monkeypatch.setenv("ASR_TF_FAST", "0" if count is None else "1")
    model = published.build(**settings())
    counted = _products_in_graph(model.infer, tf.TensorSpec([16, *model.canvas_size, 1]))
    # The counter leaves out products of a size that is known only when the graph runs: those for present objects.
    assert arithmetic.inference_flops(model, 16, count) == pytest.approx(counted, rel=5e-3)


def test_fewer_objects_are_less_work():
    model = published.build(4)
    flops = [arithmetic.inference_flops(model, 8, count) for count in range(5)]
    assert np.ptp(np.diff(flops)) == 0 and flops[0] < flops[1] and flops[4] < arithmetic.inference_flops(model, 8)
    with pytest.raises(ValueError, match="autoregressive prior"):
        arithmetic.training_step_flops(published.build(4, prior=AIRPrior()), 8)


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


def test_nothing_is_imported_in_a_circle_and_the_package_imports_no_benchmark():
    imported = {}
    for path in (command.ROOT / "benchmarks").glob("*.py"):
        names = imported[path.stem] = set()
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom) and node.module == "benchmarks":
                names.update(alias.name for alias in node.names)
            elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith("benchmarks."):
                names.add(node.module.split(".")[1])
    assert {"speed", "versus"} <= set(graphlib.TopologicalSorter(imported).static_order())
    for folder in ("asr_tf", "export"):
        for path in (command.ROOT / folder).rglob("*.py"):
            assert "benchmarks" not in path.read_text(encoding="utf-8"), path


def test_figures_are_printed_and_written_as_json(tmp_path, capsys):
    output = tmp_path / "figures.json"
    command.report(output, lambda: {"a": 1.5}, lambda figures, path: path.write_text(str(figures)))
    assert json.loads(output.read_text()) == json.loads(capsys.readouterr().out) == {"a": 1.5}
    assert (tmp_path / "figures.png").read_text() == "{'a': 1.5}"


def test_a_missing_folder_is_refused_before_anything_is_measured(tmp_path):
    measured = []
    with pytest.raises(SystemExit) as caught:
        command.report(tmp_path / "missing" / "figures.json", lambda: measured.append(1))
    message = str(caught.value)
    assert message.endswith(f"there is no folder {tmp_path / 'missing'}.") and "\n" not in message and not measured


def test_pairs_are_taken_in_turns_that_change_places():
    calls = []

    def timed(side, seconds):
        return lambda turn: (calls.append(side + turn), seconds.pop(0))[1]

    this, other = timed("A", [9.0, 8.0, 1.0, 2.0, 3.0, 4.0]), timed("B", [7.0, 6.0, 5.0, 10.0, 4.0, 8.0])
    pairs = versus.paired(("x", "y"), 2, this, other)
    assert calls == ["Ax", "Bx", "Ay", "By", "Bx", "Ax", "By", "Ay", "Ax", "Bx", "Ay", "By"]
    assert pairs == {"x": [(1.0, 5.0), (3.0, 4.0)], "y": [(2.0, 10.0), (4.0, 8.0)]}
    assert versus.paired(("z",), 1, lambda _: 1.0, lambda _: 2.0, uncounted=0) == {"z": [(1.0, 2.0)]}


def test_ratios_are_those_of_pairs_and_not_of_medians():
    figures = versus.compared([(1.0, 2.0), (6.0, 4.0), (3.0, 5.0)], calls=10)
    # Medians are 3 s and 4 s of 10 calls; the ratios of the pairs are 0.5, 1.5 and 0.6.
    assert figures == {"this_ms": 300.0, "other_ms": 400.0, "this_to_other": {"median": 0.6, "min": 0.5, "max": 1.5}}


@pytest.mark.parametrize("revision", ["no-such-revision", "", "--help"])
def test_an_unknown_revision_is_refused(revision):
    with (
        pytest.raises(command.Refusal, match=f"^--against={revision}: git knows no such revision in .*[.]$"),
        versus.checkout(revision),
    ):
        pass


def test_the_command_refuses_in_one_line(tmp_path):
    for flags, message in (
        (["--against=no-such-revision"], "--against=no-such-revision: git knows no such revision"),
        (["--against=HEAD", "--rounds=0"], "--rounds must be 1 or more, got 0."),
        (["--against=HEAD", f"--output={tmp_path}/missing/x.json"], "there is no folder"),
    ):
        done = subprocess.run(
            [sys.executable, "-m", "benchmarks.speed", *flags], cwd=command.ROOT, capture_output=True, text=True
        )
        assert done.returncode == 1 and done.stdout == "" and message in done.stderr
        assert done.stderr.startswith("benchmarks: error: ") and done.stderr.count("\n") == 1


def test_masks_that_nobody_asks_for_are_left_out():
    infer = tf.function(lambda images: {"count": images + 1.0, "masks": images - 1.0})
    found = worker._without_masks(infer)(tf.ones([2]))
    assert {name: value.numpy().tolist() for name, value in found.items()} == {"count": [2.0, 2.0]}


def test_a_worker_times_what_it_is_told_and_nothing_else():
    answers, done = io.StringIO(), []
    turns = {name: lambda name=name: done.append(name) for name in "ab"}
    worker.answer(turns, ["time b\n", "time a\n"], answers)
    ready, *timed = map(json.loads, answers.getvalue().splitlines())
    assert ready == {"ready": ["a", "b"]} and done == ["b", "a"]
    assert [line.keys() for line in timed] == [{"seconds"}] * 2 and all(line["seconds"] >= 0.0 for line in timed)
    for wrong in ("time c", "stop", ""):
        with pytest.raises(SystemExit, match="a command is `time NAME` with one of a, b: "):
            worker.answer(turns, [wrong], answers)


def test_modules_of_another_checkout_are_refused(tmp_path):
    worker.check_origin(command.ROOT)
    with pytest.raises(SystemExit, match=f"which isn't in {tmp_path}"):
        worker.check_origin(tmp_path)


STAND_IN = {
    # Whatever is imported is the stand-in's, and what is printed is no answer.
    "tensorflow.py": """
class Value:
    def numpy(self): print("a message of a library")
class saved_model:
    signatures = {"infer": lambda images: {"reconstruction": Value()}}
    load = classmethod(lambda cls, folder: cls)
constant = list
function = lambda called: called
""",
    "asr_tf/__init__.py": "",
    "benchmarks/published.py": """
import tensorflow as tf, numpy as np, asr_tf
class Model:
    def fit(self, data, steps_per_epoch, epochs, verbose, shuffle): assert data in (64, 1000)
    def infer(self, images): return {"reconstruction": tf.Value()}
    def sample(self, number, seed, objects): return {"images": tf.Value()}
build = lambda num_steps: Model()
compiled = lambda model, steps_per_execution=20: model
with_count = lambda model, count: model
dataset = lambda batch_size, number=64: number
images = lambda number: np.zeros([number, 2, 2, 1], np.uint8)
""",
}
SERVED_MODEL = """
class ServedModel:
    def __init__(self, model): pass
    def save(self, folder): pass
"""
FLAT = {"asr_tf/serving.py": SERVED_MODEL}
PACKAGED = {"asr_tf/serving/__init__.py": "", "asr_tf/serving/served_model.py": SERVED_MODEL}


def _write(folder, files):
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)


@pytest.mark.skipif(shutil.which("git") is None, reason="revisions come from git")
def test_a_stand_in_is_timed_against_an_earlier_revision_of_it(tmp_path, monkeypatch, capfd):
    def git(*arguments):
        settings = ("-c", "user.name=a", "-c", "user.email=a@b", "-c", "commit.gpgsign=false")
        subprocess.run(["git", *settings, *arguments], cwd=tmp_path, check=True, capture_output=True)

    git("init")
    _write(tmp_path, STAND_IN | FLAT)
    git("add", ".")
    git("commit", "-m", "flat")
    git("rm", "-q", "asr_tf/serving.py")
    _write(tmp_path, PACKAGED)
    monkeypatch.setattr(command, "ROOT", tmp_path)
    folders = []

    class Noted(versus.Worker):
        def __init__(self, folder, turn):
            folders.append(folder)
            super().__init__(folder, turn)

    monkeypatch.setattr(versus, "Worker", Noted)
    figures = versus.measure("HEAD", 2)
    assert figures["this"] == f"{figures['other']} with uncommitted changes" and figures["rounds"] == 2
    for turn in (*worker.CALLS, "first_step"):
        ratio = figures[turn]["this_to_other"]
        numbers = (figures[turn]["this_ms"], figures[turn]["other_ms"], *ratio.values())
        assert all(math.isfinite(number) and number >= 0.0 for number in numbers)
        assert ratio["min"] <= ratio["median"] <= ratio["max"]
    assert folders[::2] == [tmp_path] * len(worker.CALLS) and not any(map(pathlib.Path.exists, folders[1::2]))
    assert "a message of a library" in capfd.readouterr().err


def test_a_checkout_that_cannot_be_timed_is_refused(tmp_path):
    _write(tmp_path, STAND_IN)
    with pytest.raises(command.Refusal, match=f"times {tmp_path} ended without an answer, with status 1; why stands"):
        versus.Worker(tmp_path, "export_infer_b256_t4")


def test_models_with_multipliers_and_strengths_are_asked_the_same():
    made = multipliers.models()
    for scene in ("count13", "overlap3"):
        kinds = ("multipliers", "strengths", "no_rules")
        adaptive, fixed, free = (made[f"{scene}_{kind}"].rule_terms for kind in kinds)
        assert [demand.label for demand in adaptive.asked] == [demand.label for demand in fixed.asked] != []
        assert len(adaptive.adaptive) == len(adaptive.asked) and not fixed.adaptive and not free.asked
        assert all(float(factor) == 1.0 for factor in fixed.factors())
    sizes = [sum(int(np.prod(weight.shape)) for weight in model.trainable_weights) for model in made.values()]
    assert len(set(sizes[:3])) == len(set(sizes[3:])) == 1


def test_refinement_beside_inference():
    model, batch = testing_asr_model.tiny(constraints=[CountInSet((1, 3), strength=1.0)]), testing_asr_model.images(6)
    inferred = model.infer(batch)
    scenes = Scenes(
        np.rint(255 * batch).astype(np.uint8), inferred["count"].numpy().astype(np.int32), inferred["boxes"].numpy()
    )
    start, later = (refinement.refinement(model, scenes, steps) for steps in (0, 6))
    assert start["gain_nats"] == start["share_of_images_refined"] == 0.0
    assert start["count_accuracy"] == 1.0 and start["mean_iou"] > 0.95
    assert later["gain_nats"] == pytest.approx(
        later["negative_elbo_nats_before"] - later["negative_elbo_nats_after"], rel=1e-3
    )
    assert later["gain_nats"] > 0.1 and 0.0 < later["mean_iou"] < start["mean_iou"]


def test_obedience_counts_scenes_and_draws(monkeypatch):
    monkeypatch.setattr(refinement, "CHUNK", 20)
    model = testing_asr_model.tiny(constraints=[CountInSet((1, 3), strength=1.0), TightWindows(slack_px=99.0)])
    plain, obeying = (refinement.obedience(model, 50, obey) for obey in (False, True))
    counts = np.concatenate([model.sample(n, (0, start))["count"] for start, n in ((0, 20), (20, 20), (40, 10))])
    assert plain["broken"] == {"count_in_set": int(np.sum(~np.isin(counts, (1, 3)))), "tight_windows": 0}
    assert obeying["broken"] == {"count_in_set": 0, "tight_windows": 0}
    draws = sum(
        n / model.sample(n, (0, start), obey=True)["acceptance_rate"].numpy()
        for start, n in ((0, 20), (20, 20), (40, 10))
    )
    assert obeying["acceptance_rate"] == pytest.approx(50 / draws)
