"""A server in a thread of the test's own process, on a free port."""

from __future__ import annotations

import contextlib
import http.client
import json
import socket
import threading
import time
from pathlib import Path

from asr_tf.export.server.model_server import ModelServer
from asr_tf.export.server.predictor import Predictor, Settings


class Running:
    """A running server, and a plain connection to it."""

    def __init__(self, server: ModelServer, predictor: Predictor) -> None:
        self.predictor = predictor
        self.host, self.port = server.address
        self.url = f"http://{self.host}:{self.port}"
        self._connection = http.client.HTTPConnection(self.host, self.port, timeout=60)

    def ask(self, verb, path, body=None, headers=None):
        """Status and body of an answer, as bytes; `body` is bytes or JSON."""
        if body is not None and not isinstance(body, (bytes, bytearray)):
            body = json.dumps(body).encode()
        self._connection.request(verb, path, body, headers or {})
        response = self._connection.getresponse()
        return response.status, response.read()

    def predict(self, body, path="/v1/models/asr:predict"):
        """Status of a predict request, and its answer as JSON."""
        status, text = self.ask("POST", path, body)
        return status, json.loads(text)

    def close(self):
        self._connection.close()


@contextlib.contextmanager
def serving(export_dir: Path, **settings):
    """Serves what is in a folder while the block runs."""
    predictor = Predictor(Settings(export_dir=export_dir, **{"poll_s": 0.05, **settings}))
    server = ModelServer(predictor, socket.create_server(("127.0.0.1", 0)), grace_s=5.0)
    thread = threading.Thread(target=server.serve)
    thread.start()
    running = Running(server, predictor)
    try:
        wait_until(lambda: server.is_serving)
        yield running
    finally:
        running.close()
        server.stop()
        thread.join()


def wait_until(condition, seconds=60.0):
    """Waits for what another thread does; fails where it doesn't come."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.01)
