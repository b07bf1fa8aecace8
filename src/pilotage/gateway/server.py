"""The gateway's HTTP server: uvicorn with a drain of our own and a hook for clients that leave.

Plain uvicorn closes its listeners the moment it gets SIGTERM and cuts running streams; and it lets
an application learn of a lost client only through a waiting ``receive``. Both subclasses reach
into uvicorn, which is pinned for that; a contract test holds each.
"""

import asyncio
import ssl
import sys
from collections.abc import Callable
from http import HTTPStatus
from types import FrameType
from typing import Any, Protocol

import httptools
import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from pilotage.gateway.http import CONNECTION, CYCLE
from pilotage.kit.resources import Background

BACKSTOP_S = 10  # uvicorn's own limit for what the drain left over
MAX_HEAD_BYTES = 64 * 1024  # of a request's head, or of whatever else comes without a body
_TICKS_PER_LOOK = 50  # the server ticks ten times a second


class Drainable(Protocol):
    """What is drained before the server closes."""

    async def drain(self, timeout_s: float) -> None:
        """Return when the running calls have ended."""
        ...


class GatewayProtocol(HttpToolsProtocol):
    """One connection; tells the running call when its client has left.

    What a client may make it hold, and for how long, is bounded before anybody knows who it is.
    """

    on_gone: Callable[[], None] | None = None
    _watched: RequestResponseCycle
    _unread = sys.maxsize  # bytes that waited for the client at the last look
    _barren = 0  # bytes since the end of a head or a piece of a body
    _last_cycle: RequestResponseCycle | None = None
    _head_due_s = 0.0  # when the head after the last cycle must be there; 0: it is not waited for

    def data_received(self, data: bytes) -> None:
        """Parse what came; refuse what is no HTTP and what does not end."""
        self._unset_keepalive_if_required()
        self._barren += len(data)
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserUpgrade as asked:
            self._pass_over_upgrade(data[asked.args[0] :])
        except httptools.HttpParserError:
            self._refuse(400, b"This is no HTTP/1.1 request.")
        else:
            if self._barren > MAX_HEAD_BYTES:
                self._refuse(431, b"The head of the request does not end.")

    def on_headers_complete(self) -> None:
        """Give the application this connection and its own request before it is called."""
        self._barren = 0
        scope: dict[str, Any] = self.scope  # type: ignore[assignment]
        scope[CONNECTION] = self
        super().on_headers_complete()
        scope[CYCLE] = self.cycle

    def on_body(self, body: bytes) -> None:
        """Take a piece of a body."""
        self._barren = 0
        super().on_body(body)

    def _should_upgrade(self) -> bool:
        """Leave a request that asks for another protocol to :meth:`data_received`."""
        return True

    def _pass_over_upgrade(self, rest: bytes) -> None:
        """Read a request once more as if it had asked for no other protocol (RFC 9110, 7.8).

        The parser takes what follows such a head for the other protocol, and clients that offer
        HTTP/2 (Java's) send a body there.
        """
        method = self.parser.get_method()
        if method == b"CONNECT":
            self._refuse(400, b"This is no proxy.")
            return
        version = self.parser.get_http_version().encode()
        lines = [b"%b: %b\r\n" % line for line in self.headers if line[0] != b"upgrade"]
        self.parser = httptools.HttpRequestParser(self)
        self.parser.set_dangerous_leniencies(lenient_data_after_close=True)  # as uvicorn does
        head = b"%b %b HTTP/%b\r\n%b\r\n" % (method, self.url, version, b"".join(lines))
        self.data_received(head + rest)

    def _refuse(self, status: int, why: bytes) -> None:
        """Close the connection, saying why unless an answer is on its way; nothing is logged.

        Anybody can cause this as often as they like.
        """
        if self.transport.is_closing():
            return
        if self.cycle is None or self.cycle.response_complete:
            self.transport.write(
                b"HTTP/1.1 %d %b\r\ncontent-type: text/plain; charset=utf-8\r\n"
                b"content-length: %d\r\nconnection: close\r\n\r\n%b"
                % (status, HTTPStatus(status).phrase.encode(), len(why), why)
            )
        self.transport.close()

    def look(self, now_s: float) -> None:
        """Drop the connection if its client has not sent a whole head for too long.

        It has as long as an idle connection; one that is idle has a timer of its own.
        """
        cycle = self.cycle
        runs = cycle is not None and not cycle.response_complete
        if runs or self.timeout_keep_alive_task is not None:
            self._head_due_s = 0.0
        elif not self._head_due_s or self._last_cycle is not cycle:
            self._last_cycle, self._head_due_s = cycle, now_s + self.timeout_keep_alive
        elif now_s >= self._head_due_s:
            self.transport.abort()

    def watch(self, cycle: RequestResponseCycle, on_gone: Callable[[], None]) -> None:
        """Have something called when the client leaves; it is noticed from now on.

        uvicorn stops reading while much of a body waits to be read, and who does not read does not
        see the end.
        """
        self._watched = cycle
        self.on_gone = on_gone
        self.flow.resume_reading()

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop the running call: its client is gone."""
        if self.on_gone is not None:
            self._watched.disconnected = True  # not self.cycle: more requests may have followed
            self.on_gone()
        super().connection_lost(exc)

    def respond(self, cycle: RequestResponseCycle, head: bytes, body: bytes) -> None:
        """Write a whole reply at once; ``head`` is its status line and header lines.

        ASGI would take two messages, a check of every header and two writes.
        """
        if not cycle.disconnected:
            self.transport.write(b"".join([head, *self._make_common_lines(cycle), b"\r\n", body]))
            self._complete(cycle)

    def open_stream(self, cycle: RequestResponseCycle, head: bytes, part: bytes) -> None:
        """Write the head of a stream, which is told nothing of its framing, and its first part.

        HTTP/1.0 knows no chunks: there the stream ends with the connection.
        """
        if not cycle.disconnected:
            cycle.response_started = True
            cycle.chunked_encoding = cycle.scope["http_version"] != "1.0"
            framing = b"transfer-encoding: chunked\r\n\r\n" if cycle.chunked_encoding else b"\r\n"
            lines = self._make_common_lines(cycle)
            self.transport.write(b"".join([head, *lines, framing, _frame(cycle, part)]))

    def write_part(self, cycle: RequestResponseCycle, part: bytes) -> None:
        """Write a further part of a stream."""
        if not cycle.disconnected:
            self.transport.write(_frame(cycle, part))

    def close_stream(self, cycle: RequestResponseCycle, part: bytes) -> None:
        """Write the last part of a stream and end it."""
        if not cycle.disconnected:
            end = b"0\r\n\r\n" if cycle.chunked_encoding else b""
            self.transport.write(_frame(cycle, part) + end)
            self._complete(cycle)

    def _make_common_lines(self, cycle: RequestResponseCycle) -> list[bytes]:
        lines = [b"%b: %b\r\n" % header for header in self.server_state.default_headers]
        if not cycle.keep_alive:
            lines.append(b"connection: close\r\n")
        return lines

    def _complete(self, cycle: RequestResponseCycle) -> None:
        cycle.response_started = cycle.response_complete = True
        self._unread = sys.maxsize
        cycle.message_event.set()
        if not cycle.keep_alive:
            self.transport.close()
        cycle.on_response()

    def timeout_keep_alive_handler(self) -> None:
        """Close an idle connection; drop one whose client has read nothing of its reply since."""
        unread = self.transport.get_write_buffer_size()
        if unread and unread >= self._unread:
            self.transport.abort()
        elif unread:
            self._unread = unread
            self.timeout_keep_alive_task = self.loop.call_later(
                self.timeout_keep_alive, self.timeout_keep_alive_handler
            )
        else:
            super().timeout_keep_alive_handler()

    async def wait_writable(self) -> None:
        """Return when the client has read enough."""
        await self.flow.drain()

    @property
    def is_closing(self) -> bool:
        """Whether the connection is being given up."""
        return self.transport.is_closing()

    @property
    def is_write_paused(self) -> bool:
        """Whether the client reads too slowly."""
        return self.flow.write_paused

    def abort(self) -> None:
        """Drop the connection at once, unsent bytes included."""
        self.transport.abort()


def _frame(cycle: RequestResponseCycle, part: bytes) -> bytes:
    """Return a part of a stream as it is written; an empty chunk would end it."""
    return b"%x\r\n%b\r\n" % (len(part), part) if part and cycle.chunked_encoding else part


class GatewayServer(uvicorn.Server):
    """Drains at the first SIGTERM or SIGINT, stops the running calls at the second."""

    def __init__(
        self,
        config: uvicorn.Config,
        plane: Drainable,
        background: Background,
        drain_timeout_s: float,
    ) -> None:
        super().__init__(config)
        self._plane = plane
        self._background = background
        self._drain_timeout_s = drain_timeout_s
        self.has_started = asyncio.Event()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._signals = 0

    async def startup(self, sockets: Any = None) -> None:  # noqa: ANN401 - uvicorn's own signature
        """Remember the loop that signals must reach; ``has_started`` is set when it listens."""
        self._loop = asyncio.get_running_loop()
        await super().startup(sockets)
        self.has_started.set()

    async def on_tick(self, counter: int) -> bool:
        """Look after the connections now and then; return whether to exit."""
        if counter % _TICKS_PER_LOOK == 0:
            now_s = asyncio.get_running_loop().time()
            for connection in tuple(self.server_state.connections):
                if isinstance(connection, GatewayProtocol):
                    connection.look(now_s)
        return await super().on_tick(counter)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Begin to drain; the second time give the running calls no more time."""
        del sig, frame
        self._signals += 1
        if self._loop is None or self._signals > 2:
            self.should_exit = True
            self.force_exit = self._signals > 1
        else:
            timeout_s = self._drain_timeout_s if self._signals == 1 else 0.0
            self._loop.call_soon_threadsafe(self._begin_drain, timeout_s)

    def _begin_drain(self, timeout_s: float) -> None:
        self._background.start(self._drain(timeout_s), "drain")

    async def _drain(self, timeout_s: float) -> None:
        await self._plane.drain(timeout_s)
        self.force_exit = self._signals > 1
        self.should_exit = True


def make_server(
    app: Any,  # noqa: ANN401 - an ASGI application
    plane: Drainable,
    background: Background,
    drain_timeout_s: float,
    tls: ssl.SSLContext | None = None,
) -> GatewayServer:
    """Return the server of a gateway process; give it its sockets with ``serve(sockets=...)``.

    With ``tls`` it speaks HTTPS only; a certificate loaded into it later is for new connections.
    """
    config = uvicorn.Config(
        app,
        http=GatewayProtocol,
        ws="none",
        lifespan="off",
        access_log=False,
        proxy_headers=False,
        log_config=None,
        server_header=False,
        timeout_keep_alive=65,
        timeout_graceful_shutdown=BACKSTOP_S,
        ssl_context_factory=None if tls is None else lambda *_: tls,
    )
    return GatewayServer(config, plane, background, drain_timeout_s)
