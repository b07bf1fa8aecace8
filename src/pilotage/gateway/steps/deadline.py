"""Deadline: how long one attempt may wait for its first byte, within what is left of the call.

The call's own deadline is armed where the call begins and covers every step; this one keeps an
attempt from using up all of it, and does not begin an attempt that has no time. An attempt that
may use up all of it gets a little more, so that it is the call's deadline that ends it.
"""

from pilotage.core.errors import PilotageError
from pilotage.gateway.call import Call, Reply, Step
from pilotage.kit.clock import Clock

GRACE_S = 1.0


class Deadline:
    """``first_byte_timeout_s`` bounds the wait of each attempt."""

    def __init__(self, follow: Step, clock: Clock, first_byte_timeout_s: float) -> None:
        self._follow = follow
        self._clock = clock
        self._first_byte_timeout_s = first_byte_timeout_s

    async def __call__(self, call: Call) -> Reply:
        """Set the attempt's limit; raise ``deadline`` if no time is left."""
        left_s = call.deadline_s - self._clock.monotonic_s()
        if left_s <= 0:
            raise PilotageError("deadline")
        limit_s = self._first_byte_timeout_s
        call.first_byte_timeout_s = limit_s if limit_s < left_s else left_s + GRACE_S
        return await self._follow(call)
