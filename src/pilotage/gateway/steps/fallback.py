"""Fallback: the next arm of the plan where one failed, always before the client's first byte.

The chain returns only with content, so whatever it raises comes before that. All attempts share
the call's one deadline and its reservation.
"""

from collections.abc import Iterator

from pilotage.core.frames import Flag
from pilotage.core.snapshot import ArmEntry
from pilotage.gateway.call import Call, Reply, Step
from pilotage.gateway.routing.attempts import can_pay_again, give_up, note_try
from pilotage.gateway.routing.failures import FAILURES, Failure, as_error, choose_error, may_use
from pilotage.kit.clock import Clock


class Fallback:
    """Asks the arms of ``call.plan`` in order; none is asked that is not in it."""

    def __init__(self, follow: Step, clock: Clock) -> None:
        self._follow = follow
        self._clock = clock

    async def __call__(self, call: Call) -> Reply:
        """Return the first answer; raise what is worth telling if there is none."""
        mark = len(call.endings)
        try:
            return await self._follow(call)
        except FAILURES as failed:
            failure: Failure = failed
        return await self._go_on(call, failure, mark)

    async def _go_on(self, call: Call, failure: Failure, mark: int) -> Reply:
        self._note(call, failure, 0)
        errors, left = [as_error(failure)], iter(call.plan[1:])
        while self._move_on(call, failure, left, mark):
            known = len(call.tries)
            try:
                return await self._follow(call)
            except FAILURES as failed:
                failure = failed
            self._note(call, failure, known)
            errors.append(as_error(failure))
        told = choose_error(errors)
        if told.code != errors[-1].code:
            give_up(call, mark)  # the call will be judged by another attempt's error
        raise told from failure

    def _move_on(self, call: Call, failure: Failure, left: Iterator[ArmEntry], mark: int) -> bool:
        """Give the attempt up for the next arm that may do better, if there is one and it is paid.

        ``left`` are the arms of the plan that were not looked at yet.
        """
        failed, code = call.arm, as_error(failure).code
        for arm in left:
            if call.stopped is not None or failed is None:
                return False
            if not may_use(arm, failed, code):
                continue
            if not can_pay_again(call):
                return False
            give_up(call, mark)
            call.arm = arm
            call.flags.add(Flag.FELL_BACK)
            return True
        return False

    def _note(self, call: Call, failure: Failure, known: int) -> None:
        """See to it that the failure is on the list, also one that came before any attempt."""
        if len(call.tries) == known:
            now_s = self._clock.monotonic_s()
            note_try(call, failure, now_s, now_s)
