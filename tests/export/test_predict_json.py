"""JSON to tensors and back, by row and by column, and the message of each fault."""

from __future__ import annotations

import json

import numpy as np
import pytest
from asr_tf.export.server.errors import RequestError
from asr_tf.export.server.predict_json import (
    TensorSpec,
    decode_tensors,
    encode_answer,
    parse_request,
)

FLOAT, INT, STRING, BOOL = np.dtype(np.float32), np.dtype(np.int32), np.dtype(object), np.dtype(bool)
IMAGES = {"images": TensorSpec(FLOAT, (None, 2, 3, 1))}
PAIR = {"a": TensorSpec(FLOAT, (None, 2)), "b": TensorSpec(INT, (None,))}
SAMPLE = {
    "num_samples": TensorSpec(INT, ()),
    "seed": TensorSpec(INT, (2,)),
    "num_objects": TensorSpec(INT, ()),
}


def _decode(document, specs):
    body = document if isinstance(document, bytes) else json.dumps(document).encode()
    return decode_tensors(parse_request(body), specs)


def _image(value=0.5):
    return np.full((2, 3, 1), value).tolist()


def test_rows_and_columns_give_the_same_tensors():
    rows = [{"a": [1, 2.5], "b": 3}, {"a": [-4, 5e-1], "b": 2147483647}]
    columns = {"a": [[1, 2.5], [-4, 0.5]], "b": [3, 2147483647]}
    for document in ({"instances": rows}, {"inputs": columns}):
        arrays = _decode(document, PAIR)
        np.testing.assert_array_equal(arrays["a"], np.array([[1.0, 2.5], [-4.0, 0.5]], np.float32))
        np.testing.assert_array_equal(arrays["b"], [3, 2147483647])
        assert (arrays["a"].dtype, arrays["b"].dtype) == (FLOAT, INT)


@pytest.mark.parametrize(
    "document",
    [
        {"instances": [_image(), _image(0.25)]},
        {"instances": [{"images": _image()}, {"images": _image(0.25)}]},
        {"inputs": [_image(), _image(0.25)]},
        {"inputs": {"images": [_image(), _image(0.25)]}},
    ],
)
def test_a_single_input_needs_no_name(document):
    images = _decode(document, IMAGES)["images"]
    assert images.shape == (2, 2, 3, 1)
    np.testing.assert_array_equal(images[:, 0, 0, 0], [0.5, 0.25])


def test_numbers_without_an_axis_of_examples_come_by_column():
    arrays = _decode({"inputs": {"num_samples": 3, "seed": [-1, 7], "num_objects": -1}}, SAMPLE)
    assert arrays["num_samples"].shape == ()
    np.testing.assert_array_equal(arrays["seed"], np.array([-1, 7], np.int32))


def test_strings_and_base64():
    specs = {"text": TensorSpec(STRING, (None,)), "on": TensorSpec(BOOL, (None,))}
    arrays = _decode({"inputs": {"text": ["ä", {"b64": "AP8="}], "on": [True, False]}}, specs)
    assert arrays["text"].tolist() == ["ä".encode(), b"\x00\xff"]
    assert arrays["on"].tolist() == [True, False]
    with pytest.raises(RequestError, match="text: unable to base64 decode"):
        _decode({"inputs": {"text": [{"b64": "?"}], "on": [True]}}, specs)
    with pytest.raises(RequestError, match="on must hold bool values, got 1"):
        _decode({"inputs": {"text": ["x"], "on": [1]}}, specs)


BAD_BODIES = [
    (b"", "The document is empty"),
    (b"{", "JSON Parse error"),
    (b'{"instances": [1,]}', "JSON Parse error"),
    (b"\xff\xfe\x00", "JSON Parse error"),
    (b"[" * 100_000, "JSON Parse error"),
    (b"NaN [" + b"[" * 100_000, "JSON Parse error"),
    (b"NaN", "must be a JSON object, got number"),
    (b"[1]", "must be a JSON object, got list"),
    (b"null", "must be a JSON object, got null"),
    ({}, "Missing 'inputs' or 'instances' key"),
    ({"instances": [1], "inputs": [1]}, "only one of 'instances' and 'inputs'"),
    ({"instances": 1}, "'instances' value to be a list, got number"),
    ({"instances": []}, "No values in 'instances'"),
    ({"signature_name": 3, "instances": [1]}, "'signature_name' must be a string, got number"),
]


@pytest.mark.parametrize(("body", "message"), BAD_BODIES)
def test_faults_of_the_body(body, message):
    with pytest.raises(RequestError, match=message) as caught:
        _decode(body, IMAGES)
    assert caught.value.status == 400
    assert "\n" not in caught.value.message


