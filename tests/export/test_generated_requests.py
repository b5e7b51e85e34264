"""Requests that a generator makes up: whatever comes, the server says 200 or names the fault in one line, and goes on.

A request starts as a good one and is then spoiled in a way whose message is known, or is any JSON or any bytes at all.
"""

from __future__ import annotations

import copy
import json
import string

import numpy as np
import pytest
import testing_server
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from testing_served import CANVAS, NUM_STEPS, WHAT_SIZE, random_images, write_version

HEIGHT, WIDTH = CANVAS
GOOD_SHAPES = {
    "images": (HEIGHT, WIDTH, 1),
    "z_what": (NUM_STEPS, WHAT_SIZE),
    "boxes": (NUM_STEPS, 4),
    "presence": (NUM_STEPS,),
}
SIGNATURES = {
    "infer": ("images",),
    "serving_default": ("images",),
    "render": ("z_what", "boxes", "presence"),
    "refine": ("images", "steps"),
    "sample": ("num_samples", "seed", "num_objects", "obey"),
    "log_likelihood": ("images", "num_particles", "seed"),
}


def _many(number):
    # The same requests in every run; the fixture that clears gin's memory runs once a test, which is enough.
    kept_quiet = [HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
    return settings(
        max_examples=number, deadline=None, suppress_health_check=kept_quiet, database=None, derandomize=True
    )


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    folder = tmp_path_factory.mktemp("export")
    write_version(folder, 1)
    with testing_server.serving(folder, max_body_bytes=100_000) as running:
        running.count = 0
        yield running
        assert running.count >= 2000
        images = random_images(2)
        status, answer = running.predict({"inputs": images.tolist()})
        assert status == 200
        np.testing.assert_allclose(answer["outputs"]["reconstruction"], 0.5 * images, atol=1e-6)


def _ask(server, body, path="/v1/models/asr:predict"):
    """Status and message of an answer, whose form is checked."""
    server.count += 1
    status, text = server.ask("POST", path, body)
    answer = json.loads(text)
    if status == 200:
        assert set(answer) in ({"predictions"}, {"outputs"})
        return status, ""
    assert 400 <= status < 500
    assert set(answer) == {"error"}
    message = answer["error"]
    assert message.strip()
    assert "\n" not in message
    assert "Traceback" not in message
    return status, message


@st.composite
def good_inputs(draw, signature):
    """Inputs that the signature takes, by name."""
    batch = draw(st.integers(1, 3))
    rng = np.random.default_rng(draw(st.integers(0, 1000)))
    inputs = {}
    for name in SIGNATURES[signature]:
        if name == "seed":
            inputs[name] = draw(st.lists(st.integers(-(2**31), 2**31 - 1), min_size=2, max_size=2))
        elif name == "num_objects":
            inputs[name] = draw(st.integers(-1, NUM_STEPS))
        elif name == "obey":
            if draw(st.booleans()):  # it may be left out
                inputs[name] = draw(st.booleans())
        elif name in ("num_samples", "num_particles", "steps"):
            inputs[name] = draw(st.integers(1, 5))
        else:
            inputs[name] = (0.5 * rng.random((batch, *GOOD_SHAPES[name]))).round(3).tolist()
    return inputs


def _leaf(value, path):
    """The list that holds a leaf of a nested list, and the leaf's place in it."""
    while isinstance(value[path[0] % len(value)], list):
        value = value[path[0] % len(value)]
        path = path[1:] + path[:1]
    return value, path[0] % len(value)


# How to spoil a tensor: name -> (what to do with a nested list and a place, words that the message must hold).
SPOILERS = {
    "string": (lambda value, place: value.__setitem__(place, "0.5"), "string"),
    "null": (lambda value, place: value.__setitem__(place, None), "null"),
    "boolean": (lambda value, place: value.__setitem__(place, True), "boolean"),
    "object": (lambda value, place: value.__setitem__(place, {"x": 1}), "object"),
    "list": (lambda value, place: value.__setitem__(place, [0.5]), ""),
    "longer": (lambda value, place: value.append(0), ""),
    "shorter": (lambda value, place: value.pop(place), ""),
    "nan": (lambda value, place: value.__setitem__(place, float("nan")), "nan"),
    "infinite": (lambda value, place: value.__setitem__(place, float("-inf")), "inf"),
    "huge": (lambda value, place: value.__setitem__(place, 10**30), ""),
}


@_many(550)
@given(data=st.data())
def test_good_requests_are_answered(server, data):
    signature = data.draw(st.sampled_from(sorted(SIGNATURES)))
    inputs = data.draw(good_inputs(signature))
    body = {"signature_name": signature}
    if signature in ("refine", "sample", "log_likelihood") or data.draw(st.booleans()):
        body["inputs"] = inputs
    else:
        body["instances"] = [dict(zip(inputs, row, strict=True)) for row in zip(*inputs.values(), strict=True)]
    status, message = _ask(server, body)
    assert (status, message) == (200, "")


@_many(650)
@given(data=st.data())
def test_a_spoiled_tensor_is_named(server, data):
    signature = data.draw(st.sampled_from(sorted(SIGNATURES)))
    inputs = data.draw(good_inputs(signature))
    name = data.draw(st.sampled_from(sorted(name for name in inputs if isinstance(inputs[name], list))))
    how = data.draw(st.sampled_from(sorted(SPOILERS)))
    spoil, words = SPOILERS[how]
    inputs = copy.deepcopy(inputs)
    path = data.draw(st.lists(st.integers(0, 1000), min_size=4, max_size=4))
    spoil(*_leaf(inputs[name], path))
    assume(how != "huge" or name in ("images", "seed"))  # elsewhere a large number is a number
    status, message = _ask(server, {"signature_name": signature, "inputs": inputs})
    assert status == 400
    assert name in message
    if name != "seed" or how not in ("nan", "infinite"):  # for integers these are of the wrong type
        assert words in message


@_many(250)
@given(data=st.data())
def test_numbers_out_of_range_are_named(server, data):
    """num_objects over T, no samples, far too many, seeds of another shape, names that aren't there."""
    signature = data.draw(st.sampled_from(["sample", "log_likelihood"]))
    inputs = data.draw(good_inputs(signature))
    faults = [("seed", st.lists(st.integers(-5, 5), max_size=5).filter(lambda seed: len(seed) != 2))]
    if signature == "sample":
        outside = st.one_of(st.integers(-(2**31), -2), st.integers(NUM_STEPS + 1, 2**31 - 1))
        faults += [("num_objects", outside), ("num_objects", st.integers(2**31, 2**70))]
    number = "num_samples" if signature == "sample" else "num_particles"
    faults += [(number, st.integers(-(2**31), 0)), (number, st.integers(70_000, 2**31 - 1))]
    faults += [(number, st.floats(0.5, 3.0)), (number, st.text(max_size=5)), (number, st.none())]
    name, values = data.draw(st.sampled_from(faults))
    inputs[name] = data.draw(values)
    status, message = _ask(server, {"signature_name": signature, "inputs": inputs})
    assert status == 400
    assert name in message


@_many(300)
@given(data=st.data())
def test_missing_and_unknown_names_are_named(server, data):
    signature = data.draw(st.sampled_from(sorted(SIGNATURES)))
    inputs = data.draw(good_inputs(signature))
    body = {"signature_name": signature, "inputs": inputs}
    name = data.draw(st.text(string.ascii_letters + "_é", min_size=1, max_size=8).map(lambda text: text + "_x"))
    which = data.draw(st.sampled_from(["signature", "missing", "unknown", "both forms"]))
    if which == "signature":
        body["signature_name"] = name
    elif which == "missing":
        name = data.draw(st.sampled_from(sorted(set(inputs) - {"obey"})))
        del inputs[name]
    elif which == "unknown":
        inputs[name] = 1
    else:
        name = "instances"
        body["instances"] = [1]
    status, message = _ask(server, body)
    assert status == 400
    assert name in message


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=30,
)


