"""One call over one bridge, without any connection: what is sent, and what the client reads."""

import asyncio
import json
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, cast

from gateway_harness import CLOCK
from made_calls import make_alias, make_arm, make_call
from pilotage.core.errors import PilotageError
from pilotage.gateway.call import Call
from pilotage.gateway.http import WIRES
from pilotage.gateway.providers.bridge import find_bridge
from pilotage.gateway.steps.record import bound_call
from pilotage.gateway.transport.upstream import Exchange
from upstream_faults import encode_event
from upstream_wires import Dialect, Plan, find_dialect

PATHS = {wire.name: path for path, wire in WIRES.items()}
CALL_ID = "call_06gvq7cl3dtth9f072u82405jg"
PROVIDER_MODEL = "their-name"


class Spoken(NamedTuple):
    """What came of a call: the request that was sent, the reply or the events, the call."""

    sent: dict[str, Any]
    reply: Any
    events: list[tuple[str, Any]]
    call: Call


class Parts:
    """An exchange whose answer comes in these parts."""

    is_complete = True

    def __init__(self, parts: Sequence[bytes]) -> None:
        self._parts = list(parts)

    async def read(self) -> bytes:
        """Return the next part, b"" at the end."""
        return self._parts.pop(0) if self._parts else b""


def cut(stream: bytes, size: int) -> list[bytes]:
    """Cut bytes into parts of a size."""
    return [stream[start : start + size] for start in range(0, len(stream), size)]


def stream_events(dialect: Dialect) -> bytes:
    """Return a whole good stream."""
    contents = [event for events in dialect.contents() for event in events]
    events = [*dialect.open(), *contents, *dialect.finish(), *dialect.count()]
    return b"".join(encode_event(event) for event in events) + dialect.done


def open_call(door: str, body: dict[str, Any], *, is_ours: bool = False, ceiling: int = 64) -> Call:
    """Return a call of a door, on its way to one arm; needs a running loop."""
    arm = make_arm() if is_ours else make_arm(upstream_id="ups_1", upstream_model=PROVIDER_MODEL)
    alias = make_alias(arm, max_output_tokens=ceiling)
    payload = json.dumps({"model": "chat", **body}).encode()
    call = make_call(alias, wire=WIRES[PATHS[door]], body=payload, call_id=CALL_ID)
    call.arm = arm
    bound_call(call, alias)
    return call


def speak(
    door: str,
    target: str,
    body: dict[str, Any],
    plan: dict[str, Any] | None = None,
    *,
    is_ours: bool = False,
    ceiling: int = 64,
    size: int = 1 << 20,
    spoil: Callable[[Any], Any] = lambda whole: whole,
) -> Spoken:
    """Have a call answered after a plan; ``spoil`` changes what the model says before it is read.

    It is given the reply (an object), or the whole stream (bytes).
    """

    async def run() -> Spoken:
        call = open_call(door, body, is_ours=is_ours, ceiling=ceiling)
        bridge = find_bridge(door, target)
        sent = json.loads(bridge.encode(call))
        kind = find_dialect(bridge.path.decode())
        assert kind is not None
        dialect = kind(Plan(**(plan or {})), sent, 1)
        if not body.get("stream"):
            payload = json.dumps(spoil(dialect.whole())).encode()
            reply = json.loads(bridge.decode(call, payload))
            return Spoken(sent, reply, [], call)
        exchange = cast("Exchange", Parts(cut(spoil(stream_events(dialect)), size)))
        stream = bridge.open(call, exchange, CLOCK)
        await stream.open()
        read = b""
        while part := await stream.read():
            read += part
        return Spoken(sent, None, read_events(read + stream.terminator), call)

    return asyncio.run(run())


def refuse(door: str, target: str, body: dict[str, Any], *, is_ours: bool = False) -> PilotageError:
    """Return the error of a call that its wire or its bridge must refuse."""
    try:
        spoken = speak(door, target, body, is_ours=is_ours)
    except PilotageError as refused:
        return refused
    raise AssertionError(f"not refused: {spoken.sent}")


def read_events(stream: bytes) -> list[tuple[str, Any]]:
    """Return the events of a stream: name and data."""
    events = []
    for block in stream.decode().split("\n\n"):
        fields = dict(line.split(": ", 1) for line in block.split("\n") if line)
        if fields:
            data = fields["data"]
            events.append((fields.get("event", ""), data if data == "[DONE]" else json.loads(data)))
    return events
