"""A client's connections: one question at a time on each, in one process; what goes with a question; whom it trusts."""

from __future__ import annotations

import base64
import contextlib
import http.server
import json
import pickle
import ssl
import subprocess
import sys
import threading

import numpy as np
import pytest
import source_tree

from asr_tf.serving import client as client_module
from asr_tf.serving.client import Client

# What a question and its answer are about, so that a wrong answer is seen.
ASK = """
import json, os, sys, threading
from asr_tf.serving.client import Client

def wrong(client, number, which):
    return sum(client.predict("echo", {"x": [which, i]}) != [which, i] for i in range(number))
"""
FORK = """
client = Client(sys.argv[1])
failures = wrong(client, 3, 0)
children = []
for child in range(1, 5):
    process = os.fork()
    if not process:
        os._exit(wrong(client, 60, child) > 0)
    children.append(process)
failures += wrong(client, 60, 99)
failures += sum(os.waitpid(process, 0)[1] != 0 for process in children)
failures += wrong(client, 3, 100)
client.close()
print(failures)
"""
FORK_OF_A_THREAD = """
client = Client(sys.argv[1])
stopped, failed = threading.Event(), []

def ask(which):
    while not stopped.is_set():
        failed.append(wrong(client, 1, which))

threads = [threading.Thread(target=ask, args=(which,)) for which in range(3)]
for thread in threads:
    thread.start()
for child in range(10, 16):
    process = os.fork()
    if not process:
        os._exit(wrong(client, 10, child) > 0)
    failed.append(os.waitpid(process, 0)[1] != 0)
stopped.set()
for thread in threads:
    thread.join()
print(sum(failed))
"""
SPAWN = """
import multiprocessing

def child(client, which):
    sys.exit(wrong(client, 10, which) > 0)

if __name__ == "__main__":
    client = Client(sys.argv[1], headers={"X-Key": "7"})
    failures = wrong(client, 3, 0)
    for method in ("spawn", "forkserver"):
        process = multiprocessing.get_context(method).Process(target=child, args=(client, 5))
        process.start()
        process.join()
        failures += process.exitcode != 0
    print(failures + wrong(client, 3, 0))
"""


class _Echo(http.server.BaseHTTPRequestHandler):
    """Answers a question with what it holds; what came is kept in the server's `seen`, its connections in `opened`.

    With `closes`, a connection ends after its first answer, without a word that it will.
    """

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True  # an answer is written in two pieces

    def setup(self):
        super().setup()
        self.server.opened.append(self.client_address)

    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.seen.append((self.path, dict(self.headers), body))
        inputs = body["inputs"]
        self._send({"outputs": inputs["x"] if "x" in inputs else self.server.answer(inputs)})

    def do_GET(self):
        self.server.seen.append((self.path, dict(self.headers), None))
        self._send({"model_version_status": []})

    def _send(self, answer):
        text = json.dumps(answer).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        with contextlib.suppress(ConnectionError):
            self.wfile.write(text)
        self.close_connection = self.close_connection or self.server.closes

    def log_message(self, *arguments):
        pass


@contextlib.contextmanager
def _serving(tls=None):
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Echo) as server:
        server.seen, server.opened, server.answer, server.closes = [], [], lambda inputs: inputs, False
        if tls is not None:
            server.socket = tls.wrap_socket(server.socket, server_side=True)
        server.host = f"127.0.0.1:{server.server_address[1]}"
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture
def echo():
    with _serving() as server:
        yield server


