"""A run on disk: gin configuration, the run's folder, checkpoints, its evaluation, and the command line's habits.

May import everything up to `asr_tf.evaluation`; knows nothing of what is inside a model.
"""
