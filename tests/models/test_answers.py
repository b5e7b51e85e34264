"""What a model answers with time to spare: refined posteriors, and samples that obey its rules."""

import numpy as np
import pytest
import tensorflow as tf
from testing_asr_model import images, tiny, vary_counts

from asr_tf.constraints import AggregateCount, Constraint, CountInSet, DisjointBoxes, InsideCanvas, TightWindows
from asr_tf.distributions import scene_posterior
from asr_tf.models import refinement
from asr_tf.networks.contracts import LatentNoise
from asr_tf.networks.conv_recognition import ConvRecognition
from tests_of_parts import PlainBackground

BEFORE_AND_AFTER = {f"{name}_nats_{when}" for name in ("negative_elbo", "penalties") for when in ("before", "after")}


class FirstObjectLeft(Constraint):
    """The first object's centre is in the left half of the canvas."""

    def penalty(self, statistics):
        """Pixels beyond the middle."""
        _, x = statistics.centres_px()
        return statistics.presence_probs[:, 0] * tf.nn.relu(x[:, 0] - 0.5 * statistics.canvas_size[1])


def varied(n, channels=1):
    brightness = np.random.default_rng(1).uniform(size=(n, 1, 1, 1)).astype(np.float32)
    return brightness * images(n, channels=channels)
