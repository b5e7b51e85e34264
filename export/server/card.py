"""The card of a version tells the SHA-256 of each of its files: what was cut short or replaced isn't served."""

from __future__ import annotations

import json
from pathlib import Path

from asr_tf.export import artifact

__all__ = ["check_card"]

# What TensorFlow reads of a folder.
_MODEL = ("saved_model.", "variables/variables.")


def check_card(folder: Path) -> None:
    """Holds a version's files against its card, if it has one, as what `asr_export` writes has.

    Args:
        folder: of the version.

    Raises:
        ValueError: the card can't be read, a file isn't what the card says, or a part of the model isn't in the card.
    """
    path = folder / artifact.CARD
    if not path.is_file():
        return
    try:
        files = json.loads(path.read_bytes())["files"]
        wanted = {name: (file["bytes"], file["sha256"]) for name, file in files.items()}
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{artifact.CARD} is damaged: {type(error).__name__}: {error}") from None
    found = {name: (file["bytes"], file["sha256"]) for name, file in artifact.checksums(folder).items()}
    for name, file in wanted.items():
        if name not in found:
            raise ValueError(f"{name} is missing")
        if found[name] != file:
            raise ValueError(f"{name} isn't the file of {artifact.CARD}: its size or SHA-256 differs")
    for name in found:
        if name not in wanted and name.startswith(_MODEL):
            raise ValueError(f"{name} isn't in {artifact.CARD}")
