"""A client of a served model: images in, arrays out, over the REST paths of TensorFlow Serving.

It speaks to `asr_serve` and to TensorFlow Serving alike, and needs NumPy only.

Example:
  with Client("http://127.0.0.1:8501") as client:
      result = client.infer(images)
      scenes = client.sample(16, seed=(0, 1), num_objects=3, obey=True)
"""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Any
from urllib.parse import quote

import numpy as np

from asr_tf.checks import check_images, check_whole
from asr_tf.serving.connections import Connections

__all__ = ["Client", "DrawnScenes", "FoundScenes", "RefinedScenes", "ServingError"]

# Images are sent in parts of at most so many numbers (pixels times channels), some 20 MB of text.
_MOST_NUMBERS = 2**20
# What asr_serve takes in one request unless it is told otherwise.
_MOST_IMAGES = 4096
# Images times particles of one request, some seconds of work.
_MOST_PARTICLES = 2**14
# What tells the seeds of parts apart.
_SEED_STEP = 0x9E3779B1
# Scenes are drawn in parts of at most so many: an image has far more numbers than its objects.
_MOST_RENDERED = 256
# What a model refines at once.
_MOST_REFINED = 64
_DTYPES: dict[str, type] = {"count": np.int32, "obeys": np.bool_}  # of all others: float32


class ServingError(Exception):
    """The server answered with an error.

    Attributes:
        status: HTTP status code; 4xx says that the request was wrong, 5xx that the server is.
        message: what the server says.
    """

    def __init__(self, status: int, message: str) -> None:
        super().__init__(f"{message} (HTTP status {status})")
        self.status = status
        self.message = message


@dataclasses.dataclass(frozen=True)
class FoundScenes:
    """What `infer` finds in B images: at most T objects each, with appearance codes of Z numbers.

    Attributes:
        count: int32 [B], objects of each image.
        count_probs: float32 [B, T + 1], probability of each count.
        presence: float32 [B, T], 0 or 1; present objects come first.
        boxes: float32 [B, T, 4], `[ymin, xmin, ymax, xmax]` as fractions of the canvas; zeros for absent objects.
        z_what: float32 [B, T, Z], appearance codes; zeros for absent objects.
        reconstruction: float32 [B, H, W, C] in [0, 1], with the channels of the images: C = 1 is grey, C = 3 is RGB.
        scores: float32 [B, T], probability of each object; None from an export of an earlier version.
        masks: float32 [B, T, H, W, 1] in [0, 1], each object's share of each pixel; None likewise.
    """

    count: np.ndarray
    count_probs: np.ndarray
    presence: np.ndarray
    boxes: np.ndarray
    z_what: np.ndarray
    reconstruction: np.ndarray
    scores: np.ndarray | None = None
    masks: np.ndarray | None = None


@dataclasses.dataclass(frozen=True, kw_only=True)
class RefinedScenes(FoundScenes):
    """What `refine` finds in B images.

    Attributes:
        negative_elbo_nats_before, negative_elbo_nats_after: float32 [B], minus the bound on the log-likelihood of each
            image, by the amortized posterior and by the refined one.
        penalties_nats_before, penalties_nats_after: float32 [B], what the model's rules cost them.
    """

    negative_elbo_nats_before: np.ndarray
    negative_elbo_nats_after: np.ndarray
    penalties_nats_before: np.ndarray
    penalties_nats_after: np.ndarray


@dataclasses.dataclass(frozen=True)
class DrawnScenes:
    """N scenes that `sample` draws from the model's prior.

    Attributes:
        images: float32 [N, H, W, C] in [0, 1].
        count: int32 [N].
        presence, boxes, z_what: as in `FoundScenes`.
        obeys: bool [N], which scenes break none of the model's rules; None from an export of an earlier version.
        acceptance_rate: float32 [], the share of all scenes drawn that break none; None likewise.
    """

    images: np.ndarray
    count: np.ndarray
    presence: np.ndarray
    boxes: np.ndarray
    z_what: np.ndarray
    obeys: np.ndarray | None = None
    acceptance_rate: np.ndarray | None = None


