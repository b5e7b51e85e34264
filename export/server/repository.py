"""The versions of a model in a folder: which are there, which are served, and what became of the others.

A look at the folder (`VersionRepository.poll`) picks up new versions: a version is loaded and warmed up while others
answer, then takes their place, and they go when their last request is done.  A version that can't be loaded, or can't
compute, is passed over: the newest that can is served, and the broken one is tried again only when its files change.
"""

from __future__ import annotations

import dataclasses
import logging
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from asr_tf.export.server.errors import RequestError
from asr_tf.export.server.loaded_version import LoadedVersion
from asr_tf.export.server.tensorflow_errors import plain_words

__all__ = ["Poller", "VersionRepository", "VersionState"]

_LOG = logging.getLogger("asr_serve")

# Size and time of each file of a version: what tells whether a broken one is worth another try.
Fingerprint = tuple[tuple[str, int, int], ...]


@dataclasses.dataclass(frozen=True)
class VersionState:
    """What became of a version, in the words of TensorFlow Serving's model status.

    Attributes:
        state: LOADING, AVAILABLE, UNLOADING or END.
        error_code: OK, or the name of a status code.
        error_message: one line, empty if all is well.
    """

    state: str
    error_code: str = "OK"
    error_message: str = ""


class VersionRepository:
    """The versions of one model.

    `poll` is called by one thread at a time; the rest may be called from any.
    """

    def __init__(
        self,
        export_dir: Path,
        load: Callable[[Path, int], LoadedVersion],
        num_versions: int = 1,
        on_change: Callable[[list[int]], None] = lambda numbers: None,
        on_release: Callable[[], None] = lambda: None,
    ) -> None:
        """Takes no look at the folder yet.

        Args:
            export_dir: folder with one folder a version, called by its number.
            load: makes a version ready to be asked; raises if that can't be.
            num_versions: how many of the newest that work are served.
            on_change: told the numbers that are served, whenever they change.
            on_release: called when a version was let go.
        """
        self._export_dir = export_dir
        self._load = load
        self._num_versions = num_versions
        self._on_change = on_change
        self._on_release = on_release
        self._lock = threading.Lock()
        self._serving: dict[int, LoadedVersion] = {}
        self._retired: list[LoadedVersion] = []
        self._states: dict[int, VersionState] = {}
        self._broken: dict[int, Fingerprint] = {}

    def poll(self) -> None:
        """Looks at the folder; loads what is new and works, lets go what was replaced."""
        self._sweep()
        folders = self._folders()
        chosen: dict[int, LoadedVersion] = {}
        for number in sorted(folders, reverse=True):
            if len(chosen) == self._num_versions:
                break
            version = self._serving.get(number) or self._try(folders[number], number)
            if version is not None:
                chosen[number] = version
        if chosen and set(chosen) != set(self._serving):
            self._swap(chosen)
        self._sweep()

    def numbers(self) -> list[int]:
        """The versions that are served, the newest first."""
        return sorted(self._serving, reverse=True)

    def states(self) -> dict[int, VersionState]:
        """Every version that was ever seen, the newest first, with its state."""
        with self._lock:
            return dict(sorted(self._states.items(), reverse=True))

    @contextmanager
    def lease(self, number: int | None, asked: str) -> Iterator[LoadedVersion]:
        """The version of that number (None: the newest), which stays in memory until the block ends.

        Args:
            number: of the version.
            asked: what the client asked for, for the message.

        Raises:
            RequestError: it isn't served.
        """
        with self._lock:
            version = self._serving.get(max(self._serving, default=0) if number is None else number)
            if version is None:
                raise RequestError(404, f"Servable not found for request: {asked}")
            version.acquire()
        try:
            yield version
        finally:
            version.release()

    def _folders(self) -> dict[int, Path]:
        """Folders that may be versions; what is being written has another name, or no graph yet."""
        try:
            entries = list(self._export_dir.iterdir())
        except OSError as error:
            _LOG.error("can't look into %s: %s", self._export_dir, error.strerror)
            return {}
        return {
            int(entry.name): entry
            for entry in entries
            if entry.name.isascii() and entry.name.isdigit() and (entry / "saved_model.pb").is_file()
        }

    def _try(self, folder: Path, number: int) -> LoadedVersion | None:
        files = _fingerprint(folder)
        if self._broken.get(number) == files:
            return None
        self._set_state(number, VersionState("LOADING"))
        try:
            version = self._load(folder, number)
        except Exception as error:
            reason = f"{type(error).__name__}: {plain_words(error)}"
            self._broken[number] = files
            self._set_state(number, VersionState("END", "INTERNAL", reason))
            stays = f"version {max(self._serving)} stays" if self._serving else "older versions are tried"
            _LOG.error("version %d can't be served: %s; %s", number, reason, stays)
            return None
        self._broken.pop(number, None)
        return version

    def _swap(self, chosen: dict[int, LoadedVersion]) -> None:
        with self._lock:
            gone = {number: version for number, version in self._serving.items() if number not in chosen}
            self._serving = chosen
            for number in chosen:
                self._states[number] = VersionState("AVAILABLE")
            for number in gone:
                self._states[number] = VersionState("UNLOADING")
            self._retired += gone.values()
        _LOG.info("serving %s", " and ".join(f"version {number}" for number in self.numbers()))
        self._on_change(self.numbers())

    def _sweep(self) -> None:
        """Lets go of replaced versions that no request needs any more."""
        with self._lock:
            idle = [version for version in self._retired if not version.in_use]
            self._retired = [version for version in self._retired if version not in idle]
            for version in idle:
                if version.number not in self._serving:
                    self._states[version.number] = VersionState("END")
        if idle:
            del idle[:], version
            self._on_release()

    def _set_state(self, number: int, state: VersionState) -> None:
        with self._lock:
            self._states[number] = state


class Poller:
    """A thread that looks at the folder again and again."""

    def __init__(self, repository: VersionRepository, seconds: float) -> None:
        """Starts it.

        Args:
            repository: that is polled.
            seconds: from the end of one look to the next.
        """
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._work, args=(repository, seconds), name="poller", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Ends the thread, once a look that is under way is done."""
        self._stopped.set()
        self._thread.join()

    def _work(self, repository: VersionRepository, seconds: float) -> None:
        while not self._stopped.wait(seconds):
            try:
                repository.poll()
            except Exception:  # the server goes on with what it has
                _LOG.exception("the look at the versions failed")


def _fingerprint(folder: Path) -> Fingerprint:
    found = []
    for path in sorted(folder.rglob("*")):
        try:
            stat = path.stat()
        except OSError:  # went while we looked
            continue
        found.append((path.relative_to(folder).as_posix(), stat.st_size, stat.st_mtime_ns))
    return tuple(found)
