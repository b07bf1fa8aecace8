"""Listening to an answer while it is passed on as it comes."""

from pilotage.gateway.call import Reply, Stream

MAX_TEXT_BYTES = 256 << 10  # of a prompt or an answer; of what is longer nothing is kept


class Hearing:
    """Hears one reply; holds nothing until there is one."""

    __slots__ = ("_body", "_heard", "is_stream")

    def __init__(self) -> None:
        self.is_stream = False
        self._body = b""
        self._heard: _Heard | None = None

    def listen(self, reply: Reply) -> Reply:
        """Return the reply to pass on instead of this one."""
        if reply.stream is None:
            self._body = reply.body if len(reply.body) <= MAX_TEXT_BYTES else b""
            return reply
        self.is_stream = True
        self._heard = _Heard(reply.stream)
        return Reply(stream=self._heard, terminator=reply.terminator)

    def collect(self) -> bytes:
        """Return what was heard so far, nothing if it was too much."""
        return self._body if self._heard is None else self._heard.collect()


class _Heard:
    """A stream that is passed on as it comes, and remembered up to a length."""

    __slots__ = ("_parts", "_size", "_stream")

    def __init__(self, stream: Stream) -> None:
        self._stream = stream
        self._parts: list[bytes] = []
        self._size = 0

    async def read(self) -> bytes:
        """Return the next bytes."""
        part = await self._stream.read()
        self._size += len(part)
        if self._size <= MAX_TEXT_BYTES:
            self._parts.append(part)
        return part

    def collect(self) -> bytes:
        """Return what was heard, nothing if it was too much."""
        return b"".join(self._parts) if self._size <= MAX_TEXT_BYTES else b""
