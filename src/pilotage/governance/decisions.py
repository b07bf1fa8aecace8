"""The verbs of decision records. Never commits."""

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from pilotage.core.errors import PilotageError
from pilotage.governance import store
from pilotage.governance.facts import ApprovalVote, Approved, Content, Intervention, check_fact
from pilotage.governance.types import Approval, Decision, DecisionKind, Fact, FactKind
from pilotage.kit.clock import Clock
from pilotage.kit.db import Tx
from pilotage.kit.outbox import append_revision

PAGE = 50
_IN_REVISION = tuple(name for name in Decision.__dataclass_fields__ if name != "seq")


class Decisions:
    """One record for each change of traffic or of a stage, and the facts that gather around it."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock

    async def record(
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
        """Record a change in its own transaction, behind the revisions of the change itself.

        Approvals and overrides that this transaction has used become facts of it.
        """
        revisions = tuple(tx.written)
        content: dict[str, Any] = {
            "id": self._clock.new_id("dec"),
            "rev": 1,
            "project_id": tx.project_id,
            "kind": DecisionKind(kind),
            "subject_id": subject_id,
            "subject": subject,
            "before": msgspec.to_builtins(before),
            "after": msgspec.to_builtins(after),
            "evidence": tuple(evidence),
            "revisions": revisions,
            "reason": tx.actor.reason,
            "by": tx.actor.principal_id,
            "at_us": tx.now_us,
        }
        seq = await append_revision(tx, "governance.decision.recorded", content["id"], 1, content)
        decision = Decision(seq=seq, **content)
        await store.insert_decision(tx, decision)
        tx.decisions.append(decision.id)
        await self._add_used(tx, decision.id, revisions)
        if is_forced:
            await self._add_intervention(tx, decision, "forced")
        if decision.kind is DecisionKind.ROLLBACK:
            await self._add_intervention(tx, decision, "rollback")
        return await self.get(tx, decision.id)

    async def add_fact(
        self, tx: Tx, decision_id: str, kind: str, content: Mapping[str, Any] | Content
    ) -> Fact:
        """Append what became known of a decision; ``content`` has the form of its kind.

        The forms are in :mod:`pilotage.governance.facts`.
        """
        checked_kind, checked = check_fact(kind, content)
        rev = await store.count_up(tx, decision_id)
        if rev is None:
            raise _missing(decision_id)
        said = {
            "decision_id": decision_id,
            "number": rev - 1,
            "kind": checked_kind,
            "content": checked,
        }
        seq = await append_revision(tx, "governance.fact.added", decision_id, rev, said)
        fact = Fact(
            decision_id=decision_id,
            number=rev - 1,
            seq=seq,
            project_id=tx.project_id,
            kind=checked_kind,
            content=checked,
            by=tx.actor.principal_id,
            at_us=tx.now_us,
        )
        await store.insert_fact(tx, fact)
        return fact

    async def add_used(self, tx: Tx, decision_id: str) -> None:
        """Append the approvals and overrides that this transaction has used so far.

        For what becomes of a decision that was recorded before.
        """
        await self._add_used(tx, decision_id, tuple(tx.written))

    async def get(self, tx: Tx, decision_id: str) -> Decision:
        """Return a decision record by id; raise ``not_found``."""
        decision = await store.find_decision(tx, decision_id)
        if decision is None:
            raise _missing(decision_id)
        return decision

    async def list(  # noqa: PLR0913 - every part narrows the list
        self,
        tx: Tx,
        after: int = 0,
        limit: int = PAGE,
        *,
        kinds: Sequence[DecisionKind] = (),
        subject: str = "",
        by: str = "",
        since_us: int | None = None,
        until_us: int | None = None,
        is_newest: bool = False,
    ) -> Sequence[Decision]:
        """Return decisions behind a revision in the order in which they were made."""
        return await store.list_decisions(
            tx,
            after,
            limit,
            kinds=kinds,
            subject=subject,
            by=by,
            since_us=since_us,
            until_us=until_us,
            is_newest=is_newest,
        )

    async def list_recorded(self, tx: Tx) -> Sequence[Decision]:
        """Return the decisions that this transaction has recorded so far, in order."""
        return await store.list_decisions_of(tx, tx.written)

    async def list_facts(self, tx: Tx, decision_id: str) -> Sequence[Fact]:
        """Return the facts of a decision in order."""
        return await store.list_facts(tx, decision_id)

    async def list_interventions(
        self, tx: Tx, after: int = 0, limit: int = PAGE
    ) -> Sequence[tuple[Decision, Fact]]:
        """Return who overruled what, in order: the facts that say so, with their decisions."""
        facts = await store.list_facts_of_kind(tx, FactKind.INTERVENTION, after, limit)
        return [(await self.get(tx, fact.decision_id), fact) for fact in facts]

    async def _add_used(self, tx: Tx, decision_id: str, seqs: Sequence[int]) -> None:
        for approval in await store.list_approvals_used_in(tx, seqs):
            await store.change_approval(tx, approval, decision_id=decision_id)
            await self.add_fact(tx, decision_id, FactKind.APPROVAL, _approved(approval))
        for override in await store.list_overrides_used_in(tx, seqs):
            await store.link_override(tx, override, decision_id)
            said = Intervention(
                what="freeze_override",
                reason=override.reason,
                by=override.by,
                role=override.role,
                detail=override.freeze_id,
            )
            await self.add_fact(tx, decision_id, FactKind.INTERVENTION, said)

    async def _add_intervention(self, tx: Tx, decision: Decision, what: str) -> None:
        said = {"what": what, "reason": decision.reason, "by": decision.by}
        await self.add_fact(tx, decision.id, FactKind.INTERVENTION, said)


def _approved(approval: Approval) -> Approved:
    return Approved(
        approval_id=approval.id,
        action=approval.action,
        requested_by=approval.requested_by,
        requested_at_us=approval.requested_at_us,
        reason=approval.reason,
        subject_hash=approval.subject_hash,
        needed=approval.needed,
        votes=[
            msgspec.convert(vote, ApprovalVote, from_attributes=True) for vote in approval.votes
        ],
        evidence=list(approval.evidence),
    )


def _missing(decision_id: str) -> PilotageError:
    return PilotageError(
        "not_found",
        f"There is no decision {decision_id!r}.",
        hint="List them: pilotage decisions list",
        param="decision",
    )
