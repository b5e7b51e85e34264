"""Connections of a client to one server over HTTP: kept open, and each used by one question at a time.

Threads share the connections that are idle.  A process that was forked leaves those of its parent alone, since answers
to the one would reach the other.
"""

from __future__ import annotations

import base64
import http.client
import os
import re
import ssl
from collections import deque
from collections.abc import Mapping
from typing import Any
from urllib.parse import quote, unquote, urlsplit

from asr_tf.checks import check_positive, check_range

__all__ = ["Connections"]

_HEADER_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
# Headers that say how a question is sent, which is settled here.
_OWN_HEADERS = frozenset(
    {"accept-encoding", "connection", "content-encoding", "content-length", "content-type", "transfer-encoding"}
)
_LONGEST_S = 1e6  # what sockets can wait on every system
# How a connection fails that the server had closed meanwhile.
_CLOSED = (
    http.client.RemoteDisconnected,
    ConnectionResetError,
    ConnectionAbortedError,
    BrokenPipeError,
    ssl.SSLEOFError,
    ssl.SSLZeroReturnError,
)


class Connections:
    """Asks one server.

    Attributes:
        url: of the server, without user and password.
        path: that every path is below.
    """

    _idle: deque[tuple[int, http.client.HTTPConnection]]  # with the process that each belongs to
    _tls: ssl.SSLContext | None

    def __init__(
        self,
        url: str,
        timeout_s: float,
        credentials: tuple[str, str] | None = None,
        headers: Mapping[str, str] | None = None,
        ca_file: str | os.PathLike[str] | None = None,
    ) -> None:
        """Connects at the first question.

        Args:
            url: of the server, `http://` or `https://`; a user and a password in it are sent as such.
            timeout_s: how long to wait for the server, in seconds.
            credentials: user and password, where they aren't in the URL.
            headers: that go with every question.
            ca_file: PEM file with the certificates to trust, instead of the system's.

        Raises:
            ValueError: a URL, credentials or headers that can't be.
            OSError: no certificates in the file.
        """
        self.url = re.sub(r"//[^/?#]*@", "//", url, count=1)
        try:
            parts = urlsplit(url)
            self._host = (parts.hostname or "").encode("idna").decode()
            self._is_secure = parts.scheme == "https"
            self._port = (443 if self._is_secure else 80) if parts.port is None else parts.port
        except ValueError:  # of brackets, the port or the name of the host
            raise self._no_url() from None
        if parts.scheme not in ("http", "https") or not self._host or parts.query or parts.fragment:
            raise self._no_url()
        if parts.username is not None:
            if credentials is not None:
                raise ValueError("Give user and password in url or as credentials, not both.")
            credentials = (unquote(parts.username), unquote(parts.password or ""))
        if ca_file is not None and not self._is_secure:
            raise ValueError(f"ca_file is for https://, got {self.url!r}.")
        self.path = quote(parts.path.rstrip("/"), safe="/%:@!$&'()*+,;=")
        self._timeout_s = check_range("timeout_s", check_positive("timeout_s", timeout_s), 0.0, _LONGEST_S)
        self._headers = _checked(headers or {})
        if credentials is not None:
            if "authorization" in map(str.lower, self._headers):
                raise ValueError("Give credentials or the header Authorization, not both.")
            self._headers["Authorization"] = _basic(credentials)
        self._ca_file = None if ca_file is None else os.fspath(ca_file)
        self._open()

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in vars(self).items() if name not in ("_idle", "_tls")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        self._open()

    def exchange(self, verb: str, path: str, body: bytes | None = None) -> tuple[int, bytes]:
        """Sends a request; once more where the server had closed the kept connection meanwhile.

        Every request must be safe to repeat: the same one has the same answer.

        Args:
            verb: GET or POST.
            path: below the path of the URL.
            body: JSON.

        Returns:
            HTTP status and text of the answer.

        Raises:
            OSError: no server, or no answer in time.
        """
        kept = self._take()
        if kept is not None:
            try:
                return self._exchange_on(kept, verb, path, body)
            except _CLOSED:
                self.close()  # the others are as old
        return self._exchange_on(self._connection(), verb, path, body)

    def close(self) -> None:
        """Closes the connections that are kept, and those in use once they aren't."""
        idle, self._idle = self._idle, deque()
        while idle:
            idle.pop()[1].close()

    def _no_url(self) -> ValueError:
        shown = re.sub("//.*@", "//", self.url, flags=re.DOTALL)  # no password, wherever one may stand
        return ValueError(f"url must look like http://host:port, got {shown!r}.")

    def _open(self) -> None:
        self._idle, self._tls = deque(), None
        if self._is_secure:
            try:
                self._tls = ssl.create_default_context(cafile=self._ca_file)
            except OSError as error:
                raise OSError(f"can't read certificates from ca_file {self._ca_file}: {error}") from None

    def _take(self) -> http.client.HTTPConnection | None:
        while True:
            try:
                process, connection = self._idle.pop()
            except IndexError:
                return None
            if process == os.getpid():
                return connection
            connection.close()  # this process's end of it

    def _connection(self) -> http.client.HTTPConnection:
        if self._tls is not None:
            return http.client.HTTPSConnection(self._host, self._port, timeout=self._timeout_s, context=self._tls)
        return http.client.HTTPConnection(self._host, self._port, timeout=self._timeout_s)

    def _exchange_on(
        self, connection: http.client.HTTPConnection, verb: str, path: str, body: bytes | None
    ) -> tuple[int, bytes]:
        idle = self._idle
        headers = self._headers if body is None else {**self._headers, "Content-Type": "application/json"}
        try:
            connection.request(verb, self.path + path, body, headers)
            response = connection.getresponse()
            answer = response.status, response.read()
        except BaseException as error:
            connection.close()  # what is left in it would be taken for the next answer
            if isinstance(error, OSError):
                told = f"{self.url}: {error.strerror or error}"
                raise type(error)(*(told,) if error.errno is None else (error.errno, told)) from error
            if isinstance(error, http.client.HTTPException):
                raise ConnectionError(f"{self.url} broke off its answer: {type(error).__name__}") from error
            raise
        if idle is self._idle:
            idle.append((os.getpid(), connection))
        else:  # closed meanwhile
            connection.close()
        return answer


def _basic(credentials: tuple[str, str]) -> str:
    if isinstance(credentials, str) or [type(part) for part in credentials] != [str, str]:
        raise ValueError("credentials must be two texts, (user, password).")
    user, password = credentials
    if ":" in user:
        raise ValueError("The user of credentials must hold no colon.")
    return "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()


def _checked(headers: Mapping[str, str]) -> dict[str, str]:
    for name, value in headers.items():
        if not isinstance(name, str) or not _HEADER_NAME.fullmatch(name):
            raise ValueError(f"headers must have names such as X-Key, got {name!r}.")
        if name.lower() in _OWN_HEADERS:
            raise ValueError(f"headers must not hold {name}, which the client sets itself.")
        if not isinstance(value, str) or not value.isprintable() or not value.isascii():  # it may be a secret
            raise ValueError(f"The header {name} must hold printable ASCII characters.")
    return dict(headers)