@pytest.mark.skipif(sys.platform == "win32", reason="no fork")
@pytest.mark.parametrize("code", [FORK, FORK_OF_A_THREAD, SPAWN], ids=["fork", "fork of a thread", "spawn"])
def test_a_connection_belongs_to_a_process(echo, code, tmp_path):
    """Parent and children use one client at the same time, and each gets the answers to its own questions."""
    script = tmp_path / "ask.py"
    script.write_text(ASK + code)
    done = subprocess.run(
        # From Python 3.12 on, a fork beside threads is warned of.
        [sys.executable, "-W", "ignore::DeprecationWarning", str(script), f"http://{echo.host}"],
        env={"PYTHONPATH": str(source_tree.ROOT), "PATH": ""},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert (done.stdout, done.stderr) == ("0\n", "")


def test_threads_share_what_is_idle(echo):
    """No more connections are opened than questions were under way at once, and each answer is that of its question."""
    with Client(f"http://{echo.host}") as client:
        wrong = []

        def ask(which):
            for i in range(20):
                wrong.append(client.predict("echo", {"x": [which, i]}) != [which, i])

        for _ in range(3):
            threads = [threading.Thread(target=ask, args=(which,)) for which in range(4)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
        assert wrong == [False] * 240
        assert len(echo.opened) <= 4
        client.close()
        ask(0)
        assert len(echo.opened) <= 5


def test_close_ends_the_connections_of_all_threads(echo):
    before = threading.active_count()
    with Client(f"http://{echo.host}") as client:
        threads = [threading.Thread(target=client.versions) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert threading.active_count() > before  # a thread of the server for each connection
    for thread in threading.enumerate():
        if "process_request" in thread.name:
            thread.join(timeout=20)
    assert threading.active_count() == before


def _basic(text):
    return "Basic " + base64.b64encode(text.encode()).decode()


@pytest.mark.parametrize(
    ("user", "settings", "sent"),
    [
        ("user:pw@", {}, _basic("user:pw")),
        ("us%40er:p%3Aw%2F@", {}, _basic("us@er:p:w/")),
        ("user@", {}, _basic("user:")),
        ("", {"credentials": ("us@er", "p:w é")}, _basic("us@er:p:w é")),
        ("", {"headers": {"Authorization": "Bearer t0ken"}}, "Bearer t0ken"),
        ("", {}, None),
    ],
)
def test_credentials_go_with_every_question(echo, user, settings, sent):
    with Client(f"http://{user}{echo.host}/below/", **settings) as client:
        client.versions()
        client.predict("echo", {"x": 1})
    assert [path for path, _, _ in echo.seen] == ["/below/v1/models/asr", "/below/v1/models/asr:predict"]
    assert [headers.get("Authorization") for _, headers, _ in echo.seen] == [sent, sent]
    assert {headers["Host"] for _, headers, _ in echo.seen} == {echo.host}


def test_headers_go_with_every_question(echo):
    with Client(f"http://{echo.host}", headers={"X-Key": "a b", "X-Request-Id": "7"}) as client:
        client.versions()
        client.predict("echo", {"x": 1})
    for _, headers, body in echo.seen:
        assert (headers["X-Key"], headers["X-Request-Id"]) == ("a b", "7")
        assert headers.get("Content-Type") == (None if body is None else "application/json")


def test_passwords_are_in_no_message():
    with Client("http://user:secret@127.0.0.1:9/x", timeout_s=5.0) as nobody, pytest.raises(OSError) as caught:
        nobody.versions()
    assert "secret" not in str(caught.value) and "http://127.0.0.1:9/x: " in str(caught.value)
    for url in ("ftp://user:secret@host", "http://user:secret@host?x", "http://user:secret@", "http://u:#secret@host"):
        with pytest.raises(ValueError, match="url must look like http://host:port, got '(ftp|http)://") as caught:
            Client(url)
        assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    ("url", "settings", "message"),
    [
        ("http://a:b@host", {"credentials": ("a", "b")}, "Give user and password in url or as credentials, not both"),
        ("http://host", {"credentials": ("a:b", "c")}, "The user of credentials must hold no colon"),
        ("http://host", {"headers": {"X Y": "1"}}, "headers must have names such as X-Key, got 'X Y'"),
        ("http://host", {"headers": {"X": "1\r\nY: 2"}}, "The header X must hold printable ASCII characters"),
        ("http://host", {"headers": {"X": "é"}}, "The header X must hold printable ASCII characters"),
        ("http://host", {"ca_file": "x.pem"}, "ca_file is for https://, got 'http://host'"),
        ("http://host#x", {}, "url must look like http://host:port"),
        ("http://host:99999", {}, "url must look like http://host:port, got 'http://host:99999'"),
        ("http://[::1", {}, "url must look like http://host:port"),
        ("http://a..b", {}, "url must look like http://host:port, got 'http://a..b'"),
        ("http://host", {"credentials": "user:pw"}, r"credentials must be two texts, \(user, password\)"),
        ("http://host", {"credentials": ("user", None)}, "credentials must be two texts"),
        (
            "http://a:b@host",
            {"headers": {"authorization": "Bearer x"}},
            "Give credentials or the header Authorization, not both",
        ),
        ("http://host", {"headers": {"content-length": "1"}}, "headers must not hold content-length, which the client"),
        ("http://host", {"headers": {"X": 1}}, "The header X must hold printable ASCII characters"),
        ("http://host", {"headers": {1: "x"}}, "headers must have names such as X-Key, got 1"),
        ("http://host", {"timeout_s": 0.0}, "timeout_s must be a number above 0, got 0.0"),
        ("http://host", {"timeout_s": float("inf")}, "timeout_s must be between 0.0 and 1000000.0, got inf"),
    ],
)
def test_settings_that_cannot_be(url, settings, message):
    with pytest.raises(ValueError, match=message):
        Client(url, **settings)


_USES = ("digital_signature", "key_cert_sign")
_ALL_USES = (
    *_USES,
    *("content_commitment", "key_encipherment", "data_encipherment", "key_agreement"),
    *("crl_sign", "encipher_only", "decipher_only"),
)


@pytest.fixture(scope="module")
def certificate(tmp_path_factory):
    """Files of a certificate for 127.0.0.1, and of its key, which nobody else knows."""
    x509 = pytest.importorskip("cryptography.x509")
    import datetime
    import ipaddress

    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    folder = tmp_path_factory.mktemp("certificate")
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "test")])
    now = datetime.datetime.now(datetime.timezone.utc)
    made = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), False)
        .add_extension(x509.KeyUsage(**{use: use in _USES for use in _ALL_USES}), True)
        .sign(key, hashes.SHA256())
    )
    (folder / "ca.pem").write_bytes(made.public_bytes(serialization.Encoding.PEM))
    private = (serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    (folder / "key.pem").write_bytes(key.private_bytes(*private))
    return folder / "ca.pem", folder / "key.pem"


def test_only_certificates_of_the_ca_are_trusted(certificate, tmp_path):
    tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    tls.load_cert_chain(*certificate)
    with _serving(tls) as server:
        with Client(f"https://user:pw@{server.host}", ca_file=certificate[0]) as client:
            assert client.predict("echo", {"x": [1, 2]}) == [1, 2]
            assert client.predict("echo", {"x": [3]}) == [3]
            copy = pickle.loads(pickle.dumps(client))
            assert copy.predict("echo", {"x": [4]}) == [4]
            copy.close()
        assert {headers["Authorization"] for _, headers, _ in server.seen} == {_basic("user:pw")}
        with Client(f"https://{server.host}") as client, pytest.raises(ssl.SSLCertVerificationError) as caught:
            client.versions()
        told = str(caught.value)
        assert told.startswith(f"https://{server.host}: ") and "CERTIFICATE_VERIFY_FAILED" in told and "\n" not in told
        server.closes = True
        with Client(f"https://{server.host}", ca_file=certificate[0]) as client:
            assert [client.predict("echo", {"x": [i]}) for i in range(3)] == [[0], [1], [2]]
    empty = tmp_path / "empty.pem"
    empty.write_text("no certificate\n")
    for file in (empty, tmp_path / "missing.pem"):
        with pytest.raises(OSError, match=f"can't read certificates from ca_file {file}: "):
            Client("https://host", ca_file=file)


def test_many_images_go_in_parts_with_seeds_of_their_own(echo, monkeypatch):
    monkeypatch.setattr(client_module, "_MOST_PARTICLES", 20)
    echo.answer = lambda inputs: [image[0][0][0] for image in inputs["images"]]
    images = np.linspace(0.0, 1.0, 5, dtype=np.float32).reshape(5, 1, 1, 1)
    with Client(f"http://{echo.host}") as client:
        nats = client.log_likelihood(images, num_particles=10, seed=(3, 4))
        np.testing.assert_allclose(nats, images.ravel())
        assert (nats.shape, nats.dtype) == ((5,), np.float32)
        asked = [body["inputs"] for _, _, body in echo.seen]
        assert [len(inputs["images"]) for inputs in asked] == [2, 2, 1]
        assert [inputs["num_particles"] for inputs in asked] == [10] * 3
        # The second number goes on by 0x9E3779B1, as int32.
        assert [inputs["seed"] for inputs in asked] == [[3, 4], [3, -1640531531], [3, 1013904230]]
        assert client.log_likelihood(images, num_particles=1000, seed=(3, 4)).shape == (5,)
        assert [len(body["inputs"]["images"]) for _, _, body in echo.seen[3:]] == [1] * 5
        client.log_likelihood(images, num_particles=4, seed=(3, 4))
        assert len(echo.seen) == 9
        monkeypatch.setattr(client_module, "_MOST_NUMBERS", 3)
        client.log_likelihood(images, num_particles=1, seed=(3, 4))
        assert [len(body["inputs"]["images"]) for _, _, body in echo.seen[9:]] == [3, 2]
        client.log_likelihood(images, num_particles=np.int32(1), seed=np.int32([3, 4]))
        assert [body["inputs"]["seed"] for _, _, body in echo.seen[11:]] == [[3, 4], [3, -1640531531]]
        with pytest.raises(ValueError, match=r"num_particles must be a whole number, 1 or more, got 2.5"):
            client.log_likelihood(images, num_particles=2.5, seed=(3, 4))


def test_many_scenes_are_drawn_in_parts(echo, monkeypatch):
    monkeypatch.setattr(client_module, "_MOST_RENDERED", 2)
    echo.answer = lambda inputs: [[[[level]]] for level in inputs["presence"]]
    z_what, boxes, presence = np.zeros((5, 3, 2)), np.zeros((5, 3, 4)), np.arange(5.0)
    with Client(f"http://{echo.host}") as client:
        np.testing.assert_array_equal(client.render(z_what, boxes, presence).ravel(), presence)
        assert [np.shape(body["inputs"]["boxes"]) for _, _, body in echo.seen] == [(2, 3, 4), (2, 3, 4), (1, 3, 4)]
        client.render(z_what, boxes[:4], presence)  # as it is, for the server to say what is wrong
        assert np.shape(echo.seen[-1][2]["inputs"]["z_what"]) == (5, 3, 2)
