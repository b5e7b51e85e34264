"""Answers predict requests from the versions of a model: which version, within bounds, in a batch where that works."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from pathlib import Path

import numpy as np
from asr_tf.export.server import garbage
from asr_tf.export.server.answer_room import AnswerRoom, Holder, answering
from asr_tf.export.server.background import BackgroundCalls
from asr_tf.export.server.batching import Batcher
from asr_tf.export.server.card import check_card
from asr_tf.export.server.errors import RequestError
from asr_tf.export.server.loaded_version import LoadedVersion, Signature
from asr_tf.export.server.metrics import Metrics
from asr_tf.export.server.predict_json import Request, decode_tensors
from asr_tf.export.server.repository import Poller, VersionRepository

__all__ = ["Predictor", "Settings"]

# Inputs that multiply the work of a request, and how many may stand for an image or scene that is held: particles and
# steps are gone through one after another, and only their result is kept.
_REPEATS = {"num_samples": 1, "num_particles": 16, "steps": 16}
# What all answers that aren't sent may take, of batches and of calls in the background each, and what each number of
# one takes: itself and its text.
_ANSWERS_BYTES = 256 * 2**20
_BYTES_PER_NUMBER = 4 + 12


@dataclasses.dataclass(frozen=True)
class Settings:
    """How a model is served.

    Attributes:
        export_dir: folder with one SavedModel a version.
        model_name: in the paths.
        num_versions: how many of the newest versions are served at once.
        version_labels: names of versions, for the paths `.../labels/NAME`.
        max_batch_size: most examples that are computed together.
        batch_timeout_s: how long the oldest example waits for others, in seconds.
        max_rows: most images or scenes that one request may ask for.
        max_body_bytes: of one request, unpacked.
        body_s: seconds for the body of a request to come.
        call_s: seconds that a call may take that doesn't share a batch, once it has begun.
        poll_s: seconds between two looks for new versions.
    """

    export_dir: Path
    model_name: str = "asr"
    num_versions: int = 1
    version_labels: Mapping[str, int] = dataclasses.field(default_factory=dict)
    max_batch_size: int = 32
    batch_timeout_s: float = 0.01
    max_rows: int = 4096
    max_body_bytes: int = 32 * 2**20
    body_s: float = 30.0
    call_s: float = 120.0
    poll_s: float = 2.0


class Predictor:
    """The versions of one model, and what computes their answers."""

    def __init__(self, settings: Settings) -> None:
        """Loads the newest version that works.

        Raises:
            ValueError: there is none.
        """
        self.settings = settings
        self.metrics = Metrics()
        self._batcher = Batcher(
            settings.max_batch_size,
            settings.batch_timeout_s,
            max_waiting=max(settings.max_rows, 32 * settings.max_batch_size),
            observe=self.metrics.count_batch,
        )
        self.metrics.watch_waiting(lambda: self._batcher.num_waiting)
        self.repository = VersionRepository(
            settings.export_dir, self._load, settings.num_versions, self.metrics.set_versions, garbage.settle
        )
        self._calls = BackgroundCalls(settings.call_s)
        self._rooms = [AnswerRoom(_ANSWERS_BYTES, settings.body_s) for _ in range(2)]
        self.repository.poll()
        if not self.repository.numbers():
            self._batcher.close()
            raise ValueError(_no_version(settings.export_dir, self.repository))
        self._poller = Poller(self.repository, settings.poll_s)

    def close(self) -> None:
        """Ends the threads; what somebody still waits for in a batch is computed first."""
        self._poller.close()
        self._batcher.close()
        self._calls.close()

    def resolve(self, model: str, version: str | None, label: str | None) -> tuple[int | None, str]:
        """The version that a path names (None: the newest), and how messages call it.

        Raises:
            RequestError: another model, a number that is none, an unknown label.
        """
        number: int | None = None
        if version is not None:
            number = int(version) if len(version) < 20 else 2**63
            if number >= 2**63:
                raise RequestError(400, f"Failed to convert version: {version[:40]} to numeric.")
        elif label is not None and model == self.settings.model_name:
            if label not in self.settings.version_labels:
                raise RequestError(400, f"Unrecognized servable version label: {label}")
            number = self.settings.version_labels[label]
        asked = f"Latest({model})" if number is None else f"Specific({model}, {number})"
        if model != self.settings.model_name:
            raise RequestError(404, f"Servable not found for request: {asked}")
        return number, asked

    def answering(self, cut_off: Callable[[], None]) -> AbstractContextManager[Holder]:
        """A request, in which room for the answer is taken; see `answer_room.answering`."""
        return answering(cut_off, *self._rooms)

    async def predict(self, request: Request, number: int | None, asked: str) -> dict[str, np.ndarray]:
        """Computes the answer to a predict request.

        Args:
            request: as parsed.
            number: of the version, None for the newest.
            asked: what the client asked for, for messages.

        Returns:
            The outputs by name.

        Raises:
            RequestError: what is wrong with the request, or with the server's state.
        """
        with self.repository.lease(number, asked) as version:
            signature = version.signature(request.signature_name)
            arrays = decode_tensors(request, signature.inputs)
            return await self.compute(version, signature, arrays)

    async def compute(
        self, version: LoadedVersion, signature: Signature, arrays: dict[str, np.ndarray]
    ) -> dict[str, np.ndarray]:
        """Runs a signature on checked inputs, once there is room for the answer; see `predict`."""
        self._check_rows(signature, arrays)
        num_bytes = _answer_bytes(signature, arrays)
        batches, background = self._rooms
        if signature.is_batchable:
            await batches.take(num_bytes)
            return await self._batcher.run(version, signature, arrays)
        async with self._calls.turn():
            await background.take(num_bytes)
            return await self._calls.run(signature, arrays)

    def _check_rows(self, signature: Signature, arrays: Mapping[str, np.ndarray]) -> None:
        """Refuses what would fill the memory: the work grows with images times particles, and with samples."""
        sizes = {name: len(array) for name, array in arrays.items() if signature.inputs[name].has_batch_axis}
        for name, size in sizes.items():
            if size > self.settings.max_rows:
                raise RequestError(400, f"{name} ({size}) must be at most {self.settings.max_rows} in one request")
        factors = dict([max(sizes.items(), key=lambda item: item[1])]) if sizes else {}
        factors |= {name: int(arrays[name]) for name in _REPEATS if name in arrays and arrays[name].ndim == 0}
        work = math.prod(max(1, factor) for factor in factors.values())
        most = self.settings.max_rows * math.prod(_REPEATS.get(name, 1) for name in factors)
        if work > most:
            named = " times ".join(f"{name} ({factor})" for name, factor in factors.items())
            raise RequestError(400, f"{named} must be at most {most} in one request")

    def _load(self, folder: Path, number: int) -> LoadedVersion:
        check_card(folder)
        version = LoadedVersion(folder, number)
        version.warm_up((1, self.settings.max_batch_size))
        return version


def _answer_bytes(signature: Signature, arrays: Mapping[str, np.ndarray]) -> int:
    """How much memory the answer will take, near enough."""
    rows = [len(array) for name, array in arrays.items() if signature.inputs[name].has_batch_axis]
    rows += [int(array) for name, array in arrays.items() if name == "num_samples" and array.ndim == 0]
    sizes = [math.prod(spec.example_shape or ()) for spec in signature.outputs.values()]
    return _BYTES_PER_NUMBER * max(rows, default=1) * sum(sizes)


def _no_version(export_dir: Path, repository: VersionRepository) -> str:
    broken = [f"version {number}: {state.error_message}" for number, state in repository.states().items()]
    if broken:
        return f"No version in {export_dir} can be served; {'; '.join(broken)}"
    return f"No version in {export_dir}: expected folders called by a number, each with a saved_model.pb"
