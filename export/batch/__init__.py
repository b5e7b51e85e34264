"""Inference of many images on Apache Beam: files in, rows of counts, boxes and scores out.

`asr_tf.export.batch_infer_main` is the command; the modules here need TensorFlow, NumPy, Apache Beam and PyArrow, and
pycocotools for COCO.  What they import of this package needs no more than these, so that workers are installed with
little.
"""
