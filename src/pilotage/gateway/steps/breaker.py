"""Breaker: a target that keeps failing is not asked, until one call finds that it works again.

It judges attempts, each by the target that it has: a replica that dies takes no other with it. A
call counts against a target once, however often it asks again: a request that breaks a model is one
request. Fails open: what is not known to be broken is asked.
"""

import asyncio
from functools import partial

from pilotage.core.frames import Outcome
from pilotage.gateway.call import Call, Reply, Step, judge
from pilotage.gateway.routing.breakers import Breakers
from pilotage.gateway.routing.failures import FAILURES, SHORTEST_HOLD_S, Blame, blame

_BROKE = frozenset({Outcome.UPSTREAM_CUT, Outcome.UPSTREAM_STALL, Outcome.UPSTREAM_ERROR})


class Breaker:
    """A target is an upstream, or a replica of this installation."""

    def __init__(self, follow: Step, breakers: Breakers) -> None:
        self._follow = follow
        self._breakers = breakers

    async def __call__(self, call: Call) -> Reply:
        """Ask, and take in how it went; raise ``breaker_open`` without asking."""
        breakers = self._breakers
        is_probe = bool(breakers.troubled) and breakers.admit(_name_target(call))
        try:
            reply = await self._follow(call)
        except BaseException as ended:
            self._note(call, _name_target(call), ended, is_probe=is_probe)
            raise
        if reply.stream is not None:  # it has begun well; how it goes shows at its end
            call.at_end(partial(self._end, call, _name_target(call)))
        if breakers.troubled and (is_probe or reply.stream is None):
            breakers.succeed(_name_target(call), is_probe=is_probe)
        return reply

    def _note(self, call: Call, target: str, ended: BaseException, *, is_probe: bool) -> None:
        breakers, found = self._breakers, _find_blame(call, ended)
        if found is Blame.BROKEN:
            call.blamed += (target,)
            breakers.fail(target, judge(call, ended)[1].code, is_probe=is_probe)
            return
        if found is not Blame.UNKNOWN:
            breakers.succeed(target, is_probe=is_probe)
            is_probe = False
        if found is Blame.RESTING:
            rest_s = judge(call, ended)[1].retry_after_s or 0.0
            if rest_s > SHORTEST_HOLD_S:
                breakers.hold(target, rest_s)
        if is_probe:
            breakers.release(target)

    def _end(self, call: Call, target: str) -> None:
        if _is_gone(call):
            return
        if call.outcome in _BROKE:
            if target not in call.blamed:
                self._breakers.fail(target, call.error.code if call.error else call.outcome.value)
        elif call.outcome is Outcome.OK and self._breakers.troubled:
            self._breakers.succeed(target)


def _find_blame(call: Call, ended: BaseException) -> Blame:
    """Say what the end of an attempt says of its target that this call has not said before."""
    found = Blame.UNKNOWN
    if _is_gone(call):
        return found
    if isinstance(ended, FAILURES):
        found = blame(ended, status=call.status)
    elif isinstance(ended, asyncio.CancelledError) and call.stopped is Outcome.DEADLINE:
        found = Blame.BROKEN if call.is_sent else found  # it had all the time of the call
    is_known = found is Blame.BROKEN and _name_target(call) in call.blamed
    return Blame.UNKNOWN if is_known else found


def _is_gone(call: Call) -> bool:
    """Say whether the target was taken away meanwhile: another may go by its name now."""
    return call.target is not None and call.target.is_retired


def _name_target(call: Call) -> str:
    return call.target.id if call.target else ""
