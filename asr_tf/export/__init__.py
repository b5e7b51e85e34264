"""In a checkout, `asr_tf.export` is the folder `export/` beside the package; a wheel holds that folder here instead."""

import pathlib

__path__ = [str(pathlib.Path(__file__).resolve().parents[2] / "export")]
