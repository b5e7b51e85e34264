"""Python's collector of cycles, kept out of the way of requests.

A body of JSON becomes thousands of lists at once, which sets the collector off, and it then walks over all that
TensorFlow holds: two thirds of the server's time went there.  JSON has no cycles, and what TensorFlow holds stays.
"""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["held_back", "settle"]

# Objects made and not yet freed that set the collector off: more than the requests under way hold.
_THRESHOLD = 500_000


@contextmanager
def held_back() -> Iterator[None]:
    """While the block runs, the collector starts rarely and looks at what was made since only."""
    thresholds = gc.get_threshold()
    gc.set_threshold(_THRESHOLD, *thresholds[1:])
    settle()
    try:
        yield
    finally:
        gc.unfreeze()
        gc.set_threshold(*thresholds)


def settle() -> None:
    """Frees what is no longer needed, such as a version that was replaced, and leaves the rest alone from now on."""
    gc.unfreeze()
    gc.collect()
    gc.freeze()
