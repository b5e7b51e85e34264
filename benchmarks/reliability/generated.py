"""Requests and files that are made up: good ones, spoiled at random; each is answered, read or refused."""

from __future__ import annotations

import contextlib
import http.client
import io
import json
import pathlib
import shutil
from typing import Any
from urllib.parse import urlsplit

import numpy as np

from asr_tf.data.image_folder import ImageFolder
from benchmarks.reliability import bits, materials, server
from benchmarks.reliability.outcome import Bench, Check

__all__ = ["STATUSES", "measure", "spoiled", "spoiled_json"]

TITLE = "Generated requests and files"

# What docs/SERVING.md says that the server answers.
STATUSES = (200, 400, 404, 405, 408, 413, 415, 429, 431, 503, 504)
_STEPS, _WHAT = 2, 4  # T and Z of the tiny model
_MOST_ROWS = 32  # keeps calls short
_ODD: tuple[Any, ...] = (
    *(None, True, False, 0, -1, 1, 2, 0.5, -0.5, 2**31, -(2**31), 2**63, 10**30, 1e308, -0.0, 5e-324),
    *(float("nan"), float("inf"), "", "0.5", "images", "\u0000", "ä" * 50, [], {}, [[]], [None], {"x": 1}, [[[[]]]]),
)


def measure(bench: Bench) -> list[Check]:
    """Makes them up."""
    return [_requests(bench), _files(bench, "batch job"), _files(bench, "folder of images")]


def good_request(rng: np.random.Generator) -> dict[str, Any]:
    """A request that the model answers."""
    images = materials.scenes(2, seed=4)[: 1 + int(rng.integers(2))] / 255.0
    seed = [int(x) for x in rng.integers(-5, 5, 2)]
    objects = {
        name: rng.random((1, _STEPS, *shape)).round(3).tolist()
        for name, shape in (("z_what", (_WHAT,)), ("boxes", (4,)), ("presence", ()))
    }
    by_column: dict[str, dict[str, Any]] = {
        "infer": {"images": images.round(3).tolist()},
        "refine": {"images": images.round(3).tolist(), "steps": int(rng.integers(3))},
        "sample": {"num_samples": int(rng.integers(1, 5)), "seed": seed, "num_objects": int(rng.integers(-1, 3))},
        "render": objects,
        "log_likelihood": {"images": images.round(3).tolist(), "num_particles": int(rng.integers(1, 5)), "seed": seed},
    }
    name = str(rng.choice(list(by_column)))
    if name == "infer" and rng.integers(2):
        return {"signature_name": name, "instances": by_column[name]["images"]}
    return {"signature_name": name, "inputs": by_column[name]}


def spoiled_json(value: Any, rng: np.random.Generator) -> Any:
    """The value with one place in it changed: replaced, dropped, doubled, or under another name."""
    if isinstance(value, dict) and value and rng.integers(6):
        name = str(rng.choice(list(value)))
        inner = spoiled_json(value[name], rng)
        return {key: inner if key == name else other for key, other in value.items()}
    if isinstance(value, list) and value and rng.integers(6):
        place = int(rng.integers(len(value)))
        return [spoiled_json(other, rng) if i == place else other for i, other in enumerate(value)]
    how = int(rng.integers(4))
    if how == 0 and isinstance(value, list) and value:
        return value[: int(rng.integers(len(value)))] if rng.integers(2) else value + value[-1:]
    if how == 1 and isinstance(value, dict) and value:
        gone = str(rng.choice(list(value)))
        kept = {key: other for key, other in value.items() if key != gone}
        return kept if rng.integers(2) else kept | {f"{gone}x": value[gone]}
    return _ODD[int(rng.integers(len(_ODD)))]


def spoiled(data: bytes, rng: np.random.Generator) -> bytes:
    """Bytes with a few places in them changed, cut, put in, doubled or swapped."""
    changed = bytearray(data)
    for _ in range(int(rng.integers(1, 5))):
        start, end = sorted(int(x) for x in rng.integers(0, len(changed) + 1, 2))
        end = min(end, start + 64)
        how = int(rng.integers(6))
        if how == 0:
            del changed[start:end]
        elif how == 1:
            del changed[start:]
        elif how == 2:
            changed[start:start] = rng.bytes(int(rng.integers(1, 17)))
        elif how == 3:
            changed[start:start] = changed[start:end]
        elif how == 4 and start < len(changed):
            changed[start] = int(rng.choice([0, 1, 127, 128, 255]))
        elif start < len(changed):
            changed[start] ^= 1 << int(rng.integers(8))
    return bytes(changed)


