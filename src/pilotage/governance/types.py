"""What governance is: approvals, freezes, scheduled releases, decision records and their facts."""

from dataclasses import dataclass
from enum import StrEnum
from typing import Any

# approvals


class ApprovalState(StrEnum):
    """Where a request for approval stands; ``expired`` is what time makes of the first two."""

    PENDING = "pending"
    APPROVED = "approved"
    REJECTED = "rejected"
    WITHDRAWN = "withdrawn"
    REVOKED = "revoked"
    USED = "used"
    EXPIRED = "expired"


class Verdict(StrEnum):
    """What somebody says of a request."""

    APPROVE = "approve"
    REJECT = "reject"
    WITHDRAW = "withdraw"
    REVOKE = "revoke"


@dataclass(frozen=True, slots=True, kw_only=True)
class Vote:
    """One person's word on a request: who, in which role, what, why and when."""

    by: str
    role: str
    verdict: Verdict
    reason: str
    at_us: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Subject:
    """What an approval is about, as it is now.

    ``state`` is everything that must not change between asking and doing, as JSON; ``authors`` are
    the principals who made it and may therefore not approve it.
    """

    id: str
    name: str
    state: Any
    authors: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True, kw_only=True)
class ApprovalAsk:
    """A request as somebody makes it; ``subject`` is a name or an id."""

    action: str
    subject: str
    reason: str
    evidence: tuple[str, ...] = ()
    needed: int = 1
    role: str = "approver"
    ttl_us: int = 7 * 86_400_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Approval:
    """A request to do one thing once, and what was said of it.

    ``action`` is a permission with its target (``registry.version.promote:production``);
    ``subject_hash`` the SHA-256 of the subject's state when it was asked; ``authors`` the
    principals who made the subject. ``used_seq`` is the revision in which it was used.
    """

    id: str
    rev: int
    project_id: str
    action: str
    subject_id: str
    subject: str
    subject_hash: str
    authors: tuple[str, ...]
    reason: str
    evidence: tuple[str, ...]
    needed: int
    role: str
    requested_by: str
    requested_at_us: int
    expires_at_us: int
    state: ApprovalState
    votes: tuple[Vote, ...]
    used_at_us: int | None = None
    used_seq: int | None = None
    decision_id: str = ""

    @property
    def given(self) -> int:
        """How many have approved it."""
        return sum(vote.verdict is Verdict.APPROVE for vote in self.votes)


# calendar


class Repeat(StrEnum):
    """How a freeze comes again."""

    NEVER = "never"
    WEEKLY = "weekly"


@dataclass(frozen=True, slots=True, kw_only=True)
class FreezeSpec:
    """A time in which nothing may change.

    ``names`` are the endpoints and models it holds for; empty: the whole project. A weekly freeze
    comes again at the same local time of ``time_zone`` until ``until_us``. Whoever holds
    ``override_role`` may go through it with a reason; nobody, if it is empty.
    """

    reason: str
    starts_at_us: int
    ends_at_us: int
    names: tuple[str, ...] = ()
    repeat: Repeat = Repeat.NEVER
    until_us: int | None = None
    time_zone: str = "UTC"
    override_role: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Freeze(FreezeSpec):
    """A freeze of a project; lifting it leaves a tombstone."""

    id: str
    rev: int
    project_id: str
    name: str
    created_by: str
    created_at_us: int
    lifted_at_us: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Window:
    """One occurrence of a freeze."""

    freeze: Freeze
    starts_at_us: int
    ends_at_us: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Override:
    """Leave that somebody took to change one subject during a freeze, once and soon."""

    id: str
    project_id: str
    freeze_id: str
    subject: str
    by: str
    role: str
    reason: str
    at_us: int
    expires_at_us: int
    used_at_us: int | None = None
    used_seq: int | None = None
    decision_id: str = ""


class ReleaseState(StrEnum):
    """Where a scheduled release stands."""

    PLANNED = "planned"
    DONE = "done"
    REFUSED = "refused"
    MISSED = "missed"
    CANCELLED = "cancelled"


@dataclass(frozen=True, slots=True, kw_only=True)
class ScheduledRelease:
    """A change that will be made at a time, in the name and with the rights of ``requested_by``.

    ``action`` names what does it, ``arguments`` what that is told. ``outcome`` says what came of
    it; ``decision_id`` is the record of what it changed.
    """

    id: str
    rev: int
    project_id: str
    action: str
    subject_id: str
    subject: str
    arguments: dict[str, Any]
    at_us: int
    requested_by: str
    requested_at_us: int
    reason: str
    state: ReleaseState
    ended_at_us: int | None = None
    outcome: str = ""
    decision_id: str = ""


# decision records


class DecisionKind(StrEnum):
    """What a decision changed: a stage, traffic, what a prompt's label says, a freeze that held.

    A rollout is one decision, however many changes of traffic it makes.
    """

    PROMOTE = "promote"
    DEMOTE = "demote"
    ARCHIVE = "archive"
    DEPLOY = "deploy"
    UNDEPLOY = "undeploy"
    SPLIT = "split"
    ROUTE = "route"
    ROLLOUT = "rollout"
    UPSTREAM = "upstream"
    ROLLBACK = "rollback"
    DELETE = "delete"
    PROMPT = "prompt"
    LIFT = "lift"


class FactKind(StrEnum):
    """What can be known of a decision; each has its content in ``governance.facts``."""

    VERSION = "version"
    APPROVAL = "approval"
    INTERVENTION = "intervention"
    SCHEDULE = "schedule"
    GATE = "gate"
    EVIDENCE = "evidence"
    DATA_CLASS = "data_class"
    RISK = "risk"
    PLAN = "plan"
    WEIGHTS = "weights"
    LOOK = "look"
    VERDICT = "verdict"
    ALERT_RULE = "alert_rule"
    ROLLBACK = "rollback"
    COST = "cost"
    OUTCOME = "outcome"
    NOTE = "note"


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """The record of one change of traffic or of a stage.

    ``before`` and ``after`` are JSON; ``evidence`` the hashes or ids it rests on. ``seq`` is its
    own revision, ``revisions`` those of the change itself. ``rev`` is 1 and one more for each fact.
    """

    id: str
    rev: int
    seq: int
    project_id: str
    kind: DecisionKind
    subject_id: str
    subject: str
    before: Any
    after: Any
    evidence: tuple[str, ...]
    revisions: tuple[int, ...]
    reason: str
    by: str
    at_us: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Fact:
    """Something that became known of a decision; never changed, numbered from 1.

    ``seq`` is the revision that holds it.
    """

    decision_id: str
    number: int
    seq: int
    project_id: str
    kind: FactKind
    content: dict[str, Any]
    by: str
    at_us: int
