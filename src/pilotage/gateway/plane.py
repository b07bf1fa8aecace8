"""The data plane of one process: the Snapshot in use, the replicas, the spool, the running calls.

Doors (HTTP here, Python elsewhere) open calls on it and hand them to its chain.
"""

import asyncio
import logging
from collections.abc import Mapping, Sequence
from hashlib import sha256
from typing import NamedTuple

import msgspec

from pilotage.core.errors import PilotageError
from pilotage.core.frames import Outcome
from pilotage.core.ids import id_from_bytes
from pilotage.core.key_scopes import UNBOUNDED, KeyScope
from pilotage.core.snapshot import MAY_NAME_USERS, TenantEntry
from pilotage.gateway.call import Call, Step
from pilotage.gateway.chain import StepMaker, build_chain
from pilotage.gateway.counters.limits import Limits as CallLimits
from pilotage.gateway.counters.matching import Subject
from pilotage.gateway.counters.types import LimitUse
from pilotage.gateway.feedback import FeedbackDesk
from pilotage.gateway.measures.pairs import Comparisons
from pilotage.gateway.probes import Probes
from pilotage.gateway.prompts import read_prompted
from pilotage.gateway.providers.ask import Ask
from pilotage.gateway.providers.table import TargetTable
from pilotage.gateway.replies import KeptReplies
from pilotage.gateway.routing.breakers import Breakers
from pilotage.gateway.snapshots import SnapshotReader, SnapshotView
from pilotage.gateway.steps.admit import Admit
from pilotage.gateway.steps.attempt import Attempt
from pilotage.gateway.steps.breaker import Breaker
from pilotage.gateway.steps.fallback import Fallback
from pilotage.gateway.steps.idempotency import Idempotency
from pilotage.gateway.steps.record import Begin, Record
from pilotage.gateway.steps.retry import Retry
from pilotage.gateway.steps.route import Route
from pilotage.gateway.steps.shadow import Shadow
from pilotage.gateway.targets import TargetsFile
from pilotage.gateway.transport.upstream import Limits
from pilotage.gateway.wire.door import Wire
from pilotage.kit.clock import Clock
from pilotage.kit.egress import EgressPolicy
from pilotage.kit.resources import Background
from pilotage.kit.spool import SpoolWriter

_LOG = logging.getLogger("pilotage.gateway")
MAX_USER = 128  # letters of a user's name that are kept


class PlaneLimits(msgspec.Struct, frozen=True, kw_only=True):
    """The limits of a data plane; times in seconds.

    ``max_body_bytes`` bounds a request with its prompt filled in; the door bounds what it reads.
    """

    call_timeout_s: float = 600.0
    first_byte_timeout_s: float = 600.0
    connect_timeout_s: float = 5.0
    stall_timeout_s: float = 60.0
    waits_for_disk: bool = False
    max_body_bytes: int = 16 << 20


class Caller(NamedTuple):
    """Whose key it was, and the Snapshot that said so.

    ``may_name_users``: the key is trusted to say on whose behalf it calls. ``scope`` is what it
    is for. It holds while the Snapshot is in use, and before ``until_us``; then the key is to be
    looked up again, by its ``digest``.
    """

    view: SnapshotView
    tenant: TenantEntry
    key_id: str
    may_name_users: bool
    scope: KeyScope
    digest: bytes
    until_us: int

    def require(self, operation: str) -> None:
        """Raise ``permission_denied`` unless the key is for an operation."""
        if not self.scope.has_operation(operation):
            raise _out_of_scope(f"operation {operation}")


class Sent(NamedTuple):
    """What a client says of its call beside the body."""

    purpose: str = ""
    feature: str = ""
    user: str = ""
    trace_parent: str = ""
    idempotency_key: str = ""
    session: str = ""


