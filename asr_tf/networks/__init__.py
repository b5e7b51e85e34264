"""Keras layers: recognition, object decoder, scene prior.

May import everything up to `asr_tf.fast`; knows neither the objective nor gin files.
"""

from asr_tf.networks import keras_settings

keras_settings.check_backend()  # before a module here imports Keras
