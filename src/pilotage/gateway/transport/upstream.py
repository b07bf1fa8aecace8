"""The HTTP/1.1 client towards model servers: pooled, bounded, cancelled at once.

It exists for what general clients do not promise: a cancelled call closes its connection within
milliseconds even while it waits for the response head; body bytes are handed on as they arrive; and
every failure says how far the call came (``sent``, ``got_headers``), so that a retry rule can tell
"never reached the upstream" from "may have run". It works on uvloop and on plain asyncio.

A response without content-length that ends with the connection cannot be told from one that was
cut: callers look for their own terminator (a finish reason, ``[DONE]``).
"""

import asyncio
from collections import OrderedDict, deque
from collections.abc import Callable

from pilotage.gateway.transport.connection import Connection, FailureKind, Limits, UpstreamFailure
from pilotage.gateway.transport.dial import Dial, DirectDial, Origin, describe

__all__ = ["Exchange", "FailureKind", "Limits", "Origin", "Pool", "UpstreamFailure"]


SHUN_S = 1.0


class Pool:
    """Connections to one place; belongs to the event loop it was made in.

    ``open`` counts permits in use (connections idle, leased or being opened) and never exceeds
    ``max_connections``; ``idle`` counts those ready for reuse; ``opened_total`` only grows.
    ``shunned_until_s`` (the loop's time) is how long others of its kind are the better choice,
    because no connection could be made, or one broke before its answer was whole.
    """

    __slots__ = (
        "_all",
        "_closed",
        "_dial",
        "_idle",
        "_loop",
        "_waiters",
        "limits",
        "open",
        "opened_total",
        "shunned_until_s",
    )

    def __init__(self, where: Origin | Dial, limits: Limits | None = None) -> None:
        self._dial = DirectDial(where) if isinstance(where, Origin) else where
        self.limits = limits or Limits()
        self.open = 0
        self.opened_total = 0
        self.shunned_until_s = 0.0
        self._loop = asyncio.get_running_loop()
        self._idle: deque[Connection] = deque()  # oldest release first
        self._all: set[Connection] = set()
        # First come, first served: each gets a connection, or None as the permit to open one.
        self._waiters: OrderedDict[asyncio.Future[Connection | None], None] = OrderedDict()
        self._closed = False

    @property
    def idle(self) -> int:
        """Return how many connections are ready for reuse."""
        return len(self._idle)

    async def post(
        self,
        head: bytes,
        body: bytes,
        *,
        headers_timeout_s: float | None = None,
        on_write: Callable[[], None] | None = None,
    ) -> "Exchange":
        """Send a request and return its response as soon as the head is there.

        Args:
            head: request line and header lines, each ended by CRLF, without content-length and
                without the final blank line.
            body: the request's body.
            headers_timeout_s: how long the upstream may take to its response head.
            on_write: called right before the request is written.

        A kept-alive connection that the upstream closed before any byte of the response is
        replaced once by a fresh one; the exchange (or the failure) then counts two attempts.
        Raises UpstreamFailure; a cancelled or failed call leaves nothing open.
        """
        request = b"%bcontent-length: %d\r\n\r\n" % (head, len(body))
        attempts = 1
        conn = self._take_idle() or await self._obtain()
        try:
            if conn is None:
                conn = await self._open()
            seconds = (
                self.limits.headers_timeout_s if headers_timeout_s is None else headers_timeout_s
            )
            deadline = self._loop.time() + seconds
            while True:
                if on_write is not None:
                    on_write()
                conn.start(request, body)
                if await conn.wait_for_head(deadline):
                    return Exchange(conn, attempts, self._release)
                if not conn.is_stale():  # a fresh one never is
                    self._note_loss(conn)
                    raise conn.make_failure(attempts)
                attempts = 2
                conn.abort()
                conn = None
                conn = await self._open(sent=True, attempts=2)
        except BaseException:
            self._give_up(conn)
            raise

    def close(self) -> None:
        """Abort every connection, refuse all who wait and everything that comes later."""
        self._closed = True
        while self._waiters:
            waiter, _ = self._waiters.popitem(last=False)
            _refuse(waiter, "connect")
        for conn in tuple(self._all):
            conn.abort()
        self.open -= len(self._idle)
        self._idle.clear()

    def _take_idle(self) -> Connection | None:
        """Return the youngest idle connection, unless it is too old or gone."""
        idle = self._idle
        while idle:
            conn = idle.pop()
            if conn.idle_until > self._loop.time() and not conn.transport.is_closing():
                conn.is_leased = True
                return conn
            conn.abort()
            self._pass_on(None)
        return None

    async def _obtain(self) -> Connection | None:
        """Wait for a connection, or for None: the permit to open one."""
        if self._closed:
            raise UpstreamFailure("connect", sent=False)
        if self.open < self.limits.max_connections:
            self.open += 1
            return None
        waiter: asyncio.Future[Connection | None] = self._loop.create_future()
        self._waiters[waiter] = None
        timer = self._loop.call_later(self.limits.connect_timeout_s, _refuse, waiter, "busy")
        try:
            return await waiter
        except BaseException:
            if waiter.done() and not waiter.cancelled() and waiter.exception() is None:
                self._give_up(waiter.result())  # cancelled in the moment it was served
            raise
        finally:
            timer.cancel()
            self._waiters.pop(waiter, None)

    async def _open(self, *, sent: bool = False, attempts: int = 1) -> Connection:
        """Open a connection under a permit the caller holds."""
        try:
            async with asyncio.timeout(self.limits.connect_timeout_s):
                conn = await self._dial(self._make_connection)
        except (TimeoutError, OSError, UnicodeError) as failed:
            self._shun()
            raise _no_connection(failed, sent=sent, attempts=attempts) from failed
        if self._closed:
            conn.abort()
            raise UpstreamFailure("connect", sent=sent, attempts=attempts)
        self._all.add(conn)
        self.opened_total += 1
        self.shunned_until_s = 0.0
        return conn

    def _make_connection(self) -> Connection:
        return Connection(self._loop, self.limits, self._forget)

    def _release(self, conn: Connection) -> None:
        """Take a leased connection back: for the next call if it is fit for one."""
        if conn.is_reusable():
            self._pass_on(conn)
        else:
            self._note_loss(conn)
            self._give_up(conn)

    def _note_loss(self, conn: Connection) -> None:
        """Shun the place for a while if it was its end that broke a connection."""
        if conn.failure in ("reset_before_headers", "cut"):
            self._shun()

    def _shun(self) -> None:
        self.shunned_until_s = self._loop.time() + SHUN_S

    def _give_up(self, conn: Connection | None) -> None:
        """Abort what was leased, if anything, and free its permit."""
        if conn is not None:
            conn.abort()
            self._all.discard(conn)
        self._pass_on(None)

    def _pass_on(self, conn: Connection | None) -> None:
        """Give a connection (None: the permit of a lost one) to who waits longest, or keep it."""
        while self._waiters:
            waiter, _ = self._waiters.popitem(last=False)
            if not waiter.done():
                waiter.set_result(conn)
                return
        if conn is None:
            self.open -= 1
            return
        now = self._loop.time()
        conn.is_leased = False
        conn.idle_until = now + self.limits.idle_s
        self._idle.append(conn)
        if self._idle[0].idle_until <= now:
            self._idle.popleft().abort()
            self.open -= 1

    def _forget(self, conn: Connection) -> None:
        """Note that a connection is gone; a leased one keeps its permit until it is released."""
        self._all.discard(conn)
        if not conn.is_leased and conn in self._idle:
            self._idle.remove(conn)
            self._pass_on(None)


