"""KServe's open inference protocol (`/v2`): the newest version as a model of KServe, and errors as one line of JSON.

KServe takes requests apart.  Answers are put together here: each output as JSON or in binary, as the request says of it
or of all, without a Python number for every number of a tensor.
"""

from __future__ import annotations

import json
import operator
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, NamedTuple

import fastapi
import numpy as np
import orjson
from asr_tf.export.server.errors import RequestError, one_line
from asr_tf.export.server.loaded_version import Signature
from asr_tf.export.server.predict_json import (
    DEFAULT_SIGNATURE,
    TensorSpec,
    check_tensor,
    read_values,
)
from asr_tf.export.server.predictor import Predictor
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException


@contextmanager
def _no_arguments() -> Iterator[None]:
    """KServe parses the process's arguments when it is imported; ours aren't its."""
    kept = sys.argv
    sys.argv = kept[:1]
    try:
        yield
    finally:
        sys.argv = kept


with _no_arguments():
    import kserve
    from kserve import errors as kserve_errors
    from kserve.protocol.dataplane import DataPlane
    from kserve.protocol.infer_type import serialize_byte_tensor
    from kserve.protocol.model_repository_extension import ModelRepositoryExtension
    from kserve.protocol.rest.v2_endpoints import register_v2_endpoints
    from kserve.utils.numpy_codec import from_np_dtype

__all__ = ["JSON_BYTES", "CheckedDataPlane", "FixedModels", "OneModel", "application"]

JSON_BYTES = "Inference-Header-Content-Length"
# What KServe raises, as HTTP statuses; the first that fits.
_STATUS: tuple[tuple[type[Exception], int], ...] = (
    (kserve_errors.InvalidInput, 400),
    (kserve_errors.ModelNotFound, 404),
    (kserve_errors.ModelNotReady, 503),
    (kserve_errors.ServerNotReady, 503),
    (NotImplementedError, 501),
    (ValueError, 400),
    (Exception, 500),
)


def application(dataplane: DataPlane, models: ModelRepositoryExtension) -> fastapi.FastAPI:
    """What answers the paths that aren't TensorFlow Serving's: health checks, and the open inference protocol."""
    app = fastapi.FastAPI(title="asr_serve", docs_url=None, redoc_url=None, openapi_url=None)
    app.add_api_route("/", dataplane.live)
    register_v2_endpoints(app, dataplane, models)
    app.add_exception_handler(RequestError, _request_error)
    app.add_exception_handler(RequestValidationError, _invalid_body)
    app.add_exception_handler(HTTPException, _http_error)
    for kind, _ in _STATUS:
        app.add_exception_handler(kind, _other_error)
    return app


class Output(NamedTuple):
    """One output of an answer: its name, its numbers, and whether they go in binary."""

    name: str
    array: np.ndarray
    is_binary: bool


class _Answer(kserve.InferResponse):
    """An answer whose outputs are still arrays."""

    def __init__(self, request_id: str | None, model: str, version: int, arrays: list[Output]) -> None:
        super().__init__(request_id or "", model, [], str(version))
        self.arrays = arrays


