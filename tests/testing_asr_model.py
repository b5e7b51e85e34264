"""A tiny model for tests, and images for it."""

from __future__ import annotations

import inspect

import numpy as np

from asr_tf.distributions import PresenceCode
from asr_tf.models.asr_model import ASRModel
from asr_tf.networks.decoder import MLPDecoder
from asr_tf.networks.prior import AIRPrior, AutoregressivePrior
from asr_tf.networks.recognition import LSTMRecognition

TINY = {"canvas_size": (12, 14), "num_steps": 3, "glimpse_size": 6, "what_size": 4}
PARTS = {
    "recognition": (LSTMRecognition, {"rnn_units": 8, "head_units": 6, "encoder_units": (10,)}),
    "decoder": (MLPDecoder, {"units": (10,)}),
    "prior": (AutoregressivePrior, {"rnn_units": 8, "head_units": 6, "placement_grid": 5}),
}


def tiny(**settings):
    """A model of tiny parts, 12 x 14 pixels and 3 steps.

    Settings are the model's or a part's, without a prefix: `tiny(num_steps=2, second_look=2.0, learn_scale=True)`; one
    that several parts have goes to the first of `PARTS`.  A whole part may be given by its role, and `prior="air"`
    stands for AIR's prior.
    """
    kinds = dict(PARTS)
    if settings.get("prior") == "air":
        kinds["prior"] = (AIRPrior, {})
        del settings["prior"]
    for role, (kind, usual) in kinds.items():
        if role not in settings:
            own = set(inspect.signature(kind).parameters) - {"name"}
            settings[role] = kind(**usual | {key: settings.pop(key) for key in own & set(settings)})
    return ASRModel(**TINY | settings)


def vary_counts(model, images):
    """Makes the count of a model depend on the image: of some random weights those that give the most even counts."""
    recognition = model.recognition
    recognition.state_gates.kernel.assign(3.0 * recognition.state_gates.kernel)  # steps differ more
    output, best = recognition.presence_output, (-1.0,)
    for seed in range(40):
        kernel = np.random.default_rng(seed).normal(size=output.kernel.shape).astype(np.float32) * 100.0
        output.kernel.assign(kernel)
        output.bias.assign([0.0])
        logits = recognition.locate(images)[0].presence_logits.numpy()
        bias = -np.median(logits, keepdims=True).ravel()
        counts = np.argmax(PresenceCode(logits + bias).count_probs(), axis=-1)
        shares = np.bincount(counts, minlength=logits.shape[1] + 1) / len(images)
        best = max(best, (np.sort(shares)[-3:].prod(), seed, kernel, bias), key=lambda found: found[0])
    _, _, kernel, bias = best
    output.kernel.assign(kernel)
    output.bias.assign(bias)


def images(n=5, canvas_size=(12, 14), seed=0, channels=1):
    """Noise, float32 [n, H, W, C] in [0, 1]."""
    return np.random.default_rng(seed).uniform(size=(n, *canvas_size, channels)).astype(np.float32)
