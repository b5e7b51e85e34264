"""Keras layers: recognition, object decoder, scene prior.

May import everything up to `asr_tf.fast`; knows neither the objective nor gin files.
"""