class CheckedDataPlane(DataPlane):
    """Takes requests of the open inference protocol apart, and refuses by name what they lack; writes answers."""

    def __init__(self, models: OneModel, is_draining: Callable[[], bool]) -> None:
        """Answers for the models.

        Args:
            models: with the one model.
            is_draining: whether the server is about to end.
        """
        super().__init__(models)
        self._is_draining = is_draining

    async def ready(self) -> bool:
        """Whether more requests may be sent here."""
        return not self._is_draining()

    def decode(self, body: Any, headers: Any, **kwargs: Any) -> Any:
        """A request's parts."""
        if isinstance(body, bytes):
            _check_json_bytes(headers.get(JSON_BYTES.lower(), ""), len(body))
        try:
            return super().decode(body, headers, **kwargs)
        except KeyError as error:
            raise RequestError(400, f"The request lacks {error}") from None
        except kserve_errors.InvalidInput:
            raise
        except (AttributeError, TypeError, ValueError) as error:
            raise RequestError(400, f"The request isn't one of the open inference protocol: {error}") from None

    def encode(self, model_name: str, response: Any, headers: Any, req_attributes: Any) -> tuple[bytes, dict[str, str]]:
        """An answer's text, the binary outputs behind it, and its headers."""
        described: list[dict[str, Any]] = []
        binary: list[bytes] = []
        for name, array, is_binary in response.arrays:
            output: dict[str, Any] = {"name": name, "shape": array.shape, "datatype": from_np_dtype(array.dtype)}
            if is_binary:
                binary.append(serialize_byte_tensor(array).item() if array.dtype.kind == "O" else array.tobytes())
                output["parameters"] = {"binary_data_size": len(binary[-1])}
            else:
                output["data"] = _flat(array)
            described.append(output)
        document = {"model_name": model_name, "model_version": response.model_version, "outputs": described}
        text = _json(document | ({"id": response.id} if response.id else {}))
        whole = b"".join([text, *binary])
        described_by = {"Content-Type": "application/json", "Content-Length": str(len(whole))}
        if binary:
            described_by |= {"Content-Type": "application/octet-stream", JSON_BYTES: str(len(text))}
        return whole, described_by


class OneModel(kserve.ModelRepository):
    """A registry of the one model."""

    def __init__(self, predictor: Predictor) -> None:
        """Holds the newest version that the predictor serves."""
        super().__init__()
        self.update(_NewestVersion(predictor))


class FixedModels(ModelRepositoryExtension):
    """Lets no caller change what is served."""

    async def load(self, model_name: str) -> None:
        """Is refused."""
        raise NotImplementedError("Versions come and go with the folders of --export_dir")

    async def unload(self, model_name: str) -> None:
        """Is refused."""
        await self.load(model_name)


class _NewestVersion(kserve.Model):
    """The newest version that is served, in the form of a model of KServe."""

    def __init__(self, predictor: Predictor) -> None:
        super().__init__(predictor.settings.model_name)
        self._predictor = predictor
        self.ready = True

    async def healthy(self) -> bool:
        return bool(self._predictor.repository.numbers())

    async def predict(
        self, payload: Any, headers: dict[str, str] | None = None, response_headers: dict[str, str] | None = None
    ) -> kserve.InferResponse:
        """Answers a request of the open inference protocol; its parameter `signature_name` chooses the signature."""
        name = _parameters(payload).get("signature_name") or DEFAULT_SIGNATURE
        with self._predictor.repository.lease(None, f"Latest({self.name})") as version:
            signature = version.signature(str(name))
            wanted = _wanted(payload, signature)
            arrays = _arrays(payload, signature.inputs)
            outputs = await self._predictor.compute(version, signature, arrays)
        answers = [Output(output, outputs[output], is_binary) for output, is_binary in wanted.items()]
        return _Answer(payload.id, self.name, version.number, answers)

    def get_input_types(self) -> list[dict[str, Any]]:
        return self._types("inputs")

    def get_output_types(self) -> list[dict[str, Any]]:
        return self._types("outputs")

    def _types(self, which: str) -> list[dict[str, Any]]:
        with self._predictor.repository.lease(None, f"Latest({self.name})") as version:
            specs: Mapping[str, TensorSpec] = getattr(version.signature(DEFAULT_SIGNATURE), which)
        return [
            {
                "name": name,
                "datatype": from_np_dtype(spec.dtype),
                "shape": [-1 if size is None else size for size in spec.shape or ()],
            }
            for name, spec in specs.items()
        ]


def _wanted(payload: Any, signature: Signature) -> dict[str, bool]:
    """The outputs that the request asks for, in its order, and whether each goes in binary."""
    usual = _flag("binary_data_output", payload)
    if not payload.request_outputs:
        return dict.fromkeys(signature.outputs, bool(usual))
    wanted: dict[str, bool] = {}
    for output in payload.request_outputs:
        if not isinstance(output.name, str) or output.name not in signature.outputs:
            raise RequestError(400, f"outputs must be of {', '.join(signature.outputs)}, got {output.name}")
        if output.name in wanted:
            raise RequestError(400, f"outputs must name each once, got {output.name} twice")
        own = _flag("binary_data", output, f" of output {output.name}")
        wanted[output.name] = bool(usual) if own is None else own
    return wanted


