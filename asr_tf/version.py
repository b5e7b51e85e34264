"""The version of the package, as setup.py, `asr_tf.__version__` and the reports show it."""

from __future__ import annotations

__all__ = ["__version__"]

__version__ = "0.2.0"
