"""A server of webhooks on loopback that keeps what it gets, and can be told to misbehave."""

import asyncio
import contextlib
import json
import ssl
from typing import Any, NamedTuple, Self, cast


class Hook(NamedTuple):
    """A request that came: its path, its header fields in lower case, its body."""

    path: str
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:  # noqa: ANN401 - JSON of any kind
        """The body as JSON."""
        return json.loads(self.body)


class HookServer:
    """Answers every request with ``status``; listens on a free port of 127.0.0.1.

    ``more`` are further header lines and ``answer`` the body. ``hangs`` says where it says nothing
    any more: "connect", "body" (it has the request and does not answer) or "answer" (it has begun
    to). ``drip`` makes it send a header line that has no end.
    """

    def __init__(self, tls: ssl.SSLContext | None = None) -> None:
        self._tls = tls
        self.status = 200
        self.more: dict[str, str] = {}
        self.answer = b"{}"
        self.hangs = ""
        self.drip = False
        self.hooks: list[Hook] = []
        self.connections = 0
        self._tasks: set[asyncio.Task[None]] = set()
        self._server: asyncio.Server | None = None

    @property
    def port(self) -> int:
        """Where it listens."""
        assert self._server is not None
        return int(self._server.sockets[0].getsockname()[1])

    @property
    def open_connections(self) -> int:
        """How many talk to it now."""
        return len(self._tasks)

    @property
    def url(self) -> str:
        """Its address."""
        return f"{'https' if self._tls else 'http'}://127.0.0.1:{self.port}/hook"

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0, ssl=self._tls)
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._server is not None
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._server.wait_closed()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = cast("asyncio.Task[None]", asyncio.current_task())
        self._tasks.add(task)
        self.connections += 1
        try:
            with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError, ssl.SSLError):
                await self._talk(reader, writer)
        except asyncio.CancelledError:
            return  # the server closes
        finally:
            self._tasks.discard(task)
            writer.transport.abort()

    async def _talk(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self.hangs == "connect":
            await asyncio.Event().wait()
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        first, *lines = head.strip().split("\r\n")
        headers = {name.lower(): text for name, _, text in (x.partition(": ") for x in lines)}
        body = await reader.readexactly(int(headers.get("content-length", "0")))
        self.hooks.append(Hook(first.split(" ")[1], headers, body))
        if self.hangs == "body":
            await asyncio.Event().wait()
        writer.write(f"HTTP/1.1 {self.status} Said\r\n".encode())
        while self.drip:
            writer.write(b"x")
            await writer.drain()
            await asyncio.sleep(0.01)
        more = "".join(f"{name}: {text}\r\n" for name, text in self.more.items())
        writer.write(f"{more}content-length: {len(self.answer)}\r\n\r\n".encode())
        if self.hangs == "answer":
            await writer.drain()
            await asyncio.Event().wait()
        writer.write(self.answer)
        await writer.drain()
        await reader.read(1)  # until the client closes
