"""The arithmetic of the model, counted from its shapes: matrix products, 2 M N K operations each.

Elementwise work is left out, as usual: shares of the machine's limit are then about what products could do.  A test
holds the counts against TensorFlow's own counter of the graph.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence

from asr_tf.constraints import TightWindows
from asr_tf.models.asr_model import ASRModel

__all__ = ["inference_flops", "training_step_flops"]


def _chain(sizes: Sequence[int]) -> int:
    """Multiplications of a row's way through dense layers of the given widths."""
    return sum(a * b for a, b in itertools.pairwise(sizes))


def _interpolation(values: tuple[int, int], result: tuple[int, int]) -> int:
    """Multiplications of one interpolation: rows first, then columns."""
    return result[0] * values[0] * values[1] + result[0] * values[1] * result[1]


def _columns_gradient(values: tuple[int, int], result: tuple[int, int]) -> int:
    """Multiplications for the gradient of an interpolation's columns."""
    if result[0] > values[0]:
        return values[0] * result[1] * (result[0] + values[1])
    return result[0] * values[1] * result[1]


def _sizes(model: ASRModel) -> dict[str, int]:
    network = model.recognition
    shift, presence = network.shift_head, network.presence_head
    return {
        "units": network.cell.units,
        "head": shift.dense_0.units,
        "presence": _chain([network.cell.units, presence.dense_0.units, 1]),
        "pixels": network.pixels,
        "encoder": _chain([network.encoder.pixels, *_widths(network.encoder.mlp)]),
        "decoder": _chain([model.what_size, *_widths(model.decoder.mlp)]),
    }


def _widths(mlp: object) -> list[int]:
    return [getattr(mlp, f"dense_{i}").units for i in range(mlp.depth)]  # type: ignore[attr-defined]


def _lines(model: ASRModel) -> int:
    """Positions of a window's rows and columns, for reading and for writing, from two numbers each."""
    return 2 * (2 * model.glimpse_size + sum(model.canvas_size))


