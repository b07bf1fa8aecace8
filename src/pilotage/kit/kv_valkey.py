"""A link to a Valkey (or Redis) server: one connection, commands pipelined as they come.

Commands of one turn of the event loop leave in one write. Every command has a time limit; a server
that cannot be reached is tried again with growing pauses, in which commands fail at once.
"""

import asyncio
import ssl
from collections import deque
from types import ModuleType
from typing import Any, NamedTuple, cast
from urllib.parse import urlsplit

from pilotage.core.errors import PilotageError
from pilotage.kit.clock import Clock

DEFAULT_PORT = 6379
RETRY_S = (0.05, 0.1, 0.2, 0.5)  # pauses after attempts to connect that failed
SILENT_LIMIT = 3  # commands in a row without an answer: the connection is given up

Word = str | bytes | int


class ValkeyAwayError(Exception):
    """The server cannot be reached or did not answer in time."""


class ValkeyRefusedError(Exception):
    """The server answered with an error; the message is its own."""


class ValkeyAddress(NamedTuple):
    """Where a server is; ``password`` is the secret itself, ``ca_file`` replaces the system's."""

    host: str
    port: int = DEFAULT_PORT
    database: int = 0
    is_tls: bool = False
    password: str = ""
    ca_file: str = ""


def parse_valkey_url(url: str) -> ValkeyAddress:
    """Read ``valkey://HOST:PORT/DB`` or ``valkeys://`` (with TLS); raise ValueError otherwise."""
    parts = urlsplit(url)
    if parts.scheme not in ("valkey", "valkeys") or not parts.hostname:
        raise ValueError("must be 'memory' or valkey://HOST:PORT/DB")
    if parts.username is not None or parts.password is not None or parts.query:
        raise ValueError("holds more than host, port and database")
    database = parts.path.strip("/") or "0"
    if not database.isdecimal():
        raise ValueError(f"names no database: {database!r}")
    return ValkeyAddress(
        host=parts.hostname,
        port=parts.port or DEFAULT_PORT,
        database=int(database),
        is_tls=parts.scheme == "valkeys",
    )


class ValkeyLink:
    """Connects when first used, and again when it must; whoever opens it closes it."""

    def __init__(self, address: ValkeyAddress, clock: Clock, timeout_s: float) -> None:
        self._address = address
        self._clock = clock
        self._timeout_s = timeout_s
        self._hiredis = _import_hiredis()
        self._wire: _Wire | None = None
        self._connecting = asyncio.Lock()
        self._failures = 0
        self._retry_at_s = 0.0
        self._silent = 0

    async def call(self, *words: Word) -> Any:  # noqa: ANN401 - what the command answers with
        """Run a command and return its answer: text, integers, lists of them, or None.

        Raises ValkeyAwayError without an answer in time, ValkeyRefusedError for an error.
        """
        wire = self._wire
        try:
            async with asyncio.timeout(self._timeout_s):
                if wire is None or wire.is_lost:
                    wire = await self._connect()
                answer = await wire.send(words)
        except TimeoutError:
            self._note_silence(wire)
            raise ValkeyAwayError(
                f"{self._place} did not answer within {self._timeout_s * 1000:g} ms"
            ) from None
        self._silent = 0
        if isinstance(answer, Exception):
            raise ValkeyRefusedError(str(answer))
        return answer

    def close(self) -> None:
        """Close the connection; commands that wait for an answer fail."""
        if self._wire is not None:
            self._wire.abort()
            self._wire = None

    @property
    def _place(self) -> str:
        return f"Valkey at {self._address.host}:{self._address.port}"

    def _note_silence(self, wire: "_Wire | None") -> None:
        self._silent += 1
        if self._silent >= SILENT_LIMIT and wire is not None:
            self._silent = 0
            wire.abort()

    async def _connect(self) -> "_Wire":
        async with self._connecting:
            if self._wire is not None and not self._wire.is_lost:
                return self._wire
            if self._clock.monotonic_s() < self._retry_at_s:
                raise ValkeyAwayError(f"{self._place} could not be reached a moment ago")
            wire = None
            try:
                wire = await self._open()
                await self._greet(wire)
            except (OSError, ValkeyAwayError, ValkeyRefusedError) as failed:
                self._put_off(wire)
                raise ValkeyAwayError(f"{self._place} cannot be used: {failed}") from failed
            except BaseException:  # the time limit of whoever connects
                self._put_off(wire)
                raise
            self._failures = 0
            self._wire = wire
            return wire

    async def _open(self) -> "_Wire":
        address = self._address
        context = None
        if address.is_tls:
            context = ssl.create_default_context(cafile=address.ca_file or None)
        _, wire = await asyncio.get_running_loop().create_connection(
            lambda: _Wire(self._hiredis), address.host, address.port, ssl=context
        )
        return wire

    async def _greet(self, wire: "_Wire") -> None:
        greetings: list[tuple[Word, ...]] = []
        if self._address.password:
            greetings.append(("AUTH", self._address.password))
        if self._address.database:
            greetings.append(("SELECT", self._address.database))
        for words in greetings:
            answer = await wire.send(words)
            if isinstance(answer, Exception):
                raise ValkeyRefusedError(str(answer))

    def _put_off(self, wire: "_Wire | None") -> None:
        if wire is not None:
            wire.abort()
        pause_s = RETRY_S[min(self._failures, len(RETRY_S) - 1)]
        self._failures += 1
        self._retry_at_s = self._clock.monotonic_s() + pause_s


