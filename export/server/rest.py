"""TensorFlow Serving's REST paths as an ASGI application, in front of another one that answers all other paths.

    POST /v1/models/NAME[/versions/N|/labels/L]:predict
    GET  /v1/models/NAME[/versions/N|/labels/L][/metadata]
    GET  /metrics, /monitoring/prometheus/metrics

A body is read only up to the limit, whichever application it is for; an answer that is an error is `{"error": ...}`.
"""

from __future__ import annotations

import asyncio
import dataclasses
import logging
import re
import time
from collections.abc import Awaitable, Callable, Iterator, MutableMapping, Sequence
from contextlib import contextmanager, nullcontext
from typing import Any

import anyio
import orjson
from asr_tf.export.server.answer_room import Holder
from asr_tf.export.server.bodies import Bodies, ClientGone
from asr_tf.export.server.errors import RequestError
from asr_tf.export.server.predict_json import encode_answer, parse_request
from asr_tf.export.server.predictor import Predictor

__all__ = ["ServingPaths"]

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Application = Callable[[Message, Receive, Send], Awaitable[None]]
Headers = Sequence[tuple[bytes, bytes]]

_LOG = logging.getLogger("asr_serve")
_JSON = b"application/json"
_PROMETHEUS = b"text/plain; version=0.0.4; charset=utf-8"
# An answer is handed over in pieces of this size.
_PIECE_BYTES = 64 * 1024
_METRICS = ("/metrics", "/monitoring/prometheus/metrics")
_PATH = re.compile(
    r"/v1/models(?:/(?P<model>[^/:]+)(?:/versions/(?P<version>[0-9]+)|/labels/(?P<label>[^/:]+))?)?"
    r"(?P<action>/metadata|:predict|:classify|:regress)?",
    re.IGNORECASE,
)


class _Watched:
    """Sends an answer, piece by piece as the client takes it, and notes its status."""

    def __init__(self, send: Send, holder: Holder) -> None:
        self._send = send
        self._holder = holder
        self.status: int | None = None  # None until the answer begins

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            self._holder.sends()
        body = memoryview(message.get("body", b""))
        while len(body) > _PIECE_BYTES:
            await self._send({"type": "http.response.body", "body": bytes(body[:_PIECE_BYTES]), "more_body": True})
            body = body[_PIECE_BYTES:]
        await self._send(message if len(body) == len(message.get("body", b"")) else {**message, "body": bytes(body)})

    async def whole(self, status: int, body: bytes, headers: Headers = ()) -> None:
        """Sends a whole answer."""
        described = [(b"content-length", str(len(body)).encode()), *headers]
        if not any(name == b"content-type" for name, _ in headers):
            described.append((b"content-type", _JSON))
        await self({"type": "http.response.start", "status": status, "headers": described})
        await self({"type": "http.response.body", "body": body})

    async def error(self, error: RequestError) -> None:
        """Says what is wrong, unless the answer has begun."""
        if self.status is None:
            headers = [(b"accept-encoding", b"gzip, identity")] if error.status == 415 else []
            await self.whole(error.status, orjson.dumps({"error": error.message}), headers)


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
        self._bodies = Bodies(predictor.settings.max_body_bytes, predictor.settings.body_s)

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """One request, as ASGI asks for it."""
        if scope["type"] != "http":
            await self.inner(scope, receive, send)
            return
        start = time.perf_counter()
        answered = _Answered()
        answering = self._predictor.answering
        with anyio.CancelScope() as gone, _watched(scope, gone.cancel), answering(gone.cancel) as holder:
            watched = _Watched(send, holder)
            try:
                await self._answer(scope, receive, watched, answered)
            except ClientGone:
                return
            except RequestError as error:
                await watched.error(error)
            except asyncio.CancelledError:
                if gone.cancel_called:
                    raise
                await watched.error(RequestError(503, "The server is stopping"))
            except Exception as error:
                _LOG.exception("a request failed")
                await watched.error(RequestError(500, f"{type(error).__name__}: {error}"))
        if not gone.cancelled_caught and watched.status is not None:
            seconds = time.perf_counter() - start
            self._predictor.metrics.count_request(answered.method, answered.signature, watched.status, seconds)

    async def _answer(self, scope: Message, receive: Receive, send: _Watched, answered: _Answered) -> None:
        body = await self._bodies.read(scope, receive)
        try:
            path, verb = scope["path"], scope["method"]
            if path.lower().startswith("/v1/"):
                await send.whole(200, await self._serving(verb, path, bytes(body.data), answered))
            elif verb == "GET" and path in _METRICS:
                answered.method = "metrics"
                await send.whole(200, self._predictor.metrics.page(), [(b"content-type", _PROMETHEUS)])
            else:
                await self.inner(_unpacked(scope), _replay(bytes(body.data)), send)
        finally:
            self._bodies.release(body)

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


@contextmanager
def _watched(scope: Message, when_lost: Callable[[], None]) -> Iterator[None]:
    """While the block runs, `when_lost` is called where the connection breaks off, if the server can tell."""
    watched = scope.get("extensions", {}).get("asr_serve.watched", lambda _: nullcontext())
    with watched(when_lost):
        yield


def _unpacked(scope: Message) -> Message:
    """The request as if its body hadn't been packed."""
    packed = (b"content-encoding", b"content-length")
    return {**scope, "headers": [(name, value) for name, value in scope["headers"] if name.lower() not in packed]}


def _replay(body: bytes) -> Receive:
    """What an application receives of a request that was read already."""
    waiting = [{"type": "http.request", "body": body, "more_body": False}]

    async def receive() -> Message:
        return waiting.pop() if waiting else {"type": "http.disconnect"}

    return receive