class Client:
    """Asks one model of a server.

    Connections are kept open.  Threads may share a client, and processes that are forked.
    """

    def __init__(
        self,
        url: str = "http://127.0.0.1:8501",
        model: str = "asr",
        *,
        version: int | None = None,
        label: str | None = None,
        timeout_s: float = 60.0,
        credentials: tuple[str, str] | None = None,
        headers: Mapping[str, str] | None = None,
        ca_file: str | os.PathLike[str] | None = None,
    ) -> None:
        """Connects at the first question.

        Args:
            url: of the server, `http://` or `https://`; it may hold a user and a password, `http://user:pw@host`.
            model: its name.
            version: number of the version to ask; without it, the server's newest.
            label: of the version to ask, instead of its number.
            timeout_s: how long to wait for the server, in seconds.
            credentials: user and password for a server, or a proxy before it, that asks for them.
            headers: that go with every question, such as `{"Authorization": "Bearer ..."}`.
            ca_file: PEM file with the certificates that an `https://` server is held against, instead of the system's.

        Raises:
            ValueError: a URL, a time, credentials or headers that can't be, or both a version and a label.
            OSError: no certificates in `ca_file`.
        """
        if version is not None and label is not None:
            raise ValueError(f"Give a version or a label, not both; got version={version} and label={label!r}.")
        self._connections = Connections(url, timeout_s, credentials, headers, ca_file)
        self._model_path = f"/v1/models/{quote(model, safe='')}"
        self._path = self._model_path
        if version is not None:
            self._path += f"/versions/{version:d}"
        elif label is not None:
            self._path += f"/labels/{quote(label, safe='')}"

    def infer(self, images: Any) -> FoundScenes:
        """Counts, boxes and encodes the objects of images; many images go in several requests.

        Args:
            images: [B, H, W, C] of the model's shape, grey (C = 1) or RGB (C = 3); uint8, or float in [0, 1].

        Raises:
            ValueError, TypeError: no images of that kind.
            ServingError: the server refuses them, as images of another size or with other channels than the model's.
            OSError: no server, or no answer in time.
        """
        return FoundScenes(**self._of_images("serving_default", images, _MOST_IMAGES, FoundScenes))

    def refine(self, images: Any, steps: int = 20) -> RefinedScenes:
        """As `infer`, but the posterior of each image by itself ascends the bound from the amortized one on.

        Args:
            images: as for `infer`.
            steps: of the ascent; each takes several times as long as `infer`.

        Raises:
            ValueError, TypeError, ServingError, OSError: as for `infer`.
        """
        return RefinedScenes(**self._of_images("refine", images, _MOST_REFINED, RefinedScenes, steps=steps))

    def sample(
        self, num_samples: int, seed: Sequence[int], num_objects: int = -1, obey: bool = False
    ) -> DrawnScenes:
        """Draws scenes from the prior; the same seed gives the same scenes.

        Args:
            num_samples: how many.
            seed: two integers.
            num_objects: of each scene; -1 draws it too.
            obey: whether scenes that break one of the model's rules are drawn again.

        Raises:
            ServingError, OSError: as for `infer`; also where scenes still break a rule after the server's last try.
        """
        inputs = {"num_samples": num_samples, "seed": list(seed), "num_objects": num_objects}
        if obey:  # exports of earlier versions don't know of it
            inputs["obey"] = True
        scenes = DrawnScenes(**_arrays(self.predict("sample", inputs), DrawnScenes))
        left = 0 if scenes.obeys is None else int(np.sum(~scenes.obeys))
        if obey and left:
            raise ServingError(
                200,
                f"{left} of {num_samples} scenes still break a rule after the last try; "
                f"of all drawn, {scenes.acceptance_rate:.2%} obey.",
            )
        return scenes

    def log_likelihood(self, images: Any, num_particles: int, seed: Sequence[int]) -> np.ndarray:
        """Importance-weighted lower bound of each image's log-likelihood; many images go in several requests.

        Args:
            images: as for `infer`.
            num_particles: 1 or more; the bound grows with them.
            seed: two integers; requests after the first have seeds that are made of it.

        Returns:
            float32 [B], nats.

        Raises:
            ValueError, TypeError, ServingError, OSError: as for `infer`.
        """
        images = check_images(images)
        most = min(_MOST_IMAGES, max(1, _MOST_PARTICLES // check_whole("num_particles", num_particles)))
        answers = [
            self.predict("log_likelihood", {**part, "num_particles": num_particles, "seed": _seed_of_part(seed, i)})
            for i, part in enumerate(_parts(most, images=images))
        ]
        return np.concatenate([_single(answer, "log_likelihood") for answer in answers])

    def render(self, z_what: Any, boxes: Any, presence: Any) -> np.ndarray:
        """Redraws scenes from their objects, such as those of `infer` after some were moved, removed or swapped.

        Many scenes go in several requests.

        Args:
            z_what: float [B, T, Z], appearance codes.
            boxes: float [B, T, 4], as `infer` gives them.
            presence: float [B, T], 0 or 1.

        Returns:
            float32 [B, H, W, C] in [0, 1].

        Raises:
            ServingError, OSError: as for `infer`.
        """
        objects = {"z_what": np.asarray(z_what), "boxes": np.asarray(boxes), "presence": np.asarray(presence)}
        answers = [self.predict("render", part) for part in _parts(_MOST_RENDERED, **objects)]
        return np.concatenate([_single(answer, "images") for answer in answers])

    def predict(self, signature_name: str, inputs: Mapping[str, Any]) -> Any:
        """Asks any signature, by column.

        Args:
            signature_name: of the SavedModel.
            inputs: arrays, lists or numbers by name.

        Returns:
            The value of `outputs`: nested lists by name, or the nested list alone where there is one output.

        Raises:
            ServingError, OSError: as for `infer`.
        """
        values = {name: np.asarray(value).tolist() for name, value in inputs.items()}
        body = json.dumps({"signature_name": signature_name, "inputs": values}, separators=(",", ":"))
        return self._part("outputs", "POST", f"{self._path}:predict", body.encode())

    def metadata(self) -> dict[str, Any]:
        """The signatures of the version that is asked: `model_spec` and `metadata`, as the server describes them.

        Raises:
            ServingError, OSError: as for `infer`.
        """
        return self._ask("GET", f"{self._path}/metadata")

    def versions(self) -> dict[int, str]:
        """State of each version that the server knows, such as `{2: "AVAILABLE", 1: "END"}`.

        Raises:
            ServingError, OSError: as for `infer`.
        """
        statuses = self._part("model_version_status", "GET", self._model_path)
        return {int(status["version"]): status["state"] for status in statuses}

    def close(self) -> None:
        """Closes the connections that are kept; the next question opens another."""
        self._connections.close()

    def __enter__(self) -> Client:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _of_images(
        self, signature_name: str, images: Any, most: int, kind: type[FoundScenes], **inputs: Any
    ) -> dict[str, np.ndarray]:
        """Outputs of a signature by name, of images in parts."""
        asked = _parts(most, images=check_images(images))
        parts = [_arrays(self.predict(signature_name, {**part, **inputs}), kind) for part in asked]
        return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}

    def _ask(self, verb: str, path: str, body: bytes | None = None) -> Any:
        status, text = self._connections.exchange(verb, path, body)
        try:
            answer = json.loads(text)
        except ValueError:
            raise ServingError(status, f"{self._connections.url} gave no JSON: {text[:80]!r}") from None
        if status != 200:
            message = answer.get("error") if isinstance(answer, dict) else None
            raise ServingError(status, str(message or answer))
        return answer

    def _part(self, key: str, verb: str, path: str, body: bytes | None = None) -> Any:
        answer = self._ask(verb, path, body)
        if not isinstance(answer, dict) or key not in answer:
            raise ServingError(200, f"{self._connections.url} gave JSON without {key!r}: it isn't a model server")
        return answer[key]


def _parts(most: int, **arrays: np.ndarray) -> list[dict[str, np.ndarray]]:
    """Arrays of N rows each in parts of at most so many rows, and of about `_MOST_NUMBERS` numbers."""
    sizes = {array.shape[:1] for array in arrays.values()}
    if len(sizes) > 1 or sizes & {(), (0,)}:
        return [arrays]  # the server says what is wrong
    numbers = sum(array[0].size for array in arrays.values())
    size = min(most, max(1, _MOST_NUMBERS // max(1, numbers)))
    (number,) = sizes.pop()
    starts = range(0, number, size)
    return [{name: array[start : start + size] for name, array in arrays.items()} for start in starts]


def _seed_of_part(seed: Sequence[int], part: int) -> list[int]:
    """Of the first part the seed itself, so that a single one is answered as if there were no parts."""
    if part == 0:
        return list(seed)
    first, second = map(int, seed)
    return [first, (second + part * _SEED_STEP + 2**31) % 2**32 - 2**31]


def _arrays(outputs: Any, kind: type[FoundScenes] | type[DrawnScenes]) -> dict[str, np.ndarray]:
    given = outputs if isinstance(outputs, dict) else {}
    for field in dataclasses.fields(kind):
        if field.name not in given and field.default is dataclasses.MISSING:
            raise _no_output(field.name)
    names = [field.name for field in dataclasses.fields(kind) if field.name in given]
    return {name: np.asarray(given[name], _DTYPES.get(name, np.float32)) for name in names}


def _single(outputs: Any, name: str) -> np.ndarray:
    """A single output, whose name servers leave out."""
    if isinstance(outputs, dict) and name not in outputs:
        raise _no_output(name)
    return np.asarray(outputs[name] if isinstance(outputs, dict) else outputs, np.float32)


def _no_output(name: str) -> ServingError:
    return ServingError(200, f"The served model has no output {name!r}: it isn't one that asr_export wrote")
