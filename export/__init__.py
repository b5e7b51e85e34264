"""Turns a trained run into an artifact that is served where this package isn't installed.

The folder stands beside `asr_tf/` in a checkout; its Python is `asr_tf.export` there and in the wheel.

May import everything up to `asr_tf.labelled`.
"""
