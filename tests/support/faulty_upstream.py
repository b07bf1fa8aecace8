"""A model server that speaks every wire of models and misbehaves on request.

It answers /v1/chat/completions, /v1/completions, /v1/embeddings and /v1/messages (upstream_wires.py
has what it says on each). Which fault it commits is said by the last user message (or prompt, or
first input), if that is a JSON object (a *plan*), so that it can be driven through any gateway
without touching headers:

    {"fault": "cut_mid_stream", "after": 2, "chunks": 10, "delay_ms": 5}

Run it alone (``python tests/support/faulty_upstream.py --port 0`` prints ``{"port": N}``) or in a
test (``async with FaultyUpstream() as upstream: ... upstream.port``). What it was asked, and when
its clients left, is in ``.requests`` and at ``GET /requests``.

Keys of a plan, all optional: ``fault`` (a key of FAULTS), ``chunks`` (content chunks),
``delay_ms`` (between chunks), ``prompt_tokens``, ``completion_tokens``, ``after`` (content chunks
before the fault), ``status``, ``retry_after``, ``body`` (of a ``status`` fault; the list of
``deltas``), ``bytes`` (size of ``big_body`` and of one ``firehose`` chunk), ``times`` (commit the
fault only so often for this very plan), ``text`` (the answer; "|" cuts it into chunks),
``thinking`` (reasoning before it), ``calls`` (tool calls: name and arguments), ``finish`` (why it
ends), ``cached``, ``written`` (of the prompt's tokens) and ``reasoning`` (of the answer's).
"""

import argparse
import asyncio
import json
import signal
import ssl
import time
from dataclasses import asdict, dataclass, field
from types import TracebackType
from typing import Any, Self, cast

import httptools

from upstream_faults import FAULTS, Answer, Request
from upstream_wires import Plan, find_dialect, find_plan_text, make_error

__all__ = ["FaultyUpstream", "Plan", "Request"]


@dataclass(kw_only=True)
class FaultyUpstream:
    """The server: an asynchronous context manager, or ``serve_forever``.

    ``defaults`` are the plan of a request whose message is no plan. ``refuses`` closes every
    accepted connection at once.
    """

    host: str = "127.0.0.1"
    port: int = 0
    unix_path: str | None = None
    tls: ssl.SSLContext | None = None
    defaults: dict[str, Any] = field(default_factory=dict)
    refuses: bool = False
    requests: list[Request] = field(default_factory=list)
    connections: int = 0
    open_connections: int = 0

    async def __aenter__(self) -> Self:
        """Listen."""
        loop = asyncio.get_running_loop()
        self._transports: set[asyncio.Transport] = set()
        self._committed: dict[str, int] = {}
        self._tasks = await asyncio.TaskGroup().__aenter__()
        if self.unix_path is not None:
            self._server = await loop.create_unix_server(
                lambda: _Peer(self), self.unix_path, ssl=self.tls
            )
        else:
            self._server = await loop.create_server(
                lambda: _Peer(self), self.host, self.port, ssl=self.tls
            )
            self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Stop listening and drop every connection."""
        self._server.close()
        for transport in tuple(self._transports):
            transport.abort()
        await self._tasks.__aexit__(None, None, None)
        while self._transports:  # noqa: ASYNC110 - the aborts end within a few turns of the loop
            await asyncio.sleep(0)

    @property
    def url(self) -> str:
        """Return the address that clients are given."""
        return f"{'https' if self.tls else 'http'}://{self.host}:{self.port}"

    def close_idle(self) -> None:
        """Close every open connection, as a server does whose keep-alive time is over."""
        for transport in tuple(self._transports):
            transport.close()

    def plan(self, body: object) -> Plan:
        """Return the plan that a request's last user message holds, or the default one."""
        text = find_plan_text(body)
        try:
            wish = json.loads(text)
        except ValueError:
            wish = {}
        if not isinstance(wish, dict):
            wish = {}
        plan = Plan(**{**self.defaults, **wish})
        if plan.fault not in FAULTS:
            known = ", ".join(sorted(FAULTS))
            raise ValueError(f"no fault {plan.fault!r}; known: {known}")
        if plan.times is not None:
            self._committed[text] = self._committed.get(text, 0) + 1
            if self._committed[text] > plan.times:
                plan.fault = "none"
        return plan


