"""The tap: for a share of a tenant's calls, what is measured of their texts becomes a frame.

A tenant's ``measure_share`` decides (basis points, by the call's id; 0 unless somebody sets it),
and restricted data is never drawn. A call that is drawn leaves a copy of its answer in memory, and
is measured in a thread once a second; texts go no further than that. A call that is not drawn costs
one look at its tenant.
"""

import asyncio
from collections import deque
from typing import NamedTuple

from pilotage.core.data_classes import get_rule
from pilotage.core.errors import PilotageError
from pilotage.core.frames import Measured, Outcome, encode_frame
from pilotage.core.snapshot import FULL_WEIGHT
from pilotage.gateway.call import Call, Reply, Step, Stream
from pilotage.gateway.measures.language import find_language
from pilotage.gateway.measures.refusal import is_refusal
from pilotage.gateway.measures.texts import read_answer, read_prompt
from pilotage.gateway.routing.choice import is_drawn
from pilotage.kit.clock import Clock
from pilotage.kit.spool import SpoolWriter

MAX_TEXT_BYTES = 256 << 10  # of a prompt or an answer; what is longer is not measured
MAX_WAITING = 200
AT_ONCE = 20  # calls that a look measures, some 10 ms
_SALT = "measures of "  # so that this share is no part of another


class Answered(NamedTuple):
    """A call that went well, and its answer, which is to be measured as well as its prompt."""

    call: Call
    answer: bytes
    is_stream: bool


class MeasureTap:
    """Measures calls; whoever owns it calls :meth:`measure` again and again.

    ``dropped`` counts calls that found no room to wait, or none in the spool.
    """

    def __init__(self, spool: SpoolWriter, clock: Clock) -> None:
        self._spool = spool
        self._clock = clock
        self._waiting: deque[Answered] = deque()
        self.dropped = 0

    async def follow(self, call: Call, follow: Step) -> Reply:
        """Pass a call on, and listen to its answer if it is drawn."""
        reply = await follow(call)
        tenant = call.tenant
        if not get_rule(tenant.data_class).is_logged or len(call.body) > MAX_TEXT_BYTES:
            return reply
        if not is_drawn(_SALT, call.id, tenant.measure_share, FULL_WEIGHT):
            return reply
        if reply.stream is None:
            answer = reply.body if len(reply.body) <= MAX_TEXT_BYTES else b""
            call.at_end(lambda: self._keep(call, answer, is_stream=False))
            return reply
        heard = _Heard(reply.stream)
        call.at_end(lambda: self._keep(call, heard.collect(), is_stream=True))
        return Reply(stream=heard, terminator=reply.terminator)

    async def measure(self) -> None:
        """Measure some of the calls that wait, and record what was found."""
        some = self._take_some()
        if some:
            for measures in await asyncio.to_thread(_measure_all, some, self._clock.now_us()):
                self._record(measures)

    def settle(self) -> None:
        """Measure whatever waits, at the end of a process."""
        while some := self._take_some():
            for measures in _measure_all(some, self._clock.now_us()):
                self._record(measures)

    def _take_some(self) -> list[Answered]:
        count = min(AT_ONCE, len(self._waiting))
        return [self._waiting.popleft() for _ in range(count)]

    def _keep(self, call: Call, answer: bytes, *, is_stream: bool) -> None:
        if call.outcome is not Outcome.OK:
            return
        if len(self._waiting) >= MAX_WAITING:
            self.dropped += 1
            return
        self._waiting.append(Answered(call, answer, is_stream))

    def _record(self, measures: Measured) -> None:
        try:
            self._spool.append(encode_frame(measures))
        except PilotageError:  # a full disk: what calls cost goes first
            self.dropped += 1


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


def _measure_all(calls: list[Answered], now_us: int) -> list[Measured]:
    return [measure(answered, now_us) for answered in calls]


def measure(answered: Answered, now_us: int) -> Measured:
    """Return what is measured of a call's texts."""
    call, arm = answered.call, answered.call.arm
    told = read_prompt(call.body)
    said = read_answer(answered.answer, is_stream=answered.is_stream)
    return Measured(
        call_id=call.id,
        at_us=now_us,
        project_id=call.tenant.project_id,
        tenant_id=call.tenant.id,
        alias=call.alias_name,
        version_id=arm.version_id if arm else "",
        model=arm.model if arm else "",
        prompt_letters=sum(map(len, told.whole)) if told.whole else -1,
        prompt_language=find_language(told.last),
        answer_letters=len(said) if said else -1,
        answer_language=find_language(said),
        is_refusal=is_refusal(said) or call.finish_reason in ("refusal", "content_filter"),
    )
