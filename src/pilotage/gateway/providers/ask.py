"""The innermost step: ask the call's target, and read its answer to a proper end.

What is said and understood depends on two wires, the client's and the target's; a
:class:`~pilotage.gateway.providers.bridge.Bridge` stands between each pair of them.
"""

import asyncio

from pilotage.core.errors import PilotageError
from pilotage.gateway.call import Call, Reply
from pilotage.gateway.providers.adapters import add_adapter
from pilotage.gateway.providers.answer import AnswerStream
from pilotage.gateway.providers.bridge import find_bridge
from pilotage.gateway.providers.target import Target
from pilotage.gateway.transport.upstream import Exchange, UpstreamFailure
from pilotage.kit.clock import Clock


class Ask:
    """Success is a whole reply, or a stream that finished and said so."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock

    async def __call__(self, call: Call) -> Reply:
        """Ask the call's target and return its reply as the client's wire has it."""
        arm, target = call.arm, call.target
        if arm is None or target is None:
            raise PilotageError("no_replica")
        bridge = find_bridge(call.wire.name, target.wire)
        body = bridge.encode(call)
        if target.adapters or arm.adapter:
            body = add_adapter(body, target.adapters, arm)
        call.asked_s = self._clock.monotonic_s()
        try:
            exchange = await _ask(call, target, bridge.path, body)
            if exchange.status != 200:
                wrong = await exchange.read_all()
                raise target.translate_error(exchange.status, exchange.headers, wrong)
            if call.request.stream:
                stream = bridge.open(call, exchange, self._clock)
                if call.alias and call.alias.entry.routing.first_byte_timeout_ms:
                    await self._open_in_time(call, stream)
                else:
                    await stream.open()  # nothing is promised to the client before there is content
                return Reply(stream=stream, terminator=stream.terminator)
            payload = await exchange.read_all()
        finally:
            call.waited_s += self._clock.monotonic_s() - call.asked_s
        call.answer_bytes = len(payload)
        return Reply(body=bridge.decode(call, payload))

    async def _open_in_time(self, call: Call, stream: AnswerStream) -> None:
        """Wait for content, within the attempt's limit: some targets send the head at once."""
        limit_s = call.first_byte_timeout_s
        left_s = call.asked_s + limit_s - self._clock.monotonic_s()
        try:
            async with asyncio.timeout(left_s) as limit:
                await stream.open()
        except TimeoutError:
            if not limit.expired():
                raise
            raise PilotageError(
                "upstream_stall", f"The model said nothing for {limit_s:g} s."
            ) from None


async def _ask(call: Call, target: Target, path: bytes, body: bytes) -> Exchange:
    head = await target.make_head(path, call)
    exchange = await _post(call, target, head, body)
    if exchange.status == 401 and (renewed := await target.renew_head(path, call)):
        exchange.close()
        exchange = await _post(call, target, renewed, body)
    return exchange


async def _post(call: Call, target: Target, head: bytes, body: bytes) -> Exchange:
    call.attempts += 1
    call.is_sent, call.status = False, 0  # a refusal of our credential says nothing of what follows
    try:
        exchange = await target.pool.post(
            head,
            body,
            headers_timeout_s=call.first_byte_timeout_s,
            on_write=call.note_sent,
        )
    except UpstreamFailure as failed:
        call.attempts += failed.attempts - 1
        raise
    call.attempts += exchange.attempts - 1
    call.at_end(exchange.close)
    call.status = exchange.status
    return exchange
