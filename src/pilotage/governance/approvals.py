"""The verbs of four-eyes approvals. Never commits."""

import shlex
from collections.abc import Sequence
from dataclasses import replace

from pilotage.core.errors import PilotageError
from pilotage.governance import store
from pilotage.governance.ports import DescribeSubject
from pilotage.governance.rules import check_ask, check_reason, decide, find_flaw, hash_subject, use
from pilotage.governance.types import (
    Approval,
    ApprovalAsk,
    ApprovalState,
    Subject,
    Verdict,
    Vote,
)
from pilotage.identity.service import IdentityService
from pilotage.identity.types import PrincipalKind
from pilotage.kit.clock import Clock
from pilotage.kit.db import Tx
from pilotage.kit.outbox import append_revision

MOST_LOOKED_AT = 100
_PAST = {
    Verdict.APPROVE: "approved",
    Verdict.REJECT: "rejected",
    Verdict.WITHDRAW: "withdrawn",
    Verdict.REVOKE: "revoked",
}


class Approvals:
    """Requests to do one thing to one subject, once, and what others say of them.

    Whoever owns a subject registers what it is (:meth:`register`): an approval is bound to the
    state that this describes, and never given by those it names as authors.
    """

    def __init__(self, clock: Clock, identity: IdentityService) -> None:
        self._clock = clock
        self._identity = identity
        self._subjects: dict[str, DescribeSubject] = {}

    def register(self, action: str, describe: DescribeSubject) -> None:
        """Let an action (``slice.noun.verb``, without its target) be asked approval for."""
        self._subjects[action] = describe

    async def request(self, tx: Tx, ask: ApprovalAsk) -> Approval:
        """Ask for approval; raise ``not_found`` for an unknown subject."""
        ask = check_ask(ask)
        subject = await self._describe(tx, ask.action, ask.subject)
        approval = Approval(
            id=self._clock.new_id("apr"),
            rev=1,
            project_id=tx.project_id,
            action=ask.action,
            subject_id=subject.id,
            subject=subject.name,
            subject_hash=hash_subject(subject),
            authors=tuple(sorted(subject.authors)),
            reason=check_reason(ask.reason),
            evidence=ask.evidence,
            needed=ask.needed,
            role=ask.role,
            requested_by=tx.actor.principal_id,
            requested_at_us=tx.now_us,
            expires_at_us=tx.now_us + ask.ttl_us,
            state=ApprovalState.PENDING,
            votes=(),
        )
        await store.insert_approval(tx, approval)
        await append_revision(tx, "governance.approval.requested", approval.id, 1, approval)
        return approval

    async def get(self, tx: Tx, approval_id: str) -> Approval:
        """Return a request by id; raise ``not_found``."""
        approval = await store.find_approval(tx, approval_id)
        if approval is None:
            raise PilotageError(
                "not_found",
                f"There is no approval {approval_id!r}.",
                hint="List them: pilotage approvals list",
                param="approval",
            )
        return approval

    async def list(
        self,
        tx: Tx,
        after: str = "",
        limit: int = MOST_LOOKED_AT,
        *,
        state: ApprovalState | None = None,
        subject: str = "",
    ) -> Sequence[Approval]:
        """Return requests, oldest first; ``subject`` is a name or an id."""
        return await store.list_approvals(tx, after, limit, state=state, subject=subject)

    async def vote(self, tx: Tx, approval_id: str, verdict: Verdict, reason: str) -> Approval:
        """Approve, reject, withdraw or revoke a request, as the transaction's actor.

        Raises ``permission_denied`` for whoever may not, ``conflict`` where it is too late.
        """
        approval = await self.get(tx, approval_id)
        by = tx.actor.principal_id
        roles = await self._find_roles(tx, by, approval.project_id)
        vote = Vote(
            by=by,
            role="" if verdict is Verdict.WITHDRAW else approval.role,
            verdict=verdict,
            reason=check_reason(reason),
            at_us=tx.now_us,
        )
        after = decide(approval, vote, roles, await self._find_double(tx, by, approval))
        if not await store.change_approval(tx, approval, state=after.state, votes=after.votes):
            raise _changed(approval)
        event = f"governance.approval.{_PAST[verdict]}"
        await append_revision(tx, event, approval.id, after.rev, after, {"state": approval.state})
        return after

    async def require(
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

        Raises ``approval_required`` and says what is missing if there is none that counts.
        """
        found, flaw = await self.find(
            tx, action=action, subject_id=subject_id, subject=subject, role=role, needed=needed
        )
        if found is not None:
            return await self._use(tx, found)
        more = "" if needed == 1 else f" --needed {needed}"
        raise PilotageError(
            "approval_required",
            f"{subject} needs an approval: {flaw}.",
            hint=f"Ask: pilotage approvals request {action} {shlex.quote(subject)}{more} "
            '--reason "..."',
        )

    async def find(
        self,
        tx: Tx,
        *,
        action: str,
        subject_id: str,
        subject: str,
        role: str = "approver",
        needed: int = 1,
    ) -> tuple[Approval | None, str]:
        """Return the approval that :meth:`require` would use up; None, and what is missing."""
        current = hash_subject(await self._describe(tx, action, subject))
        flaw = f"nobody has asked for {action} of {subject}"
        asked = await store.list_approvals_of(tx, action, subject_id, MOST_LOOKED_AT)
        for place, approval in enumerate(asked):
            found = find_flaw(approval, current, role, needed, tx.now_us)
            found = found or await self._find_lapse(tx, approval, needed)
            if not found:
                return approval, ""
            flaw = found if place == 0 else flaw
        return None, flaw

    async def _find_lapse(self, tx: Tx, approval: Approval, needed: int) -> str:
        """Say who of those that approved could not do so now; empty where enough still could."""
        lapsed = [
            vote.by
            for vote in approval.votes
            if vote.verdict is Verdict.APPROVE
            and approval.role not in await self._find_roles(tx, vote.by, approval.project_id)
        ]
        if approval.given - len(lapsed) >= max(needed, approval.needed):
            return ""
        return f"{', '.join(lapsed)} approved {approval.id} and is no {approval.role} any more"

    async def _find_roles(self, tx: Tx, principal_id: str, project_id: str) -> frozenset[str]:
        """Return the roles of a person; programs have none here, for anybody may hold their key."""
        principal = await self._identity.get_principal(tx, principal_id)
        if principal.kind is not PrincipalKind.USER:
            return frozenset()
        return await self._identity.roles_of(tx, principal_id, project_id)

    async def _find_double(self, tx: Tx, by: str, approval: Approval) -> str:
        """Return who of a request may be the voter: one made a credential that the other had."""
        list_armers = self._identity.principals.list_armers
        own = await list_armers(tx, by, tx.now_us)
        said = [(approval.requested_by, approval.requested_at_us)]
        said += [(vote.by, vote.at_us) for vote in approval.votes]
        for other, at_us in said:
            if other != by and (other in own or by in await list_armers(tx, other, at_us)):
                return other
        return ""

    async def _use(self, tx: Tx, approval: Approval) -> Approval:
        used = use(approval, tx.now_us, 0)
        seq = await append_revision(
            tx,
            "governance.approval.used",
            approval.id,
            used.rev,
            {"id": used.id, "state": used.state, "used_at_us": used.used_at_us},
            {"state": approval.state},
        )
        values = {"state": used.state, "used_at_us": used.used_at_us, "used_seq": seq}
        if not await store.change_approval(tx, approval, **values):
            raise _changed(approval)
        return replace(used, used_seq=seq)

    async def _describe(self, tx: Tx, action: str, name_or_id: str) -> Subject:
        describe = self._subjects.get(action.partition(":")[0])
        if describe is None:
            known = ", ".join(sorted(self._subjects)) or "none"
            raise PilotageError(
                "invalid_request",
                f"{action!r} is nothing that is approved.",
                hint=f"Actions that are: {known}.",
                param="action",
            )
        return await describe(tx, name_or_id)


def _changed(approval: Approval) -> PilotageError:
    return PilotageError(
        "conflict",
        f"Approval {approval.id} was changed by somebody else meanwhile.",
        hint="Read it again: pilotage approvals show",
    )
