"""One call through the gateway: its state, its endings, and the one way to stop it.

Whoever must undo or record something pushes an *ending* before it passes the call on; endings run
in reverse order when the call closes, whatever closed it. They are synchronous and never raise, so
that no second cancellation can interrupt them.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from types import TracebackType
from typing import TYPE_CHECKING, NamedTuple, Protocol, Self

from pilotage.core.errors import PilotageError
from pilotage.core.frames import Flag, Outcome
from pilotage.core.key_scopes import UNBOUNDED, KeyScope
from pilotage.core.snapshot import ArmEntry, TenantEntry
from pilotage.core.usage import Usage
from pilotage.gateway.routing.failures import as_error
from pilotage.gateway.routing.residency import NOBODY, Allowed
from pilotage.gateway.snapshots import AliasView, SnapshotView
from pilotage.gateway.transport.upstream import UpstreamFailure
from pilotage.gateway.wire.door import Wire, WireRequest

if TYPE_CHECKING:
    from pilotage.gateway.providers.target import Target

_LOG = logging.getLogger("pilotage.gateway")

Ending = Callable[[], None]

MAX_ALIAS = 128  # letters of a name that no alias has, kept for the record

_OUTCOMES = {
    "upstream_error": Outcome.UPSTREAM_ERROR,
    "upstream_unreachable": Outcome.UPSTREAM_ERROR,
    "upstream_invalid": Outcome.UPSTREAM_ERROR,
    "upstream_overloaded": Outcome.UPSTREAM_ERROR,
    "upstream_quota": Outcome.UPSTREAM_ERROR,
    "upstream_cold": Outcome.UPSTREAM_ERROR,
    "upstream_auth": Outcome.UPSTREAM_ERROR,
    "egress_denied": Outcome.UPSTREAM_ERROR,
    "breaker_open": Outcome.UPSTREAM_ERROR,
    "no_replica": Outcome.UPSTREAM_ERROR,
    "unavailable": Outcome.UPSTREAM_ERROR,
    "upstream_cut": Outcome.UPSTREAM_CUT,
    "upstream_stall": Outcome.UPSTREAM_STALL,
    "deadline": Outcome.DEADLINE,
}


class Bill(NamedTuple):
    """What a call used and cost in all, and whether that rests on an estimate."""

    usage: Usage
    cost_nano: int
    is_estimated: bool


class Try(NamedTuple):
    """An attempt that failed: whom it asked, when it began, how long it took, what went wrong."""

    arm_id: str
    began_s: float
    duration_s: float
    code: str


def _widen_freely(nano: int, tokens: int) -> bool:
    del nano, tokens
    return True


class Call:
    """An admitted call. The Snapshot is taken once, so a call never sees half a change.

    ``plan`` lists the arms it may use in order, ``arm`` is the one being asked, ``target`` who
    answers for it. ``widen`` reserves so many more nano-USD and tokens from its limits, for an
    attempt that may be billed besides; it returns False where they cannot pay. ``head_lines`` are
    header lines for the client, each ended by CRLF. ``asked_s`` is when a target was asked last,
    ``blamed`` are the targets that failed it, ``waited_s`` how long targets were waited for in all
    before there was an answer to pass on, ``overhead_us`` what the gateway took besides,
    ``queue_us`` how long a replica was waited for, -1 if none was. ``prompt`` is the
    ``NAME@VERSION`` that the request named, if any; ``body`` has its messages then, and ``sent`` is
    what the client wrote. ``scope`` is what its key is for. ``rollout`` is the step whose coin
    deals the call an arm, "" where none does; ``unit`` is what it is tossed for, "" for the call
    itself.
    """

    __slots__ = (
        "alias", "alias_name", "answer_bytes", "answered_by", "arm", "asked_s", "attempts", "bill",
        "blamed", "body", "chunks", "counters", "deadline_s", "ended_s", "endings", "error",
        "feature", "fingerprint", "finish_reason", "first_byte_timeout_s", "flags", "head_lines",
        "id", "idempotency_key", "input_bound", "is_sent", "key_id", "outcome", "output_limit",
        "overhead_us", "plan", "prompt", "purpose", "queue_us", "request", "rollout", "scope",
        "sent", "seq", "session", "shadow_of", "spent_nano", "spent_usage", "started_s", "status",
        "stopped", "target", "task", "tenant", "trace_id", "trace_parent", "tries", "ttft_us",
        "unit", "usage", "user", "view", "waited_s", "widen", "wire", "worst_nano", "worst_tokens",
    )  # fmt: skip

    def __init__(  # noqa: PLR0913, PLR0915 - what its door knows of it
        self,
        *,
        call_id: str,
        wire: Wire,
        view: SnapshotView,
        tenant: TenantEntry,
        key_id: str,
        alias: AliasView | None,
        request: WireRequest,
        body: bytes,
        started_s: float,
        deadline_s: float,
        purpose: str = "",
        user: str = "",
        scope: KeyScope = UNBOUNDED,
    ) -> None:
        self.id = call_id
        self.wire = wire
        self.view = view
        self.tenant = tenant
        self.key_id = key_id
        self.alias = alias
        self.alias_name = request.model[:MAX_ALIAS]
        self.request = request
        self.body = body
        self.sent = body
        self.prompt = ""
        self.purpose = purpose
        self.user = user
        self.scope = scope
        self.feature = ""
        self.session = ""
        self.rollout = ""
        self.unit = ""
        self.started_s = started_s
        self.ended_s = 0.0
        self.deadline_s = deadline_s
        self.first_byte_timeout_s = 0.0
        self.input_bound = request.bound_input(body)
        self.output_limit = 0
        self.worst_nano = 0
        self.worst_tokens = 0
        self.counters: list[str] = []
        self.seq = 0
        self.plan: Allowed = NOBODY
        self.arm: ArmEntry | None = None
        self.target: Target | None = None
        self.blamed: tuple[str, ...] = ()
        self.attempts = 0
        self.asked_s = 0.0
        self.waited_s = 0.0
        self.overhead_us = -1
        self.queue_us = -1
        self.is_sent = False
        self.status = 0
        self.chunks = 0
        self.answer_bytes = 0
        self.ttft_us = -1
        self.usage: Usage | None = None
        self.spent_usage = Usage()
        self.spent_nano = 0
        self.bill: Bill | None = None
        self.widen: Callable[[int, int], bool] = _widen_freely
        self.tries: list[Try] = []
        self.answered_by = ""
        self.fingerprint = ""
        self.finish_reason = ""
        self.flags: set[Flag] = set()
        self.head_lines = b""
        self.trace_id = ""
        self.trace_parent = ""
        self.shadow_of = ""
        self.idempotency_key = ""
        self.stopped: Outcome | None = None
        self.outcome = Outcome.OK
        self.error: PilotageError | None = None
        self.endings: list[Ending] = []
        self.task = asyncio.current_task()

    def stop(self, why: Outcome) -> None:
        """End the call from outside; only the first reason counts."""
        if self.stopped is None and self.task is not None:
            self.stopped = why
            self.task.cancel(why.value)

    def leave(self) -> None:
        """End the call because its client has gone."""
        self.stop(Outcome.CLIENT_GONE)

    def note_sent(self) -> None:
        """Remember that a model may have seen the request."""
        self.is_sent = True

    def at_end(self, ending: Ending) -> None:
        """Have something done when the call closes, before what was pushed earlier."""
        self.endings.append(ending)

    def undo(self, mark: int) -> None:
        """Run the endings pushed since there were ``mark`` of them: an attempt is given up."""
        while len(self.endings) > mark:
            self._end(self.endings.pop())

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        raised: BaseException | None,
        trace: TracebackType | None,
    ) -> bool:
        """Judge how the call ended and run the endings; swallow all but a foreign cancellation."""
        if raised is not None or self.stopped is not None:
            self.outcome, self.error = judge(self, raised)
        self.undo(0)
        if self.stopped is not None and self.task is not None:
            self.task.uncancel()  # else later awaits of this task would be cancelled too
        elif isinstance(raised, asyncio.CancelledError):
            return False
        return raised is None or isinstance(raised, (Exception, asyncio.CancelledError))

    def _end(self, ending: Ending) -> None:
        try:
            ending()
        except Exception:
            _LOG.exception("an ending of a call failed", extra={"call_id": self.id})


def judge(call: Call, raised: BaseException | None) -> tuple[Outcome, PilotageError]:
    """Return the outcome of a call that did not succeed, and the error that its client gets."""
    if call.stopped is not None:
        return call.stopped, PilotageError(call.stopped.value)
    if isinstance(raised, UpstreamFailure):
        raised = as_error(raised)
    if isinstance(raised, PilotageError):
        return _OUTCOMES.get(raised.code, Outcome.REFUSED), raised
    if isinstance(raised, asyncio.CancelledError):
        return Outcome.CANCELLED, PilotageError("cancelled")
    _LOG.error("a call broke", exc_info=raised, extra={"call_id": call.id})
    return Outcome.INTERNAL_ERROR, PilotageError("internal_error")


class Stream(Protocol):
    """An answer as it comes; a step that changes streams wraps one in another."""

    async def read(self) -> bytes:
        """Return the next bytes for the client, b"" at a proper end; raise if it ends otherwise."""
        ...


class Reply:
    """What the chain returns: a whole body, or a stream and the terminator that ends it.

    The terminator is sent after the call has closed, so that whoever saw success is on record.
    """

    __slots__ = ("body", "stream", "terminator")

    def __init__(
        self, *, body: bytes = b"", stream: Stream | None = None, terminator: bytes = b""
    ) -> None:
        self.body = body
        self.stream = stream
        self.terminator = terminator


Step = Callable[[Call], Awaitable[Reply]]
