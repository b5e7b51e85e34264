"""What exists for speed alone.

May import everything up to `asr_tf.data`; knows neither networks nor models: what it speeds up is handed to it.
"""
