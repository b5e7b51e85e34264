"""What TensorFlow says against a call, as the answer to a request."""

from __future__ import annotations

import re

import tensorflow as tf
from asr_tf.export.server.errors import RequestError, one_line

__all__ = ["plain_words", "request_error"]

# HTTP statuses of TensorFlow's errors, as TensorFlow Serving maps them.
_STATUS = {
    tf.errors.InvalidArgumentError: 400,
    tf.errors.FailedPreconditionError: 400,
    tf.errors.OutOfRangeError: 400,
    tf.errors.NotFoundError: 404,
    tf.errors.ResourceExhaustedError: 429,
    tf.errors.UnimplementedError: 501,
    tf.errors.UnavailableError: 503,
    tf.errors.DeadlineExceededError: 504,
}

_TRACE = re.compile(r"Graph execution error|Detected at node|<stack traces? unavailable>|\s*File \".*\", line \d+|\s*$")
# Names of nodes and operations, and the heading of several errors; behind a node in brackets comes its trace.
_INTERNALS = re.compile(
    r"\[\[\{\{node .*|\{\{(?:function_node|node) [^}]*\}\}|\[Op:\w*\](?: name: ?\S*)?"
    r"|\d+ root error\(s\) found\.\s*\(0\) [A-Z_]+:",
    re.DOTALL,
)
_ASSERTION = "assertion failed: "


def request_error(error: tf.errors.OpError) -> RequestError:
    """The answer to a request whose call ended in this error."""
    return RequestError(_STATUS.get(type(error), 500), plain_words(error))


def plain_words(error: BaseException) -> str:
    """The part of an error that speaks of values or files: one line without names of nodes and traces."""
    text = error.message if isinstance(error, tf.errors.OpError) else str(error)
    lines = [line for line in _INTERNALS.sub("", text or "").splitlines() if not _TRACE.match(line)]
    line = one_line(" ".join(lines))
    if line.startswith(_ASSERTION):
        # `[message] [value]`: one bracket around each part, and a second one around an array.
        line = re.sub(r"\[((?:[^\[\]]|\[[^\[\]]*\])*)\]", r"\1", line.removeprefix(_ASSERTION))
    return line or type(error).__name__
