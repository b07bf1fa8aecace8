"""Breaker: a target that keeps failing is not asked, until one call finds that it works again.

Fails open: what is not known to be broken is asked.
"""

import asyncio
from functools import partial

from pilotage.core.frames import Outcome
from pilotage.gateway.call import Call, Reply, Step
from pilotage.gateway.routing.breakers import Breakers
from pilotage.gateway.routing.failures import FAILURES, SHORTEST_HOLD_S, Blame, as_error, blame

_BROKE = frozenset({Outcome.UPSTREAM_CUT, Outcome.UPSTREAM_STALL, Outcome.UPSTREAM_ERROR})


class Breaker:
    """A target is an upstream, or a deployment of this installation."""

    def __init__(self, follow: Step, breakers: Breakers) -> None:
        self._follow = follow
        self._breakers = breakers

    async def __call__(self, call: Call) -> Reply:
        """Ask, and take in how it went; raise ``breaker_open`` without asking."""
        breakers, arm = self._breakers, call.arm
        target = (arm.upstream_id or arm.id) if arm else ""
        is_probe = bool(breakers.troubled) and breakers.admit(target)
        try:
            reply = await self._follow(call)
        except BaseException as ended:
            self._note(call, target, ended, is_probe=is_probe)
            raise
        if reply.stream is not None:  # it has begun well; how it goes shows at its end
            call.at_end(partial(self._end, call, target))
        if breakers.troubled and (is_probe or reply.stream is None):
            breakers.succeed(target, is_probe=is_probe)
        return reply

    def _note(self, call: Call, target: str, ended: BaseException, *, is_probe: bool) -> None:
        breakers = self._breakers
        if isinstance(ended, asyncio.CancelledError) and call.stopped is Outcome.DEADLINE:
            if call.is_sent:  # it had all the time of the call
                breakers.fail(target, call.stopped.value, is_probe=is_probe)
                return
        elif isinstance(ended, FAILURES):
            found = blame(ended, status=call.status)
            if found is Blame.BROKEN:
                breakers.fail(target, as_error(ended).code, is_probe=is_probe)
                return
            if found is not Blame.UNKNOWN:
                breakers.succeed(target, is_probe=is_probe)
                is_probe = False
            rest_s = as_error(ended).retry_after_s or 0.0
            if found is Blame.RESTING and rest_s > SHORTEST_HOLD_S:
                breakers.hold(target, rest_s)
        if is_probe:
            breakers.release(target)

    def _end(self, call: Call, target: str) -> None:
        if call.outcome in _BROKE:
            self._breakers.fail(target, call.error.code if call.error else call.outcome.value)
        elif call.outcome is Outcome.OK and self._breakers.troubled:
            self._breakers.succeed(target)
