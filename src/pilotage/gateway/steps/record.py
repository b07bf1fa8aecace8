"""Record: one Begun before anything is asked of a model, one Ended whatever happens after."""

from pilotage.core.dealing import SESSION, name_unit
from pilotage.core.errors import PilotageError
from pilotage.core.frames import Begun, Ended, Flag, Outcome, encode_frame
from pilotage.gateway.bill import bill_call
from pilotage.gateway.call import Call, Reply, Step
from pilotage.gateway.snapshots import AliasView
from pilotage.kit.clock import Clock
from pilotage.kit.spool import SpoolWriter


class Record:
    """Sees to it that a call leaves one Begun and one Ended, whatever happens to it."""

    def __init__(self, follow: Step, spool: SpoolWriter, clock: Clock) -> None:
        self._follow = follow
        self._spool = spool
        self._clock = clock

    async def __call__(self, call: Call) -> Reply:
        """Work out the worst case, and have Ended written when the call closes."""
        if call.alias is not None:
            bound_call(call, call.alias)
        call.at_end(lambda: self._end(call))
        return await self._follow(call)

    def _end(self, call: Call) -> None:
        if not call.seq and not self._begin_late(call):
            return
        bill, arm = bill_call(call), call.arm
        if bill.cost_nano > call.worst_nano:
            call.flags.add(Flag.BUDGET_OVERRUN)
        self._spool.append_end(
            encode_frame(
                Ended(
                    call_id=call.id,
                    at_us=self._clock.now_us(),
                    project_id=call.tenant.project_id,
                    tenant_id=call.tenant.id,
                    key_id=call.key_id,
                    alias=call.alias_name,
                    outcome=call.outcome,
                    status=call.error.status if call.error else call.status,
                    usage=bill.usage,
                    cost_nano=bill.cost_nano,
                    is_estimated=bill.is_estimated,
                    duration_us=round((self._clock.monotonic_s() - call.started_s) * 1e6),
                    ttft_us=call.ttft_us,
                    chunks=call.chunks,
                    attempts=call.attempts,
                    arm=arm.id if arm else "",
                    version_id=arm.version_id if arm else "",
                    model=arm.model if arm else "",
                    price_id=arm.rates.price_id if arm else "",
                    code=call.error.code if call.error else "",
                    snapshot_n=call.view.n,
                    user=call.user,
                    feature=call.feature,
                    upstream_id=arm.upstream_id if arm else "",
                    answered_by=call.answered_by,
                    fingerprint=call.fingerprint,
                    finish_reason=call.finish_reason,
                    counters=call.counters,
                    flags=sorted(call.flags),
                    trace_id=call.trace_id,
                    shadow_of=call.shadow_of,
                    queue_us=call.queue_us,
                    assigned=call.plan[0].id if call.plan else "",
                    prompt=call.prompt,
                    rollout=call.rollout,
                    unit=call.unit,
                    is_stream=bool(call.request.stream),
                )
            )
        )

    def _begin_late(self, call: Call) -> bool:
        """Begin a call that ends before it was admitted; False if it cannot be recorded at all."""
        try:
            call.seq = self._spool.append(encode_frame(make_begun(call, self._clock.now_us())))
        except PilotageError as refused:
            if call.error is None:
                call.outcome, call.error = Outcome.REFUSED, refused
            return False
        return True


class Begin:
    """Begins a call that has been admitted: nothing is asked of a model before.

    Comes right after the step that reserves, without a pause between the two, so that whatever a
    crash leaves reserved has a Begun. Fails closed: a call that cannot be recorded is refused with
    ``spool_full``.
    """

    def __init__(
        self, follow: Step, spool: SpoolWriter, clock: Clock, *, waits_for_disk: bool
    ) -> None:
        self._follow = follow
        self._spool = spool
        self._clock = clock
        self._waits_for_disk = waits_for_disk

    async def __call__(self, call: Call) -> Reply:
        """Write Begun, and wait until it is on disk where that is asked for."""
        if call.alias is not None and call.alias.entry.rollout:
            take_part(call, call.alias)
        call.seq = self._spool.append(encode_frame(make_begun(call, self._clock.now_us())))
        if self._waits_for_disk:
            await self._spool.synced(call.seq)
        return await self._follow(call)


def make_begun(call: Call, at_us: int) -> Begun:
    """Return the frame that says what a call may come to."""
    return Begun(
        call_id=call.id,
        at_us=at_us,
        project_id=call.tenant.project_id,
        tenant_id=call.tenant.id,
        key_id=call.key_id,
        alias=call.alias_name,
        wire=call.wire.name,
        is_stream=bool(call.request.stream),
        worst_nano=call.worst_nano,
        snapshot_n=call.view.n,
        purpose=call.purpose,
        user=call.user,
        feature=call.feature,
        worst_tokens=call.worst_tokens,
        counters=call.counters,
        trace_id=call.trace_id,
        prompt=call.prompt,
        rollout=call.rollout,
        unit=call.unit,
    )


def take_part(call: Call, alias: AliasView) -> None:
    """Say for what the coin of a rollout's step will be tossed, if it is what decides.

    A call that a rule or a region keeps from an arm takes no part: nobody deals it.
    """
    tenant, entry = call.tenant, alias.entry
    choice = alias.find_routes(tenant).find_choice(tenant, call.purpose, call.input_bound)
    if choice.is_dealt:
        session = call.session or (call.request.session if entry.unit == SESSION else "")
        call.unit = name_unit(entry.unit, tenant.id, session=session, user=call.user)
        call.rollout = entry.rollout


def bound_call(call: Call, alias: AliasView) -> None:
    """Work out the most that a call of an alias can take: its output limit, tokens and cost."""
    call.output_limit = call.request.limit_output(alias.entry.max_output_tokens)
    outputs = call.output_limit * call.request.choices
    call.worst_tokens = call.input_bound + outputs
    call.worst_nano = alias.worst_nano(call.input_bound, outputs)