def _pooling(model: ASRModel) -> int:
    """Multiplications of an image's pooling, a product with a constant."""
    side, (height, width) = model.recognition.image_pool, model.canvas_size
    return 0 if side == 1 else -(-height // side) * side * width * -(-width // side)


def _second_look(model: ASRModel) -> tuple[int, int, int]:
    """Multiplications of a window's second look: its positions and reading, its hidden layer, its output."""
    look = model.recognition.second_look
    if look is None:
        return 0, 0, 0
    side, (hidden, output) = look.glimpse_size, _widths(look.mlp)
    read = 2 * 2 * side + _interpolation(model.canvas_size, (side, side))
    return read, side**2 * hidden, hidden * output


def _views(model: ASRModel) -> int:
    """How often the recognition LSTM looks at the image: once, or at what is left of it at every step."""
    return 1 if model.recognition.second_look is None else model.num_steps


def _localization(model: ASRModel) -> tuple[int, int]:
    """Multiplications of one image through the recognition LSTM: of the image's projection, and of all else."""
    size, steps = _sizes(model), model.num_steps
    units, head = size["units"], size["head"]
    loop = (steps - 1) * (3 + units) * 4 * units  # the first step has neither window nor state
    heads = steps * (units * 2 * head + 2 * head + head * 4 + head * 2 + size["presence"])
    return _views(model) * size["pixels"] * 4 * units, loop + heads


def inference_flops(model: ASRModel, batch_size: int, count: int | None = None) -> int:
    """Operations of `infer` on a batch.

    Args:
        model: the configured model; it infers the count.
        batch_size: B.
        count: present objects an image, which alone are read and drawn, unless the model has `skip_absent=False`; None
            for all T steps.
    """
    size, canvas, glimpse = _sizes(model), model.canvas_size, (model.glimpse_size,) * 2
    steps, units, head = model.num_steps, size["units"], size["head"]
    present = steps if count is None or not model.skip_absent else count
    # Without the heads' standard deviations, and those of the encoder, which are half of its outputs.
    heads = 3 * units * head + 2 * head + (2 + 1 + 1) * head
    encoder = size["encoder"] - model.what_size * _widths(model.recognition.encoder.mlp)[-2]
    each, look = encoder + size["decoder"], 0
    if model.recognition.second_look is not None:
        side, (hidden, _) = model.recognition.second_look.glimpse_size, _widths(model.recognition.second_look.mlp)
        look = (side**2 + 3) * hidden
    if not model.skip_absent:  # otherwise no product reads and draws
        each += _interpolation(canvas, glimpse) + _interpolation(glimpse, canvas)
        look += _interpolation(canvas, (side, side)) if look else 0
    code = steps**2  # running sum of the presence code
    seen = _views(model) * (_pooling(model) + size["pixels"] * 4 * units)
    loop = (steps - 1) * (3 + units) * 4 * units  # the first step has neither window nor state
    return 2 * batch_size * (seen + loop + steps * (heads + look) + code + present * each)


def training_step_flops(model: ASRModel, batch_size: int) -> int:
    """Operations of one optimizer update with the count enumerated: forward, backward and norms of gradients.

    Args:
        model: the configured model; its prior must be the autoregressive one with a fixed scale.
        batch_size: B.

    Raises:
        ValueError: another prior or estimator.
    """
    if model.prior != "autoregressive" or model.estimator != "enumerate" or model.prior_network.learn_scale:
        raise ValueError("only the autoregressive prior with a fixed scale and an enumerated count is counted.")
    steps, size = model.num_steps, _sizes(model)
    units, head = size["units"], size["head"]
    (height, width), glimpse = model.canvas_size, model.glimpse_size
    projection, loop = _localization(model)
    inputs = 3 + model.what_size
    prior = steps * (inputs * 4 * units + units * head + head * 4) + (steps - 1) * units * 4 * units
    dense = loop + prior + steps * (size["encoder"] + size["decoder"])
    # Backward, a product costs twice what it does forward: once for each factor.  The image needs no gradient.
    # Nor does what a second look sees.  The loop's gradient reads it anew, and computes its output anew.
    look_read, look_hidden, look_output = _second_look(model)
    total = (2 * _views(model) - 1) * _pooling(model) + 2 * projection + 3 * dense
    total += (2 * steps - 1) * look_read + 2 * steps * look_hidden + (4 * steps - 1) * look_output
    # Of the positions, made of constants, only the windows' factor has a gradient.
    total += 2 * steps * _lines(model)
    read = _interpolation((height, width), (glimpse, glimpse))
    # Backward: upstream by columns, rows' slope, columns' slope.
    read += glimpse * glimpse * width + glimpse * height * width
    read += _columns_gradient((height, width), (glimpse, glimpse))
    written = _interpolation((glimpse, glimpse), (height, width))
    # Backward: upstream by columns, values' gradient, rows' slope, columns' slope.
    written += height * width * glimpse + 2 * glimpse * height * glimpse
    written += _columns_gradient((glimpse, glimpse), (height, width))
    total += steps * (read + written)
    total += 2 * steps**2 * height * width  # sums of the first k canvases
    total += (2 * steps + 1) * height * width  # sums over pixels of these and, without a gradient, of an empty one
    total += _running_sums(model) + _placement(model)
    rows = sum(int(v.shape[0]) * int(v.shape[1]) for v in model.trainable_variables if len(v.shape) == 2)
    return 2 * (batch_size * total + rows)


def _placement(model: ASRModel) -> int:
    """The prior's potential between windows, and its sums over earlier windows, forward and backward."""
    placement = model.prior_network.placement
    if placement is None:
        return 0
    cells, distances = placement.grid_size**2, int(placement.heights.shape[0])
    return model.num_steps * 3 * cells * distances + 2 * model.num_steps**2 * cells


def _running_sums(model: ASRModel) -> int:
    """Running sums of the presence codes of posterior and prior and of the margins, forward and backward."""
    steps = model.num_steps
    sums = 2 * 2 * steps**2
    if any(hasattr(rule, "counts") for rule in model.constraints):
        sums += 2 * steps**2  # probabilities of absence
    if any(isinstance(rule, TightWindows) for rule in model.constraints):
        sums += 2 * 4 * steps * model.glimpse_size**2
    return sums