def _parameters(part: Any) -> dict[str, Any]:
    """Of a request, or of a part of it."""
    parameters = part.parameters or {}
    if not isinstance(parameters, dict):
        raise RequestError(400, f"parameters must be an object, got {json.dumps(parameters)[:40]}")
    return parameters


def _flag(name: str, part: Any, whose: str = "") -> bool | None:
    value = _parameters(part).get(name)
    if value is not None and not isinstance(value, bool):
        raise RequestError(400, f"The parameter {name}{whose} must be true or false, got {json.dumps(value)}")
    return value


def _arrays(payload: Any, specs: Mapping[str, TensorSpec]) -> dict[str, np.ndarray]:
    given = {str(tensor.name): tensor for tensor in payload.inputs}
    needed = {name for name, spec in specs.items() if spec.default is None}
    if len(given) < len(payload.inputs) or not needed <= set(given) <= set(specs):
        names = ", ".join(str(tensor.name) for tensor in payload.inputs)
        raise RequestError(400, f"inputs must be {', '.join(specs)}, got {names or 'none'}")
    arrays = {}
    for name in given:
        spec = specs[name]
        wanted = from_np_dtype(spec.dtype)
        if given[name].datatype != wanted:
            raise RequestError(400, f"{name} must have datatype {wanted}, got {given[name].datatype}")
        try:
            shape = [operator.index(size) for size in given[name].shape]
            values = np.array(given[name].data, dtype=object).ravel().tolist()
            if min(shape, default=0) < 0:  # NumPy would take it for what is left
                raise RequestError(400, f"{name} must have sizes of 0 or more in its shape, got {shape}")
            arrays[name] = read_values(name, values, spec.dtype).reshape(shape)
        except (ValueError, TypeError, OverflowError) as error:
            raise RequestError(400, f"{name}: {error}") from None
        check_tensor(name, arrays[name], spec)
    return arrays


def _check_json_bytes(text: str, most: int) -> None:
    """Where a binary body's JSON ends is said by a header."""
    if not (text.isascii() and text.isdigit() and 0 < int(text[:18]) <= most):
        raise RequestError(
            400,
            f"A body that isn't application/json needs the header {JSON_BYTES}, the bytes of its JSON, "
            f"from 1 to the body's {most}; got {text[:40] or 'none'}",
        )


def _flat(array: np.ndarray) -> Any:
    if array.dtype.kind == "O":
        return [value.decode("utf-8", "replace") for value in array.ravel().tolist()]
    return np.ascontiguousarray(array).ravel()


def _json(document: dict[str, Any]) -> bytes:
    arrays = [output["data"] for output in document["outputs"] if "data" in output]
    if all(getattr(array, "dtype", np.dtype(object)).kind != "f" or np.isfinite(array).all() for array in arrays):
        return orjson.dumps(document, option=orjson.OPT_SERIALIZE_NUMPY)
    return json.dumps(document, default=lambda array: array.tolist()).encode()  # NaN has no word in strict JSON


async def _request_error(_: Any, error: Exception) -> JSONResponse:
    assert isinstance(error, RequestError)
    return JSONResponse({"error": error.message}, status_code=error.status)


async def _invalid_body(_: Any, error: Exception) -> JSONResponse:
    """What FastAPI finds in a body; of several faults the first, which is about the form that JSON has."""
    assert isinstance(error, RequestValidationError)
    fault = error.errors()[0]
    where = ".".join(str(part) for part in fault["loc"])
    return JSONResponse({"error": one_line(f"{where}: {fault['msg']}")}, status_code=400)


async def _http_error(_: Any, error: Any) -> JSONResponse:
    return JSONResponse({"error": one_line(str(error.detail))}, status_code=error.status_code)


async def _other_error(_: Any, error: Exception) -> JSONResponse:
    status = next(status for kind, status in _STATUS if isinstance(error, kind))
    return JSONResponse({"error": one_line(str(error))}, status_code=status)
