"""What is trained: the bound, and the models as `keras.Model`s.

May import everything up to `asr_tf.networks`; knows neither files nor flags.
"""

import asr_tf.networks  # noqa: F401  first: it tells where Keras has another backend
from asr_tf.models.asr_model import ASRModel
from asr_tf.models.bound_model import BoundModel
from asr_tf.models.build import build_model
from asr_tf.models.image_vae import ImageVAE
from asr_tf.networks.conv_recognition import ConvRecognition

__all__ = ["ASRModel", "BoundModel", "ConvRecognition", "ImageVAE", "build_model"]
