"""What users see of TensorFlow's errors: the fault in plain words, nothing of nodes and functions."""

from __future__ import annotations

import pytest
import tensorflow as tf
from asr_tf.export.server.tensorflow_errors import plain_words, request_error

SAID = [
    (
        "assertion failed: [images are too bright:] [[47 48]]\n\t [[{{node Assert}}]]",
        "images are too bright: [47 48]",
    ),
    (
        "Graph execution error:\n\nDetected at node Assert defined at (most recent call last):\n"
        "<stack traces unavailable>\nassertion failed: [steps must be from 0 to 1000, got] [2000]\n"
        "\t [[{{node Assert}}]] [Op:__inference_signature_wrapper_123]",
        "steps must be from 0 to 1000, got 2000",
    ),
    (
        "{{function_node __wrapped__EnsureShape_device_/job:localhost/replica:0/task:0/device:CPU:0}} "
        "Shape of tensor images [1,6] is not compatible with expected shape [?,6,8,1]. [Op:EnsureShape] name: ",
        "Shape of tensor images [1,6] is not compatible with expected shape [?,6,8,1].",
    ),
    (
        "2 root error(s) found.\n  (0) INVALID_ARGUMENT: assertion failed: [too bright:] [47]\n"
        "\t [[{{node Assert}}]]\n  (1) INVALID_ARGUMENT: assertion failed: [too bright:] [47]\n\t [[{{node Assert}}]]",
        "too bright: 47",
    ),
    (
        "OOM when allocating tensor with shape[9,9] and type float\n\t [[{{node mul}}]]\nHint: If you want to see",
        "OOM when allocating tensor with shape[9,9] and type float",
    ),
    ("{{node x}} \n [[{{node x}}]]", "InvalidArgumentError"),
]


@pytest.mark.parametrize(("said", "told"), SAID)
def test_plain_words(said, told):
    assert plain_words(tf.errors.InvalidArgumentError(None, None, said)) == told


def test_of_real_errors():
    """As the present TensorFlow words them, eager and in a graph."""
    with pytest.raises(tf.errors.InvalidArgumentError) as eager:
        tf.ensure_shape(tf.zeros([2]), [3])

    @tf.function
    def above_zero(x):
        with tf.control_dependencies([tf.raw_ops.Assert(condition=x > 0.0, data=["x must be above 0, got", x])]):
            return tf.identity(x)

    with pytest.raises(tf.errors.InvalidArgumentError) as graph:
        above_zero(tf.constant(-1.0))
    assert "Shape of tensor" in plain_words(eager.value)
    assert plain_words(graph.value) == "x must be above 0, got -1"
    for error in (eager.value, graph.value):
        told = plain_words(error)
        assert not [word for word in ("{", "\n", "node", "wrapped", "Op:") if word in told]


@pytest.mark.parametrize(
    ("kind", "status"),
    [
        (tf.errors.InvalidArgumentError, 400),
        (tf.errors.ResourceExhaustedError, 429),
        (tf.errors.UnavailableError, 503),
        (tf.errors.InternalError, 500),
    ],
)
def test_statuses(kind, status):
    error = request_error(kind(None, None, "a fault"))
    assert (error.status, error.message) == (status, "a fault")


def test_errors_of_other_kinds():
    assert plain_words(ValueError("two\nlines")) == "two lines"
    assert plain_words(KeyError()) == "KeyError"
