"""How many files the process may have open, which connections are too."""

from __future__ import annotations

try:
    import resource
except ImportError:  # no such limit, as on Windows
    resource = None  # type: ignore[assignment]

__all__ = ["raise_to"]


def raise_to(number: int) -> int:
    """Raises the process's own limit, if that is allowed, where it is lower than `number`.

    Returns:
        How many files may be open now, `number` at most.
    """
    if resource is None:
        return number
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY or soft >= number:
        return number
    wanted = number if hard == resource.RLIM_INFINITY else min(number, hard)
    if wanted > soft:
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
        except (OSError, ValueError):  # the system has a limit of its own
            return soft
    return wanted
