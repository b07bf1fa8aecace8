"""Idempotency: the same key and body get the same reply, and are asked of a model once.

Fails closed: while it is not known how the first request ends, a second one is refused. A failure
that may go away is not kept, and a request that may be repeated is one that was not answered.
"""

from hashlib import sha256

from pilotage.core.errors import PilotageError
from pilotage.core.frames import Outcome
from pilotage.gateway.call import Call, Reply, Step, Stream
from pilotage.gateway.replies import KeptReplies, KeptReply

REPLAY_LINE = b"x-pilotage-idempotent-replay: true\r\n"


class Idempotency:
    """A key counts within its tenant, API key and door."""

    def __init__(self, follow: Step, replies: KeptReplies) -> None:
        self._follow = follow
        self._replies = replies

    async def __call__(self, call: Call) -> Reply:
        """Answer as before, or pass on and keep the answer; raise what ``claim`` does."""
        if not call.idempotency_key:
            return await self._follow(call)
        scope = (call.tenant.id, call.key_id, call.wire.name, call.idempotency_key)
        key = sha256("\0".join(scope).encode()).digest()
        kept = self._replies.claim(key, sha256(call.sent).digest())
        if kept is not None:
            return _replay(call, kept)
        copy = ReplyCopy(self._replies.max_reply_bytes)
        call.at_end(lambda: self._end(call, key, copy))
        return copy.watch(await self._follow(call))

    def _end(self, call: Call, key: bytes, copy: "ReplyCopy") -> None:
        error = call.error
        if call.outcome is Outcome.OK:
            self._replies.keep(key, copy.finish())
        elif error is not None and error.status == 400:
            refusal = KeptReply(
                code=error.code, detail=error.detail, hint=error.hint, param=error.param
            )
            self._replies.keep(key, refusal)
        else:
            self._replies.release(key)


class ReplyCopy:
    """A copy of a reply as it passes, up to a size."""

    def __init__(self, max_bytes: int) -> None:
        self._left = max_bytes
        self._parts: list[bytes] = []
        self._terminator = b""
        self._is_stream = False

    def watch(self, reply: Reply) -> Reply:
        """Copy a reply; return the same, whose stream is copied while it is read."""
        if reply.stream is None:
            self.add(reply.body)
            return reply
        self._is_stream = True
        self._terminator = reply.terminator
        return Reply(stream=CopiedStream(reply.stream, self), terminator=reply.terminator)

    def add(self, part: bytes) -> None:
        """Copy a part; of a reply that is too large nothing is held."""
        self._left -= len(part)
        if self._left < 0:
            self._parts.clear()
        else:
            self._parts.append(part)

    def finish(self) -> KeptReply | None:
        """Return the whole reply, None if it was too large."""
        if self._left < 0:
            return None
        return KeptReply(b"".join(self._parts), self._terminator, self._is_stream)


class CopiedStream:
    """A stream that is copied on its way."""

    def __init__(self, stream: Stream, copy: ReplyCopy) -> None:
        self._stream = stream
        self._copy = copy

    async def read(self) -> bytes:
        """Return the next bytes."""
        part = await self._stream.read()
        self._copy.add(part)
        return part


class ReplayedStream:
    """All events of an earlier stream, at once."""

    def __init__(self, body: bytes) -> None:
        self._body = body

    async def read(self) -> bytes:
        """Return everything, then the end."""
        body, self._body = self._body, b""
        return body


def _replay(call: Call, kept: KeptReply) -> Reply:
    """Answer as the first time; the call asks no model and costs nothing."""
    call.head_lines += REPLAY_LINE
    if kept.code:
        raise PilotageError(kept.code, kept.detail, hint=kept.hint, param=kept.param)
    call.status = 200
    if kept.is_stream:
        return Reply(stream=ReplayedStream(kept.body), terminator=kept.terminator)
    return Reply(body=kept.body)
