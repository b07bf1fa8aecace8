"""Calls that enter by one wire and leave by another: read whole, said anew, answered back."""

from collections.abc import Iterable
from typing import Protocol

from pilotage.core.usage import Usage
from pilotage.gateway.call import Call
from pilotage.gateway.providers.answer import AnswerStream, note_silence
from pilotage.gateway.transport.upstream import Exchange
from pilotage.gateway.wire import talk
from pilotage.kit.clock import Clock


class Writer(Protocol):
    """How one answer is written on the client's wire."""

    def begin(self) -> list[bytes]:
        """Return the events that open a stream."""
        ...

    def write(self, piece: talk.Piece) -> list[bytes]:
        """Return the events of a piece."""
        ...

    def finish(self, usage: Usage | None) -> list[bytes]:
        """Return the events after the last piece."""
        ...

    def compose(self, pieces: Iterable[talk.Piece], usage: Usage | None) -> bytes:
        """Return the whole reply instead."""
        ...


class Hearing(Protocol):
    """How a client's wire is read and written."""

    terminator: bytes

    def read(self, call: Call, target: str) -> talk.Talk:
        """Return what the client says; raise ``unsupported`` for what cannot be carried over."""
        ...

    def open(self, call: Call, created_s: int) -> Writer:
        """Return what writes the answer."""
        ...


class Reader(Protocol):
    """How one streamed answer of a target is read."""

    is_done: bool

    def read(self, data: bytes) -> list[talk.Piece]:
        """Return the pieces in one event's data; ``is_done`` says that it was the last."""
        ...


class Speech(Protocol):
    """How a target's wire is written and read."""

    path: bytes
    name: str

    def write(self, call: Call, said: talk.Talk) -> bytes:
        """Return the body of the request; raise ``unsupported`` for what the wire cannot say."""
        ...

    def read(self, call: Call, payload: bytes) -> list[talk.Piece]:
        """Return the pieces of a whole reply."""
        ...

    def open(self, call: Call) -> Reader:
        """Return what reads a streamed answer."""
        ...


class Translated:
    """The bridge from a client's wire to a target's, by way of what both can say."""

    def __init__(self, hearing: Hearing, speech: Speech) -> None:
        self.path = speech.path
        self._hearing = hearing
        self._speech = speech

    def encode(self, call: Call) -> bytes:
        """Return the request as the target's wire has it."""
        return self._speech.write(call, self._hearing.read(call, self._speech.name))

    def decode(self, call: Call, payload: bytes) -> bytes:
        """Return the reply as the client's wire has it."""
        pieces = self._speech.read(call, payload)
        note_silence(call)
        return self._hearing.open(call, _created_s(call)).compose(pieces, call.usage)

    def open(self, call: Call, exchange: Exchange, clock: Clock) -> AnswerStream:
        """Return the stream as the client's wire has it."""
        writer = self._hearing.open(call, _created_s(call))
        stream = TranslatedEvents(call, exchange, clock, self._speech.open(call), writer)
        stream.terminator = self._hearing.terminator
        return stream


class TranslatedEvents(AnswerStream):
    """The events of a target, as events of the client's wire."""

    def __init__(
        self, call: Call, exchange: Exchange, clock: Clock, reader: Reader, writer: Writer
    ) -> None:
        super().__init__(call, exchange, clock)
        self._reader = reader
        self._writer = writer
        self._held = writer.begin()

    def take(self, data: bytes, out: list[bytes]) -> None:
        """Take one event."""
        for piece in self._reader.read(data):
            if isinstance(piece, talk.End):
                self.is_finished = True
            else:
                self.note_content()
            for line in self._writer.write(piece):
                self.hand_on(line, out)
        if self._reader.is_done:
            self.is_terminated = True
            if self.is_finished:
                for line in self._writer.finish(self.call.usage):
                    self.hand_on(line, out)


def _created_s(call: Call) -> int:
    """Return when the call began, in seconds of Unix time: its id says so (core/ids.py).

    The first 48 bits are milliseconds; ten letters are 50 bits.
    """
    return (int(call.id.partition("_")[2][:10], 32) >> 2) // 1000
