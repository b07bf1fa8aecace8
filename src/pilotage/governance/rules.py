"""What governance decides of approvals: who may say what, what follows, and what still counts."""

import hashlib
import re
from dataclasses import replace

import msgspec

from pilotage.core.errors import PilotageError
from pilotage.governance.types import (
    Approval,
    ApprovalAsk,
    ApprovalState,
    Subject,
    Verdict,
    Vote,
)
from pilotage.identity.types import Role

MOST_APPROVERS = 10
LONGEST_REASON = 2_000
MOST_EVIDENCE = 100
SHORTEST_TTL_US = 60 * 1_000_000
LONGEST_TTL_US = 90 * 86_400_000_000
_ROLES = tuple(role.value for role in Role if role is not Role.GATEWAY)
_ACTION = re.compile(r"[a-z]+\.[a-z_]+\.[a-z_]+(?::[a-z][a-z0-9_.-]{0,63})?")
_OPEN = frozenset({ApprovalState.PENDING, ApprovalState.APPROVED})
_ALLOWED_IN = {
    Verdict.APPROVE: frozenset({ApprovalState.PENDING}),
    Verdict.REJECT: frozenset({ApprovalState.PENDING}),
    Verdict.WITHDRAW: _OPEN,
    Verdict.REVOKE: _OPEN,
}
_ENDS_AS = {
    Verdict.REJECT: ApprovalState.REJECTED,
    Verdict.WITHDRAW: ApprovalState.WITHDRAWN,
    Verdict.REVOKE: ApprovalState.REVOKED,
}


def check_ask(ask: ApprovalAsk) -> ApprovalAsk:
    """Return a request; raise ``invalid_request`` for what cannot be asked."""
    if not _ACTION.fullmatch(ask.action):
        raise PilotageError(
            "invalid_request",
            f"{ask.action[:80]!r} is no action.",
            hint="Write it as slice.noun.verb:target, such as registry.version.promote:production.",
            param="action",
        )
    check_reason(ask.reason)
    if not 1 <= ask.needed <= MOST_APPROVERS:
        raise PilotageError(
            "invalid_request",
            f"A request needs 1 to {MOST_APPROVERS} approvals.",
            param="needed",
        )
    if not SHORTEST_TTL_US <= ask.ttl_us <= LONGEST_TTL_US:
        raise PilotageError(
            "invalid_request",
            "A request lives from a minute to 90 days.",
            hint="Write a duration such as 7d.",
            param="expires_in",
        )
    check_role(ask.role, "role")
    if len(ask.evidence) > MOST_EVIDENCE:
        raise PilotageError(
            "invalid_request", f"Name {MOST_EVIDENCE} pieces of evidence at most.", param="evidence"
        )
    return replace(ask, evidence=tuple(dict.fromkeys(ask.evidence)))


def check_reason(reason: str) -> str:
    """Return why somebody does something; raise ``invalid_request`` if nothing is said."""
    if not reason.strip() or len(reason) > LONGEST_REASON:
        raise PilotageError(
            "invalid_request",
            f"Say why, in at most {LONGEST_REASON} letters.",
            hint='Add a reason, such as --reason "passed the June evaluation".',
            param="reason",
        )
    return reason.strip()


def check_role(role: str, param: str) -> str:
    """Return a role that people can hold; raise ``invalid_request``."""
    if role not in _ROLES:
        raise PilotageError(
            "invalid_request",
            f"There is no role {role[:40]!r}.",
            hint=f"There are: {', '.join(_ROLES)}.",
            param=param,
        )
    return role


def hash_subject(subject: Subject) -> str:
    """Return the hex SHA-256 of what an approval is bound to: id and state as sorted JSON."""
    content = {"id": subject.id, "state": subject.state}
    return hashlib.sha256(msgspec.json.encode(content, order="sorted")).hexdigest()


def assess(approval: Approval, now_us: int) -> ApprovalState:
    """Return where a request stands now: what is open expires, what has ended stays."""
    if approval.state in _OPEN and approval.expires_at_us <= now_us:
        return ApprovalState.EXPIRED
    return approval.state


def decide(approval: Approval, vote: Vote, roles: frozenset[str], double: str = "") -> Approval:
    """Return a request after somebody's word on it; ``roles`` are what they hold in its project.

    ``double`` is who else of the request may be the same person, if anybody.

    Raises ``permission_denied`` for whoever may not say it, ``conflict`` where it comes too late.
    """
    state = assess(approval, vote.at_us)
    if state not in _ALLOWED_IN[vote.verdict]:
        raise PilotageError(
            "conflict",
            f"Approval {approval.id} is {state}: it can no longer be changed this way.",
            hint="Ask anew: pilotage approvals request",
        )
    _check_voter(approval, vote, roles, double)
    votes = (*approval.votes, vote)
    after = replace(approval, rev=approval.rev + 1, votes=votes)
    if vote.verdict is Verdict.APPROVE:
        is_enough = after.given >= approval.needed
        return replace(after, state=ApprovalState.APPROVED if is_enough else approval.state)
    return replace(after, state=_ENDS_AS[vote.verdict])


def use(approval: Approval, now_us: int, seq: int) -> Approval:
    """Return an approval that has been used in a revision; raise ``conflict`` if it cannot be."""
    state = assess(approval, now_us)
    if state is not ApprovalState.APPROVED:
        raise PilotageError("conflict", f"Approval {approval.id} is {state}: it cannot be used.")
    return replace(
        approval,
        rev=approval.rev + 1,
        state=ApprovalState.USED,
        used_at_us=now_us,
        used_seq=seq,
    )


def find_flaw(approval: Approval, subject_hash: str, role: str, needed: int, now_us: int) -> str:
    """Say why an approval does not allow what is to be done now; empty if it does."""
    state = assess(approval, now_us)
    if state is ApprovalState.PENDING:
        missing = approval.needed - approval.given
        return f"{approval.id} still waits for {missing} of {approval.needed} approvals"
    if state is not ApprovalState.APPROVED:
        return f"{approval.id} is {state}"
    if approval.subject_hash != subject_hash:
        return f"{approval.id} was given for {approval.subject} as it was; it has changed since"
    if approval.role != role:
        return f"{approval.id} was given by the role {approval.role}, this needs {role}"
    if approval.given < needed:
        return f"{approval.id} was asked of {approval.given}, this needs {needed} approvals"
    return ""


def _check_voter(approval: Approval, vote: Vote, roles: frozenset[str], double: str) -> None:
    """Raise ``permission_denied`` unless this is the requester's or an approver's word to say."""
    if vote.verdict is Verdict.WITHDRAW:
        if vote.by != approval.requested_by:
            raise _denied(f"Only who asked for {approval.id} may withdraw it.")
        return
    if vote.verdict is Verdict.REVOKE:
        if not any(item.by == vote.by for item in approval.votes):
            raise _denied(f"Only who approved {approval.id} may revoke it.")
        return
    if vote.by == approval.requested_by:
        raise _denied("Whoever asks for an approval cannot give it.")
    if vote.by in approval.authors:
        raise _denied(f"Whoever made {approval.subject} cannot approve it.")
    if approval.role not in roles:
        raise _denied(
            f"This needs a person of the role {approval.role!r}; no other role implies it."
        )
    if any(item.by == vote.by for item in approval.votes):
        raise PilotageError("conflict", f"You have approved {approval.id} already.")
    if double:
        raise _denied(f"You may be {double}: one of you made a credential of the other.")


def _denied(detail: str) -> PilotageError:
    return PilotageError(
        "permission_denied", detail, hint="Four eyes: two people, one of them an approver."
    )
