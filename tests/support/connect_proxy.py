"""An HTTP proxy that opens tunnels (CONNECT), and refuses or misbehaves when told to."""

import asyncio
import contextlib
from base64 import b64encode
from dataclasses import dataclass, field
from types import TracebackType
from typing import Self


@dataclass(kw_only=True)
class ConnectProxy:
    """The proxy: an asynchronous context manager.

    ``hosts`` says at which address, with ``:PORT`` also at which port, a name is; ``answer``
    replaces its answer; ``user`` and ``password`` must be shown if given; ``hangs``: it never
    answers.
    """

    hosts: dict[str, str] = field(default_factory=dict)
    user: str = ""
    password: str = ""
    answer: bytes = b""
    hangs: bool = False
    asked: list[str] = field(default_factory=list)
    heads: list[bytes] = field(default_factory=list)
    open_connections: int = 0
    port: int = 0

    async def __aenter__(self) -> Self:
        """Listen."""
        self._tasks: set[asyncio.Task[None]] = set()
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Stop listening and drop every tunnel."""
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    @property
    def url(self) -> str:
        """Return the address that clients are given."""
        return f"http://127.0.0.1:{self.port}"

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        self.open_connections += 1
        try:
            await self._tunnel(reader, writer)
        except (ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass
        finally:
            self._tasks.discard(task)
            self.open_connections -= 1
            writer.transport.abort()

    async def _tunnel(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        self.heads.append(head)
        verb, where, _ = head.split(b" ", 2)
        assert verb == b"CONNECT", head
        self.asked.append(where.decode())
        if self.hangs:
            await reader.read()
            return
        proof = b"Basic " + b64encode(f"{self.user}:{self.password}".encode())
        if self.user and not head.partition(b"roxy-")[2].startswith(
            (b"authorization: " + proof, b"Authorization: " + proof)
        ):
            writer.write(b"HTTP/1.1 407 Proxy Authentication Required\r\n\r\n")
            await writer.drain()
            return
        if self.answer:
            writer.write(self.answer)
            await writer.drain()
            await reader.read()
            return
        host, _, port = where.decode().rpartition(":")
        address, _, other_port = self.hosts.get(host, host).partition(":")
        inner, outer = await asyncio.open_connection(address, int(other_port or port))
        for part in (b"HTTP/1.1 200 Conn", b"ection established\r\nvia: proxy\r\n\r\n"):
            writer.write(part)
            await writer.drain()
        try:
            await _both(reader, outer, inner, writer)
        finally:
            outer.transport.abort()


async def _both(
    reader: asyncio.StreamReader,
    outer: asyncio.StreamWriter,
    inner: asyncio.StreamReader,
    writer: asyncio.StreamWriter,
) -> None:
    """Carry bytes both ways until one side is done."""
    ways = [
        asyncio.ensure_future(_carry(reader, outer)),
        asyncio.ensure_future(_carry(inner, writer)),
    ]
    try:
        await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for way in ways:
            way.cancel()
        await asyncio.gather(*ways, return_exceptions=True)


async def _carry(source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
    with contextlib.suppress(ConnectionError):
        while data := await source.read(65536):
            sink.write(data)
            await sink.drain()