def _requests(bench: Bench) -> Check:
    check = Check(
        "Requests to asr_serve that were good and are spoiled: places in the JSON, bytes of the body, the path",
        f"each gets an answer with a documented status ({', '.join(map(str, STATUSES))}); an error is a JSON object "
        "with one line; afterwards a good request is answered",
    )
    rng = bench.rng("requests")
    number = bench.many(2000, 60)
    flags = (f"--max_rows={_MOST_ROWS}", "--call_timeout_seconds=5")
    with server.serving(materials.exported(bench), *flags) as (_, url):
        parts = urlsplit(url)
        connection = http.client.HTTPConnection(parts.netloc, timeout=60)
        for index in range(number + 1):
            request, path = good_request(rng), f"{parts.path}:predict"
            if index == number:
                body = json.dumps(request).encode()
            elif rng.integers(3):
                body = json.dumps(spoiled_json(request, rng)).encode()
            else:
                body = spoiled(json.dumps(request).encode(), rng)
            if index < number and not rng.integers(20):
                letters = spoiled(path.encode(), rng).decode(errors="ignore")
                path = "/" + "".join(x for x in letters if x.isprintable() and x.isascii() and x != " ").lstrip("/")
            try:
                connection.request("POST", path, body)
                response = connection.getresponse()
                status, answer = response.status, response.read()
            except (OSError, http.client.HTTPException) as error:
                check.add("no answer", f"{path} {body[:100]!r}: {type(error).__name__}: {error}")
                connection.close()
                continue
            fault = _answer_fault(status, answer)
            if index == number and status != 200:
                fault = f"the good request at the end: {answer[:200]!r}"
            check.add(f"status {status}", f"{fault}; asked with {path} {body[:100]!r}" if fault else None)
        connection.close()
    return check


def _answer_fault(status: int, answer: bytes) -> str | None:
    """What is wrong with an answer, or None."""
    if status not in STATUSES:
        return f"status {status}: {answer[:100]!r}"
    try:
        content = json.loads(answer)
    except ValueError:
        return f"status {status}, and no JSON: {answer[:100]!r}"
    if status == 200:
        return None
    message = content.get("error") if isinstance(content, dict) else None
    if not isinstance(message, str) or not message.strip() or "\n" in message or "Traceback" in message:
        return f"status {status}, and not one line: {answer[:100]!r}"
    return None


def _files(bench: Bench, reader: str) -> Check:
    """One reader; batch jobs read TFRecords too."""
    is_batch = reader == "batch job"
    kinds = ("png", "npy", "tfrecord") if is_batch else ("png", "npy")
    others = "; the good ones are read" if is_batch else ""
    check = Check(
        f"Files ({', '.join(kinds)}) that were good and are spoiled, read as by a {reader}, beside good ones",
        f"each is read, or refused in one line, without another exception{others}",
    )
    rng, folder = bench.rng(reader), bench.place(f"spoiled for a {reader}")
    images = materials.scenes(8, seed=5)
    (folder / "good.npy").write_bytes(bits.npy(images))
    data = {"png": bits.png(images[0]), "npy": bits.npy(images[:3])}
    data["tfrecord"] = bits.tfrecord(images[:3], bench.folder / "records.tfrecord")
    for index in range(bench.many(500, 30)):
        kind = kinds[index % len(kinds)]
        bad = folder / f"bad.{kind}"
        bad.write_bytes(spoiled(data[kind], rng))
        seen, fault = (_read_batch if is_batch else _read_folder)(folder, bad)
        check.add(f"{kind}: {seen}", fault)
        bad.unlink()
    shutil.rmtree(folder)
    return check


def _read_batch(folder: pathlib.Path, bad: pathlib.Path) -> tuple[str, str | None]:
    try:
        found, refused = bits.read([folder / "good.npy", bad])
    except Exception as error:
        return "another exception", f"{bad.name}: {type(error).__name__}: {error}"
    good = [key for key in found if key[0] == "good.npy"]
    unclear = [reason for _, _, reason in refused if not reason or "\n" in reason]
    fault = f"{bad.name}: not one line: {unclear[0]!r}" if unclear else None
    if len(good) != 8:
        fault = f"{bad.name}: {len(good)} of 8 good images were read"
    if len(found) == len(good) and not refused:
        fault = f"{bad.name}: neither read nor refused"
    return ("refused" if refused else "read"), fault


def _read_folder(folder: pathlib.Path, bad: pathlib.Path) -> tuple[str, str | None]:
    try:
        with contextlib.redirect_stderr(io.StringIO()):
            ImageFolder(folder).load("train")
    except ValueError as error:
        message = str(error)
        is_clear = bad.name in message and "\n" not in message
        return "refused", None if is_clear else f"{bad.name}: not one line that names it: {message!r}"
    except Exception as error:
        return "another exception", f"{bad.name}: {type(error).__name__}: {error}"
    return "read", None
