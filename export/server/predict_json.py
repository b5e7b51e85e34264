"""Tensors as JSON in the two forms of TensorFlow Serving's predict method: rows and columns.

A request names its signature (`signature_name`) and gives tensors by row (`instances`, one item an example) or by
column (`inputs`, one value a tensor); the answer has the same form, as `predictions` or `outputs`.  A single output
loses its name.  Binary strings are objects `{"b64": ...}`.  Every fault is a `RequestError` of status 400 that names
it.

Speed matters here, as a grey image of 50 x 50 pixels is 2,500 numbers of text, and an RGB one is 7,500: values are
looked at level by level, each level with calls that loop in C.
"""

from __future__ import annotations

import base64
import binascii
import dataclasses
import json
from collections.abc import Mapping
from itertools import chain
from typing import Any

import numpy as np
import orjson
from asr_tf.export.server.errors import RequestError
from asr_tf.export.server.plain_body import PlainBody, read_numbers, split_body

__all__ = [
    "DEFAULT_SIGNATURE",
    "Request",
    "TensorSpec",
    "check_tensor",
    "decode_tensors",
    "encode_answer",
    "parse_request",
    "read_values",
]

DEFAULT_SIGNATURE = "serving_default"
# Inputs whose numbers must lie in [0, 1]: held against it here, before requests of several clients become one batch.
UNIT_RANGE_INPUTS = frozenset({"images", "presence"})

_MOST_AXES = 32
# What JSON's values must be for a kind of dtype; an integer for all others.
_TYPES: dict[str, set[type]] = {"f": {int, float}, "b": {bool}, "O": {str, dict}}


@dataclasses.dataclass(frozen=True)
class TensorSpec:
    """What a signature says of one tensor.

    Attributes:
        dtype: NumPy dtype; `object` for strings.
        shape: sizes, None where any size will do; None for any shape at all.
        default: what stands for an input that is left out; None where none may be.
    """

    dtype: np.dtype
    shape: tuple[int | None, ...] | None
    default: np.ndarray | None = dataclasses.field(default=None, compare=False)

    @property
    def has_batch_axis(self) -> bool:
        """Whether the first axis counts examples."""
        return self.shape is not None and len(self.shape) > 0 and self.shape[0] is None

    @property
    def example_shape(self) -> tuple[int, ...] | None:
        """The sizes of one example, which are those of all axes but the first; None where a size isn't fixed."""
        sizes = [size for size in (self.shape or ())[1:] if size is not None]
        return tuple(sizes) if self.shape and len(sizes) == len(self.shape) - 1 else None

    def __str__(self) -> str:
        return "any shape" if self.shape is None else _shape_text(self.shape)


@dataclasses.dataclass(frozen=True)
class Request:
    """A predict request, its tensors still as JSON values.

    Attributes:
        signature_name: what the request says, or `serving_default`.
        by_row: whether the tensors came as `instances`.
        values: the value of `instances` or `inputs`, as JSON or still as text.
        body: the text that it was read from.
    """

    signature_name: str
    by_row: bool
    values: Any
    body: bytes


def parse_request(body: bytes) -> Request:
    """Reads the body of a predict request.

    Raises:
        RequestError: broken JSON, or an object that isn't of the form above.
    """
    if (plain := split_body(body)) is not None:
        return Request(plain.signature_name or DEFAULT_SIGNATURE, plain.by_row, plain, body)
    return _parse(body)


