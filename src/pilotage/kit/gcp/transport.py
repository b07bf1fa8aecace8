"""HTTP for google-auth: bounded in time and size, through a proxy if need be, ended from outside.

It is called in a thread, as google-auth is; it knows nothing of the event loop.
"""

import http.client
import socket
import ssl
import time
from collections.abc import Callable, Mapping
from typing import NamedTuple
from urllib.parse import urlsplit

REQUEST_LIMIT_S = 5.0
MAX_BODY_BYTES = 1024 * 1024


class TokenProxy(NamedTuple):
    """A proxy to reach token services through; ``authorization`` as in the header, "" for none."""

    host: str
    port: int
    authorization: str = ""


class TokenResponse(NamedTuple):
    """A response as google-auth reads it."""

    status: int
    headers: dict[str, str]
    data: bytes


class TokenTransport:
    """What google-auth calls a request: makes one HTTP request after the other.

    Plain http:// (metadata servers, test servers) never goes through the proxy. Redirects are not
    followed. All requests of a fetch must be over ``limit_s`` after its :meth:`open`.
    ``find_proxy`` and ``find_tls`` are asked for each connection; None is none, and the system's
    certificates.
    """

    def __init__(
        self,
        *,
        limit_s: float,
        find_proxy: Callable[[], TokenProxy | None] = lambda: None,
        find_tls: Callable[[], ssl.SSLContext | None] = lambda: None,
    ) -> None:
        self._limit_s = limit_s
        self._find_proxy = find_proxy
        self._find_tls = find_tls
        self._deadline_s = 0.0
        self._sock: socket.socket | None = None
        self._is_aborted = False
        self._is_closed = False

    def open(self) -> None:
        """Begin a fetch: its time runs from here."""
        self._deadline_s = time.monotonic() + self._limit_s
        self._is_aborted = self._is_closed

    def close(self) -> None:
        """Break the request that runs and refuse all that follow."""
        self._is_closed = True
        self.abort()

    def abort(self) -> None:
        """Break the request that runs and refuse those that follow, until the next fetch."""
        self._is_aborted = True
        sock = self._sock
        if sock is not None:
            try:
                sock.shutdown(socket.SHUT_RDWR)
            except OSError:
                return  # it is closed already

    def __call__(
        self,
        url: str,
        method: str = "GET",
        body: bytes | None = None,
        headers: Mapping[str, str] | None = None,
        timeout: float | None = None,
        **_more: object,
    ) -> TokenResponse:
        """Make a request; raise google-auth's TransportError if there is no response."""
        left_s = self._deadline_s - time.monotonic()
        if self._is_aborted or left_s <= 0:
            raise _failed("the time for a token is up")
        connection = self._connect(url, min(left_s, timeout or REQUEST_LIMIT_S, REQUEST_LIMIT_S))
        parts = urlsplit(url)
        path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        try:
            connection.connect()
            self._sock = connection.sock
            if self._is_aborted:
                raise _failed("the time for a token is up")
            connection.request(method, path, body=body, headers=dict(headers or {}))
            with connection.getresponse() as response:
                data = response.read(MAX_BODY_BYTES + 1)
        except (OSError, http.client.HTTPException) as failed:
            raise _failed(f"{parts.hostname}: {failed}") from failed
        finally:
            self._sock = None
            connection.close()
        if len(data) > MAX_BODY_BYTES:
            raise _failed(f"{parts.hostname}: the reply is too large")
        return TokenResponse(
            response.status, {name.lower(): value for name, value in response.getheaders()}, data
        )

    def _connect(self, url: str, timeout_s: float) -> http.client.HTTPConnection:
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise _failed("this is no http:// or https:// address")
        if parts.scheme == "http":
            return http.client.HTTPConnection(parts.hostname, parts.port, timeout=timeout_s)
        context, proxy = self._find_tls() or ssl.create_default_context(), self._find_proxy()
        host, port = (proxy.host, proxy.port) if proxy else (parts.hostname, parts.port)
        connection = http.client.HTTPSConnection(host, port, timeout=timeout_s, context=context)
        if proxy:
            proof = {"Proxy-Authorization": proxy.authorization} if proxy.authorization else {}
            connection.set_tunnel(parts.hostname, parts.port or 443, proof)
        return connection


def _failed(why: str) -> Exception:
    from google.auth.exceptions import TransportError

    return TransportError(why)  # type: ignore[no-untyped-call]
