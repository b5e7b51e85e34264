"""KServe's model server around a predictor: its lifecycle, its health checks and its open inference protocol (`/v2`),
with TensorFlow Serving's paths in front.
"""

from __future__ import annotations

import dataclasses
import functools
import logging
import signal
import socket
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from asr_tf.export.server import file_limit, garbage, open_inference
from asr_tf.export.server.connections import ConnectionLimits, GuardedProtocol
from asr_tf.export.server.draining import DrainingServer
from asr_tf.export.server.predictor import Predictor
from asr_tf.export.server.rest import ServingPaths
from kserve.protocol.rest.server import RESTServer
from starlette.middleware.cors import CORSMiddleware

__all__ = ["ModelServer"]

# Files that the server needs beside its connections: a model's, its own, and connections that are about to be closed.
_OTHER_FILES = 128
# Connections that are taken at once from those that wait, before any of them is looked at.
_BACKLOG = 64


class ModelServer(RESTServer):
    """Serves one model over HTTP."""

    def __init__(
        self,
        predictor: Predictor,
        listening: socket.socket,
        grace_s: float,
        *,
        limits: ConnectionLimits | None = None,
        drain_s: float = 1.0,
        origins: Sequence[str] = (),
    ) -> None:
        """Answers nothing yet.

        Args:
            predictor: that computes.
            listening: the socket that takes connections.
            grace_s: seconds that requests under way have left when the server is stopped.
            limits: of connections; of their number, as many as the process may open.
            drain_s: seconds in which a server that is stopped still takes requests, each the last of its connection.
            origins: of web pages that may ask from browsers, such as `https://example.org`; `*` stands for all.
        """
        limits = limits or ConnectionLimits()
        self._predictor = predictor
        self._listening = listening
        self._paths = ServingPaths(predictor)
        models = open_inference.OneModel(predictor)
        app: Any = self._paths
        if origins:
            app = CORSMiddleware(
                app,
                allow_origins=origins,
                allow_methods=["GET", "POST"],
                allow_headers=["*"],
                expose_headers=[open_inference.JSON_BYTES],
            )
        super().__init__(
            app,
            open_inference.CheckedDataPlane(models, lambda: self.is_draining),
            open_inference.FixedModels(models),
            listening.getsockname()[1],
            grace_period=max(1, round(grace_s)),
            timeout_keep_alive=limits.idle_s,
        )
        most = file_limit.raise_to(limits.most + _OTHER_FILES) - _OTHER_FILES
        self._limits = dataclasses.replace(limits, most=max(1, min(limits.most, most)))
        self.config.access_log = False  # a line a request costs more than it tells; /metrics counts them
        self.config.backlog = _BACKLOG
        self.config.ws = "none"
        self.config.proxy_headers = False  # with them, whoever is on this machine could pose as many peers
        self.config.http = functools.partial(
            GuardedProtocol, limits=self._limits, count_refusal=self._count_refusal
        )
        self._server = DrainingServer(self.config, drain_s)
        predictor.metrics.watch_connections(lambda: len(self._server.server_state.connections))
        logging.getLogger("kserve").setLevel(logging.WARNING)
        logging.getLogger("uvicorn").setLevel(logging.CRITICAL)  # strangers must not fill the log

    def create_application(self) -> None:
        """What answers the paths that aren't TensorFlow Serving's."""
        self._paths.inner = open_inference.application(self.dataplane, self.model_repository_extension)

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

    @property
    def is_draining(self) -> bool:
        """Whether it is about to end."""
        return self._server.should_exit

    def _count_refusal(self, status: int) -> None:
        self._predictor.metrics.count_request("other", "", status, 0.0)


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
