"""What is served, and who asks: the module with a SavedModel's signatures, and the client of a server.

May import everything up to `asr_tf.training`; knows no flags.  The client needs NumPy only.
"""
