"""The gin root `model`: which model it makes, of what settings, and what it says of bad ones."""

import gin
import numpy as np
import pytest

from asr_tf.models.asr_model import ASRModel
from asr_tf.models.build import build_model
from asr_tf.models.image_vae import ImageVAE
from asr_tf.networks.prior import AIRPrior

SCENES = """
ASRModel.num_steps = 2
ASRModel.prior = @AIRPrior()
AIRPrior.anneal_steps = 7
ASRModel.recognition = @LSTMRecognition()
LSTMRecognition.rnn_units = 8
LSTMRecognition.second_look = 2.0
ASRModel.constraints = [@CountInSet()]
CountInSet.counts = (0, 2)
"""


@pytest.mark.parametrize("channels", [1, 3])
def test_a_model_of_scenes_of_configured_parts(channels):
    gin.parse_config(SCENES)
    model = build_model((12, 14), channels, seed=3)
    assert isinstance(model, ASRModel) and isinstance(model.prior, AIRPrior)
    assert (model.canvas_size, model.channels, model.num_steps, model.seed) == ((12, 14), channels, 2, 3)
    assert model.prior.anneal_steps == 7 and model.recognition.second_look == 2.0
    assert [rule.counts for rule in model.constraints] == [(0, 2)]
    assert model.sample(2, (0, 1))["images"].shape == (2, 12, 14, channels)


def test_every_model_has_parts_of_its_own():
    gin.parse_config(SCENES)
    one, other, third = (build_model((12, 14), 1, seed=seed) for seed in (3, 3, 4))
    assert one.recognition is not other.recognition
    for a, b in zip(one.weights, other.weights, strict=True):
        np.testing.assert_array_equal(a.numpy(), b.numpy())
    assert np.abs(one.recognition.image_gates.kernel - third.recognition.image_gates.kernel).max() > 1e-3


def test_a_plain_autoencoder():
    gin.parse_config("model.kind = 'vae'\nImageVAE.what_size = 5\nImageVAE.encoder_units = (6,)")
    model = build_model((6, 8), 3, 2)
    assert isinstance(model, ImageVAE)
    assert (model.what_size, model.channels, model.seed, model.encoder_units) == (5, 3, 2, (6,))


def test_bad_settings_are_named():
    with pytest.raises(ValueError, match="model.kind='va' is unknown .did you mean 'vae'.*scenes"):
        build_model((6, 8), 1, 0, kind="va")
    gin.parse_config("ASRModel.decoder = @AIRPrior()")
    with pytest.raises(TypeError, match="ASRModel.decoder must be a ObjectDecoder, got AIRPrior"):
        build_model((6, 8), 1, 0)
    with pytest.raises(ValueError, match=r"configurable|seed"):
        gin.parse_config("model.seed = 3")
