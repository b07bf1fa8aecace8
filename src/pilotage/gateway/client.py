"""The door without HTTP: calls made by this process, through the same chain as everybody's."""

from collections.abc import AsyncIterator

from pilotage.gateway.call import Call, Reply
from pilotage.gateway.plane import DataPlane, Sent
from pilotage.gateway.wire.door import Wire
from pilotage.gateway.wire.openai import CHAT
from pilotage.kit.clock import Clock

_NOTHING = Sent()


class ChainClient:
    """Makes calls with one API key. A failed call raises what an HTTP client would be told."""

    def __init__(self, plane: DataPlane, clock: Clock, secret: str) -> None:
        self._plane = plane
        self._clock = clock
        self._secret = secret.encode()

    async def ask(self, wire: Wire, body: bytes, sent: Sent = _NOTHING) -> bytes:
        """Return the whole reply to a request, as the wire has it."""
        call = self._open(wire, body, sent)
        reply: Reply | None = None
        try:
            async with call:
                reply = await self._plane.chain(call)
        finally:
            self._plane.leave(call)
        _check(call)
        return reply.body if reply else b""

    async def stream(self, wire: Wire, body: bytes, sent: Sent = _NOTHING) -> AsyncIterator[bytes]:
        """Yield the events of a streamed reply; what leaves the loop early cancels the call."""
        call = self._open(wire, body, sent)
        reply: Reply | None = None
        try:
            async with call:
                reply = await self._plane.chain(call)
                while reply.stream is not None and (part := await reply.stream.read()):
                    yield part
        finally:
            self._plane.leave(call)
        _check(call)
        if reply is not None:
            yield reply.terminator

    async def ask_chat(self, body: bytes) -> bytes:
        """Return the whole reply to a chat request of the OpenAI wire."""
        return await self.ask(CHAT, body)

    def list_endpoints(self) -> list[tuple[str, frozenset[str]]]:
        """Return what this key may call by name, with the providers behind it ("" is local)."""
        caller = self._plane.authenticate(self._secret)
        providers = {entry.id: entry.provider for entry in caller.view.upstreams}
        return [
            (
                view.entry.name,
                frozenset(providers.get(arm.upstream_id, "") for arm in view.entry.arms),
            )
            for view in caller.view.list_aliases(caller.tenant.project_id, caller.scope)
        ]

    def _open(self, wire: Wire, body: bytes, sent: Sent) -> Call:
        started_s = self._clock.monotonic_s()
        caller = self._plane.authenticate(self._secret)
        call = self._plane.open_call(caller, wire, body, started_s, sent)
        self._plane.enter(call)
        return call


def _check(call: Call) -> None:
    """Raise what a call failed with; it is on record by now."""
    if call.error is not None:
        raise call.error
