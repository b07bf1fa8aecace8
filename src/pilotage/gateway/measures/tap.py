"""The tap: for a share of a tenant's calls, what is measured of their texts becomes a frame.

A tenant's ``measure_share`` decides (basis points, by the call's id; 0 unless somebody sets it),
and restricted data is never drawn. A call that is drawn leaves a copy of its answer in memory, and
is measured in a thread once a second; texts go no further than that. Where more are drawn in a
second than are measured, the lowest points of their ids decide, so that the early ones are no more
likely than the late ones. A call that is not drawn costs one look at its tenant.
"""

import asyncio
import heapq
import logging
from collections.abc import Sequence
from typing import NamedTuple

from pilotage.core.data_classes import get_rule
from pilotage.core.dealing import draw_point
from pilotage.core.errors import PilotageError
from pilotage.core.frames import Measured, Outcome, encode_frame
from pilotage.core.snapshot import FULL_WEIGHT
from pilotage.gateway.call import Call, Reply, Step
from pilotage.gateway.measures.hearing import MAX_TEXT_BYTES, Hearing
from pilotage.gateway.measures.language import find_language
from pilotage.gateway.measures.refusal import is_refusal
from pilotage.gateway.measures.texts import read_answer, read_prompt
from pilotage.gateway.routing.choice import is_drawn
from pilotage.kit.clock import Clock
from pilotage.kit.spool import SpoolWriter

MAX_WAITING = 20  # measured at once in some 10 ms; with their texts 10 MiB at most
_SALT = "measures of "  # so that this share is no part of another
_LOG = logging.getLogger("pilotage.gateway")


class Answered(NamedTuple):
    """A call that went well, and its answer, which is to be measured as well as its prompt.

    They are in the order of ``rank``: the first one gives way to one of a higher rank.
    """

    rank: int
    number: int  # no two are equal
    call: Call
    answer: bytes
    is_stream: bool


class MeasureTap:
    """Measures calls; whoever owns it calls :meth:`measure` again and again.

    ``dropped`` counts calls that found no room to wait or in the spool, or could not be measured.
    """

    def __init__(self, spool: SpoolWriter, clock: Clock) -> None:
        self._spool = spool
        self._clock = clock
        self._waiting: list[Answered] = []  # a heap
        self._kept = 0
        self.dropped = 0

    async def follow(self, call: Call, follow: Step) -> Reply:
        """Pass a call on, and listen to its answer if it is drawn."""
        reply = await follow(call)
        tenant = call.tenant
        if not get_rule(tenant.data_class).is_logged or len(call.body) > MAX_TEXT_BYTES:
            return reply
        if not is_drawn(_SALT, call.id, tenant.measure_share, FULL_WEIGHT):
            return reply
        hearing = Hearing()
        reply = hearing.listen(reply)
        call.at_end(lambda: self._keep(call, hearing.collect(), is_stream=hearing.is_stream))
        return reply

    async def measure(self) -> None:
        """Measure the calls that wait, and record what was found."""
        some, self._waiting = self._waiting, []
        if some:
            self._record(await asyncio.to_thread(_measure_all, some, self._clock.now_us()))

    def settle(self) -> None:
        """Measure whatever waits, at the end of a process."""
        self._record(_measure_all(self._waiting, self._clock.now_us()))
        self._waiting = []

    def _keep(self, call: Call, answer: bytes, *, is_stream: bool) -> None:
        if call.outcome is not Outcome.OK:
            return
        self._kept += 1
        one = Answered(-draw_point(_SALT, call.id), self._kept, call, answer, is_stream)
        if len(self._waiting) < MAX_WAITING:
            heapq.heappush(self._waiting, one)
        else:
            heapq.heappushpop(self._waiting, one)
            self.dropped += 1

    def _record(self, found: Sequence[Measured | None]) -> None:
        for measured in found:
            try:
                if measured is None:
                    self.dropped += 1
                else:
                    self._spool.append(encode_frame(measured))
            except PilotageError:  # a full disk: what calls cost goes first
                self.dropped += 1


def _measure_all(calls: Sequence[Answered], now_us: int) -> list[Measured | None]:
    return [_measure_safely(answered, now_us) for answered in calls]


def _measure_safely(answered: Answered, now_us: int) -> Measured | None:
    """Measure a call; None where its texts are too much for whoever reads them."""
    try:
        return measure(answered, now_us)
    except Exception:
        _LOG.exception("call %s cannot be measured", answered.call.id)
        return None


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
