"""KServe's model server around a predictor: its lifecycle, its health checks and its open inference protocol (`/v2`),
with TensorFlow Serving's paths in front.
"""

from __future__ import annotations

import logging
import signal
import socket
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import fastapi
import numpy as np
from asr_tf.export.server import garbage
from asr_tf.export.server.errors import RequestError, one_line
from asr_tf.export.server.predict_json import (
    DEFAULT_SIGNATURE,
    TensorSpec,
    check_tensor,
    read_values,
)
from asr_tf.export.server.predictor import Predictor
from asr_tf.export.server.rest import ServingPaths
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse


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
    from kserve.protocol.model_repository_extension import ModelRepositoryExtension
    from kserve.protocol.rest.server import RESTServer
    from kserve.protocol.rest.v2_endpoints import register_v2_endpoints
    from kserve.utils.numpy_codec import from_np_dtype

__all__ = ["ModelServer"]

# What KServe raises, as HTTP statuses; the first that fits.
_STATUS: tuple[tuple[type[Exception], int], ...] = (
    (kserve_errors.InvalidInput, 400),
    (kserve_errors.ModelNotFound, 404),
    (kserve_errors.ModelNotReady, 503),
    (NotImplementedError, 501),
    (ValueError, 400),
    (Exception, 500),
)


class ModelServer(RESTServer):
    """Serves one model over HTTP."""

    def __init__(self, predictor: Predictor, listening: socket.socket, grace_s: float) -> None:
        """Answers nothing yet.

        Args:
            predictor: that computes.
            listening: the socket that takes connections.
            grace_s: seconds that requests under way have left when the server is stopped.
        """
        self._predictor = predictor
        self._listening = listening
        self._paths = ServingPaths(predictor)
        registry = _OneModel()
        registry.update(_NewestVersion(predictor))
        super().__init__(
            self._paths,
            _CheckedDataPlane(registry),
            ModelRepositoryExtension(registry),
            listening.getsockname()[1],
            grace_period=max(1, round(grace_s)),
        )
        self.config.access_log = False  # a line a request costs more than it tells; /metrics counts them
        for name in ("kserve", "uvicorn"):
            logging.getLogger(name).setLevel(logging.WARNING)

    def create_application(self) -> None:
        """What answers the paths that aren't TensorFlow Serving's: health checks, and the open inference protocol."""
        app = fastapi.FastAPI(title="asr_serve", docs_url=None, redoc_url=None, openapi_url=None)
        app.add_api_route("/", self.dataplane.live)
        register_v2_endpoints(app, self.dataplane, self.model_repository_extension)
        app.add_exception_handler(RequestError, _request_error)
        app.add_exception_handler(RequestValidationError, _invalid_body)
        for status in (404, 405):  # no such path, or not with this verb
            app.add_exception_handler(status, _http_error)
        for kind, _ in _STATUS:
            app.add_exception_handler(kind, _other_error)
        self._paths.inner = app

    def serve(self, announce: Callable[[], None] = lambda: None) -> None:
        """Answers until `stop` or, in the main thread, SIGTERM or SIGINT; then finishes what was begun.

        Args:
            announce: called before the first answer, when a signal ends the server in order.
        """
        with _on_signals(self.stop), garbage.held_back():
            announce()
            self.run(sockets=[self._listening])
        self._predictor.close()

    def stop(self) -> None:
        """Lets `serve` end; may be called from another thread."""
        self._server.should_exit = True

    @property
    def address(self) -> tuple[str, int]:
        """Host and port that it listens at."""
        host, port = self._listening.getsockname()[:2]
        return host, port

    @property
    def is_serving(self) -> bool:
        """Whether connections are answered."""
        return self._server.started and not self._server.should_exit


class _CheckedDataPlane(DataPlane):
    """Decodes requests of the open inference protocol; one that lacks a part is refused by name."""

    def decode(self, *args: Any, **kwargs: Any) -> Any:
        try:
            return super().decode(*args, **kwargs)
        except KeyError as error:
            raise RequestError(400, f"The request lacks {error}") from None
        except (AttributeError, TypeError) as error:
            raise RequestError(400, f"The request isn't one of the open inference protocol: {error}") from None


class _OneModel(kserve.ModelRepository):
    """A registry that callers can't change."""

    def load(self, name: str) -> bool:
        raise NotImplementedError("Versions come and go with the folders of --export_dir")

    def unload(self, name: str) -> None:
        raise NotImplementedError("Versions come and go with the folders of --export_dir")


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
        name = (payload.parameters or {}).get("signature_name") or DEFAULT_SIGNATURE
        with self._predictor.repository.lease(None, f"Latest({self.name})") as version:
            signature = version.signature(str(name))
            arrays = _arrays(payload, signature.inputs)
            outputs = await self._predictor.compute(version, signature, arrays)
        answers = []
        for output, array in outputs.items():
            answer = kserve.InferOutput(name=output, shape=list(array.shape), datatype=from_np_dtype(array.dtype))
            answer.set_data_from_numpy(array, binary_data=payload.use_binary_outputs)
            answers.append(answer)
        return kserve.InferResponse(
            response_id=payload.id or "", model_name=self.name, infer_outputs=answers, model_version=str(version.number)
        )

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


def _arrays(payload: Any, specs: Mapping[str, TensorSpec]) -> dict[str, np.ndarray]:
    given = {tensor.name: tensor for tensor in payload.inputs}
    needed = {name for name, spec in specs.items() if spec.default is None}
    if not needed <= set(given) <= set(specs):
        raise RequestError(400, f"inputs must be {', '.join(specs)}, got {', '.join(given) or 'none'}")
    arrays = {}
    for name in given:
        spec = specs[name]
        wanted = from_np_dtype(spec.dtype)
        if given[name].datatype != wanted:
            raise RequestError(400, f"{name} must have datatype {wanted}, got {given[name].datatype}")
        try:
            values = np.array(given[name].data, dtype=object).ravel().tolist()
            arrays[name] = read_values(name, values, spec.dtype).reshape(given[name].shape)
        except (ValueError, TypeError, OverflowError) as error:
            raise RequestError(400, f"{name}: {error}") from None
        check_tensor(name, arrays[name], spec)
    return arrays


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


@contextmanager
def _on_signals(stop: Callable[[], None]) -> Iterator[None]:
    """Stops on SIGTERM and SIGINT that come before uvicorn listens to them; it raises its own once more at the end."""
    try:
        kept = {number: signal.signal(number, lambda *_: stop()) for number in (signal.SIGTERM, signal.SIGINT)}
    except ValueError:  # not the main thread, which alone hears signals
        kept = {}
    try:
        yield
    finally:
        for number, handler in kept.items():
            signal.signal(number, handler)
