"""Training: fit, schedule, callbacks.

May import everything up to `asr_tf.runs`; knows no flags.
"""
