"""Files that a reader finds whole or as they were before, and reports as plain JSON."""

from __future__ import annotations

import contextlib
import math
import pathlib
from collections.abc import Iterator, Mapping
from typing import Any, BinaryIO

from absl import logging

__all__ = ["json_ready", "replacing", "write_whole"]


def write_whole(path: pathlib.Path, text: str) -> None:
    """Replaces a file by one of this text: a reader never sees half of it, and a full disk costs nothing."""
    with replacing(path) as file:
        file.write(text.encode())


@contextlib.contextmanager
def replacing(path: pathlib.Path) -> Iterator[BinaryIO]:
    """A file to write that takes the place of `path` once it is whole."""
    part = path.with_name(path.name + ".part")
    with part.open("wb") as file:
        yield file
    part.replace(path)


def json_ready(report: Mapping[str, Any]) -> dict[str, Any]:
    """The report with null for what isn't finite, and its place under `not_finite`."""
    not_finite: list[str] = []

    def clean(value: Any, place: str) -> Any:
        if isinstance(value, Mapping):
            return {key: clean(part, f"{place}.{key}") for key, part in value.items()}
        if isinstance(value, (list, tuple)):
            return [clean(part, f"{place}[{index}]") for index, part in enumerate(value)]
        if isinstance(value, float) and not math.isfinite(value):
            not_finite.append(place.removeprefix("."))
            return None
        return value

    cleaned = clean(report, "")
    if not_finite:
        cleaned["not_finite"] = not_finite
        logging.warning("not finite, and null in the report: %s", ", ".join(not_finite))
    return cleaned
