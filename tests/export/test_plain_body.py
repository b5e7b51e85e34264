"""The short way through a body gives what the long way gives, or leaves it to the long way."""

from __future__ import annotations

import json

import numpy as np
import pytest
from asr_tf.export.server import predict_json
from asr_tf.export.server.errors import RequestError
from asr_tf.export.server.plain_body import read_numbers, split_body
from asr_tf.export.server.predict_json import TensorSpec, decode_tensors, parse_request
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

FLOAT = np.dtype(np.float32)
SPECS = {"images": TensorSpec(FLOAT, (None, 2, 2, 1))}
IMAGE = [[[0.25], [1]], [[0.0], [1e-3]]]


def _answers(body, specs=SPECS):
    """What both ways make of a body: an array or a fault, of each."""
    found = []
    for parse in (parse_request, predict_json._parse):
        try:
            request = parse(body)
            found.append((request.signature_name, request.by_row, decode_tensors(request, specs)["images"].tolist()))
        except RequestError as error:
            found.append(error.message)
    return found


@pytest.mark.parametrize(
    "body",
    [
        {"instances": [IMAGE]},
        {"inputs": [IMAGE, IMAGE]},
        {"signature_name": "infer", "instances": [IMAGE] * 3},
        {"signature_name": "infer", "inputs": {"images": [IMAGE]}},
    ],
)
@pytest.mark.parametrize("indent", [None, 2])
def test_the_short_way_is_taken(body, indent):
    text = json.dumps(body, indent=indent).encode() + b" \n"
    assert read_numbers(split_body(text).text, FLOAT, (2, 2, 1)) is not None
    short, long = _answers(text)
    assert short == long
    assert np.shape(short[2])[1:] == (2, 2, 1)


GOOD = json.dumps({"inputs": {"images": [IMAGE]}})


@settings(
    max_examples=1500,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(
    place=st.integers(0, len(GOOD)),
    cut=st.integers(0, 3),
    new=st.text('[]{},:"0123456789.eE+- truefalsnNaI\n', max_size=4),
)
@example(place=GOOD.index("0.25]") - 1, cut=6, new="0.25[]")
@example(place=GOOD.index("0.25") + 2, cut=0, new=" ")
@example(place=GOOD.index("0.25"), cut=4, new="")
@example(place=GOOD.index("0.25"), cut=4, new="1e999")
@example(place=GOOD.index("0.25"), cut=4, new="1e39")
@example(place=GOOD.index("0.25"), cut=4, new="9" * 400)
@example(place=GOOD.index("0.25"), cut=4, new="NaN")
@example(place=GOOD.index("0.25"), cut=4, new="01")
def test_a_spoiled_body_fares_the_same_both_ways(place, cut, new):
    short, long = _answers((GOOD[:place] + new + GOOD[place + cut :]).encode())
    assert short == long


@pytest.mark.parametrize(
    "body",
    [
        {"instances": [IMAGE], "signature_name": "infer"},
        {"inputs": [IMAGE], "signature_name": 3},
        {"inputs": {"images": [IMAGE]}, "signature_name": "infer"},
        {"inputs": [IMAGE], "instances": [IMAGE]},
        {"inputs": {"images": [IMAGE], "more": [IMAGE]}},
        {"instances": {"images": [IMAGE]}},
    ],
)
def test_what_comes_after_the_list_counts(body):
    text = json.dumps(body).encode()
    assert split_body(text) is None
    short, long = _answers(text)
    assert short == long
    if body.get("signature_name") == "infer":
        assert short[0] == "infer"


def test_other_inputs_go_the_long_way():
    body = json.dumps({"inputs": [[1, 0], [0, 1]]}).encode()
    for dtype, shape in ((np.dtype(np.int32), (None, 2)), (FLOAT, (None, None)), (FLOAT, None)):
        specs = {"images": TensorSpec(dtype, shape)}
        assert _answers(body, specs) == [("serving_default", False, [[1, 0], [0, 1]])] * 2
