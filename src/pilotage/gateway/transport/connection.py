"""One connection to a model server: the response it reads, its time limits, its failures."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, cast

import httptools

FailureKind = Literal[
    "connect",
    "connect_timeout",
    "reset_before_headers",
    "cut",
    "stall",
    "invalid",
    "too_large",
    "busy",
]

HIGH_WATER_BYTES = 256 * 1024
"""Reading pauses when this much of a body waits to be read."""

MAX_BARREN_BYTES = 64 * 1024
"""A peer may send this much without one body byte: heads, interim heads, framing, trailers."""

_LARGE_REQUEST_BYTES = 64 * 1024


class UpstreamFailure(Exception):  # noqa: N818 - a fact about another party, not our error
    """The upstream could not be reached, or broke its response.

    Attributes:
        kind: ``connect`` (refused, unresolvable, TLS failed, no tunnel, or pool closed),
            ``connect_timeout``, ``busy`` (no free connection in time), ``reset_before_headers``,
            ``stall`` (silent for too long, before the head or between body bytes), ``cut`` (ended
            within the body), ``invalid`` (not HTTP), ``too_large`` (more body than allowed).
        sent: True when request bytes may have reached the upstream, which may have acted on them.
        got_headers: True when the response head had arrived.
        attempts: how many connections the request was written to, or was to be written to.
        reason: why no connection came about, in words, where that is known.
    """

    def __init__(
        self,
        kind: FailureKind,
        *,
        sent: bool,
        got_headers: bool = False,
        attempts: int = 1,
        reason: str = "",
    ) -> None:
        super().__init__(kind, sent, got_headers, attempts)
        self.kind: FailureKind = kind
        self.sent = sent
        self.got_headers = got_headers
        self.attempts = attempts
        self.reason = reason

    def __str__(self) -> str:
        """Say what happened and how far the call had come."""
        reached = "not sent" if not self.sent else "sent"
        head = "headers received" if self.got_headers else "no headers"
        why = f": {self.reason}" if self.reason else ""
        return f"{self.kind} ({reached}, {head}){why}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What one pool may use, in seconds, connections and bytes.

    ``idle_s`` stays below the 5 s after which common servers close a kept-alive connection.
    """

    connect_timeout_s: float = 5.0
    headers_timeout_s: float = 300.0
    stall_timeout_s: float = 60.0
    idle_s: float = 4.0
    max_connections: int = 256
    max_body_bytes: int = 64 * 1024 * 1024


