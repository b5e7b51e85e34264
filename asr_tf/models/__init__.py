"""What is trained: the bound, and the models as `keras.Model`s.

May import everything up to `asr_tf.networks`; knows neither files nor flags.
"""
