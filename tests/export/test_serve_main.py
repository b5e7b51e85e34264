"""The command asr_serve as users start and end it."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import sys
import time

import numpy as np
import pytest
import source_tree
from absl import flags as flags_module
from testing_model import run_command
from testing_served import break_version, random_images, write_version

from asr_tf.export import serve_main
from asr_tf.serving.client import Client


def _start(export_dir, *flags):
    return subprocess.Popen(
        [sys.executable, "-m", "asr_tf.export.serve_main", f"--export_dir={export_dir}", "--port=0", *flags],
        cwd=source_tree.ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_serves_until_it_is_told_to_stop_and_answers_what_was_asked(tmp_path):
    """SIGTERM comes in the middle of a request: it is answered, and the command ends with status 0."""
    write_version(tmp_path, 1)
    break_version(tmp_path, 2)
    process = _start(tmp_path, "--model_name=scenes", "--poll_seconds=0.1")
    try:
        line = process.stdout.readline()
        assert line.startswith("asr_serve: http://127.0.0.1:"), process.stderr.read()
        url = line.split()[1].partition("/v1/")[0]
        images = random_images(1)
        with Client(url, "scenes") as client:
            np.testing.assert_allclose(client.infer(images).reconstruction, 0.5 * images, atol=1e-6)
            assert client.versions() == {2: "END", 1: "AVAILABLE"}
        body = json.dumps({"instances": images.tolist()}).encode()
        host, _, port = url.removeprefix("http://").partition(":")
        with socket.create_connection((host, int(port)), timeout=60) as connection:
            head = f"POST /v1/models/scenes:predict HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n\r\n"
            connection.sendall(head.encode() + body[:100])
            time.sleep(0.5)  # for the server to begin with it
            process.send_signal(signal.SIGTERM)
            time.sleep(0.5)
            assert process.poll() is None
            connection.sendall(body[100:])
            answer = b"".join(iter(lambda: connection.recv(65536), b""))
        assert answer.startswith(b"HTTP/1.1 200 ")
        (row,) = json.loads(answer.partition(b"\r\n\r\n")[2])["predictions"]
        np.testing.assert_allclose(row["reconstruction"], 0.5 * images[0], atol=1e-6)
        assert process.wait(timeout=60) == 0
        printed, log = process.communicate()
    finally:
        process.kill()
    assert printed == "asr_serve: stopped\n"
    log = log.splitlines()
    assert any("ERROR version 2 can't be served" in line and "older versions are tried" in line for line in log)
    assert any("INFO serving version 1" in line for line in log)
    assert not any("Traceback" in line for line in log)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_told_to_stop_before_it_listens(tmp_path, number):
    """The signal comes right behind the line with the address, before the HTTP server has handlers of its own."""
    write_version(tmp_path, 1)
    process = _start(tmp_path)
    try:
        assert process.stdout.readline().startswith("asr_serve: http://127.0.0.1:")
        process.send_signal(number)
        assert process.wait(timeout=60) == 0
        assert process.stdout.read() == "asr_serve: stopped\n"
    finally:
        process.kill()
        process.communicate()


def test_nothing_to_serve_is_one_line(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    with pytest.raises(ValueError, match=f"No version in {tmp_path}/missing: expected folders called by a number"):
        run_command(serve_main, "--export_dir=~/missing", "--port=0")


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ([], "--export_dir is needed"),
        (["--export_dir=x", "--model_name=a/b"], "--model_name must hold no / and no :, got 'a/b'"),
        (["--export_dir=x", "--version_label=stable"], "--version_label must look like stable=3, got 'stable'"),
        (["--export_dir=x", "--version_label=stable=x"], "must look like stable=3"),
        (["--export_dir=x", "--port=70000"], "port"),
        (["--export_dir=x", "--max_batch_size=0"], "max_batch_size"),
    ],
)
def test_flags_that_cannot_be(flags, message):
    with pytest.raises(flags_module.Error, match=message):
        run_command(serve_main, *flags)


def test_a_port_that_is_taken(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(OSError, match=f"can't listen at 127.0.0.1:{port}: .*in use"):
            serve_main._listen("127.0.0.1", port)


def test_without_the_extra_it_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "asr_tf.export.server.model_server", None)
    for name in [name for name in sys.modules if name.startswith(("kserve", "asr_tf.export.server"))]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "kserve", None)
    with pytest.raises(ValueError, match=r"asr_serve needs kserve: pip install 'asr_tf\[serve\]'"):
        run_command(serve_main, f"--export_dir={tmp_path}")
