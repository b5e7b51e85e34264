"""A server in a thread of the test's own process, on a free port."""

from __future__ import annotations

import contextlib
import http.client
import itertools
import json
import socket
import threading
import time
from pathlib import Path

from asr_tf.export.server.model_server import ModelServer
from asr_tf.export.server.predictor import Predictor, Settings
from testing_served import random_images

PREDICT = "/v1/models/asr:predict"


class Running:
    """A running server, and a plain connection to it."""

    def __init__(self, server: ModelServer, predictor: Predictor) -> None:
        self.server = server
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

    def predict(self, body, path=PREDICT):
        """Status of a predict request, and its answer as JSON."""
        status, text = self.ask("POST", path, body)
        return status, json.loads(text)

    def close(self):
        self._connection.close()


@contextlib.contextmanager
def serving(export_dir: Path, server_options=None, **settings):
    """Serves what is in a folder while the block runs."""
    predictor = Predictor(Settings(export_dir=export_dir, **{"poll_s": 0.05, **settings}))
    options = {"grace_s": 5.0, "drain_s": 0.1, **(server_options or {})}
    server = ModelServer(predictor, socket.create_server(("127.0.0.1", 0)), **options)
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


def clients(server, number, requests=None, stopped=None):
    """Asks from several connections at once, so many requests each or until `stopped` is set.

    Returns the threads, and lists that fill: (image's number, status, answer) of each request, and faults.
    """
    images = random_images(64, seed=1)
    found, failed = [], []

    def ask(client):
        connection = http.client.HTTPConnection(server.host, server.port, timeout=60)
        try:
            for i in itertools.count() if requests is None else range(requests):
                if stopped is not None and stopped.is_set():
                    break
                which = (7 * client + i) % len(images)
                connection.request("POST", PREDICT, json.dumps({"instances": images[which : which + 1].tolist()}))
                response = connection.getresponse()
                found.append((which, response.status, json.loads(response.read())))
        except Exception as error:
            failed.append(error)
        finally:
            connection.close()

    threads = [threading.Thread(target=ask, args=(client,)) for client in range(number)]
    for thread in threads:
        thread.start()
    return threads, found, failed, images
