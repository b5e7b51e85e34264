"""Measurement: metrics, the numbers of a report, pictures.

May import everything up to `asr_tf.models`; knows no flags.
"""