BAD_IMAGES = [
    ([[[[0.5]]]], "images must have shape [?, 2, 3, 1], got [1, 1, 1, 1]"),
    ([0.5], "images must have shape [?, 2, 3, 1], got [1]"),
    (0.5, "images must have shape [?, 2, 3, 1], got []"),
    ([], "images must have shape [?, 2, 3, 1], got an empty list: shape [0]"),
    ([[]], "got an empty list: shape [1, 0]"),
    (json.loads("[" * 40 + "0" + "]" * 40), "images must have shape [?, 2, 3, 1], got lists nested over 32 deep"),
    ([[[[[0.5]]]]], "images must have shape [?, 2, 3, 1], got [1, 1, 1, 1, 1]"),
    ([_image(), _image()[:1]], "images is ragged: lists of 1 and 2 values at level 1"),
    ([[[[0.1], 0.2, [0.3]], [[0], [0], [0]]]], "images is ragged: lists and numbers at level 3"),
    ([[[[0.1], [0.2], ["0.3"]], [[0], [0], [0]]]], 'images must hold float32 values, got "0.3" (string)'),
    ([[[[0.1], [0.2], [None]], [[0], [0], [0]]]], "images must hold float32 values, got null (null)"),
    ([[[[0.1], [0.2], [True]], [[0], [0], [0]]]], "images must hold float32 values, got true (boolean)"),
    ([[[[0.1], [0.2], [{"b64": "AA=="}]], [[0], [0], [0]]]], "images must hold float32 values, got {"),
    ([_image(float("nan"))], "images must be in [0, 1], got nan at [0, 0, 0, 0]"),
    ([_image(float("-inf"))], "images must be in [0, 1], got -inf at [0, 0, 0, 0]"),
    ([_image(), _image(1.5)], "images must be in [0, 1], got 1.5 at [1, 0, 0, 0]"),
    ([_image(1.000001)], "images must be in [0, 1], got 1.000001 at [0, 0, 0, 0]"),
    ([_image(-0.5)], "images must be in [0, 1], got -0.5 at [0, 0, 0, 0]"),
    ([_image(255)], "images must be in [0, 1], got 255.0"),
    ([_image(1e300)], "images must be in [0, 1], got inf"),
    ([_image(10**400)], "JSON Parse error: number is infinity"),
    ([[_image(float("nan"))[0], [[10**400]] * 3]], "images must hold float32 values, got 1000"),
    ({"image": [_image()]}, "missing named input: images; wanted are images"),
    ({"images": [_image()], "more": 1}, "does not have named input: more"),
    ({}, "missing named input: images"),
]


@pytest.mark.parametrize(("value", "message"), BAD_IMAGES)
def test_faults_of_images(value, message):
    with pytest.raises(RequestError) as caught:
        _decode({"inputs": value}, IMAGES)
    assert message in caught.value.message
    assert caught.value.status == 400


def test_presence_is_a_fraction():
    specs = {"presence": TensorSpec(FLOAT, (None, 2))}
    np.testing.assert_array_equal(_decode({"inputs": [[0, 1]]}, specs)["presence"], [[0.0, 1.0]])
    with pytest.raises(RequestError, match=r"^presence must be in \[0, 1\], got 1.000001 at \[1, 0\]$"):
        _decode({"inputs": [[0, 1], [1.000001, 0]]}, specs)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"seed": [1]}, "seed must have shape [2], got [1]"),
        ({"seed": [1, 2, 3]}, "seed must have shape [2], got [3]"),
        ({"seed": 1}, "seed must have shape [2], got []"),
        ({"seed": [[1, 2]]}, "seed must have shape [2], got [1, 2]"),
        ({"seed": [1.0, 2]}, "seed must hold int32 values, got 1.0 (number)"),
        ({"seed": [2**31, 0]}, "seed must hold int32 values, got 2147483648, which is too large"),
        ({"num_samples": "3"}, 'num_samples must hold int32 values, got "3" (string)'),
        ({"num_samples": [3]}, "num_samples must have shape [], got [1]"),
    ],
)
def test_faults_of_numbers(changed, message):
    with pytest.raises(RequestError) as caught:
        _decode({"inputs": {"num_samples": 3, "seed": [0, 1], "num_objects": -1, **changed}}, SAMPLE)
    assert message in caught.value.message


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([[1, 2]], "must be a list of objects with a, b, got a list of lists"),
        ([{"a": [1, 2], "b": 1}, 3], "Expecting object but got number at item 1 of 'instances'"),
        ([{"a": [1, 2], "b": 1}, {"a": [1, 2]}], "Item 1 of 'instances': missing named input: b"),
        ([{"a": [1, 2], "b": 1, "c": 0}], "Item 0 of 'instances': does not have named input: c"),
        ([{"a": [1, 2], "b": 1}, {"a": [1], "b": 1}], "a is ragged: lists of 1 and 2 values at level 1"),
    ],
)
def test_faults_of_rows(rows, message):
    with pytest.raises(RequestError) as caught:
        _decode({"instances": rows}, PAIR)
    assert message in caught.value.message


