"""The verbs of the change calendar: freezes, ways through them, releases planned ahead."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from pilotage.core.errors import PilotageError
from pilotage.core.names import check_name
from pilotage.governance import store
from pilotage.governance.decisions import Decisions
from pilotage.governance.ports import ScheduledAction
from pilotage.governance.rules import check_reason, check_role
from pilotage.governance.types import (
    DecisionKind,
    Freeze,
    FreezeSpec,
    Override,
    ReleaseState,
    ScheduledRelease,
    Window,
)
from pilotage.governance.windows import check_freeze, find_window, is_for, list_windows
from pilotage.identity.service import IdentityService
from pilotage.kit.clock import Clock, rfc3339
from pilotage.kit.db import Tx
from pilotage.kit.outbox import append_revision

EVERYTHING = 1_000_000
OVERRIDE_LIVES_US = 3_600 * 1_000_000
FURTHEST_US = 366 * 86_400_000_000


class Calendar:
    """When nothing may change, and what is planned to change when.

    Whoever can make a change at a time registers how (:meth:`register`).
    """

    def __init__(self, clock: Clock, identity: IdentityService, decisions: Decisions) -> None:
        self._clock = clock
        self._identity = identity
        self._decisions = decisions
        self.actions: dict[str, ScheduledAction] = {}

    def register(self, action: str, how: ScheduledAction) -> None:
        """Let an action (``slice.noun.verb``) be scheduled."""
        self.actions[action] = how

    # freezes

    async def freeze(self, tx: Tx, name: str, spec: FreezeSpec) -> Freeze:
        """Set a freeze; raise ``already_exists`` if the name is taken."""
        check_name(name)
        check_freeze(spec)
        find_zone(spec.time_zone)
        if spec.override_role:
            check_role(spec.override_role, "override_role")
        if await store.find_freeze(tx, name):
            raise PilotageError(
                "already_exists", f"There is a freeze {name!r} already.", param="name"
            )
        values = {item: getattr(spec, item) for item in FreezeSpec.__dataclass_fields__}
        freeze = Freeze(
            **values | {"reason": check_reason(spec.reason)},
            id=self._clock.new_id("frz"),
            rev=1,
            project_id=tx.project_id,
            name=name,
            created_by=tx.actor.principal_id,
            created_at_us=tx.now_us,
        )
        await store.insert_freeze(tx, freeze)
        await append_revision(tx, "governance.freeze.created", freeze.id, 1, freeze)
        return freeze

    async def get_freeze(self, tx: Tx, name_or_id: str) -> Freeze:
        """Return a freeze that was not lifted by name or id; raise ``not_found``."""
        freeze = await store.find_freeze(tx, name_or_id)
        if freeze is None or freeze.lifted_at_us is not None:
            raise PilotageError(
                "not_found",
                f"There is no freeze {name_or_id!r}.",
                hint="List them: pilotage calendar list",
                param="freeze",
            )
        return freeze

    async def list_freezes(
        self, tx: Tx, after: str = "", limit: int = EVERYTHING
    ) -> Sequence[Freeze]:
        """Return freezes that were not lifted, by name."""
        return await store.list_freezes(tx, after, limit)

    async def list_windows(self, tx: Tx, from_us: int, to_us: int) -> Sequence[Window]:
        """Return the occurrences of freezes that touch a span, in order of their beginnings."""
        found = [
            window
            for freeze in await store.list_freezes(tx, "", EVERYTHING)
            for window in list_windows(freeze, find_zone(freeze.time_zone), from_us, to_us)
        ]
        return sorted(found, key=lambda window: (window.starts_at_us, window.freeze.name))

    async def lift(self, tx: Tx, name_or_id: str) -> None:
        """Lift a freeze for good, its repetitions too, for a reason; its name is free again.

        One that holds now is overruled by that, for everybody: a record of it is made.
        """
        freeze = await self.get_freeze(tx, name_or_id)
        check_reason(tx.actor.reason)
        values = {"name": f"{freeze.name}~{freeze.id}", "lifted_at_us": tx.now_us}
        if not await store.change_freeze(tx, freeze, **values):
            raise PilotageError("conflict", f"Freeze {freeze.name!r} has changed meanwhile.")
        await append_revision(
            tx, "governance.freeze.lifted", freeze.id, freeze.rev + 1, values, freeze
        )
        window = find_window(freeze, find_zone(freeze.time_zone), tx.now_us)
        if window is not None:
            await self._decisions.record(
                tx,
                kind=DecisionKind.LIFT,
                subject_id=freeze.id,
                subject=freeze.name,
                before={"holds_until": rfc3339(window.ends_at_us)},
                after={"holds_until": rfc3339(tx.now_us)},
                is_forced=True,
            )

    async def override(self, tx: Tx, name_or_id: str, subject: str, reason: str) -> Override:
        """Take leave to change one subject during a freeze, once and within the hour.

        Raises ``permission_denied`` unless the actor holds the role that the freeze names.
        """
        freeze = await self.get_freeze(tx, name_or_id)
        roles = await self._identity.roles_of(tx, tx.actor.principal_id, freeze.project_id)
        if freeze.override_role not in roles:
            who = f"the role {freeze.override_role!r}" if freeze.override_role else "nobody"
            raise PilotageError(
                "permission_denied",
                f"{who.capitalize()} may go through the freeze {freeze.name!r}.",
                hint="Wait until it is over: pilotage calendar list",
            )
        override = Override(
            id=self._clock.new_id("ovr"),
            project_id=freeze.project_id,
            freeze_id=freeze.id,
            subject=subject,
            by=tx.actor.principal_id,
            role=freeze.override_role,
            reason=check_reason(reason),
            at_us=tx.now_us,
            expires_at_us=tx.now_us + OVERRIDE_LIVES_US,
        )
        await store.insert_override(tx, override)
        await append_revision(tx, "governance.override.taken", override.id, 1, override)
        return override

    async def check(self, tx: Tx, action: str, subject: str, concerned: Sequence[str] = ()) -> None:
        """Raise ``frozen`` inside a freeze that holds for a subject, or for what it concerns.

        An override that the actor took for exactly this subject, or for the model of a version, is
        used up instead.
        """
        for freeze in await store.list_freezes(tx, "", EVERYTHING):
            window = find_window(freeze, find_zone(freeze.time_zone), tx.now_us)
            if window is not None and any(is_for(freeze, name) for name in (subject, *concerned)):
                await self._pass(tx, window, action, subject)

    async def _pass(self, tx: Tx, window: Window, action: str, subject: str) -> None:
        freeze = window.freeze
        found = await self._find_override(tx, freeze, subject)
        if found is None:
            hint = "Wait until it is over, or plan for then: pilotage calendar schedule"
            if freeze.override_role:
                hint = (
                    f"Wait, or with the role {freeze.override_role}: "
                    f'pilotage calendar override {freeze.name} {subject} --reason "..."'
                )
            raise PilotageError(
                "frozen",
                f"{subject} may not change now: the freeze {freeze.name!r} lasts until "
                f"{rfc3339(window.ends_at_us)} ({freeze.reason}); {action} is refused.",
                hint=hint,
            )
        seq = await append_revision(
            tx, "governance.override.used", found.id, 2, {"id": found.id, "action": action}
        )
        if not await store.mark_override_used(tx, found, seq):
            raise PilotageError("conflict", f"Override {found.id} was used meanwhile.")

    async def _find_override(self, tx: Tx, freeze: Freeze, subject: str) -> Override | None:
        for name in dict.fromkeys((subject, subject.partition("@")[0])):
            found = await store.find_override(tx, freeze.id, tx.actor.principal_id, name)
            if found is not None and found.expires_at_us > tx.now_us:
                return found
        return None

    # scheduled releases

    async def schedule(
        self,
        tx: Tx,
        action: str,
        subject: str,
        at_us: int,
        arguments: Mapping[str, Any],
        reason: str,
    ) -> ScheduledRelease:
        """Plan a change for a time; it will be made in the name of the transaction's actor.

        Gates, approvals and freezes are checked when it is made, not now.
        """
        how = self.find_action(action)
        if not tx.now_us < at_us <= tx.now_us + FURTHEST_US:
            raise PilotageError(
                "invalid_request",
                "A release is planned for a time to come, within a year.",
                param="at",
            )
        found = await how.check(tx, subject, arguments)
        release = ScheduledRelease(
            id=self._clock.new_id("sch"),
            rev=1,
            project_id=tx.project_id,
            action=action,
            subject_id=found.id,
            subject=found.name,
            arguments=dict(arguments),
            at_us=at_us,
            requested_by=tx.actor.principal_id,
            requested_at_us=tx.now_us,
            reason=check_reason(reason),
            state=ReleaseState.PLANNED,
        )
        await store.insert_release(tx, release)
        await append_revision(tx, "governance.release.scheduled", release.id, 1, release)
        return release

    def find_action(self, action: str) -> ScheduledAction:
        """Return how an action is made; raise ``invalid_request`` if it cannot be scheduled."""
        how = self.actions.get(action)
        if how is None:
            known = ", ".join(sorted(self.actions)) or "none"
            raise PilotageError(
                "invalid_request",
                f"{action!r} cannot be scheduled.",
                hint=f"Actions that can: {known}.",
                param="action",
            )
        return how

    async def get_release(self, tx: Tx, release_id: str) -> ScheduledRelease:
        """Return a scheduled release by id; raise ``not_found``."""
        release = await store.find_release(tx, release_id)
        if release is None:
            raise PilotageError(
                "not_found",
                f"There is no scheduled release {release_id!r}.",
                hint="List them: pilotage calendar list",
                param="release",
            )
        return release

    async def list_releases(
        self,
        tx: Tx,
        after: str = "",
        limit: int = EVERYTHING,
        state: ReleaseState | None = None,
    ) -> Sequence[ScheduledRelease]:
        """Return scheduled releases in the order in which they were asked for."""
        return await store.list_releases(tx, after, limit, state)

    async def list_due(self, tx: Tx, limit: int = 100) -> Sequence[ScheduledRelease]:
        """Return the planned releases whose time has come, the earliest first."""
        return await store.list_due_releases(tx, tx.now_us, limit)

    async def cancel(self, tx: Tx, release_id: str) -> ScheduledRelease:
        """Cancel a planned release; raise ``conflict`` if it has ended."""
        release = await self.get_release(tx, release_id)
        return await self.end(tx, release, ReleaseState.CANCELLED, tx.actor.reason)

    async def end(
        self,
        tx: Tx,
        release: ScheduledRelease,
        state: ReleaseState,
        outcome: str = "",
        decision_id: str = "",
    ) -> ScheduledRelease:
        """Say what came of a planned release; raise ``conflict`` if it has ended already."""
        values = {
            "state": state,
            "ended_at_us": tx.now_us,
            "outcome": outcome,
            "decision_id": decision_id,
        }
        is_planned = release.state is ReleaseState.PLANNED
        if not is_planned or not await store.change_release(tx, release, **values):
            raise PilotageError(
                "conflict",
                f"Scheduled release {release.id} is no longer planned.",
                hint="Look what came of it: pilotage calendar list",
            )
        after = replace(release, rev=release.rev + 1, **values)  # type: ignore[arg-type]
        await append_revision(
            tx, "governance.release.ended", release.id, after.rev, values, {"state": release.state}
        )
        return after


def find_zone(name: str) -> ZoneInfo:
    """Return a time zone by its IANA name; raise ``invalid_request``."""
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        raise PilotageError(
            "invalid_request",
            f"{name[:60]!r} is no time zone.",
            hint="Use an IANA name such as Europe/Berlin.",
            param="time_zone",
        ) from None