def _no_connection(
    failed: TimeoutError | OSError | UnicodeError, *, sent: bool, attempts: int
) -> UpstreamFailure:
    if isinstance(failed, TimeoutError):
        return UpstreamFailure("connect_timeout", sent=sent, attempts=attempts)
    reason = describe(failed) if isinstance(failed, OSError) else ""  # else: no host name
    return UpstreamFailure("connect", sent=sent, attempts=attempts, reason=reason)


def _refuse(waiter: asyncio.Future[Connection | None], kind: FailureKind) -> None:
    if not waiter.done():
        waiter.set_exception(UpstreamFailure(kind, sent=False))


class Exchange:
    """One response: its head, and its body as it arrives. Whoever got it must close it.

    ``headers`` are pairs with lower-case names, in order, duplicates kept.
    """

    __slots__ = ("_conn", "_release", "attempts", "headers", "status")

    def __init__(
        self, conn: Connection, attempts: int, release: Callable[[Connection], None]
    ) -> None:
        self._conn: Connection | None = conn
        self._release = release
        self.status = conn.status
        self.headers = conn.headers
        self.attempts = attempts

    @property
    def is_complete(self) -> bool:
        """Whether the whole response has arrived and been read."""
        conn = self._conn
        return conn is not None and conn.is_done and not conn.parts

    async def read(self) -> bytes:
        """Return all body bytes that have arrived, waiting for the first; b"" at the end.

        Raises UpstreamFailure after the last byte that arrived before the failure.
        """
        conn = self._conn
        if conn is None:
            raise RuntimeError("this exchange is closed")
        if not conn.parts and not conn.is_done and conn.failure is None:
            await conn.wait_for_body()
        if conn.parts:
            return conn.take()
        if conn.is_done:
            return b""
        raise conn.make_failure(self.attempts)

    async def read_all(self) -> bytes:
        """Return the rest of the body, once it is complete."""
        conn = self._conn
        if conn is not None and conn.is_done:
            return conn.take()
        parts = []
        while part := await self.read():
            parts.append(part)
        return b"".join(parts)

    def close(self) -> None:
        """Keep the connection if the response is complete, else abort it now; may be repeated."""
        conn = self._conn
        if conn is None:
            return
        self._conn = None
        self._release(conn)
