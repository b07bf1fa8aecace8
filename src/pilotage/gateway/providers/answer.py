"""A streamed answer as it comes: cut into events, translated, counted, checked for a proper end."""

import asyncio
from abc import ABC, abstractmethod

from pilotage.core.errors import PilotageError
from pilotage.core.frames import Flag
from pilotage.core.usage import Usage
from pilotage.gateway.call import Call
from pilotage.gateway.transport.upstream import Exchange, UpstreamFailure
from pilotage.gateway.wire.sse import EventSplitter
from pilotage.kit.clock import Clock

LINGER_S = 1.0  # how long a connection is waited for whose answer is whole


def note_usage(call: Call, usage: Usage | None) -> None:
    """Put what the model reported on the call; None is a report whose parts do not add up."""
    call.usage = usage
    if usage is None:
        call.flags.add(Flag.USAGE_INVALID)


def note_silence(call: Call) -> None:
    """Flag a whole answer that came without a report of its usage."""
    if call.usage is None and Flag.USAGE_INVALID not in call.flags:
        call.flags.add(Flag.USAGE_MISSING)


def upstream_model(call: Call) -> str:
    """Return what the call's target calls the model, "" if it minds no name."""
    return call.arm.upstream_model if call.arm else ""


class AnswerStream(ABC):
    """The events of one answer; a subclass says in :meth:`take` what each becomes.

    Nothing is handed out before the first content, because headers are committed with it. A stream
    ends properly when the target finished (gave a reason) and then said that it was done.
    """

    terminator = b""  # what ends the client's stream after the call is on record

    def __init__(self, call: Call, exchange: Exchange, clock: Clock) -> None:
        self.call = call
        self.is_finished = False
        self.is_terminated = False
        self._exchange = exchange
        self._clock = clock
        self._splitter = EventSplitter()
        self._first = b""
        self._held: list[bytes] = []

    @abstractmethod
    def take(self, data: bytes, out: list[bytes]) -> None:
        """Take one event's data: hand on what it becomes, note content, finish and end.

        Raises ``upstream_error`` for an error within the stream.
        """

    def hand_on(self, line: bytes, out: list[bytes]) -> None:
        """Hand an event on to the client, or hold it back while there is no content yet."""
        if self.call.ttft_us < 0 and not self.is_finished:
            self._held.append(line)
            return
        if self._held:
            out.extend(self._held)
            self._held.clear()
        out.append(line)

    def note_content(self) -> None:
        """Count an event that carries something a reader sees."""
        call = self.call
        call.chunks += 1
        if call.ttft_us < 0:
            call.ttft_us = round((self._clock.monotonic_s() - call.started_s) * 1e6)

    async def open(self) -> None:
        """Wait for the first content."""
        self._first = await self._read()

    async def read(self) -> bytes:
        """Return the next events as bytes, b"" at a proper end; raise if it ends otherwise."""
        if self._first:
            first, self._first = self._first, b""
            return first
        return await self._read()

    async def _read(self) -> bytes:
        while not self.is_terminated:
            part = await self._exchange.read()
            if not part:
                raise PilotageError("upstream_cut")
            out: list[bytes] = []
            for data in self._splitter.feed(part):
                self.take(data, out)
                if self._is_over():
                    break
            if out:
                return b"".join(out)
        await self._finish()
        return b""

    def _is_over(self) -> bool:
        return self.is_terminated

    async def _finish(self) -> None:
        if not self.is_finished:
            raise PilotageError("upstream_cut", "The model's answer ended without a finish reason.")
        note_silence(self.call)
        if self._exchange.is_complete:
            return
        try:  # the answer is whole; this is only for the connection to be used again
            async with asyncio.timeout(LINGER_S):
                while await self._exchange.read():
                    pass
        except (TimeoutError, UpstreamFailure):
            return
