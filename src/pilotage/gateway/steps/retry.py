"""Retry: ask the same target again where that is safe, cheap and soon.

``sent`` and ``got_headers`` decide what is safe; a share of the alias's calls bounds how much is
asked again; the call's deadline how late.
"""

import asyncio
import random
from collections.abc import Awaitable, Callable

from pilotage.core.frames import Flag
from pilotage.gateway.call import Call, Reply, Step
from pilotage.gateway.routing.attempts import can_pay_again, give_up, note_try
from pilotage.gateway.routing.failures import (
    FAILURES,
    LONGEST_WAIT_S,
    Failure,
    as_error,
    may_repeat,
)
from pilotage.gateway.routing.retry_budget import RetryBudget
from pilotage.kit.clock import Clock

FIRST_PAUSE_S = 0.05
_DICE = random.Random()  # noqa: S311 - spreads retries, protects nothing


class Retry:
    """Fails closed: where anything is in doubt, the failure stands."""

    def __init__(
        self,
        follow: Step,
        clock: Clock,
        *,
        pause: Callable[[float], Awaitable[None]] = asyncio.sleep,
        draw: Callable[[], float] = _DICE.random,
    ) -> None:
        self._follow = follow
        self._clock = clock
        self._pause = pause
        self._draw = draw
        self._budget = RetryBudget()

    async def __call__(self, call: Call) -> Reply:
        """Return the answer of the first attempt that gets one."""
        mark, began_s = len(call.endings), self._clock.monotonic_s()
        if self._budget.is_used:
            self._budget.earn((call.tenant.project_id, call.alias_name))
        try:
            return await self._follow(call)
        except FAILURES as failed:
            failure: Failure = failed
        return await self._ask_again(call, failure, mark, began_s)

    async def _ask_again(self, call: Call, failure: Failure, mark: int, began_s: float) -> Reply:
        retries = call.alias.entry.routing.retries if call.alias else 0
        for number in range(retries):
            now_s = self._clock.monotonic_s()
            note_try(call, failure, began_s, now_s)
            wait_s = self._find_wait(call, failure, number, now_s)
            if wait_s is None:
                raise failure
            give_up(call, mark)
            await self._pause(wait_s)
            began_s, asked = self._clock.monotonic_s(), call.attempts
            try:
                return await self._follow(call)
            except FAILURES as failed:
                if as_error(failed).code == "breaker_open":  # nobody was asked: what failed stands
                    note_try(call, failed, began_s, self._clock.monotonic_s())
                    raise failure from failed
                failure = failed
            finally:
                if call.attempts > asked:
                    call.flags.add(Flag.RETRIED)
        note_try(call, failure, began_s, self._clock.monotonic_s())
        raise failure

    def _find_wait(self, call: Call, failure: Failure, number: int, now_s: float) -> float | None:
        """Return how long to wait before the next attempt, None if there shall be none."""
        if call.stopped is not None or not may_repeat(failure, status=call.status):
            return None
        wait_s = FIRST_PAUSE_S * 2**number * (0.5 + self._draw())
        rest_s = as_error(failure).retry_after_s
        if rest_s is not None:
            if rest_s > LONGEST_WAIT_S or (call.plan and call.plan[-1] is not call.arm):
                return None  # another arm answers sooner
            wait_s += rest_s
        if now_s + wait_s >= call.deadline_s:
            return None
        if not self._budget.take((call.tenant.project_id, call.alias_name), now_s):
            return None
        return wait_s if can_pay_again(call) else None