def _parse(body: bytes) -> Request:
    document = _parse_json(body)
    if not isinstance(document, dict):
        raise RequestError(400, f"The request must be a JSON object, got {_kind(document)}")
    signature_name = document.get("signature_name", "")
    if not isinstance(signature_name, str):
        raise RequestError(400, f"'signature_name' must be a string, got {_kind(signature_name)}")
    by_row, by_column = "instances" in document, "inputs" in document
    if by_row and by_column:
        raise RequestError(400, "Expected only one of 'instances' and 'inputs', got both")
    if not (by_row or by_column):
        raise RequestError(400, "Missing 'inputs' or 'instances' key")
    values = document["instances" if by_row else "inputs"]
    if by_row and not isinstance(values, list):
        raise RequestError(400, f"Expecting 'instances' value to be a list, got {_kind(values)}")
    if by_row and not values:
        raise RequestError(400, "No values in 'instances': the list is empty")
    return Request(signature_name or DEFAULT_SIGNATURE, by_row, values, body)


def _parse_json(body: bytes) -> Any:
    if not body:
        raise RequestError(400, "JSON Parse error: The document is empty")
    try:
        return orjson.loads(body)
    except orjson.JSONDecodeError as error:
        # NaN and Infinity are no JSON, but TensorFlow Serving reads them, and so the fault can be named below.
        if b"NaN" in body or b"Infinity" in body:
            try:
                return json.loads(body)
            except (ValueError, RecursionError):
                pass
        raise RequestError(400, f"JSON Parse error: {error}") from None


def decode_tensors(request: Request, specs: Mapping[str, TensorSpec]) -> dict[str, np.ndarray]:
    """Returns the request's tensors by input name, each as its spec says; by column, one with a default may be missing.

    Args:
        request: as parsed.
        specs: the signature's inputs by name.

    Raises:
        RequestError: names missing or unknown; values ragged, empty, of another shape or type, not finite; images
            outside [0, 1].
    """
    if isinstance(request.values, PlainBody):
        array = _plain_tensor(request.values, specs)
        if array is not None:
            name = next(iter(specs))
            check_tensor(name, array, specs[name], request.by_row)
            return {name: array}
        request = _parse(request.body)
    values = _columns_of_rows(request.values, specs) if request.by_row else _columns(request.values, specs)
    arrays = {name: _tensor(name, value, specs[name]) for name, value in values.items()}
    for name, array in arrays.items():
        check_tensor(name, array, specs[name], request.by_row)
    return arrays


def check_tensor(name: str, array: np.ndarray, spec: TensorSpec, by_row: bool = False) -> None:
    """Checks the shape and the numbers of an input.

    Args:
        name: of the input.
        array: of the spec's type.
        spec: what the signature says.
        by_row: whether it came as `instances`, for the message.

    Raises:
        RequestError: another shape, an empty one, numbers that aren't finite, images outside [0, 1].
    """
    _check_shape(name, array, spec, by_row)
    if spec.dtype.kind == "f":
        _check_numbers(name, array)


def _plain_tensor(plain: PlainBody, specs: Mapping[str, TensorSpec]) -> np.ndarray | None:
    """The only input, if the body holds nothing but its numbers."""
    name, spec = next(iter(specs.items()), ("", None))
    if spec is None or len(specs) > 1 or plain.name not in (None, name):
        return None
    if spec.dtype.kind != "f" or not spec.has_batch_axis or spec.example_shape is None:
        return None
    return read_numbers(plain.text, spec.dtype, spec.example_shape)


def _columns(values: Any, specs: Mapping[str, TensorSpec]) -> dict[str, Any]:
    if not isinstance(values, dict) or _is_base64(values):
        if len(specs) > 1:
            raise RequestError(400, f"'inputs' must be an object with {_names(specs)}, got {_kind(values)}")
        return {next(iter(specs)): values}
    _check_names("'inputs'", values, specs, optional=True)
    return values


def _columns_of_rows(rows: list[Any], specs: Mapping[str, TensorSpec]) -> dict[str, Any]:
    are_objects = isinstance(rows[0], dict) and not _is_base64(rows[0])
    if not are_objects:
        if len(specs) > 1:
            raise RequestError(
                400, f"'instances' must be a list of objects with {_names(specs)}, got a list of {_kind(rows[0])}s"
            )
        return {next(iter(specs)): rows}
    for position, row in enumerate(rows):
        if not isinstance(row, dict):
            raise RequestError(400, f"Expecting object but got {_kind(row)} at item {position} of 'instances'")
        _check_names(f"Item {position} of 'instances'", row, specs)
    return {name: [row[name] for row in rows] for name in specs}


