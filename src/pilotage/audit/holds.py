"""Legal holds: while one is in force, nothing of the log is pruned and no tenant is erased."""

from collections.abc import Sequence

from pilotage.audit import hold_store
from pilotage.audit.types import Hold
from pilotage.core.errors import PilotageError
from pilotage.core.names import check_name
from pilotage.kit.clock import Clock
from pilotage.kit.db import Tx
from pilotage.kit.outbox import append_revision, hold_revisions


class HoldService:
    """Places and releases holds; they are of the whole installation."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock

    async def create_hold(self, tx: Tx, name: str, reason: str) -> Hold:
        """Place a hold; raise ``already_exists`` for a name that was ever used."""
        check_name(name)
        if not reason.strip():
            raise PilotageError("invalid_request", "A hold needs a reason.", param="reason")
        if await hold_store.find_hold(tx, name):
            raise PilotageError(
                "already_exists", f"There is or was a hold {name!r} already.", param="name"
            )
        hold = Hold(
            id=self._clock.new_id("hold"),
            rev=1,
            name=name,
            reason=reason,
            created_at_us=tx.now_us,
            created_by=tx.actor.principal_id,
            released_at_us=None,
            released_by="",
        )
        await hold_store.insert_hold(tx, hold)
        await append_revision(tx, "audit.hold.placed", hold.id, 1, hold)
        return hold

    async def get_hold(self, tx: Tx, name_or_id: str) -> Hold:
        """Return a hold, a released one too; raise ``not_found``."""
        hold = await hold_store.find_hold(tx, name_or_id)
        if hold is None:
            raise PilotageError(
                "not_found",
                f"There is no hold {name_or_id!r}.",
                hint="List them: pilotage holds list",
            )
        return hold

    async def list_holds(self, tx: Tx, after: str = "", limit: int = 500) -> Sequence[Hold]:
        """Return holds in order of their names, released ones too."""
        return await hold_store.list_holds(tx, after, limit)

    async def release_hold(self, tx: Tx, name_or_id: str) -> Hold:
        """Release a hold for ever; a second time changes nothing."""
        hold = await self.get_hold(tx, name_or_id)
        if hold.released_at_us is not None:
            return hold
        if not await hold_store.mark_released(tx, hold):
            raise PilotageError("precondition_failed", f"Hold {hold.name} has changed meanwhile.")
        released = await self.get_hold(tx, hold.id)
        await append_revision(tx, "audit.hold.released", hold.id, released.rev, released, hold)
        return released

    async def find_in_force(self, tx: Tx) -> Hold | None:
        """Return the oldest hold that is in force."""
        return await hold_store.find_in_force(tx)

    async def is_held(self, tx: Tx) -> bool:
        """Say whether a hold is in force."""
        return await self.find_in_force(tx) is not None

    async def check_none(self, tx: Tx, what: str) -> None:
        """Raise ``on_hold``, naming the hold, if one is in force.

        None can be placed before this writing transaction ends: placing one is a revision.
        """
        await hold_revisions(tx)
        hold = await self.find_in_force(tx)
        if hold is not None:
            raise PilotageError(
                "on_hold",
                f"The legal hold {hold.name!r} is in force: {what}.",
                hint=f"Ask who placed it, then: pilotage holds release {hold.name} --reason WHY",
            )
