r"""asr_serve: answers requests over HTTP from what asr_export wrote, on the paths of TensorFlow Serving.

Example:
  asr_serve --export_dir=exported/mnist --port=8501
  curl http://localhost:8501/v1/models/asr

New versions in the folder are picked up while it runs; SIGTERM or Ctrl-C ends it once open requests are answered.
"""

from __future__ import annotations

import logging
import socket
import sys
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from absl import flags

from asr_tf.runs import command_line

__all__ = ["run"]

_FLAGS = flags.FlagValues()
flags.DEFINE_string(
    "export_dir", None, "Folder that asr_export wrote, with one folder a version; needed.", flag_values=_FLAGS
)
flags.DEFINE_integer(
    "port",
    8501,
    "TCP port to listen at; 0 takes a free one.",
    lower_bound=0,
    upper_bound=65535,
    flag_values=_FLAGS,
)
flags.DEFINE_string(
    "host",
    "127.0.0.1",
    "Address to listen at. The server asks nobody who they are: 0.0.0.0 lets every machine in that can reach it.",
    flag_values=_FLAGS,
)
flags.DEFINE_string("model_name", "asr", "Name of the model in the paths, /v1/models/NAME.", flag_values=_FLAGS)
flags.DEFINE_integer(
    "num_versions", 1, "How many of the newest versions are served at once.", lower_bound=1, flag_values=_FLAGS
)
flags.DEFINE_multi_string(
    "version_label",
    [],
    "A name for a version, such as stable=3, for the paths /v1/models/NAME/labels/stable.",
    flag_values=_FLAGS,
)
flags.DEFINE_integer(
    "max_batch_size",
    32,
    "Most images of several requests that are computed together; 1 computes each alone.",
    lower_bound=1,
    upper_bound=4096,
    flag_values=_FLAGS,
)
flags.DEFINE_float(
    "batch_timeout_ms",
    10.0,
    "Longest that a request waits for others to share a batch with, in milliseconds; alone it doesn't wait.",
    lower_bound=0.0,
    upper_bound=10_000.0,
    flag_values=_FLAGS,
)
flags.DEFINE_integer(
    "max_rows", 4096, "Most images or scenes that one request may ask for.", lower_bound=1, flag_values=_FLAGS
)
flags.DEFINE_float(
    "max_body_mb", 32.0, "Largest body of a request, in MiB; above 0.", lower_bound=0.001, flag_values=_FLAGS
)
flags.DEFINE_integer(
    "max_connections",
    1024,
    "Most connections at once, as far as the process may open files; then those that ask nothing are closed.",
    lower_bound=1,
    flag_values=_FLAGS,
)
flags.DEFINE_float(
    "read_timeout_seconds",
    30.0,
    "Longest that the body of a request may take to come, in seconds; its headers have a third.",
    lower_bound=0.1,
    flag_values=_FLAGS,
)
flags.DEFINE_integer(
    "idle_seconds",
    65,
    "How long a connection is kept without a request, in seconds.",
    lower_bound=1,
    flag_values=_FLAGS,
)
flags.DEFINE_float(
    "call_timeout_seconds",
    120.0,
    "Longest that one call of refine, sample or log_likelihood may compute, in seconds; it is broken off then.",
    lower_bound=0.1,
    flag_values=_FLAGS,
)
flags.DEFINE_multi_string(
    "cors_origin",
    [],
    "Origin of web pages whose scripts may ask, such as https://example.org; * lets those of all pages.",
    flag_values=_FLAGS,
)
flags.DEFINE_float(
    "poll_seconds", 2.0, "Seconds between two looks for new versions; above 0.", lower_bound=0.01, flag_values=_FLAGS
)
flags.DEFINE_float(
    "grace_seconds",
    30.0,
    "How long open requests have left when the server is ended, in seconds.",
    lower_bound=1.0,
    flag_values=_FLAGS,
)
flags.DEFINE_float(
    "drain_seconds",
    1.0,
    "How long the server still takes requests when it is ended, while connections are open, in seconds: it says that "
    "it isn't ready, and each answer is the last of its connection.",
    lower_bound=0.0,
    flag_values=_FLAGS,
)
command_line.define_debug(_FLAGS)


