"""How a connection to a model server is opened: directly, or as the egress policy and a proxy say.

A connection through a proxy is a tunnel (CONNECT): TLS is spoken with the model server itself.
Whoever dials sets the time limit and cancels; what was opened is closed then.
"""

import asyncio
import os
import re
import socket
import ssl
from base64 import b64encode
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol, cast
from urllib.parse import unquote, urlsplit

from pilotage.gateway.transport.connection import Connection
from pilotage.kit.egress import EgressPolicy

MAX_ADDRESSES = 4
ATTEMPT_S = 1.0  # how long an address is waited for while there is another one to try
MAX_PROXY_HEAD_BYTES = 16 * 1024

Make = Callable[[], Connection]


class Dial(Protocol):
    """Opens connections to one place."""

    async def __call__(self, make: Make) -> Connection:
        """Return an open connection; raise OSError, TimeoutError or ``egress_denied``."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Origin:
    """Where requests go; hashable, so that it keys a table of pools."""

    host: str
    port: int
    unix_path: str | None = None
    tls: ssl.SSLContext | None = None
    server_name: str | None = None


class DirectDial:
    """Opens connections to a place of our own, which no policy stands before."""

    def __init__(self, origin: Origin) -> None:
        self._origin = origin

    async def __call__(self, make: Make) -> Connection:
        """Return an open connection."""
        origin, loop = self._origin, asyncio.get_running_loop()
        server_name = (origin.server_name or origin.host) if origin.tls else None
        if origin.unix_path is not None:
            _, conn = await loop.create_unix_connection(
                make, origin.unix_path, ssl=origin.tls, server_hostname=server_name
            )
        else:
            _, conn = await loop.create_connection(
                make, origin.host, origin.port, ssl=origin.tls, server_hostname=server_name
            )
        return conn


class Proxy(NamedTuple):
    """An HTTP proxy; ``authorization`` is what it is told of who we are, b"" for nothing."""

    host: str
    port: int
    authorization: bytes = b""


class ProxyRefused(ConnectionError):  # noqa: N818 - why a connection does not come about
    """The proxy would not open a tunnel, or spoke no HTTP."""


class GuardedDial:
    """Opens connections to a host of somebody else's.

    The address is the one that the policy judged; the certificate must be the host's. ``find_tls``
    and ``find_proxy`` are asked for each connection, because files that they read may change; they
    return None for none.
    """

    def __init__(
        self,
        host: str,
        port: int,
        egress: EgressPolicy,
        find_tls: Callable[[], ssl.SSLContext | None],
        find_proxy: Callable[[], Proxy | None],
    ) -> None:
        self._host = host
        self._port = port
        self._egress = egress
        self._find_tls = find_tls
        self._find_proxy = find_proxy

    async def __call__(self, make: Make) -> Connection:
        """Return an open connection."""
        proxy, tls = self._find_proxy(), self._find_tls()
        if proxy is not None:
            self._egress.check_name(self._host, self._port)
            sock = await self._connect(proxy.host, proxy.port)
            return await _open_through(proxy, sock, make, (self._host, self._port), tls)
        sock = await self._connect(self._host, self._port)
        try:
            _, conn = await asyncio.get_running_loop().create_connection(
                make, sock=sock, ssl=tls, server_hostname=self._host if tls else None
            )
        except BaseException:
            sock.close()
            raise
        return conn

    async def _connect(self, host: str, port: int) -> socket.socket:
        addresses = await self._egress.resolve(host, port)
        try:
            return await _connect_any(addresses[:MAX_ADDRESSES], port)
        except OSError:
            self._egress.forget(host, port)
            raise


def parse_proxy(text: str) -> Proxy:
    """Read ``http://[USER:PASSWORD@]HOST:PORT``; raise ValueError, which does not show it."""
    try:
        url = urlsplit(text)
        host, port, user = url.hostname, url.port, url.username
    except ValueError:
        host = port = user = None
    if not host or not port or url.scheme != "http" or url.path not in ("", "/"):
        raise ValueError("a proxy is given as http://HOST:PORT")
    if not user:
        return Proxy(host, port)
    secret = f"{unquote(user)}:{unquote(url.password or '')}"
    return Proxy(host, port, b"Basic " + b64encode(secret.encode()))


def describe(failed: OSError) -> str:
    """Say in a few words why no connection came about."""
    if isinstance(failed, ssl.SSLCertVerificationError):
        return f"its certificate is not trusted: {failed.verify_message}"
    if isinstance(failed, ssl.SSLError):
        return f"TLS failed: {failed.reason}"
    if isinstance(failed, socket.gaierror):
        return "its name has no address"
    return os.strerror(failed.errno) if failed.errno else str(failed)


async def _connect_any(addresses: Sequence[str], port: int) -> socket.socket:
    """Return a socket that is connected to the first address that answers."""
    *others, last = addresses
    for address in others:
        try:
            async with asyncio.timeout(ATTEMPT_S):
                return await _connect_one(address, port)
        except OSError:  # TimeoutError is one
            continue
    return await _connect_one(last, port)


async def _connect_one(address: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        sock.setblocking(False)  # noqa: FBT003
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        await asyncio.get_running_loop().sock_connect(sock, (address, port))
    except BaseException:
        sock.close()
        raise
    return sock


async def _open_through(
    proxy: Proxy,
    sock: socket.socket,
    make: Make,
    target: tuple[str, int],
    tls: ssl.SSLContext | None,
) -> Connection:
    """Have a proxy open a tunnel, and a connection in it."""
    loop = asyncio.get_running_loop()
    try:
        _, tunnel = await loop.create_connection(lambda: _Tunnel(loop), sock=sock)
    except BaseException:
        sock.close()
        raise
    transport = tunnel.transport
    try:
        await tunnel.ask(target, proxy.authorization)
        conn = make()
        if tls is None:
            transport.set_protocol(conn)
        else:
            secure = await loop.start_tls(transport, conn, tls, server_hostname=target[0])
            if secure is None:
                raise ProxyRefused("the connection was lost")
            transport = secure
        conn.connection_made(transport)
    except BaseException:
        tunnel.transport.abort()
        raise
    return conn


class _Tunnel(asyncio.Protocol):
    """A connection to a proxy until the proxy has made a tunnel of it."""

    transport: asyncio.Transport

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._answered: asyncio.Future[None] = loop.create_future()
        self._head = b""

    async def ask(self, target: tuple[str, int], authorization: bytes) -> None:
        host, port = target
        where = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        lines = f"CONNECT {where} HTTP/1.1\r\nhost: {where}\r\n".encode()
        if authorization:
            lines += b"proxy-authorization: %b\r\n" % authorization
        self.transport.write(lines + b"\r\n")
        await self._answered

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        self._head += data
        head, end, rest = self._head.partition(b"\r\n\r\n")
        if not end and len(self._head) <= MAX_PROXY_HEAD_BYTES:
            return
        found = re.match(rb"HTTP/1\.[01] ([0-9]{3})\b", head)
        if not end or not found:
            self._refuse("the proxy speaks no HTTP")
        elif not found[1].startswith(b"2"):
            self._refuse(f"the proxy refused with status {found[1].decode()}")
        elif rest:  # the model server speaks after us, so these are not its bytes
            self._refuse("the proxy sent more than its answer")
        elif not self._answered.done():
            self._answered.set_result(None)

    def connection_lost(self, exc: Exception | None) -> None:
        del exc
        self._refuse("the proxy closed the connection")

    def _refuse(self, why: str) -> None:
        if not self._answered.done():
            self._answered.set_exception(ProxyRefused(why))
            self._answered.exception()  # whoever asked may have been cancelled
