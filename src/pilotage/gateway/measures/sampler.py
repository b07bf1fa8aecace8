"""The sampler: of a share of a tenant's calls request and answer are kept, to be replayed later.

A tenant's ``sample_share`` decides (basis points, by the call's id; 0 unless somebody sets it), and
restricted data is never drawn. What identifies people is replaced by tokens, and the rest is sealed
for the tenant, before anything leaves the memory: a gateway cannot open what it has written. Kept
are chats of words alone, in a spool of their own, so that they take no room from the calls' frames.
Fails open: what finds no room is counted.
"""

import asyncio
import heapq
import logging
from collections.abc import Callable
from typing import Any, NamedTuple

import msgspec

from pilotage.core.data_classes import get_rule
from pilotage.core.dealing import draw_point
from pilotage.core.errors import PilotageError
from pilotage.core.frames import Outcome
from pilotage.core.pseudonyms import Pseudonyms
from pilotage.core.samples import Sampled, Texts, encode_sample, encode_texts
from pilotage.core.snapshot import FULL_WEIGHT
from pilotage.gateway.call import Call, Reply, Step
from pilotage.gateway.measures.hearing import Hearing
from pilotage.gateway.measures.texts import UNREADABLE, read_answer
from pilotage.gateway.routing.choice import is_drawn
from pilotage.gateway.wire.openai import CHAT
from pilotage.kit.clock import Clock
from pilotage.kit.sealing import post
from pilotage.kit.spool import SpoolWriter

MOST_BYTES = 32 << 10  # of a request or an answer that is kept
MOST_WAITING = 20  # kept in a second
LONGEST_OPEN_S = 3_600.0  # then a spool is begun anew, so that what is old can be dropped
_SALT = "samples of "  # so that this share is no part of another
_LOG = logging.getLogger("pilotage.gateway")
_KEPT = (  # of a request; nothing that names people or asks for something else than an answer
    "messages",
    "tools",
    "tool_choice",
    "response_format",
    "max_tokens",
    "max_completion_tokens",
    "stop",
)
_KEPT_OF_MESSAGES = ("role", "content", "tool_calls", "tool_call_id", "refusal")


class _Waiting(NamedTuple):
    """A call that went well; those of a low ``rank`` give way, as in the tap."""

    rank: int
    number: int  # no two are equal
    call: Call
    answer: bytes
    is_stream: bool


class Sampler:
    """Keeps calls; whoever owns it calls :meth:`tick` again and again, and :meth:`close` at last.

    ``open_spool`` opens the spool that samples go to, when there is one. ``counts`` says how many
    were kept, were no chats of words alone, or found no room.
    """

    def __init__(self, open_spool: Callable[[], SpoolWriter], clock: Clock) -> None:
        self._open_spool = open_spool
        self._spool: SpoolWriter | None = None
        self._opened_s = 0.0
        self._clock = clock
        self._waiting: list[_Waiting] = []  # a heap
        self._heard = 0
        self.counts = {"kept": 0, "unfit": 0, "dropped": 0}

    async def follow(self, call: Call, follow: Step) -> Reply:
        """Pass a call on, and keep it if it is drawn."""
        reply = await follow(call)
        tenant = call.tenant
        if not (tenant.sample_box and get_rule(tenant.data_class).is_logged):
            return reply
        if not is_drawn(_SALT, call.id, tenant.sample_share, FULL_WEIGHT):
            return reply
        if call.wire is not CHAT or len(call.body) > MOST_BYTES:
            self.counts["unfit"] += 1
            return reply
        hearing = Hearing()
        reply = hearing.listen(reply)
        call.at_end(lambda: self._keep(call, hearing))
        return reply

    async def tick(self) -> None:
        """Seal and write the calls that wait."""
        some, self._waiting = self._waiting, []
        if some:
            self._write(await asyncio.to_thread(self._seal_all, some))
        if self._clock.monotonic_s() - self._opened_s >= LONGEST_OPEN_S:
            self._close_spool()
        elif self._spool is not None:
            self._spool.mend()

    def close(self) -> None:
        """Write whatever waits, and close the spool."""
        self._write(self._seal_all(self._waiting))
        self._waiting = []
        self._close_spool()

    def _close_spool(self) -> None:
        if self._spool is not None:
            self._spool.close()
            self._spool = None

    def _keep(self, call: Call, hearing: Hearing) -> None:
        if call.outcome is not Outcome.OK:
            return
        self._heard += 1
        rank = -draw_point(_SALT, call.id)
        one = _Waiting(rank, self._heard, call, hearing.collect(), hearing.is_stream)
        if len(self._waiting) < MOST_WAITING:
            heapq.heappush(self._waiting, one)
        else:
            heapq.heappushpop(self._waiting, one)
            self.counts["dropped"] += 1

    def _seal_all(self, some: list[_Waiting]) -> list[Sampled | None]:
        return [self._seal_safely(one) for one in some]

    def _seal_safely(self, one: _Waiting) -> Sampled | None:
        try:
            return seal(one.call, one.answer, is_stream=one.is_stream, clock=self._clock)
        except UNREADABLE:
            _LOG.exception("call %s cannot be kept", one.call.id)
            return None

    def _write(self, found: list[Sampled | None]) -> None:
        for sample in found:
            if sample is None:
                self.counts["unfit"] += 1
                continue
            try:
                if self._spool is None:
                    self._spool = self._open_spool()
                    self._opened_s = self._clock.monotonic_s()
                self._spool.append(encode_sample(sample))
                self.counts["kept"] += 1
            except PilotageError:  # a full disk
                self.counts["dropped"] += 1


def seal(call: Call, answer: bytes, *, is_stream: bool, clock: Clock) -> Sampled | None:
    """Return what is kept of a call; None unless both sides of it are words alone."""
    body = read_chat(call.body)
    said = read_answer(answer, is_stream=is_stream)
    if body is None or not said or len(said) > MOST_BYTES:
        return None
    pseudonyms = Pseudonyms()
    texts = Texts(body=pseudonyms.replace_all(body), answer=pseudonyms.replace(said))
    sample_id, tenant = clock.new_id("smp"), call.tenant
    return Sampled(
        sample_id=sample_id,
        call_id=call.id,
        at_us=clock.now_us(),
        project_id=tenant.project_id,
        tenant_id=tenant.id,
        alias=call.alias_name,
        version_id=call.arm.version_id if call.arm else "",
        model=call.arm.model if call.arm else "",
        letter=post(tenant.sample_box, tenant.id, sample_id, encode_texts(texts)),
    )


def read_chat(body: bytes) -> dict[str, Any] | None:
    """Return what is kept of a chat request; None if a message is more than words."""
    said = msgspec.json.decode(body)
    messages = said.get("messages")
    if not isinstance(messages, list) or not all(map(_is_words, messages)):
        return None
    kept = {name: said[name] for name in _KEPT if said.get(name) is not None}
    kept["messages"] = [
        {name: message[name] for name in _KEPT_OF_MESSAGES if message.get(name) is not None}
        for message in messages
    ]
    return kept


def _is_words(message: Any) -> bool:  # noqa: ANN401 - whatever JSON a client sends
    if not isinstance(message, dict):
        return False
    content = message.get("content")
    if isinstance(content, list):
        return all(isinstance(part, dict) and part.get("type") == "text" for part in content)
    return content is None or isinstance(content, str)
