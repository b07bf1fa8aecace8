"""What other slices ask of governance. Never commits: whoever opened the transaction does.

A change of traffic or of a stage goes: ``check_calendar``, ``require_approval`` where its policy
wants one, the change and its revision, ``record_change``, ``add_fact`` for what is known of it.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from pilotage.governance.approvals import Approvals
from pilotage.governance.calendar import Calendar
from pilotage.governance.decisions import PAGE, Decisions
from pilotage.governance.types import Approval, Decision, DecisionKind, Fact
from pilotage.identity.service import IdentityService
from pilotage.kit.clock import Clock
from pilotage.kit.db import Tx


class GovernanceService:
    """Approvals, the change calendar and decision records."""

    def __init__(self, clock: Clock, identity: IdentityService) -> None:
        self.approvals = Approvals(clock, identity)
        self.decisions = Decisions(clock)
        self.calendar = Calendar(clock, identity, self.decisions)

    async def check_calendar(
        self, tx: Tx, action: str, subject: str, concerned: Sequence[str] = ()
    ) -> None:
        """Raise ``frozen`` inside a freeze that holds for an endpoint, model or version.

        ``concerned`` are further names whose freezes hold for this change. An override that the
        actor took for this subject is used up, and goes into the record.
        """
        await self.calendar.check(tx, action, subject, concerned)

    async def require_approval(
        self,
        tx: Tx,
        *,
        action: str,
        subject_id: str,
        subject: str,
        role: str = "approver",
        needed: int = 1,
    ) -> Approval:
        """Use up the approval of an action on a subject as it is now.

        Raises ``approval_required``, saying what is missing, unless there is one that counts. It
        goes into the record that the same transaction makes.
        """
        return await self.approvals.require(
            tx, action=action, subject_id=subject_id, subject=subject, role=role, needed=needed
        )

    async def record_change(
        self,
        tx: Tx,
        *,
        kind: DecisionKind,
        subject_id: str,
        subject: str,
        before: object,
        after: object,
        evidence: Sequence[str] = (),
        is_forced: bool = False,
    ) -> Decision:
        """Record a change of traffic or of a stage in its transaction, behind its revisions.

        ``before`` and ``after`` are anything that JSON can hold, ``evidence`` hashes or ids. A
        forced change, and a rollback, are manual interventions: the actor's reason stands for them.
        """
        return await self.decisions.record(
            tx,
            kind=kind,
            subject_id=subject_id,
            subject=subject,
            before=before,
            after=after,
            evidence=evidence,
            is_forced=is_forced,
        )

    async def add_fact(
        self, tx: Tx, decision_id: str, kind: str, content: Mapping[str, Any]
    ) -> Fact:
        """Append what became known of a decision; the forms are in ``governance.facts``."""
        return await self.decisions.add_fact(tx, decision_id, kind, content)

    async def add_used(self, tx: Tx, decision_id: str) -> None:
        """Append the approvals and overrides that a later move of a decision has used."""
        await self.decisions.add_used(tx, decision_id)

    async def get_decision(self, tx: Tx, decision_id: str) -> Decision:
        """Return a decision record by id; raise ``not_found``."""
        return await self.decisions.get(tx, decision_id)

    async def list_decisions(
        self,
        tx: Tx,
        after: int = 0,
        limit: int = PAGE,
        *,
        kinds: Sequence[DecisionKind] = (),
        subject: str = "",
    ) -> Sequence[Decision]:
        """Return decisions behind a revision (``seq``) in the order in which they were made."""
        return await self.decisions.list(tx, after, limit, kinds=kinds, subject=subject)
