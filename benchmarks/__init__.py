"""What measures the package, and what writes the tables of its figures.

Each module with a command says it in its first lines.  Modules import from asr_tf and from each other, never in a
circle, and nothing in asr_tf imports a benchmark.
"""
