"""TensorFlow Serving's REST paths as an ASGI application, in front of another one that answers all other paths.

    POST /v1/models/NAME[/versions/N|/labels/L]:predict
    GET  /v1/models/NAME[/versions/N|/labels/L][/metadata]
    GET  /metrics, /monitoring/prometheus/metrics

A body is read only up to the limit, whichever application it is for; an answer that is an error is `{"error": ...}`.
"""

from __future__ import annotations

import dataclasses
import logging
import re
import time
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

import orjson
from asr_tf.export.server.errors import RequestError, one_line
from asr_tf.export.server.predict_json import encode_answer, parse_request
from asr_tf.export.server.predictor import Predictor

__all__ = ["ServingPaths"]

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Application = Callable[[Message, Receive, Send], Awaitable[None]]

_LOG = logging.getLogger("asr_serve")
_JSON = b"application/json"
_PROMETHEUS = b"text/plain; version=0.0.4; charset=utf-8"
# Bodies of the greatest size that all requests together may hold.
_BODIES_AT_ONCE = 8
_METRICS = ("/metrics", "/monitoring/prometheus/metrics")
_PATH = re.compile(
    r"/v1/models(?:/(?P<model>[^/:]+)(?:/versions/(?P<version>[0-9]+)|/labels/(?P<label>[^/:]+))?)?"
    r"(?P<action>/metadata|:predict|:classify|:regress)?",
    re.IGNORECASE,
)


class _ClientGone(Exception):
    """The client closed the connection before its request was whole."""


class _Watched:
    """Sends an application's answer, and notes its status."""

    def __init__(self, send: Send) -> None:
        self._send = send
        self.status: int | None = None  # None until the answer begins

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
        await self._send(message)


@dataclasses.dataclass
class _Answered:
    """What the metrics say of a request."""

    method: str = "other"
    signature: str = ""


class ServingPaths:
    """The application.

    Attributes:
        inner: answers what these paths aren't; set before the first request.
    """

    inner: Application

    def __init__(self, predictor: Predictor) -> None:
        """Answers from the versions that `predictor` serves."""
        self._predictor = predictor
        self._held_bytes = 0  # of the bodies of all requests under way

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """One request, as ASGI asks for it."""
        if scope["type"] != "http":
            await self.inner(scope, receive, send)
            return
        start = time.perf_counter()
        answered, watched = _Answered(), _Watched(send)
        content_type, status, answer = _JSON, 200, b""
        body = bytearray()
        try:
            await self._read(scope, receive, body)
            path, verb = scope["path"], scope["method"]
            if path.lower().startswith("/v1/"):
                answer = await self._serving(verb, path, bytes(body), answered)
            elif verb == "GET" and path in _METRICS:
                answered.method, content_type = "metrics", _PROMETHEUS
                answer = self._predictor.metrics.page()
            else:
                await self.inner(scope, _replay(bytes(body)), watched)
        except _ClientGone:
            return
        except RequestError as error:
            status, answer = error.status, orjson.dumps({"error": error.message})
        except Exception as error:
            _LOG.exception("a request failed")
            status, answer = 500, orjson.dumps({"error": one_line(f"{type(error).__name__}: {error}")})
        finally:
            self._held_bytes -= len(body)
        if watched.status is None:
            headers = [(b"content-type", content_type), (b"content-length", str(len(answer)).encode())]
            await send({"type": "http.response.start", "status": status, "headers": headers})
            await send({"type": "http.response.body", "body": answer})
        else:
            status = watched.status
        self._predictor.metrics.count_request(
            answered.method, answered.signature, status, time.perf_counter() - start
        )

    async def _serving(self, verb: str, path: str, body: bytes, answered: _Answered) -> bytes:
        match = _PATH.fullmatch(path)
        action = (match["action"] or "").lower() if match else ""
        is_post = action.startswith(":")
        if match is None or verb != ("POST" if is_post else "GET"):
            raise RequestError(400, f"Malformed request: {verb} {path[:200]}")
        if match["model"] is None:
            if is_post or action:
                raise RequestError(400, f"Malformed request: {verb} {path[:200]}")
            raise RequestError(400, "Missing model name in request.")
        answered.method = action[1:] or "status"
        if action == ":predict":
            request = parse_request(body)
            number, asked = self._predictor.resolve(match["model"], match["version"], match["label"])
            outputs = await self._predictor.predict(request, number, asked)
            answered.signature = request.signature_name
            return encode_answer(outputs, request.by_row)
        if action == "":
            return self._status(match["model"], match["version"], match["label"])
        number, asked = self._predictor.resolve(match["model"], match["version"], match["label"])
        if is_post:
            raise RequestError(400, f"The signatures of this model are for predict, not {action[1:]}")
        return self._metadata(number, asked)

    def _status(self, model: str, version: str | None, label: str | None) -> bytes:
        states = {}
        if model == self._predictor.settings.model_name:
            states = self._predictor.repository.states()
            number, _ = self._predictor.resolve(model, version, label)
            if number is not None and number not in states:
                raise RequestError(404, f"Could not find version {number} of model {model}")
            states = states if number is None else {number: states[number]}
        if not states:
            raise RequestError(404, f"Could not find any versions of model {model}")
        described = [
            {
                "version": str(number),
                "state": state.state,
                "status": {"error_code": state.error_code, "error_message": state.error_message},
            }
            for number, state in states.items()
        ]
        return orjson.dumps({"model_version_status": described}, option=orjson.OPT_INDENT_2)

    def _metadata(self, number: int | None, asked: str) -> bytes:
        with self._predictor.repository.lease(number, asked) as version:
            spec = {"name": self._predictor.settings.model_name, "signature_name": "", "version": str(version.number)}
            # Twice: the field of the answer, and the map's own in the message that it holds.
            described = {"signature_def": {"signature_def": version.signature_defs}}
            return orjson.dumps({"model_spec": spec, "metadata": described}, option=orjson.OPT_INDENT_2)

    async def _read(self, scope: Message, receive: Receive, body: bytearray) -> None:
        """Fills `body`, and stops reading where it grows over the limit."""
        most = self._predictor.settings.max_body_bytes
        headers = {name.lower(): value for name, value in scope["headers"]}
        encoding = headers.get(b"content-encoding", b"identity").lower()
        if encoding != b"identity":
            raise RequestError(415, f"Content-Encoding must be identity, got {encoding.decode('latin-1')}")
        length = headers.get(b"content-length", b"0")
        if length.isdigit() and (len(length) > 18 or int(length) > most):
            raise RequestError(413, f"The request body of {length[:18].decode()} bytes is over the limit of {most}")
        while True:
            message = await receive()
            if message["type"] == "http.disconnect":
                raise _ClientGone
            chunk = message.get("body", b"")
            if len(body) + len(chunk) > most:
                raise RequestError(413, f"The request body is over the limit of {most} bytes")
            if self._held_bytes + len(chunk) > _BODIES_AT_ONCE * most:
                raise RequestError(503, "The server is busy: the requests under way are too large; try again")
            body += chunk
            self._held_bytes += len(chunk)
            if not message.get("more_body", False):
                return


def _replay(body: bytes) -> Receive:
    """What an application receives of a request that was read already."""
    waiting = [{"type": "http.request", "body": body, "more_body": False}]

    async def receive() -> Message:
        return waiting.pop() if waiting else {"type": "http.disconnect"}

    return receive
