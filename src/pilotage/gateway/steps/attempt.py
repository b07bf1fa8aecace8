"""Attempt: who is asked now, and how long that may take within what is left of the call.

The call's own deadline is armed where the call begins and covers every step; this one keeps an
attempt from using up all of it, and does not begin an attempt that has no time. An attempt that
may use up all of it gets a little more, so that it is the call's deadline that ends it.
"""

from pilotage.core.errors import PilotageError
from pilotage.gateway.call import Call, Reply, Step
from pilotage.gateway.providers.target import Targets
from pilotage.kit.clock import Clock

GRACE_S = 1.0


class Attempt:
    """``first_byte_timeout_s`` bounds the wait of each attempt, unless the alias says how long.

    It holds for the wait for a target, where one has to be waited for, and for its answer after
    that: what a sleeper takes to wake up is not held against it once it is asked.
    """

    def __init__(
        self, follow: Step, targets: Targets, clock: Clock, first_byte_timeout_s: float
    ) -> None:
        self._follow = follow
        self._targets = targets
        self._clock = clock
        self._first_byte_timeout_s = first_byte_timeout_s

    async def __call__(self, call: Call) -> Reply:
        """Give the call a target and the attempt its limit; raise ``deadline`` if no time is left.

        Raises ``no_replica``, ``upstream_cold`` or ``upstream_unreachable`` if there is no target.
        """
        arm, left_s = call.arm, call.deadline_s - self._clock.monotonic_s()
        if left_s <= 0:
            raise PilotageError("deadline")
        if arm is None:
            raise PilotageError("no_replica")
        own_ms = call.alias.entry.routing.first_byte_timeout_ms if call.alias else 0
        limit_s = own_ms / 1000 if own_ms else self._first_byte_timeout_s
        call.first_byte_timeout_s = limit_s if limit_s < left_s else left_s + GRACE_S
        target = self._targets.pick(arm, call) or await self._targets.wait(arm, call)
        call.target = target
        target.enter()
        call.at_end(target.leave)
        return await self._follow(call)