class DataPlane:
    """Everything a call needs, opened by the process that owns it.

    ``outer_steps`` see calls before and after everything else, their records included;
    ``extra_steps`` come after the record, so that whatever they do to a call is on record.
    """

    def __init__(  # noqa: PLR0913 - what its owner opens for it
        self,
        *,
        snapshots: SnapshotReader,
        targets: TargetsFile,
        spool: SpoolWriter,
        clock: Clock,
        limits: PlaneLimits,
        egress: EgressPolicy,
        counters: CallLimits,
        oldest_n: int = 0,
        outer_steps: Sequence[StepMaker] = (),
        extra_steps: Sequence[StepMaker] = (),
    ) -> None:
        self.view: SnapshotView | None = None
        self.calls: set[Call] = set()
        self.is_draining = False
        self.breakers = Breakers(clock)
        self.background: Background | None = None  # where shadow copies run, if anywhere
        self.counters = counters
        self.feedback = FeedbackDesk(spool, clock)
        self._probes = Probes(spool, clock)
        self._table = TargetTable(
            _make_pool_limits(limits), self.breakers, egress=egress, clock=clock
        )
        self.replicas = self._table.replicas
        self.shadow_counts: Mapping[str, int] = {}
        self.comparison_counts: Mapping[str, int] = {}
        self.strangers: Mapping[str, int] = {}  # requests refused before they were calls, by code
        chain = self._build_chain(spool, clock, limits, extra_steps)
        self.chain: Step = build_chain(outer_steps, chain)
        self._snapshots = snapshots
        self._targets = targets
        self._clock = clock
        self._limits = limits
        self._oldest_n = oldest_n
        self._idle = asyncio.Event()
        self._problem = ""

    def _build_chain(
        self,
        spool: SpoolWriter,
        clock: Clock,
        limits: PlaneLimits,
        extra_steps: Sequence[StepMaker],
    ) -> Step:
        def record(follow: Step) -> Step:
            return Record(follow, spool, clock)

        def begin(follow: Step) -> Step:
            return Begin(follow, spool, clock, waits_for_disk=limits.waits_for_disk)

        def attempt(follow: Step) -> Step:
            return Attempt(follow, self._table, clock, limits.first_byte_timeout_s)

        def shadow(follow: Step) -> Step:
            comparisons = Comparisons(spool, clock)
            step = Shadow(
                follow, copies, self, limits=self.counters, clock=clock, comparisons=comparisons
            )
            self.shadow_counts = step.bounds.counts
            self.comparison_counts = comparisons.counts
            return step

        ask = Ask(clock)
        copies = self.copies = build_chain([record, begin, attempt], ask)
        return build_chain(
            [
                record,
                lambda follow: Idempotency(follow, KeptReplies(clock)),
                lambda follow: Admit(follow, self.counters, clock),
                begin,
                *extra_steps,
                lambda follow: Route(follow, clock, self._table.is_cold),
                shadow,
                lambda follow: Fallback(follow, clock),
                lambda follow: Retry(follow, clock),
                attempt,
                lambda follow: Breaker(follow, self.breakers),
            ],
            ask,
        )

    def refresh(self) -> bool:
        """Take over a new Snapshot and new targets; return whether the Snapshot changed.

        One that cannot be trusted is refused, and the one in use goes on being used.
        """
        try:
            if self._targets.has_changed():
                self._table.apply(self._targets.read())
        except ValueError as wrong:
            _LOG.error("Targets refused: %s", wrong)
        if not self._snapshots.has_changed():
            return False
        try:
            view = self._snapshots.load(self.view)
            if view.n < self._oldest_n:
                raise ValueError(
                    f"Snapshot {view.n} is older than {self._oldest_n}, which was served before"
                )
        except ValueError as wrong:
            self._say(str(wrong))
            return False
        self._table.sync(view)
        self._probes.send(view)
        self.view = view
        self._problem = ""
        return True

    @property
    def oldest_open_seq(self) -> int:
        """The spool number of the oldest running call, 0 if none runs."""
        return min((call.seq for call in self.calls if call.seq), default=0)

    def count_connections(self) -> tuple[int, int]:
        """Return how many connections to targets are open, and how many of them are idle."""
        pools = self._table.list_pools()
        return sum(pool.open for pool in pools), sum(pool.idle for pool in pools)

    @property
    def call_timeout_s(self) -> float:
        """The longest life of a call."""
        return self._limits.call_timeout_s

    def find_problem(self) -> str:
        """Return why this process cannot take calls, "" if it can."""
        if self.is_draining:
            return "draining"
        if self.view is None:
            return self._problem or "no Snapshot yet"
        if self.view.expires_at_us <= self._clock.now_us():
            return f"Snapshot {self.view.n} has expired: the control plane has not renewed it"
        return ""

    def authenticate(self, secret: bytes) -> Caller:
        """Return whose API key it is; raise ``invalid_api_key``, ``draining`` or ``not_ready``."""
        if self.is_draining:
            raise _draining()
        caller = self._find_caller(sha256(secret).digest())
        if caller is None:
            raise _bad_key(secret)
        return caller

    def _find_caller(self, digest: bytes) -> Caller | None:
        """Return whose key has a digest, by the Snapshot in use; None if nobody's has."""
        view, now_us = self.view, self._clock.now_us()
        if view is None or view.expires_at_us <= now_us:
            raise PilotageError(
                "not_ready", f"The gateway is not ready: {self.find_problem()}.", retry_after_s=1.0
            )
        record = view.find_key(digest)
        if record is None:
            return None
        if record.expires_at_us and record.expires_at_us <= now_us:
            raise PilotageError(
                "invalid_api_key",
                "The API key has expired.",
                hint="Make another: pilotage keys create",
            )
        tenant = view.tenants.get(record.tenant_uuid)
        if tenant is None:
            return None
        key_id = id_from_bytes("key", record.key_uuid)
        may_name_users = bool(record.flags & MAY_NAME_USERS)
        scope = view.find_scope(record) if record.scope else UNBOUNDED
        until_us = min(record.expires_at_us or view.expires_at_us, view.expires_at_us)
        return Caller(view, tenant, key_id, may_name_users, scope, digest, until_us)

    def open_call(
        self,
        caller: Caller,
        wire: Wire,
        body: bytes,
        started_s: float,
        sent: Sent,
    ) -> Call:
        """Make the call of the current task; raise ``draining``, or what its wire or prompt do.

        A body may take long to come: where the caller may be another by now, it is looked up again
        (and refused as :meth:`authenticate` does), so that the call sees one Snapshot, today's.
        """
        if caller.view is not self.view or caller.until_us <= self._clock.now_us():
            found = self._find_caller(caller.digest)
            if found is None:
                raise _bad_key(b"")
            caller = found
        view, tenant, key_id, may_name_users, scope, _, _ = caller
        if scope is not UNBOUNDED:
            caller.require(wire.name)
        request, whole, prompt = read_prompted(
            view.prompts, tenant.project_id, wire, body, self._limits.max_body_bytes
        )
        if not scope.has_alias(request.model):
            raise _out_of_scope(f"model {request.model!r}")
        if self.is_draining:  # that may have begun while the body came
            raise _draining()
        user = (sent.user or request.user)[:MAX_USER] if may_name_users else ""
        call = Call(
            call_id=self._clock.new_id("call"),
            wire=wire,
            view=view,
            tenant=tenant,
            key_id=key_id,
            alias=view.aliases.get((tenant.project_id, request.model)),
            request=request,
            body=whole,
            started_s=started_s,
            deadline_s=started_s + self._limits.call_timeout_s,
            purpose=sent.purpose,
            user=user,
            scope=scope,
        )
        if prompt:
            call.sent, call.prompt = body, prompt
            call.head_lines = b"x-pilotage-prompt: %b\r\n" % prompt.encode()
        call.feature = sent.feature if sent.feature in tenant.features else ""
        call.trace_parent = sent.trace_parent
        call.idempotency_key = sent.idempotency_key
        call.session = sent.session
        return call

    async def list_uses(self, caller: Caller, user: str) -> list[LimitUse]:
        """Return how far each limit is used that calls of this key, and user, count against."""
        tenant = caller.tenant
        subject = Subject(
            project_id=tenant.project_id,
            tenant_id=tenant.id,
            key_id=caller.key_id,
            alias="",
            user=user[:MAX_USER] if caller.may_name_users else "",
        )
        return await self.counters.list_uses(caller.view, subject, tenant.time_zone)

    def enter(self, call: Call) -> None:
        """Count a call among the running ones; whoever does it sees to :meth:`leave`."""
        self.calls.add(call)

    def leave(self, call: Call) -> None:
        """Count a call out."""
        self.calls.discard(call)
        if not self.calls:
            self._idle.set()

    def stop_overdue(self) -> None:
        """Stop every call that is beyond its deadline; whoever owns the plane does this often.

        One look at all calls costs less than a timer for each.
        """
        now_s = self._clock.monotonic_s()
        for call in [call for call in self.calls if call.deadline_s <= now_s]:
            call.stop(Outcome.DEADLINE)

    async def drain(self, timeout_s: float, last_s: float = 5.0) -> None:
        """Take no new calls, let the running ones end, stop those that do not in time."""
        self.is_draining = True
        for copy in [call for call in self.calls if call.shadow_of]:
            copy.stop(Outcome.DRAINING)  # nobody waits for it
        await self._wait_idle(timeout_s)
        for call in list(self.calls):
            call.stop(Outcome.DRAINING)
        await self._wait_idle(last_s)

    def close(self) -> None:
        """Close every connection to a model."""
        self._table.close()

    async def _wait_idle(self, timeout_s: float) -> None:
        if not self.calls:
            return
        self._idle.clear()
        try:
            async with asyncio.timeout(timeout_s):
                await self._idle.wait()
        except TimeoutError:
            return

    def _say(self, problem: str) -> None:
        if problem != self._problem:
            _LOG.error("Snapshot refused: %s", problem)
        self._problem = problem


def _make_pool_limits(limits: PlaneLimits) -> Limits:
    return Limits(
        connect_timeout_s=limits.connect_timeout_s, stall_timeout_s=limits.stall_timeout_s
    )


def _draining() -> PilotageError:
    return PilotageError("draining", retry_after_s=1.0)


def _out_of_scope(what: str) -> PilotageError:
    return PilotageError(
        "permission_denied",
        f"The API key is not for the {what}.",
        hint="Use another key, or have one made: pilotage keys create --alias NAME",
    )


def _bad_key(secret: bytes) -> PilotageError:
    hint = "Make one: pilotage keys create"
    if secret.startswith(b"plt_admin_"):
        hint = "The administrator's credential is for the control API; /v1 takes an API key."
    return PilotageError("invalid_api_key", "The API key is not valid.", hint=hint)
