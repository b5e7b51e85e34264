"""Inference of many images on Apache Beam: files in, rows of counts, boxes and scores out.

`asr_tf.export.batch_infer_main` is the command; the modules here need TensorFlow, Apache Beam and PyArrow, nothing else
of the package, so that workers are installed with little.
"""
