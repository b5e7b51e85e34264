"""Writing a data set shard by shard, so that it may stop at any moment and go on later.

Contract: the memory doesn't grow with the number of scenes.  A shard counts once its tally lies beside the others, and
what an interrupted one has left is written anew.  The same settings end in the same bytes, however often the writing
was interrupted; a folder with anything else in it is refused and left as it was.
"""

from __future__ import annotations

import concurrent.futures
import contextlib
import fcntl
import functools
import json
import math
import os
import pathlib
import shutil
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from typing import NamedTuple

import numpy as np
import tqdm

from asr_tf.labelled.base import WORK, DatasetFolder
from asr_tf.labelled.scenes import LabelledScenes
from asr_tf.runs import configuration
from asr_tf.runs.files import write_whole

__all__ = ["SCENES_OF_A_SHARD", "Tally", "chunk_size", "write_dataset"]

SCENES_OF_A_SHARD = 4096
"""What is lost at most when the writing is interrupted: a second or two of work on small canvases."""

_RECORD = "sampling.json"
_LARGEST_CHUNK = 256
_CHUNK_NUMBERS = 1 << 24  # images and masks of a chunk are at most 64 MB of float32


class Tally(NamedTuple):
    """What some scenes hold.

    Attributes:
        scenes_with: T + 1 numbers of scenes, those with 0, 1, ... T objects.
        objects: in the annotations.
        left_out: objects that can't be seen, and aren't in the annotations.
    """

    scenes_with: list[int]
    objects: int = 0
    left_out: int = 0

    @property
    def scenes(self) -> int:
        """The number of scenes."""
        return sum(self.scenes_with)

    def plus(self, other: Tally) -> Tally:
        """Both together."""
        scenes_with = [a + b for a, b in zip(self.scenes_with, other.scenes_with, strict=True)]
        return Tally(scenes_with, self.objects + other.objects, self.left_out + other.left_out)


