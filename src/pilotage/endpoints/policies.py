"""The release policy of a project: what may serve traffic, and who must agree. Never commits."""

from dataclasses import replace

from pilotage.core.errors import PilotageError
from pilotage.endpoints import store
from pilotage.endpoints.types import ReleasePolicy
from pilotage.kit.clock import Clock
from pilotage.kit.db import Tx
from pilotage.kit.outbox import append_revision
from pilotage.registry.types import Stage

MOST_APPROVALS = 10


class ReleasePolicies:
    """Reads and replaces the policies; each project has one."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock

    async def get(self, tx: Tx) -> ReleasePolicy:
        """Return the policy of the transaction's project; until somebody sets one, the default."""
        found = await store.find_policy(tx)
        return found or ReleasePolicy(id="default", rev=0, project_id=tx.project_id)

    async def replace(
        self, tx: Tx, serve_from_stage: Stage, approvals: int, expected_rev: int | None = None
    ) -> ReleasePolicy:
        """Replace the policy; what serves already goes on. Raise ``precondition_failed``."""
        if serve_from_stage is Stage.ARCHIVED or not 0 <= approvals <= MOST_APPROVALS:
            raise PilotageError(
                "invalid_request",
                "That is no release policy.",
                hint=f"Use development, staging or production, and 0 to {MOST_APPROVALS}.",
                param="approvals" if serve_from_stage is not Stage.ARCHIVED else "serve_from_stage",
            )
        before = await self.get(tx)
        wanted = {"serve_from_stage": serve_from_stage, "approvals": approvals}
        is_expected = expected_rev in (None, before.rev)
        if is_expected and wanted == {name: getattr(before, name) for name in wanted}:
            return before
        after = replace(
            before,
            id=before.id if before.rev else self._clock.new_id("rpl"),
            rev=before.rev + 1,
            serve_from_stage=serve_from_stage,
            approvals=approvals,
            changed_at_us=tx.now_us,
            changed_by=tx.actor.principal_id,
        )
        if not is_expected or not await store.put_policy(tx, before, after):
            raise PilotageError(
                "precondition_failed",
                "The release policy has changed meanwhile.",
                hint="Read it again and decide anew.",
            )
        event = "endpoints.release_policy.changed"
        await append_revision(tx, event, after.id, after.rev, after, before)
        return after
