"""The loop that makes scheduled releases when their time has come."""

import logging

from pilotage.core.errors import PilotageError
from pilotage.governance.service import GovernanceService
from pilotage.governance.types import FactKind, ReleaseState, ScheduledRelease
from pilotage.identity.service import IdentityService
from pilotage.kit.db import SYSTEM, Actor, Database
from pilotage.kit.worker import Wakeup, Worker

LATEST_US = 3_600 * 1_000_000
_LOG = logging.getLogger("pilotage.releases")


class ReleaseMaker:
    """Makes each release once, in one transaction, in the name of whoever asked for it.

    What refuses it then (a gate, a missing approval, a freeze, a right that was taken away) ends
    it, and is kept as its outcome; so does a fault of ours, and those behind it are made. One whose
    time was more than an hour ago, because nothing ran to make it, is missed: a change nobody
    expects any more is not made.
    """

    def __init__(
        self, db: Database, governance: GovernanceService, identity: IdentityService
    ) -> None:
        self._db = db
        self._governance = governance
        self._identity = identity

    def make_worker(self, wakeup: Wakeup) -> Worker:
        """Return the worker; it looks every second."""
        return Worker("scheduled releases", self.step, wakeup)

    async def step(self) -> bool:
        """Make the releases that are due; there is no more to do at once."""
        async with self._db.read(SYSTEM) as tx:
            due = await self._governance.calendar.list_due(tx)
            now_us = tx.now_us
        for release in due:
            if now_us - release.at_us > LATEST_US:
                said = "Nothing ran at its time to make it."
                await self._end(release, ReleaseState.MISSED, said)
            else:
                await self._make(release)
        return False

    async def _make(self, release: ScheduledRelease) -> None:
        try:
            await self._try(release)
        except PilotageError as refused:
            if refused.spec.is_retryable:
                return  # the next look tries again, until it is missed
            await self._end(release, ReleaseState.REFUSED, f"{refused.code}: {refused.detail}")
        except Exception as failed:
            _LOG.exception("Scheduled release %s cannot be made", release.id, exc_info=failed)
            said = f"internal_error: {type(failed).__name__}; the control plane's log says more."
            await self._end(release, ReleaseState.REFUSED, said)

    async def _try(self, release: ScheduledRelease) -> None:
        calendar = self._governance.calendar
        async with self._db.write(_actor(release)) as tx:
            how = calendar.find_action(release.action)
            await self._identity.authorise(
                tx, release.requested_by, how.permission, release.project_id
            )
            await how.run(tx, release)
            made = await self._governance.decisions.list_recorded(tx)
            planned = {
                "release_id": release.id,
                "requested_by": release.requested_by,
                "requested_at_us": release.requested_at_us,
                "planned_for_us": release.at_us,
            }
            for decision in made:
                await self._governance.add_fact(tx, decision.id, FactKind.SCHEDULE, planned)
            last = made[-1].id if made else ""
            await calendar.end(tx, release, ReleaseState.DONE, decision_id=last)

    async def _end(self, release: ScheduledRelease, state: ReleaseState, outcome: str) -> None:
        calendar = self._governance.calendar
        async with self._db.write(_system(release)) as tx:
            if (await calendar.get_release(tx, release.id)).state is ReleaseState.PLANNED:
                await calendar.end(tx, release, state, outcome)


def _actor(release: ScheduledRelease) -> Actor:
    return Actor(
        principal_id=release.requested_by, project_id=release.project_id, reason=release.reason
    )


def _system(release: ScheduledRelease) -> Actor:
    return Actor(
        principal_id=SYSTEM.principal_id, project_id=release.project_id, reason=release.reason
    )