class _Peer(asyncio.Protocol):
    """One accepted connection: parses requests and runs one answer at a time."""

    def __init__(self, server: FaultyUpstream) -> None:
        self.server = server
        self.gone = asyncio.Event()
        self.writable = asyncio.Event()
        self.writable.set()
        self.request: Request | None = None
        self._parser = httptools.HttpRequestParser(self)
        self._answer: asyncio.Task[None] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)
        self.transport.set_write_buffer_limits(high=64 * 1024)
        self.server.connections += 1
        self.server.open_connections += 1
        self.number = self.server.connections
        self.server._transports.add(self.transport)
        if self.server.refuses:
            self.transport.abort()

    def data_received(self, data: bytes) -> None:
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError:
            self.transport.abort()

    def eof_received(self) -> None:
        self._note_gone()

    def connection_lost(self, exc: Exception | None) -> None:
        self._note_gone()
        self.server._transports.discard(self.transport)
        self.server.open_connections -= 1

    def pause_writing(self) -> None:
        self.writable.clear()

    def resume_writing(self) -> None:
        self.writable.set()

    def _note_gone(self) -> None:
        if self.gone.is_set():
            return
        if self.request is not None and self.request.finished_s is None:
            self.request.client_closed_s = time.monotonic()
        self.gone.set()
        self.writable.set()
        if self._answer is not None:
            self._answer.cancel()

    def on_message_begin(self) -> None:
        self._path = b""
        self._headers: dict[str, str] = {}
        self._body = b""

    def on_url(self, url: bytes) -> None:
        self._path += url

    def on_header(self, name: bytes, value: bytes) -> None:
        self._headers[name.decode("latin-1").lower()] = value.decode("latin-1")

    def on_body(self, body: bytes) -> None:
        self._body += body

    def on_message_complete(self) -> None:
        request = Request(
            id=len(self.server.requests),
            connection=self.number,
            method=self._parser.get_method().decode(),
            path=self._path.decode(),
            authorization=self._headers.get("authorization"),
            headers=self._headers,
            received_s=time.monotonic(),
        )
        try:
            request.body = json.loads(self._body) if self._body else None
        except ValueError:
            request.body = self._body.decode("latin-1")
        self._answer = self.server._tasks.create_task(self._run(request))

    async def _run(self, request: Request) -> None:
        try:
            if request.path == "/requests":
                answer = [asdict(each) for each in self.server.requests]
                await Answer(self, request, Plan()).send_json(200, answer)
            else:
                self.request = request
                self.server.requests.append(request)
                await self._respond(request)
        except ConnectionError:
            return

    async def _respond(self, request: Request) -> None:
        dialect = find_dialect(request.path)
        if dialect is None:
            missing = make_error("no such path", "invalid_request_error")
            await Answer(self, request, Plan()).send_json(404, missing)
            return
        try:
            plan = self.server.plan(request.body)
        except (TypeError, ValueError) as wrong:
            answer = Answer(self, request, Plan(), dialect)
            error = answer.dialect.error(str(wrong), "invalid_request_error")
            await answer.send_json(400, error)
            return
        request.fault = plan.fault
        await FAULTS[plan.fault](Answer(self, request, plan, dialect))


async def serve_forever(server: FaultyUpstream) -> None:
    """Serve until SIGTERM or SIGINT, after printing where."""
    loop = asyncio.get_running_loop()
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    async with server:
        print(json.dumps({"port": server.port}), flush=True)
        await stop.wait()


def main() -> None:
    """Read the command line and serve."""
    parser = argparse.ArgumentParser(description="A model server that misbehaves on request.")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--refuse", action="store_true", help="close accepted connections at once")
    parser.add_argument("--defaults", type=json.loads, default={}, help="a plan, as JSON")
    given = parser.parse_args()
    asyncio.run(
        serve_forever(
            FaultyUpstream(
                host=given.host, port=given.port, refuses=given.refuse, defaults=given.defaults
            )
        )
    )


if __name__ == "__main__":
    main()
