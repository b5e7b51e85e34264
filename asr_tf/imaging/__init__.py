"""Images and windows: reading and writing windows, pooling, composing objects into a canvas, observation models.

May import everything up to `asr_tf.distributions`; knows neither latents nor layers.
"""