def _check_names(what: str, values: dict[str, Any], specs: Mapping[str, TensorSpec], optional: bool = False) -> None:
    needed = [name for name, spec in specs.items() if spec.default is None or not optional]
    missing = [name for name in needed if name not in values]
    if missing:
        raise RequestError(400, f"{what}: missing named input: {missing[0]}; wanted are {_names(specs)}")
    unknown = [name for name in values if name not in specs]
    if unknown:
        raise RequestError(400, f"{what}: does not have named input: {unknown[0]}; wanted are {_names(specs)}")


def _tensor(name: str, value: Any, spec: TensorSpec) -> np.ndarray:
    """A nested list as an array; its leaves must be of the type that the spec asks for."""
    shape: list[int] = []
    level = [value]
    while level and type(level[0]) is list:
        kinds = set(map(type, level))
        if kinds != {list}:
            raise RequestError(400, f"{name} is ragged: lists and {_other_kind(level)}s at level {len(shape)}")
        sizes = set(map(len, level))
        if len(sizes) > 1:
            raise RequestError(
                400, f"{name} is ragged: lists of {min(sizes)} and {max(sizes)} values at level {len(shape)}"
            )
        shape.append(sizes.pop())
        if len(shape) > _MOST_AXES:
            raise RequestError(400, f"{name} must have shape {spec}, got lists nested over {_MOST_AXES} deep")
        level = list(chain.from_iterable(level))
    return read_values(name, level, spec.dtype).reshape(shape)


def read_values(name: str, values: list[Any], dtype: np.dtype) -> np.ndarray:
    """JSON's values as an array [N].

    Args:
        name: of the tensor, for messages.
        values: N of them, none a list.
        dtype: wanted; integers aren't made of fractions, nor numbers of booleans or strings.

    Raises:
        RequestError: a value of another type, or too large.
    """
    kinds = set(map(type, values))
    wanted = _TYPES.get(dtype.kind, {int})
    if not kinds <= wanted:
        wrong = next(value for value in values if type(value) not in wanted)
        where = "a list among them" if type(wrong) is list else f"{_text(wrong)} ({_kind(wrong)})"
        raise RequestError(400, f"{name} must hold {_type_text(dtype)} values, got {where}")
    if dtype.kind == "O":
        return np.array([_string(name, value) for value in values], dtype=object)
    try:
        with np.errstate(over="ignore"):  # what becomes infinite is named by the check of numbers
            return np.array(values, dtype=dtype)
    except OverflowError:
        limits = (-3.4e38, 3.4e38) if dtype.kind == "f" else (np.iinfo(dtype).min, np.iinfo(dtype).max)
        wrong = next(value for value in values if type(value) is int and not limits[0] <= value <= limits[1])
        raise RequestError(400, f"{name} must hold {dtype} values, got {_text(wrong)}, which is too large") from None


def _string(name: str, value: Any) -> bytes:
    if isinstance(value, str):
        return value.encode("utf-8", "surrogatepass")
    if not _is_base64(value):
        raise RequestError(400, f'{name} must hold strings or {{"b64": ...}}, got {_text(value)}')
    try:
        return base64.b64decode(value["b64"], validate=True)
    except (binascii.Error, ValueError):
        raise RequestError(400, f"{name}: unable to base64 decode {_text(value['b64'])}") from None


