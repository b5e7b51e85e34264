"""What `asr_serve` bears: requests a second, latencies and faults with concurrent clients, one image a request.

python -m benchmarks.serving_load [--output=FILE] [--requests=100000] [--clients=32] [--export_dir=D]

The server is a process of its own with its defaults, the clients are this one; both share the machine's cores.  Every
answer is held against a direct call of the SavedModel.
"""

from __future__ import annotations

import asyncio
import dataclasses
import pathlib
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import orjson

from benchmarks import command, exported

NUM_IMAGES = 256
NUM_WARM_UP = 500
NUM_SINGLE = 64
TOLERANCE = 1e-5


@dataclasses.dataclass
class Tally:
    """What came of the requests.

    Attributes:
        seconds: from the first byte sent to the last one received, of each answered request.
        errors: requests that got another status than 200, or none.
        wrong: answers that differ from the direct call.
        largest_difference: of any number in any answer.
    """

    seconds: list[float] = dataclasses.field(default_factory=list)
    errors: int = 0
    wrong: int = 0
    largest_difference: float = 0.0


class Expected:
    """The answers of direct calls, and those of the server that were found equal already."""

    def __init__(self, outputs: dict[str, np.ndarray], tolerance: float) -> None:
        self._outputs = outputs
        self._tolerance = tolerance
        self._known: set[tuple[int, bytes]] = set()

    @classmethod
    def of(cls, export_dir: pathlib.Path, images: np.ndarray) -> tuple[Expected, float]:
        """Those of the newest version to images float32 [N, H, W, C], and by how much direct calls differ."""
        outputs, spread = direct_outputs(export_dir, images)
        return cls(outputs, max(TOLERANCE, 2 * spread)), spread

    def check(self, which: int, body: bytes, tally: Tally) -> None:
        """Compares the answer to image number `which`; the same bytes are looked into once."""
        if (which, body) in self._known:
            return
        answer = orjson.loads(body)["predictions"][0]
        difference = 0.0
        if set(answer) != set(self._outputs):
            difference = np.inf
        else:
            for name, array in self._outputs.items():
                difference = max(difference, float(np.abs(np.asarray(answer[name]) - array[which]).max()))
        tally.largest_difference = max(tally.largest_difference, difference)
        if difference > self._tolerance:
            tally.wrong += 1
        else:
            self._known.add((which, body))


@contextmanager
def served(export_dir: pathlib.Path, *flags: str, **options: Any) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """`asr_serve` in a process of its own, with further options of `Popen`; yields the process and its URL."""
    arguments = [sys.executable, "-m", "asr_tf.export.serve_main", f"--export_dir={export_dir}", "--port=0", *flags]
    with subprocess.Popen(arguments, cwd=command.ROOT, stdout=subprocess.PIPE, text=True, **options) as process:
        try:
            assert process.stdout is not None
            line = process.stdout.readline()
            if not line:
                raise RuntimeError("asr_serve didn't start")
            yield process, line.split()[1].rstrip(",")
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait()


async def ask(
    url: str, bodies: list[bytes], requests: Iterable[int], clients: int, expected: Expected, tally: Tally
) -> None:
    """Sends requests from so many connections, each with one request under way.

    Args:
        url: of the model.
        bodies: of the requests, which take turns.
        requests: their numbers.
        clients: connections.
        expected: what each body is answered with.
        tally: what came of them, counted on.
    """
    parts = urlsplit(url)
    heads = [
        f"POST {parts.path}:predict HTTP/1.1\r\nHost: {parts.netloc}\r\nContent-Type: application/json\r\n"
        f"Content-Length: {len(body)}\r\n\r\n".encode()
        for body in bodies
    ]
    numbers = iter(requests)

    async def client() -> None:
        reader, writer = await asyncio.open_connection(parts.hostname, parts.port)
        for i in numbers:
            which = i % len(bodies)
            start = time.perf_counter()
            try:
                writer.write(heads[which] + bodies[which])
                head = await reader.readuntil(b"\r\n\r\n")
                length = int(head.lower().partition(b"content-length:")[2].split(b"\r\n", 1)[0])
                body = await reader.readexactly(length)
            except (OSError, asyncio.IncompleteReadError, ValueError):
                tally.errors += 1
                writer.close()
                reader, writer = await asyncio.open_connection(parts.hostname, parts.port)
                continue
            tally.seconds.append(time.perf_counter() - start)
            if head.split(b" ", 2)[1] == b"200":
                expected.check(which, body, tally)
            else:
                tally.errors += 1
        writer.close()

    await asyncio.gather(*(client() for _ in range(clients)))