class _Wire(asyncio.Protocol):
    """One connection: answers come in the order of the commands."""

    def __init__(self, hiredis: ModuleType) -> None:
        self.is_lost = False
        self._reader = hiredis.Reader(encoding="utf-8", errors="replace", notEnoughData=_MORE)
        self._pack = hiredis.pack_command
        self._protocol_error = hiredis.ProtocolError
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport | None = None
        self._unsent: list[bytes] = []
        self._waiting: deque[asyncio.Future[Any]] = deque()

    def send(self, words: tuple[Word, ...]) -> asyncio.Future[Any]:
        """Send a command with the others of this turn; the future gets its answer."""
        if self.is_lost:
            raise ValkeyAwayError("the connection is lost")
        if not self._unsent:
            self._loop.call_soon(self._flush)
        self._unsent.append(self._pack(words))
        future: asyncio.Future[Any] = self._loop.create_future()
        self._waiting.append(future)
        return future

    def abort(self) -> None:
        """Give the connection up at once."""
        if self._transport is not None:
            self._transport.abort()
        self._lose()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Remember the connection."""
        self._transport = cast("asyncio.Transport", transport)  # uvloop's is no subclass of it

    def data_received(self, data: bytes) -> None:
        """Hand every whole answer to whoever asked first; one that left gets none."""
        try:
            self._reader.feed(data)
            while (answer := self._reader.gets()) is not _MORE:
                future = self._waiting.popleft()
                if not future.done():
                    future.set_result(answer)
        except (self._protocol_error, IndexError):
            self.abort()  # not the protocol: nothing after this can be told apart

    def connection_lost(self, exc: Exception | None) -> None:
        """Fail whatever waits."""
        del exc
        self._lose()

    def _flush(self) -> None:
        unsent, self._unsent = self._unsent, []
        if not self.is_lost and self._transport is not None:
            self._transport.write(b"".join(unsent))

    def _lose(self) -> None:
        self.is_lost = True
        while self._waiting:
            future = self._waiting.popleft()
            if not future.done():
                future.set_exception(ValkeyAwayError("the connection was lost"))


_MORE = object()  # what the reader says when an answer is not whole yet


def _import_hiredis() -> ModuleType:
    try:
        import hiredis
    except ImportError:
        raise PilotageError(
            "invalid_config",
            "A shared store of counters needs an extra package.",
            hint='Run: pip install "pilotage[valkey]"',
        ) from None
    return hiredis
