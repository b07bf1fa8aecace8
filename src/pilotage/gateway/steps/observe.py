"""Observe: give a call its place in a trace, and tell of it once it has ended.

The outermost step: its ending runs last, when the call is billed and on record. Whoever is told may
fail; calls never notice (fails open).
"""

from collections.abc import Callable, Sequence

from pilotage.gateway.call import Call, Reply, Step
from pilotage.gateway.telemetry.spans import Tracer
from pilotage.kit.clock import Clock


class Observe:
    """``notes`` are told of every call: metrics, the request log."""

    def __init__(
        self, follow: Step, clock: Clock, tracer: Tracer, notes: Sequence[Callable[[Call], None]]
    ) -> None:
        self._follow = follow
        self._clock = clock
        self._tracer = tracer
        self._notes = tuple(notes)

    async def __call__(self, call: Call) -> Reply:
        """Begin the call's span and pass on."""
        context = self._tracer.begin(call)

        def tell() -> None:
            call.ended_s = self._clock.monotonic_s()
            for note in self._notes:
                note(call)
            self._tracer.end(call, context)

        call.at_end(tell)
        return await self._follow(call)
