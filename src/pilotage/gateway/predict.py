"""Predictions: each instance of a request goes through the chain as a call of its own.

So every instance has its limits, its record and its bill, as if it had been asked alone.
"""

import asyncio

from pilotage.core.errors import PilotageError
from pilotage.gateway.call import Call, Reply
from pilotage.gateway.plane import Caller, DataPlane, Sent
from pilotage.gateway.wire.openai import CHAT
from pilotage.gateway.wire.predict import (
    Answered,
    Asked,
    decode_request,
    encode_reply,
    read_prediction,
)
from pilotage.kit.clock import Clock

AT_ONCE = 8  # instances of one request


class CallFailed(Exception):  # noqa: N818 - of one call among others
    """The call of an instance failed, and is on record."""

    def __init__(self, call: Call, error: PilotageError) -> None:
        super().__init__(call.id, error.code)
        self.call = call
        self.error = error


class Prediction:
    """One request: its instances are asked side by side; where one fails, the others end.

    ``leave`` ends all of them.
    """

    def __init__(self, plane: DataPlane, clock: Clock, caller: Caller, sent: Sent) -> None:
        self._plane = plane
        self._clock = clock
        self._caller = caller
        self._sent = sent
        self._running: set[Call] = set()
        self._free = asyncio.Semaphore(AT_ONCE)
        self._is_left = False

    def leave(self) -> None:
        """End it because its client has gone."""
        self._is_left = True
        for call in self._running:
            call.leave()

    async def run(self, endpoint: str, body: bytes) -> bytes:
        """Return the body of the reply; raise :class:`CallFailed`, or what comes before a call."""
        asked = decode_request(endpoint, body)
        try:
            async with asyncio.TaskGroup() as group:
                tasks = [
                    group.create_task(self._ask(number, one)) for number, one in enumerate(asked)
                ]
        except ExceptionGroup as failed:
            raise failed.exceptions[0] from None
        return encode_reply([task.result() for task in tasks])

    async def _ask(self, number: int, asked: Asked) -> Answered:
        async with self._free:
            return await self._call(asked, self._number(number))

    async def _call(self, asked: Asked, sent: Sent) -> Answered:
        started_s = self._clock.monotonic_s()
        call = self._plane.open_call(self._caller, CHAT, asked.body, started_s, sent)
        self._plane.enter(call)
        self._running.add(call)
        reply: Reply | None = None
        try:
            async with call:
                if self._is_left:
                    call.leave()
                reply = await self._plane.chain(call)
        finally:
            self._running.discard(call)
            self._plane.leave(call)
        if call.error is not None:
            raise CallFailed(call, call.error)
        try:
            prediction = read_prediction(asked, reply.body if reply else b"")
        except PilotageError as wrong:
            raise CallFailed(call, wrong) from None
        arm = call.arm if call.tenant.shows else None
        return Answered(
            call_id=call.id,
            prediction=prediction,
            arm_id=arm.id if arm else "",
            model=arm.model if arm else "",
        )

    def _number(self, number: int) -> Sent:
        """Return what was said beside the body: of a repeated request, each instance is one."""
        key = self._sent.idempotency_key
        return self._sent._replace(idempotency_key=f"{key}/{number}") if key else self._sent
