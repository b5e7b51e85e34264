"""What a request can be told when it can't be answered."""

from __future__ import annotations

__all__ = ["RequestError", "one_line"]


class RequestError(Exception):
    """A request that is answered with an error.

    Attributes:
        status: HTTP status code.
        message: one line that names the fault.
    """

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.message = one_line(message)


def one_line(text: str, most: int = 400) -> str:
    """`text` without line breaks, at most `most` characters."""
    line = " ".join(text.split())
    return line if len(line) <= most else line[: most - 3] + "..."
