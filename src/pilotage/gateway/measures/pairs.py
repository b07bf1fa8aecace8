"""A call and its copy: both answers are held in memory until they are compared, and then dropped.

What is left of them is a :class:`~pilotage.core.frames.Compared` frame of scores. Comparing takes
some 20 milliseconds at most and runs in a thread. Fails open: what cannot be compared is counted.
"""

import asyncio
import logging
from typing import NamedTuple

from pilotage.core.comparison import compare, mark_answer
from pilotage.core.errors import PilotageError
from pilotage.core.frames import Compared, Flag, Outcome, encode_frame
from pilotage.gateway.bill import bill_call
from pilotage.gateway.call import Call, Reply
from pilotage.gateway.measures.hearing import MAX_TEXT_BYTES, Hearing
from pilotage.gateway.measures.refusal import is_refusal
from pilotage.gateway.measures.texts import UNREADABLE, read_answer, wants_json
from pilotage.kit.clock import Clock
from pilotage.kit.spool import SpoolWriter

_LOG = logging.getLogger("pilotage.gateway")
_TOLD = frozenset(  # outcomes that say something of the model; a client that left does not
    {
        Outcome.OK,
        Outcome.UPSTREAM_ERROR,
        Outcome.UPSTREAM_CUT,
        Outcome.UPSTREAM_STALL,
        Outcome.DEADLINE,
    }
)


class Answered(NamedTuple):
    """How a call ended; ``took_us`` is how long it took, of streams until the first content."""

    call: Call
    body: bytes
    is_stream: bool
    took_us: int


class Ear:
    """Hears the answer to one call; :attr:`answered` is there once the call has ended."""

    def __init__(self, call: Call, clock: Clock) -> None:
        self.has_ended = asyncio.Event()
        self.answered: Answered | None = None
        self._call = call
        self._clock = clock
        self._hearing = Hearing()
        call.at_end(self._end)

    def listen(self, reply: Reply) -> Reply:
        """Return the reply to pass on instead of this one."""
        return self._hearing.listen(reply)

    def _end(self) -> None:
        call, hearing = self._call, self._hearing
        took_us = call.ttft_us
        if not hearing.is_stream:
            took_us = round((self._clock.monotonic_s() - call.started_s) * 1e6)
        is_ok = call.outcome is Outcome.OK
        body = hearing.collect() if is_ok else b""
        self.answered = Answered(call, body, hearing.is_stream, took_us)
        self.has_ended.set()


class Comparisons:
    """Compares pairs of answers and records what was found.

    ``counts`` says how many were recorded, were of calls that say nothing, or found no room.
    """

    def __init__(self, spool: SpoolWriter, clock: Clock) -> None:
        self._spool = spool
        self._clock = clock
        self.counts = {"compared": 0, "untold": 0, "dropped": 0}

    async def take(self, call: Ear, copy: Ear) -> None:
        """Wait for the end of a call and compare its answer with its copy's, which has ended."""
        await call.has_ended.wait()
        if call.answered is None or copy.answered is None or not tells(call, copy):
            self.counts["untold"] += 1
            return
        now_us = self._clock.now_us()
        try:
            found = await asyncio.to_thread(compare_answers, call.answered, copy.answered, now_us)
            self._spool.append(encode_frame(found))
        except PilotageError:  # a full disk: what calls cost goes first
            self.counts["dropped"] += 1
        except UNREADABLE:
            self.counts["dropped"] += 1
            _LOG.exception("call %s cannot be compared", copy.answered.call.shadow_of)
        else:
            self.counts["compared"] += 1


def tells(call: Ear, copy: Ear) -> bool:
    """Say whether the ends of a call and its copy say something of their models.

    A copy that met a replica which had only just started does not. One that was refused does, as
    the call itself was not.
    """
    return _says(call, _TOLD) and _says(copy, _TOLD | {Outcome.REFUSED})


def _says(ear: Ear, told: frozenset[Outcome]) -> bool:
    end = ear.answered
    return end is not None and end.call.outcome in told and Flag.COLD not in end.call.flags


def compare_answers(first: Answered, second: Answered, now_us: int) -> Compared:
    """Return how the answer to a copy compares with the call's own."""
    call, copy = first.call, second.call
    texts = [read_answer(each.body, is_stream=each.is_stream) for each in (first, second)]
    wanted = len(call.body) <= MAX_TEXT_BYTES and wants_json(call.body)
    marks = [
        mark_answer(text, is_refusal=_declines(each.call, text), wants_json=wanted)
        for each, text in zip((first, second), texts, strict=True)
    ]
    likeness = compare(*texts) if all(texts) else None
    kept = likeness.is_schema_kept if likeness else None
    return Compared(
        call_id=call.id,
        copy_id=copy.id,
        at_us=now_us,
        project_id=call.tenant.project_id,
        tenant_id=call.tenant.id,
        alias=call.alias_name,
        baseline=call.arm.id if call.arm else "",
        candidate=copy.arm.id if copy.arm else "",
        rollout=call.alias.entry.rollout if call.alias else "",
        is_exact=likeness is not None and likeness.is_exact,
        is_schema_kept=-1 if kept is None else int(kept),
        similarity=likeness.similarity if likeness else -1,
        baseline_letters=len(texts[0]) if texts[0] else -1,
        candidate_letters=len(texts[1]) if texts[1] else -1,
        baseline_mark=marks[0],
        candidate_mark=marks[1],
        baseline_nano=bill_call(call).cost_nano,
        candidate_nano=bill_call(copy).cost_nano,
        baseline_us=first.took_us,
        candidate_us=second.took_us,
    )


def _declines(call: Call, text: str) -> bool:
    return is_refusal(text) or call.finish_reason in ("refusal", "content_filter")