@_many(350)
@given(
    values=JSON,
    key=st.sampled_from(["inputs", "instances"]),
    name=st.sampled_from(sorted(SIGNATURES)) | JSON,
    is_named=st.booleans(),
)
def test_any_json(server, values, key, name, is_named):
    if isinstance(name, str) and name in SIGNATURES and is_named:
        values = dict.fromkeys(SIGNATURES[name], values)
    status, _ = _ask(server, json.dumps({"signature_name": name, key: values}).encode())
    assert status == 400  # chance makes no images of the right shape


@_many(400)
@given(
    body=st.binary(max_size=200) | JSON.map(lambda value: json.dumps(value).encode()),
    cut=st.integers(0, 200),
    path=st.sampled_from(
        [
            "/v1/models/asr:predict",
            "/v1/models/asr/versions/1:predict",
            "/v1/models/x:predict",
            "/v1/models/asr:regress",
        ]
    ),
)
def test_any_bytes(server, body, cut, path):
    status, _ = _ask(server, body[:cut], path)
    assert status in (400, 404)


@_many(60)
@given(
    verb=st.sampled_from(["GET", "POST", "PUT", "DELETE"]),
    path=st.text(string.ascii_letters + string.digits + "/:._-%", max_size=40),
)
def test_any_path(server, verb, path):
    server.count += 1
    status, text = server.ask(verb, "/v1/" + path)
    assert status in (400, 404)
    assert set(json.loads(text)) == {"error"}
