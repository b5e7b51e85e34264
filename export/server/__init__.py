"""A server of exported models that answers TensorFlow Serving's REST paths; `asr_serve` starts it.

It needs TensorFlow and the extra `serve`, and nothing of the model's own code: what it serves are SavedModels.
"""
