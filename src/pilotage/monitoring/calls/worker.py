"""The loop that merges segments and drops old ones."""

from pilotage.kit.clock import Clock
from pilotage.kit.worker import Wakeup, Worker
from pilotage.monitoring.calls.service import SWEEP_EVERY_S, CallSegments, IsHeld

LOOK_EVERY_S = 10.0


class SegmentKeeper:
    """Keeps segments few, and none for longer than ``retention_us``."""

    def __init__(
        self, segments: CallSegments, clock: Clock, retention_us: int, is_held: IsHeld
    ) -> None:
        self._segments = segments
        self._clock = clock
        self._retention_us = retention_us
        self._is_held = is_held
        self._swept_at_s: float | None = None

    async def step(self) -> bool:
        """Do the next thing there is to do; return whether there may be more."""
        now_s = self._clock.monotonic_s()
        if self._swept_at_s is None or now_s - self._swept_at_s >= SWEEP_EVERY_S:
            await self._segments.sweep(self._retention_us, is_held=self._is_held)
            self._swept_at_s = now_s
        return await self._segments.merge_next()


def make_segment_worker(keeper: SegmentKeeper) -> Worker:
    """Make the worker."""
    return Worker("call segments", keeper.step, Wakeup(), LOOK_EVERY_S)