def _check_shape(name: str, array: np.ndarray, spec: TensorSpec, by_row: bool) -> None:
    if spec.shape is None:
        return
    if array.size == 0 and 0 not in spec.shape:
        raise RequestError(400, f"{name} must have shape {spec}, got an empty list: shape {_shape_text(array.shape)}")
    fits = array.ndim == len(spec.shape) and all(
        wanted in (None, got) for wanted, got in zip(spec.shape, array.shape, strict=True)
    )
    if not fits:
        hint = "; 'instances' adds a first axis, 'inputs' doesn't" if by_row and not spec.has_batch_axis else ""
        raise RequestError(400, f"{name} must have shape {spec}, got {_shape_text(array.shape)}{hint}")


def _check_numbers(name: str, array: np.ndarray) -> None:
    low, high = (0.0, 1.0) if name in UNIT_RANGE_INPUTS else (-np.inf, np.inf)
    if array.size == 0 or (low <= array.min() and array.max() <= high and np.isfinite(array).all()):
        return  # a comparison with NaN is false, so that NaN goes on
    wrong = ~(np.isfinite(array) & (array >= low) & (array <= high))
    place = tuple(int(i) for i in np.argwhere(wrong)[0])
    wanted = "in [0, 1]" if name in UNIT_RANGE_INPUTS else "finite"
    raise RequestError(400, f"{name} must be {wanted}, got {array[place]!s} at {list(place)}")


def encode_answer(outputs: Mapping[str, np.ndarray], by_row: bool) -> bytes:
    """The JSON text of an answer.

    Args:
        outputs: tensors by name.
        by_row: whether the request came as `instances`.

    Raises:
        RequestError: by row, but the outputs have no common first axis.
    """
    finite = all(array.dtype.kind != "f" or np.isfinite(array).all() for array in outputs.values())
    arrays = {name: _writable(name, array, finite) for name, array in outputs.items()}
    single = next(iter(arrays.values())) if len(arrays) == 1 else None
    document: dict[str, Any]
    if not by_row:
        document = {"outputs": arrays if single is None else single}
    else:
        sizes = {name: len(array) if array.ndim else None for name, array in outputs.items()}
        if len(set(sizes.values())) != 1 or None in sizes.values():
            raise RequestError(
                400, f"The outputs have no common first axis ({sizes}): ask with 'inputs' instead of 'instances'"
            )
        number = next(iter(sizes.values())) or 0
        rows = [{name: array[i] for name, array in arrays.items()} for i in range(number)]
        document = {"predictions": rows if single is None else single}
    if not finite:  # NaN and Infinity, which strict JSON has no words for, as TensorFlow Serving writes them
        return json.dumps(document).encode()
    return orjson.dumps(document, option=orjson.OPT_SERIALIZE_NUMPY)


def _writable(name: str, array: np.ndarray, finite: bool) -> Any:
    """What the JSON writers take: arrays of numbers as they are, strings and what isn't finite as lists."""
    if array.dtype.kind == "O":
        return _text_list(array.tolist(), binary=name.endswith("_bytes"))
    if not finite:
        return array.tolist()
    return np.ascontiguousarray(array) if array.ndim else array[()]


def _text_list(value: Any, binary: bool) -> Any:
    if isinstance(value, list):
        return [_text_list(item, binary) for item in value]
    return {"b64": base64.b64encode(value).decode()} if binary else value.decode("utf-8", "replace")


def _is_base64(value: Any) -> bool:
    return isinstance(value, dict) and len(value) == 1 and isinstance(value.get("b64"), str)


def _kind(value: Any) -> str:
    names = {dict: "object", list: "list", str: "string", bool: "boolean", type(None): "null"}
    return names.get(type(value), "number")


def _other_kind(values: list[Any]) -> str:
    return _kind(next(value for value in values if type(value) is not list))


def _names(specs: Mapping[str, TensorSpec]) -> str:
    return ", ".join(specs)


def _type_text(dtype: np.dtype) -> str:
    return "string" if dtype.kind == "O" else str(dtype)


def _shape_text(shape: tuple[int | None, ...]) -> str:
    return "[" + ", ".join("?" if size is None else str(size) for size in shape) + "]"


def _text(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 40 else text[:37] + "..."