def test_rows_of_numbers_say_how_to_ask():
    rows = [{"num_samples": 3, "seed": [0, 1], "num_objects": -1}]
    with pytest.raises(RequestError, match="'instances' adds a first axis, 'inputs' doesn't"):
        _decode({"instances": rows}, SAMPLE)


def test_answers_by_row_and_by_column():
    outputs = {"n": np.array([1, 2], np.int32), "x": np.array([[0.1, 0.2], [0.3, 1.0]], np.float32)[:, ::-1]}
    assert json.loads(encode_answer(outputs, by_row=False)) == {"outputs": {"n": [1, 2], "x": [[0.2, 0.1], [1.0, 0.3]]}}
    assert json.loads(encode_answer(outputs, by_row=True)) == {
        "predictions": [{"n": 1, "x": [0.2, 0.1]}, {"n": 2, "x": [1.0, 0.3]}]
    }


def test_a_single_output_loses_its_name():
    outputs = {"x": np.array([[1.0], [2.5]], np.float32)}
    assert encode_answer(outputs, by_row=True) == b'{"predictions":[[1.0],[2.5]]}'
    assert encode_answer(outputs, by_row=False) == b'{"outputs":[[1.0],[2.5]]}'
    assert encode_answer({"x": np.float32(3.0).reshape(())}, by_row=False) == b'{"outputs":3.0}'


def test_what_is_not_finite_is_written_as_tensorflow_serving_does():
    outputs = {"x": np.array([np.nan, np.inf, -np.inf, 1.0], np.float32), "n": np.arange(4)}
    assert encode_answer({"x": outputs["x"]}, by_row=False) == b'{"outputs": [NaN, Infinity, -Infinity, 1.0]}'
    rows = json.loads(encode_answer(outputs, by_row=True))["predictions"]
    assert rows[3] == {"x": 1.0, "n": 3}
    assert rows[1]["x"] == np.inf


def test_strings_of_an_answer():
    outputs = {"name": np.array([b"\xc3\xa4"], object), "png_bytes": np.array([b"\x00\xff"], object)}
    assert json.loads(encode_answer(outputs, by_row=False)) == {
        "outputs": {"name": ["ä"], "png_bytes": [{"b64": "AP8="}]}
    }


@pytest.mark.parametrize("outputs", [{"a": np.zeros(2), "b": np.zeros(3)}, {"a": np.zeros(2), "b": np.zeros(())}])
def test_rows_need_a_common_first_axis(outputs):
    with pytest.raises(RequestError, match="no common first axis"):
        encode_answer(outputs, by_row=True)


def test_numbers_of_an_answer_come_back_exactly():
    numbers = np.random.default_rng(0).random(1000).astype(np.float32)
    back = json.loads(encode_answer({"x": numbers}, by_row=False))["outputs"]
    np.testing.assert_array_equal(np.array(back, np.float32), numbers)


def test_only_columns_with_a_default_may_be_missing():
    specs = {**SAMPLE, "obey": TensorSpec(BOOL, (), np.array(False))}
    given = {"num_samples": 3, "seed": [0, 1], "num_objects": -1}
    assert set(_decode({"inputs": given}, specs)) == set(SAMPLE)  # the signature puts the default in its place
    obey = _decode({"inputs": {**given, "obey": True}}, specs)["obey"]
    assert (obey.dtype, obey.item()) == (BOOL, True)
    with pytest.raises(RequestError, match="'inputs': missing named input: seed; wanted are num_samples, seed,"):
        _decode({"inputs": {"num_samples": 3, "num_objects": -1, "obey": True}}, specs)
    with pytest.raises(RequestError, match="Item 0 of 'instances': missing named input: obey"):
        _decode({"instances": [given]}, specs)
    with pytest.raises(RequestError, match=r"obey must hold bool values, got 1 \(number\)"):
        _decode({"inputs": {**given, "obey": 1}}, specs)
