"""Record: one Begun before anything is asked of a model, one Ended whatever happens after."""

from pilotage.core.frames import Begun, Ended, Outcome, encode_frame
from pilotage.core.usage import Usage, cost_nano
from pilotage.gateway.call import Call, Reply, Step
from pilotage.gateway.wire.openai import output_limit_of
from pilotage.kit.clock import Clock
from pilotage.kit.spool import SpoolWriter

BYTES_PER_TOKEN = 4  # for estimates only, never for bounds


class Record:
    """Fails closed: a call that cannot be recorded is refused with ``spool_full``."""

    def __init__(
        self, follow: Step, spool: SpoolWriter, clock: Clock, *, waits_for_disk: bool
    ) -> None:
        self._follow = follow
        self._spool = spool
        self._clock = clock
        self._waits_for_disk = waits_for_disk

    async def __call__(self, call: Call) -> Reply:
        """Work out the worst case, write Begun, and see to it that Ended is written."""
        worst_nano = 0
        if call.alias is not None:
            call.output_limit = output_limit_of(call.request, call.alias.entry.max_output_tokens)
            outputs = call.output_limit * call.request.choices
            worst_nano = call.alias.worst_nano(call.input_bound, outputs)
        begun = Begun(
            call_id=call.id,
            at_us=self._clock.now_us(),
            project_id=call.tenant.project_id,
            tenant_id=call.tenant.id,
            key_id=call.key_id,
            alias=call.alias_name,
            wire=call.wire,
            is_stream=bool(call.request.stream),
            worst_nano=worst_nano,
            snapshot_n=call.view.n,
            purpose=call.purpose,
        )
        call.seq = self._spool.append(encode_frame(begun))
        call.at_end(lambda: self._end(call))
        if self._waits_for_disk:
            await self._spool.synced(call.seq)
        return await self._follow(call)

    def _end(self, call: Call) -> None:
        usage, is_estimated = settle_usage(call)
        arm = call.arm
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
                    usage=usage,
                    cost_nano=cost_nano(usage, arm.rates) if arm else 0,
                    is_estimated=is_estimated,
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
                )
            )
        )


def settle_usage(call: Call) -> tuple[Usage, bool]:
    """Return the usage to bill and whether it is an estimate.

    What the model reported counts. A call that reached no model, or that the model refused, cost
    nothing. Anything else (cut, stopped, no or impossible counts) is estimated from what was sent
    and produced: a quarter token per byte, or one token per chunk of a streamed answer.
    """
    if call.usage is not None:
        return call.usage, False
    if not call.is_sent or (
        call.outcome in (Outcome.REFUSED, Outcome.UPSTREAM_ERROR) and not call.chunks
    ):
        return Usage(), False
    output = max(call.chunks, call.answer_bytes // BYTES_PER_TOKEN)
    return Usage(input=call.input_bound // BYTES_PER_TOKEN, output=output), True
