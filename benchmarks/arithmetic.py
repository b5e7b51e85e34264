"""The arithmetic of the model, counted from its shapes: matrix products, 2 M N K operations each.

Elementwise work is left out, as usual: shares of the machine's limit are then about what products could do.  A test
holds the counts against TensorFlow's own counter of the graph.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

from asr_tf.constraints import TightWindows
from asr_tf.models import ASRModel
from asr_tf.networks.layers import Perceptron
from asr_tf.networks.prior import AutoregressivePrior

__all__ = ["inference_flops", "training_step_flops"]


def _chain(sizes: Sequence[int]) -> int:
    """Multiplications of a row's way through dense layers of the given widths."""
    return sum(a * b for a, b in itertools.pairwise(sizes))


def _interpolation(values: tuple[int, int], result: tuple[int, int]) -> int:
    """Multiplications of one interpolation: rows first, then columns."""
    return result[0] * values[0] * values[1] + result[0] * values[1] * result[1]


def _sizes(model: ASRModel) -> dict[str, int]:
    """Widths of the recognition, and multiplications of a row's way through its perceptrons and the decoder."""
    network = model.recognition
    return {
        "units": network.rnn_units,
        "head": network.head_units,
        "pixels": int(network.image_gates.kernel.shape[0]),
        "heads": network.rnn_units * network.num_heads * network.head_units + network.head_units * (4 + 2 + 2 + 1),
        "encoder": _through(network.encoder),
        "decoder": _through(model.decoder.perceptron),
    }


def _through(perceptron: Perceptron) -> int:
    """Multiplications of a row's way through a perceptron."""
    return _chain([int(perceptron.dense[0].kernel.shape[0]), *(layer.units for layer in perceptron.dense)])


def _lines(model: ASRModel) -> int:
    """Positions of a window's rows and columns, for reading and for writing, from two numbers each."""
    return 2 * (2 * model.spec.glimpse_size + sum(model.canvas_size))


def _pooling(model: ASRModel) -> int:
    """Multiplications of an image's pooling, a product with a constant."""
    side, (height, width) = model.recognition.image_pool, model.canvas_size
    return 0 if side == 1 else -(-height // side) * side * width * -(-width // side)


def _second_look(model: ASRModel) -> tuple[int, int, int]:
    """Multiplications of a window's second look: its positions and reading, its hidden layer, its output."""
    if model.recognition.second_look is None:
        return 0, 0, 0
    look = model.recognition.corrector
    side, (hidden, output) = look.glimpse_size, look.perceptron.dense
    read = 2 * 2 * side + _interpolation(model.canvas_size, (side, side))
    return read, side**2 * hidden.units, hidden.units * output.units


def _views(model: ASRModel) -> int:
    """How often the recognition LSTM looks at the image: once, or at what is left of it at every step."""
    return 1 if model.recognition.second_look is None else model.num_steps


def _localization(model: ASRModel) -> tuple[int, int]:
    """Multiplications of one image through the recognition LSTM: of the image's projection, and of all else."""
    size, steps = _sizes(model), model.num_steps
    units = size["units"]
    loop = (steps - 1) * (3 + units) * 4 * units  # the first step has neither window nor state
    return _views(model) * size["pixels"] * 4 * units, loop + steps * size["heads"]


def inference_flops(model: ASRModel, batch_size: int, count: int | None = None) -> int:
    """Operations of `infer` on a batch.

    Args:
        model: the configured model, of grey images; it infers the count.
        batch_size: B.
        count: present objects an image, which alone are read and drawn, neither by a product; None for all T steps,
            read and drawn by products, as without the pieces of `asr_tf.fast`.
    """
    size, canvas, glimpse = _sizes(model), model.canvas_size, (model.spec.glimpse_size,) * 2
    steps = model.num_steps
    projection, localization = _localization(model)
    each = size["encoder"] + size["decoder"]
    if count is None:
        each += _interpolation(canvas, glimpse) + _interpolation(glimpse, canvas)
    total = _views(model) * _pooling(model) + projection + localization + steps * sum(_second_look(model))
    total += steps**2  # running sum of the presence code
    total += (steps if count is None else count) * each
    return 2 * batch_size * total


def training_step_flops(model: ASRModel, batch_size: int) -> int:
    """Operations of one optimizer update with the count enumerated: forward, backward and norms of gradients.

    Args:
        model: the configured model, of grey images; its prior must be the autoregressive one with a fixed scale.
        batch_size: B.

    Raises:
        ValueError: another prior or estimator.
    """
    if not isinstance(model.prior, AutoregressivePrior) or model.estimator != "enumerate" or model.prior.learn_scale:
        raise ValueError("only the autoregressive prior with a fixed scale and an enumerated count is counted.")
    steps, size = model.num_steps, _sizes(model)
    (height, width), glimpse = model.canvas_size, model.spec.glimpse_size
    projection, loop = _localization(model)
    units = model.prior.rnn_units
    state = units * 4 * units
    prior = steps * ((3 + model.spec.what_size) * 4 * units + _through(model.prior.shift_head)) + (steps - 1) * state
    dense = loop + prior + steps * (size["encoder"] + size["decoder"])
    # Backward, a product costs twice what it does forward: once for each factor.  The image needs no gradient, nor does
    # what a second look sees.
    look_read, look_hidden, look_output = _second_look(model)
    total = _views(model) * _pooling(model) + 2 * projection + 3 * dense
    total += steps * (look_read + 2 * look_hidden + 3 * look_output)
    # Of the positions, made of constants, only the windows' factor has a gradient.
    total += 2 * steps * _lines(model)
    # Backward, each product costs what it did for each factor; the image needs no gradient.
    read = 3 * _interpolation((height, width), (glimpse, glimpse)) - glimpse * height * width
    written = 3 * _interpolation((glimpse, glimpse), (height, width))
    total += steps * (read + written)
    total += 2 * (steps + 1) * height * width  # likelihoods' sums over pixels
    total += _running_sums(model) + _placement(model)
    parameters = sum(math.prod(variable.shape) for variable in model.trainable_variables)
    return 2 * (batch_size * total + parameters)


def _placement(model: ASRModel) -> int:
    """The prior's potential between windows, forward and backward."""
    if model.prior.num_cells is None:
        return 0
    cells, distances = model.prior.num_cells**2, int(model.prior.placement.heights.shape[0])
    return model.num_steps * 3 * cells * distances


def _running_sums(model: ASRModel) -> int:
    """Running sums of the presence codes of posterior and prior and of the margins, forward and backward."""
    steps = model.num_steps
    sums = 2 * 2 * steps**2
    if any(hasattr(rule, "counts") for rule in model.constraints):
        sums += 2 * steps**2  # probabilities of absence
    if any(isinstance(rule, TightWindows) for rule in model.constraints):
        sums += 2 * 4 * steps * model.spec.glimpse_size**2
    return sums