def bodies_of(images: np.ndarray) -> list[bytes]:
    """A request for each image of float32 [N, H, W, C]."""
    return [orjson.dumps({"instances": image[np.newaxis]}, option=orjson.OPT_SERIALIZE_NUMPY) for image in images]


def direct_outputs(export_dir: pathlib.Path, images: np.ndarray) -> tuple[dict[str, np.ndarray], float]:
    """What the newest version's `serving_default` computes of all images in one call, and by how much calls differ.

    TensorFlow's kernels sum in another order for other batch sizes: the second number is the largest difference between
    that call and calls of single images.
    """
    import tensorflow as tf

    from asr_tf.export import artifact

    model = tf.saved_model.load(str(artifact.version_folder(export_dir)))

    def call(images: np.ndarray) -> dict[str, np.ndarray]:
        outputs = model.signatures["serving_default"](images=tf.constant(images))
        return {name: value.numpy() for name, value in outputs.items()}

    outputs = call(images)
    spread = 0.0
    for i in range(min(NUM_SINGLE, len(images))):
        for name, array in call(images[i : i + 1]).items():
            spread = max(spread, float(np.abs(array[0] - outputs[name][i]).max()))
    return outputs, spread


def measure(export_dir: pathlib.Path, requests: int = 100_000, clients: int = 32) -> dict[str, Any]:
    """Figures by name; see the module.

    Args:
        export_dir: folder of versions.
        requests: how many are counted.
        clients: connections, each with one request under way.
    """
    from benchmarks import published

    images = published.images(NUM_IMAGES).astype(np.float32) / 255.0
    expected, spread = Expected.of(export_dir, images)
    bodies = bodies_of(images)
    tally, alone = Tally(), Tally()
    with served(export_dir) as (_, url):
        asyncio.run(ask(url, bodies, range(NUM_WARM_UP), clients, expected, Tally()))
        start = time.perf_counter()
        asyncio.run(ask(url, bodies, range(requests), clients, expected, tally))
        seconds = time.perf_counter() - start
        asyncio.run(ask(url, bodies, range(NUM_WARM_UP), 1, expected, alone))
    p50, p99 = np.percentile(tally.seconds, [50, 99])
    return {
        "requests": requests,
        "clients": clients,
        "request_bytes": round(float(np.mean([len(body) for body in bodies]))),
        "requests_per_s": round(len(tally.seconds) / seconds, 1),
        "p50_ms": round(1000 * float(p50), 2),
        "p99_ms": round(1000 * float(p99), 2),
        "max_ms": round(1000 * max(tally.seconds), 2),
        "errors": tally.errors,
        "wrong_answers": tally.wrong,
        "largest_difference": tally.largest_difference,
        "largest_difference_of_direct_calls": spread,
        "one_client_p50_ms": round(1000 * float(np.median(alone.seconds)), 2),
    }


def _main() -> None:
    parser = command.parser(__doc__)
    parser.add_argument("--requests", type=int, default=100_000)
    parser.add_argument("--clients", type=int, default=32)
    parser.add_argument("--export_dir", type=pathlib.Path, help="what asr_export wrote; without it, untrained weights")
    arguments = parser.parse_args()

    def measured() -> dict[str, Any]:
        with tempfile.TemporaryDirectory() as scratch:
            export_dir = arguments.export_dir or pathlib.Path(scratch)
            if arguments.export_dir is None:
                exported.export(export_dir)
            return command.machine() | measure(export_dir, arguments.requests, arguments.clients)

    command.report(arguments.output, measured)


if __name__ == "__main__":
    _main()
