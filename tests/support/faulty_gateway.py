"""A gateway process with one step more, which breaks or waits when a call's purpose says so.

The purpose is the header ``x-pilotage-purpose``: ``raise before``, ``raise after``,
``raise mid-stream``, ``wait before``, ``wait after`` (before or after the steps within), or
``swallow`` (answer as if nothing were wrong when the call is stopped).
"""

import asyncio
from contextlib import suppress
from pathlib import Path

from pilotage.gateway.call import Call, Reply, Step, Stream
from pilotage.runtime.gateway import main

PROGRAM = (str(Path(__file__)),)
PARTS = 2  # of a stream before it breaks


class FaultStep:
    """Breaks or waits as the call's purpose says."""

    def __init__(self, follow: Step) -> None:
        self._follow = follow

    async def __call__(self, call: Call) -> Reply:
        """Do it."""
        await _misbehave(call.purpose, "before")
        if call.purpose == "swallow":
            return await _swallow()
        reply = await self._follow(call)
        await _misbehave(call.purpose, "after")
        if call.purpose == "raise mid-stream" and reply.stream is not None:
            reply.stream = BreakingStream(reply.stream)
        return reply


class BreakingStream:
    """Hands on a few parts, then raises."""

    def __init__(self, stream: Stream) -> None:
        self._stream = stream
        self._left = PARTS

    async def read(self) -> bytes:
        """Return the next part, or raise."""
        if not self._left:
            raise ZeroDivisionError("as you wished, mid-stream")
        self._left -= 1
        return await self._stream.read()


async def _misbehave(purpose: str, when: str) -> None:
    if purpose == f"raise {when}":
        raise ZeroDivisionError(f"as you wished, {when}")
    if purpose == f"wait {when}":
        await asyncio.Event().wait()


async def _swallow() -> Reply:
    with suppress(asyncio.CancelledError):
        await asyncio.Event().wait()
    return Reply(body=b"{}")


if __name__ == "__main__":
    main([FaultStep])
