"""Observe: give a call its place in a trace, and tell of it once it has ended.

The outermost step: its ending runs last, when the call is billed and on record. Whoever is told may
fail; calls never notice (fails open).
"""

from collections.abc import Callable, Sequence

from pilotage.gateway.call import Call, Reply, Step
from pilotage.gateway.measures.sampler import Sampler
from pilotage.gateway.measures.tap import MeasureTap
from pilotage.gateway.telemetry.spans import Tracer
from pilotage.gateway.telemetry.trace import pass_on
from pilotage.kit.clock import Clock


class Observe:
    """``notes`` are told of every call: metrics, the request log.

    The ``tap`` and the ``sampler`` listen to the shares of calls that their tenant lets them.
    Without a tracer no spans are made, and a client's trace is passed on as it came.
    """

    def __init__(
        self,
        follow: Step,
        clock: Clock,
        tracer: Tracer | None,
        notes: Sequence[Callable[[Call], None]],
        tap: MeasureTap | None = None,
        sampler: Sampler | None = None,
    ) -> None:
        self._follow = follow
        self._clock = clock
        self._tracer = tracer
        self._notes = tuple(notes)
        self._tap = tap
        self._sampler = sampler

    async def __call__(self, call: Call) -> Reply:
        """Begin the call's span, if there are any, and pass on."""
        tracer = self._tracer
        context = tracer.begin(call) if tracer is not None else None
        if context is None and call.trace_parent:
            call.trace_id, call.trace_parent = pass_on(call.trace_parent)

        def tell() -> None:
            call.ended_s = self._clock.monotonic_s()
            for note in self._notes:
                note(call)
            if tracer is not None and context is not None:
                tracer.end(call, context)

        call.at_end(tell)
        if call.tenant.sample_share and self._sampler is not None:
            return await self._sampler.follow(call, self._measure)
        if call.tenant.measure_share and self._tap is not None:
            return await self._tap.follow(call, self._follow)
        return await self._follow(call)

    async def _measure(self, call: Call) -> Reply:
        if call.tenant.measure_share and self._tap is not None:
            return await self._tap.follow(call, self._follow)
        return await self._follow(call)
