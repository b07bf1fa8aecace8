"""What works for quality: feedback is taken with the calls, and finds its call in the ledger."""

from collections.abc import Sequence

from pilotage.kit.clock import Clock
from pilotage.kit.db import SYSTEM, Database, Tx
from pilotage.kit.worker import Wakeup, Worker
from pilotage.monitoring.calls.service import IsHeld
from pilotage.monitoring.quality.rules import make_opinions
from pilotage.monitoring.quality.service import QualityService
from pilotage.monitoring.quality.types import Opinion
from pilotage.monitoring.rollups.service import CallBatch

DROP_EVERY_S = 3_600.0


class FeedbackSink:
    """Takes feedback out of the spools, each exactly once."""

    def __init__(self, service: QualityService) -> None:
        self._service = service
        self._opinions: Sequence[Opinion] = ()

    async def prepare(self, batch: CallBatch) -> None:
        """Read what a batch of a spool says of calls."""
        self._opinions = make_opinions(batch.feedback)

    async def write(self, tx: Tx) -> None:
        """Write what was said."""
        if self._opinions:
            await self._service.record(tx, self._opinions)


class FeedbackMatcher:
    """Matches feedback with calls, and drops what is old; nothing while ``is_held``."""

    def __init__(
        self, db: Database, service: QualityService, clock: Clock, is_held: IsHeld
    ) -> None:
        self._db = db
        self._service = service
        self._clock = clock
        self._is_held = is_held
        self._dropped_s = -DROP_EVERY_S

    async def step(self) -> bool:
        """Look up what is due, and drop what is old; say whether there may be more."""
        now_s = self._clock.monotonic_s()
        is_drop_due = now_s - self._dropped_s >= DROP_EVERY_S
        async with self._db.read(SYSTEM) as tx:
            if not is_drop_due and not await self._service.has_due(tx):
                return False
        async with self._db.write(SYSTEM) as tx:
            has_more = await self._service.match(tx)
            if is_drop_due:
                if not await self._is_held(tx):
                    await self._service.drop_old(tx)
                self._dropped_s = now_s
        return has_more


def make_feedback_worker(
    db: Database, service: QualityService, clock: Clock, is_held: IsHeld
) -> Worker:
    """Make the worker that matches feedback."""
    return Worker("feedback", FeedbackMatcher(db, service, clock, is_held).step, Wakeup(), 1.0)
