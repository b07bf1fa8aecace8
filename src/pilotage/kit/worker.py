"""The loop of a background worker: wake, step until idle, survive failures, say so once."""

import asyncio
import logging
from collections.abc import Awaitable, Callable

_LOG = logging.getLogger("pilotage.worker")
FIRST_PAUSE_S = 0.5
LONGEST_PAUSE_S = 30.0


class Wakeup:
    """A doorbell: rung any number of times, answered once."""

    def __init__(self) -> None:
        self._event = asyncio.Event()

    def ring(self) -> None:
        """Say that there is something to do."""
        self._event.set()

    async def wait(self, timeout_s: float) -> None:
        """Return when rung or after the time, whichever is first."""
        try:
            async with asyncio.timeout(timeout_s):
                await self._event.wait()
        except TimeoutError:
            return
        finally:
            self._event.clear()


class Worker:
    """Run ``step`` again and again; it returns whether there is more to do at once.

    A step that raises is tried again after a back-off (0.5 s doubling to 30 s); the log has one
    line when it begins to fail and one when it works again.
    """

    def __init__(
        self,
        name: str,
        step: Callable[[], Awaitable[bool]],
        wakeup: Wakeup,
        interval_s: float = 1.0,
    ) -> None:
        self.name = name
        self._step = step
        self._wakeup = wakeup
        self._interval_s = interval_s
        self.failures = 0

    async def run(self) -> None:
        """Work until cancelled, even where a step has made another error of that."""
        task = asyncio.current_task()
        while task is None or not task.cancelling():
            if await self.try_step():
                await asyncio.sleep(0)
                continue
            await self._wakeup.wait(self.pause_s)

    @property
    def pause_s(self) -> float:
        """How long to wait now before the next step, unless rung."""
        return find_pause_s(self.failures) if self.failures else self._interval_s

    async def try_step(self) -> bool:
        """Do one step; a failure is counted and logged, not raised."""
        try:
            has_more = await self._step()
        except Exception as failed:
            if not self.failures:
                _LOG.exception("%s fails and will be tried again", self.name, exc_info=failed)
            self.failures += 1
            return False
        if self.failures:
            _LOG.info("%s works again after %d failures", self.name, self.failures)
            self.failures = 0
        return has_more


def find_pause_s(failures: int) -> float:
    """Return how long to wait after so many failures in a row, at least one."""
    doublings = min(failures, 16) - 1  # the failures of a week make no number of seconds
    return min(LONGEST_PAUSE_S, FIRST_PAUSE_S * 2.0**doublings)
