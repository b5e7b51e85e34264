"""The export that the benchmarks of serving measure.

The model is that of `scenes/mnist_count13.gin` (canvas 50 x 50, T = 4) with weights by which every image holds 3
objects, the most of those scenes.  Importing this file imports nothing of asr_tf.
"""

from __future__ import annotations

import pathlib

__all__ = ["OBJECTS", "export"]

OBJECTS = 3


def export(export_dir: pathlib.Path) -> None:
    """Writes the model that is measured."""
    from asr_tf.export import exporter
    from benchmarks import published

    model = published.build(4, scale_prior_loc=-0.4, scale_prior_scale=0.1)
    exporter.export_model(published.with_count(model, OBJECTS), export_dir, warmup=False)
