"""Deadline: how long one attempt may wait for its first byte, within what is left of the call.

The call's own deadline is armed where the call begins and covers every step; this one keeps an
attempt from using up all of it, and does not begin an attempt that has no time. An attempt that
may use up all of it gets a little more, so that it is the call's deadline that ends it.
"""

import asyncio

from pilotage.core.errors import PilotageError
from pilotage.gateway.call import Call, Reply, Step
from pilotage.kit.clock import Clock

GRACE_S = 1.0


class Deadline:
    """``first_byte_timeout_s`` bounds the wait of each attempt, unless the alias says how long."""

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
        own_ms = call.alias.entry.routing.first_byte_timeout_ms if call.alias else 0
        if own_ms:
            limit_s = own_ms / 1000
        call.first_byte_timeout_s = limit_s if limit_s < left_s else left_s + GRACE_S
        if own_ms and limit_s < left_s and call.request.stream:
            return await self._follow_until(call, limit_s)
        return await self._follow(call)

    async def _follow_until(self, call: Call, limit_s: float) -> Reply:
        """Bound the wait for the content too: some targets send the head of a stream at once."""
        try:
            async with asyncio.timeout(limit_s) as limit:
                return await self._follow(call)
        except TimeoutError:
            if not limit.expired():
                raise
            raise PilotageError(
                "upstream_stall", f"The model said nothing for {limit_s:g} s."
            ) from None