def chunk_size(image_shape: tuple[int, int, int], num_steps: int) -> int:
    """How many scenes to draw at once: a power of two, so that a shard holds whole chunks.

    Args:
        image_shape: (H, W, C) in pixels and channels.
        num_steps: T.
    """
    height, width, channels = image_shape
    fitting = max(1, _CHUNK_NUMBERS // (height * width * (channels + num_steps)))
    return min(_LARGEST_CHUNK, 1 << (fitting.bit_length() - 1))


def write_dataset(
    kind: type[DatasetFolder],
    folder: pathlib.Path,
    draw: Callable[[int, int], LabelledScenes],
    num_scenes: int,
    image_shape: tuple[int, int, int],
    num_steps: int,
    settings: Mapping[str, str],
) -> Tally:
    """Writes a data set, or goes on where an earlier call with the same settings ended.

    Args:
        kind: the format.
        folder: exists; empty, or with a data set of the same settings.
        draw: (start, number) -> that many scenes from the index `start` on, which has the number `start` + 1.
        num_scenes: of the whole data set.
        image_shape: (H, W, C) in pixels and channels.
        num_steps: T, the most objects in a scene.
        settings: all that the scenes depend on, by the names that a user knows.

    Returns:
        The tally of all scenes.

    Raises:
        ValueError: something else lies in the folder, or another process writes to it.
        OSError: it can't be written; what is whole stays.
    """
    dataset = kind(folder, image_shape, num_steps, math.ceil(num_scenes / SCENES_OF_A_SHARD))
    record = folder / _RECORD
    with _only_one(folder):
        tally = _finished(record, dict(settings))
        if tally is None:
            try:
                write_whole(record, _record_text(settings))
                (folder / WORK).mkdir(exist_ok=True)
                tallies = list(_write_shards(dataset, draw, num_scenes))
                dataset.finish([shard.scenes for shard in tallies])
                tally = functools.reduce(Tally.plus, tallies)
                write_whole(record, _record_text(settings, tally))
            except OSError as error:
                reason = error.strerror or str(error)
                raise OSError(
                    f"can't write in {folder}: {reason}; the shards that are whole stay, and the same command goes on."
                ) from error
        shutil.rmtree(folder / WORK, ignore_errors=True)
    return tally


@contextlib.contextmanager
def _only_one(folder: pathlib.Path) -> Iterator[None]:
    """Keeps a second writer out of a folder, and leaves no file for it."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        os.close(descriptor)
        raise ValueError(f"another asr_sample writes in {folder}: wait for its end, or give another folder.") from error
    except OSError:  # a file system without locks
        pass
    try:
        yield
    finally:
        os.close(descriptor)


def _record_text(settings: Mapping[str, str], tally: Tally | None = None) -> str:
    """The text of sampling.json; without a tally the data set isn't whole yet."""
    found = {} if tally is None else {"scenes": tally.scenes, **tally._asdict()}
    return json.dumps({"complete": tally is not None, "settings": dict(settings), **found}, indent=2) + "\n"


def _finished(record: pathlib.Path, settings: dict[str, str]) -> Tally | None:
    """The tally of the data set where it is whole.

    Raises:
        ValueError: the folder holds anything but a data set of these settings.
    """
    folder = record.parent
    if not record.is_file():
        others = sorted(path.name for path in folder.iterdir() if path.name != f"{record.name}.part")
        if others:
            raise ValueError(f"{folder} holds other files ({others[0]}); give a new or empty folder.")
        return None
    try:
        found = json.loads(record.read_text(encoding="utf-8"))
        difference = configuration.first_difference(found["settings"], settings)
        tally = Tally(*(found[name] for name in Tally._fields)) if found["complete"] else None
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{record} is damaged ({error}); give another folder.") from error
    if difference:
        raise ValueError(
            f"{folder} holds scenes of other settings: {difference}; give another folder, or the same settings to go "
            "on (nothing was changed)."
        )
    return tally


def _write_shards(
    dataset: DatasetFolder, draw: Callable[[int, int], LabelledScenes], num_scenes: int
) -> Iterator[Tally]:
    """Writes the shards that are missing; yields the tally of each."""
    with tqdm.tqdm(total=num_scenes, unit=" scenes", disable=None) as progress:
        for shard, start in enumerate(range(0, num_scenes, SCENES_OF_A_SHARD)):
            tally = _read_tally(dataset, shard)
            if tally is None:
                for path in dataset.parts(shard):
                    _remove(path)
                    _remove(path.with_name(f"{path.name}.part"))
                indices = range(start, min(start + SCENES_OF_A_SHARD, num_scenes))
                tally = _write_shard(dataset, shard, indices, draw)
                write_whole(_tally_file(dataset, shard), json.dumps(tally._asdict()) + "\n")
            progress.update(tally.scenes)
            yield tally


def _write_shard(
    dataset: DatasetFolder, shard: int, indices: range, draw: Callable[[int, int], LabelledScenes]
) -> Tally:
    tally = Tally([0] * (dataset.num_steps + 1))

    def tallied(chunks: Iterable[LabelledScenes]) -> Iterator[LabelledScenes]:
        nonlocal tally
        for scenes in chunks:
            scenes_with = np.bincount(scenes.count, minlength=dataset.num_steps + 1).tolist()
            tally = tally.plus(Tally(scenes_with, len(scenes.objects.images), scenes.objects.left_out))
            yield scenes

    size = chunk_size(dataset.image_shape, dataset.num_steps)
    starts = (indices[first : first + size] for first in range(0, len(indices), size))
    with contextlib.closing(_one_ahead(draw(part.start, len(part)) for part in starts)) as chunks:
        dataset.write_shard(shard, tallied(chunks))
    return tally


def _one_ahead(chunks: Iterator[LabelledScenes]) -> Generator[LabelledScenes, None, None]:
    """The same chunks; the next one is drawn in a thread of its own while one is written."""
    with concurrent.futures.ThreadPoolExecutor(1) as thread:
        waiting = thread.submit(next, chunks, None)
        while (chunk := waiting.result()) is not None:
            waiting = thread.submit(next, chunks, None)
            yield chunk


def _tally_file(dataset: DatasetFolder, shard: int) -> pathlib.Path:
    return dataset.folder / WORK / f"tally-{shard:05d}.json"


def _read_tally(dataset: DatasetFolder, shard: int) -> Tally | None:
    """The tally of a shard that is whole."""
    file = _tally_file(dataset, shard)
    return Tally(**json.loads(file.read_text(encoding="utf-8"))) if file.is_file() else None


def _remove(path: pathlib.Path) -> None:
    """Removes what an interrupted shard has left."""
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