def run() -> None:
    """Runs the command with the process's arguments; ends the process."""
    command_line.launch("asr_serve", __doc__, _FLAGS, _main, _check)


def _check() -> None:
    command_line.require(_FLAGS, "export_dir", "the folder that asr_export wrote")
    command_line.require(_FLAGS, "model_name", "the name in the paths")
    if set(_FLAGS.model_name) & set("/:"):
        raise flags.IllegalFlagValueError(f"--model_name must hold no / and no :, got {_FLAGS.model_name!r}")
    _labels()
    for origin in _FLAGS.cors_origin:
        parts = urlsplit(origin)
        if origin != "*" and (not parts.hostname or f"{parts.scheme}://{parts.netloc}" != origin):
            raise flags.IllegalFlagValueError(f"--cors_origin must look like https://example.org, got {origin!r}")


def _labels() -> dict[str, int]:
    labels = {}
    for text in _FLAGS.version_label:
        label, _, number = text.partition("=")
        if not label or set(label) & set("/:") or not number.isascii() or not number.isdigit():
            raise flags.IllegalFlagValueError(f"--version_label must look like stable=3, got {text!r}")
        labels[label] = int(number)
    return labels


def _main() -> None:
    server = _server()
    host, port = server.address
    shown = f"[{host}]" if ":" in host else host
    line = f"asr_serve: http://{shown}:{port}/v1/models/{_FLAGS.model_name}, metrics at /metrics"
    server.serve(lambda: print(line, flush=True))
    print("asr_serve: stopped", flush=True)


def _server() -> Any:
    _log_to_stderr()
    try:
        from asr_tf.export.server.connections import ConnectionLimits
        from asr_tf.export.server.model_server import ModelServer
        from asr_tf.export.server.predictor import Predictor, Settings
    except ModuleNotFoundError as error:
        if (error.name or "").startswith("asr_tf"):
            raise
        raise ValueError(f"asr_serve needs {error.name}: pip install 'asr_tf[serve]'") from None
    settings = Settings(
        export_dir=Path(_FLAGS.export_dir).expanduser(),
        model_name=_FLAGS.model_name,
        num_versions=_FLAGS.num_versions,
        version_labels=_labels(),
        max_batch_size=_FLAGS.max_batch_size,
        batch_timeout_s=_FLAGS.batch_timeout_ms / 1000.0,
        max_rows=_FLAGS.max_rows,
        max_body_bytes=int(_FLAGS.max_body_mb * 2**20),
        body_s=_FLAGS.read_timeout_seconds,
        call_s=_FLAGS.call_timeout_seconds,
        poll_s=_FLAGS.poll_seconds,
    )
    # First of all, so that a port that is taken is known before the model is loaded; who comes early waits.
    listening = _listen(_FLAGS.host, _FLAGS.port)
    limits = ConnectionLimits(
        most=_FLAGS.max_connections, head_s=_FLAGS.read_timeout_seconds / 3.0, idle_s=_FLAGS.idle_seconds
    )
    try:
        return ModelServer(
            Predictor(settings),
            listening,
            _FLAGS.grace_seconds,
            limits=limits,
            drain_s=_FLAGS.drain_seconds,
            origins=_FLAGS.cors_origin,
        )
    except BaseException:
        listening.close()
        raise


def _listen(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family, backlog=2048)
    except OSError as error:
        raise OSError(f"can't listen at {host}:{port}: {error.strerror or error}") from None


def _log_to_stderr() -> None:
    """Versions that come, go and fail, one line each; absl's own handler would hide them."""
    log = logging.getLogger("asr_serve")
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter("asr_serve: %(asctime)s %(levelname)s %(message)s"))
    log.handlers = [handler]
    log.setLevel(logging.INFO)
    log.propagate = False


if __name__ == "__main__":
    run()