class Connection(asyncio.Protocol):
    """One socket and the state of the response it is reading."""

    __slots__ = (
        "_barren",
        "_body_bytes",
        "_deadline",
        "_fires_at",
        "_is_lost",
        "_is_paused",
        "_keep_alive",
        "_loop",
        "_max_body_bytes",
        "_on_lost",
        "_parser",
        "_served",
        "_stall_timeout_s",
        "_taken_bytes",
        "_timer",
        "_waiter",
        "_wrote_large",
        "failure",
        "headers",
        "idle_until",
        "is_done",
        "is_leased",
        "parts",
        "status",
        "transport",
    )

    transport: asyncio.Transport

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        limits: Limits,
        on_lost: "Callable[[Connection], None]",
    ) -> None:
        self._loop = loop
        self._on_lost = on_lost
        self._stall_timeout_s = limits.stall_timeout_s
        self._max_body_bytes = limits.max_body_bytes
        # One parser serves all responses of the connection; the cycle is broken when it is lost.
        self._parser = httptools.HttpResponseParser(self)
        self._timer: asyncio.TimerHandle | None = None
        self._deadline = 0.0
        self._fires_at = 0.0
        self._waiter: asyncio.Future[None] | None = None
        self._served = 0
        self._is_lost = False
        self.is_leased = True
        self.idle_until = 0.0
        self._reset()

    def _reset(self) -> None:
        self.status = 0
        self.headers: list[tuple[bytes, bytes]] = []
        self.parts: list[bytes] = []
        self.is_done = False
        self.failure: FailureKind | None = None
        self._keep_alive = False
        self._is_paused = False
        self._wrote_large = False
        self._body_bytes = 0
        self._taken_bytes = 0
        self._barren = 0

    # What the pool and the exchange ask.

    def start(self, request: bytes, body: bytes) -> None:
        """Write a request and expect its response."""
        if self._served:
            self._reset()
        self._served += 1
        if self._is_lost:  # between being handed over and being used
            self.failure = "reset_before_headers"
        elif len(body) <= _LARGE_REQUEST_BYTES:
            self.transport.write(request + body)
        else:
            self._wrote_large = True
            self.transport.write(request)
            self.transport.write(body)

    async def wait_for_head(self, deadline: float) -> bool:
        """Return True once the response head is there, False on a failure."""
        if not self.status and self.failure is None:
            await self._wait(deadline)
        return self.status != 0

    async def wait_for_body(self) -> None:
        """Return once there are body bytes, the end, or a failure."""
        await self._wait(self._loop.time() + self._stall_timeout_s)

    def take(self) -> bytes:
        """Return the body bytes that have arrived, and read on if reading had paused."""
        parts = self.parts
        taken = parts[0] if len(parts) == 1 else b"".join(parts)
        parts.clear()
        self._taken_bytes = self._body_bytes
        if self._is_paused:
            self._is_paused = False
            if not self._is_lost and not self.transport.is_closing():
                self.transport.resume_reading()
        return taken

    def is_stale(self) -> bool:
        """Tell whether a kept-alive connection turned out to have been closed by its peer."""
        return self.failure == "reset_before_headers" and self._served > 1 and not self._barren

    def is_reusable(self) -> bool:
        """Tell whether the response is complete and the next request may follow."""
        return (
            self.is_done
            and self._keep_alive
            and not self._is_lost
            and not self._is_paused
            and not self.transport.is_closing()
            # The answer may have overtaken a large request that is still being written.
            and not (self._wrote_large and self.transport.get_write_buffer_size())
        )

    def make_failure(self, attempts: int) -> UpstreamFailure:
        """Return the failure to raise."""
        kind = self.failure or "cut"
        return UpstreamFailure(kind, sent=True, got_headers=self.status != 0, attempts=attempts)

    def abort(self) -> None:
        """Drop the socket now, without flushing."""
        self._fail("cut" if self.status else "reset_before_headers")
        self.transport.abort()

    # Waiting: one timer per connection, which outlives waits and is moved only when it fires.

    async def _wait(self, deadline: float) -> None:
        if self._waiter is not None:
            raise RuntimeError("two tasks wait for the same response")
        self._deadline = deadline
        if self._timer is None or self._fires_at > deadline:
            self._arm()
        self._waiter = self._loop.create_future()
        try:
            await self._waiter
        finally:
            self._waiter = None

    def _on_timer(self) -> None:
        self._timer = None
        if self._waiter is None:
            return
        if self._loop.time() < self._deadline - 0.001:  # uvloop counts whole milliseconds
            self._arm()
        else:
            self._fail("stall")

    def _arm(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._fires_at = self._deadline
        self._timer = self._loop.call_at(self._deadline, self._on_timer)

    def _fail(self, kind: FailureKind) -> None:
        if not self.is_done and self.failure is None:
            self.failure = kind
        self._wake()

    def _wake(self) -> None:
        waiter = self._waiter
        if waiter is not None and not waiter.done():
            waiter.set_result(None)

    # What the transport tells.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport."""
        self.transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        """Parse what arrived, and wake who waits for it."""
        if self._is_lost or self.failure is not None:
            return
        before = self._body_bytes
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade):
            self._keep_alive = False
            self._fail("invalid")
            self.transport.abort()
            return
        if self._body_bytes != before:
            self._barren = 0
        else:
            self._barren += len(data)
            if self._barren > MAX_BARREN_BYTES:
                self._fail("invalid")
                self.transport.abort()
                return
        if self.parts or self.is_done:
            self._wake()

    def eof_received(self) -> None:
        """Note the end at once: connection_lost waits until a large request is written out."""
        self._end(None)

    def connection_lost(self, exc: Exception | None) -> None:
        """Note the end and let go of parser and timer, which hold the connection alive."""
        self._end(exc)
        del self._parser
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _end(self, exc: Exception | None) -> None:
        if self._is_lost:
            return
        self._is_lost = True
        if exc is None and self.failure is None and self.status and self._ends_with_connection():
            self.is_done = True
        self._fail("cut" if self.status else "reset_before_headers")
        self._on_lost(self)

    def _ends_with_connection(self) -> bool:
        """Tell whether the end of the connection is the proper end of the body (RFC 9112, 6.3)."""
        coded = b""
        for name, value in self.headers:
            if name == b"transfer-encoding":
                coded = value
            elif name == b"content-length":
                return False
        return not coded.lower().rstrip().endswith(b"chunked")

    # What the parser tells.

    def on_message_begin(self) -> None:
        """Refuse a response nobody asked for; the connection ends, the first one stays good."""
        if self.is_done:
            raise ValueError("a second response to one request")

    def on_header(self, name: bytes, value: bytes) -> None:
        """Collect a header line."""
        if not self.status:  # else a trailer
            self.headers.append((name.lower(), value))

    def on_headers_complete(self) -> None:
        """Take the status, unless the response is an interim one (1xx)."""
        status = self._parser.get_status_code()
        if status >= 200:
            self.status = status
            self._wake()
        elif status >= 100:
            self.headers.clear()  # interim: the real head follows
        else:
            raise ValueError("no such status")

    def on_body(self, body: bytes) -> None:
        """Collect body bytes, within the limit; pause reading above the high-water mark."""
        self._body_bytes += len(body)
        if self._body_bytes > self._max_body_bytes:
            self._fail("too_large")
            raise ValueError("body above the limit")
        self.parts.append(body)
        if self._body_bytes - self._taken_bytes > HIGH_WATER_BYTES and not self._is_paused:
            self._is_paused = True
            self.transport.pause_reading()

    def on_message_complete(self) -> None:
        """Note the end of the response."""
        if self.status:  # else an interim one
            self.is_done = True
            self._keep_alive = self._parser.should_keep_alive()
