"""Keeps the memory that a process has freed, for its next arrays.

Large arrays come and go in every training step.  glibc maps each from the kernel and gives it back when it is freed,
and the kernel fills every page with zeros before the next one gets it: a quarter of a training step's processor time
on a machine with two cores.  Kept memory costs nothing but that the process stays as large as it once was.
"""

from __future__ import annotations

import ctypes
import os

__all__ = ["tune_process"]

# From glibc's malloc.h.
_M_TRIM_THRESHOLD = -1
_M_MMAP_MAX = -4
_M_ARENA_MAX = -8
_LARGEST_INT = 2**31 - 1

# Whoever sets one of these has ideas of his own about the allocator.
_VARIABLES = ("MALLOC_TRIM_THRESHOLD_", "MALLOC_MMAP_MAX_", "MALLOC_MMAP_THRESHOLD_", "GLIBC_TUNABLES")


def tune_process() -> bool:
    """Asks glibc to keep freed memory, in the whole process and from now on; training is half as fast again with it.

    The commands call it; a Python program of one's own may, before it trains and after it has read its images: what
    reading frees would be kept too, and lie in pieces where training looks for room (3 to 12 % of a step).

    Does nothing where the C library isn't glibc, or where one of its own environment variables MALLOC_TRIM_THRESHOLD_,
    MALLOC_MMAP_MAX_, MALLOC_MMAP_THRESHOLD_ or GLIBC_TUNABLES is set: what it says then holds.

    Returns:
        Whether freed memory will be kept.
    """
    if any(name in os.environ for name in _VARIABLES):
        return False
    try:
        library = ctypes.CDLL(None)
        library.gnu_get_libc_version  # noqa: B018 - other C libraries have no such function
        mallopt = library.mallopt
    except (AttributeError, OSError, TypeError):
        return False
    # No allocation is mapped on its own, the heap is never cut, and it is one for all threads: a thread's own holds no
    # array of more than 64 MiB.
    settings = ((_M_MMAP_MAX, 0), (_M_TRIM_THRESHOLD, _LARGEST_INT), (_M_ARENA_MAX, 1))
    done = [bool(mallopt(*setting)) for setting in settings]
    return all(done)
