"""A tiny model for tests, and images for it."""

from __future__ import annotations

import numpy as np

from asr_tf.models.asr_model import ASRModel

TINY = {
    "canvas_size": (12, 14),
    "num_steps": 3,
    "glimpse_size": 6,
    "what_size": 4,
    "rnn_units": 8,
    "head_units": 6,
    "encoder_units": (10,),
    "decoder_units": (10,),
}


def tiny(**settings):
    return ASRModel(**{**TINY, **settings})


def images(n=5, canvas_size=(12, 14), seed=0):
    return np.random.default_rng(seed).uniform(size=(n, *canvas_size, 1)).astype(np.float32)
