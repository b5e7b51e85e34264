"""Labelled scenes: what a model draws or finds, written as the data sets that detectors learn from.

May import everything up to `asr_tf.serving`; knows no flags.  `objects` and `coco` need no more than NumPy and
pycocotools, because workers of asr_batch_infer import them.
"""
