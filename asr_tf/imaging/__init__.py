"""Images and windows: reading and writing windows, composing objects into an image, observation models.

May import `asr_tf.scene`, `asr_tf.checks` and `asr_tf.distributions`; knows neither latents nor layers.
"""
