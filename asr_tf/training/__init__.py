"""Training: fit, schedule, callbacks.

May import everything up to `asr_tf.runs`; knows no flags.
"""

import asr_tf.networks  # noqa: F401  first: it tells where Keras has another backend
