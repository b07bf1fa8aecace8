"""What each kind of fact says. Times are microseconds UTC, money nano-USD.

A fact is checked against its form when it is added, so that pages, bundles and later programs can
rely on it. Fields are only ever added, with a default: old facts stay readable.
"""

from collections.abc import Mapping
from typing import Any, Literal

import msgspec

from pilotage.core.errors import PilotageError
from pilotage.governance.types import FactKind, Verdict


class Content(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a fact says."""


class Version(Content, frozen=True):
    """A model version that the change is about, and the hash of its artifact."""

    side: Literal["before", "after"]
    version_id: str
    version: str
    artifact_sha256: str = ""


class ApprovalVote(Content, frozen=True):
    """One word of an approval."""

    by: str
    role: str
    verdict: Verdict
    reason: str
    at_us: int


class Approved(Content, frozen=True):
    """An approval that was used for the change."""

    approval_id: str
    action: str
    requested_by: str
    requested_at_us: int
    reason: str
    subject_hash: str
    needed: int
    votes: list[ApprovalVote]
    evidence: list[str] = []


class Intervention(Content, frozen=True):
    """A person overruled what the rules would have done."""

    what: Literal["freeze_override", "forced", "rollback"]
    reason: str
    by: str
    role: str = ""
    detail: str = ""


class Schedule(Content, frozen=True):
    """The change was planned ahead and made by the calendar."""

    release_id: str
    requested_by: str
    requested_at_us: int
    planned_for_us: int


class Gate(Content, frozen=True):
    """What one gate said, and by which number."""

    name: str
    state: Literal["passed", "failed", "not_evaluated"]
    value: str = ""
    threshold: str = ""
    unit: str = ""
    evidence_id: str = ""
    detail: str = ""


class Evidence(Content, frozen=True):
    """A measurement that the decision rests on."""

    evidence_id: str
    kind: str
    subject: str = ""
    value: str = ""
    unit: str = ""
    n: int | None = None
    low: str = ""
    high: str = ""
    hash: str = ""
    source: str = ""
    at_us: int | None = None


class DataClass(Content, frozen=True):
    """How confidential what the changed traffic carries is."""

    data_class: Literal["public", "internal", "confidential", "restricted"]
    tenants: list[str] = []


class Risk(Content, frozen=True):
    """Something that could go wrong, as somebody or some check says it."""

    text: str
    source: str = ""


class Plan(Content, frozen=True):
    """How the change is put into effect."""

    way: Literal["direct", "split", "canary", "blue_green", "shadow", "ab"]
    steps: list[str] = []


class Weights(Content, frozen=True):
    """Shares of traffic, in percent by deployment, at one moment."""

    weights: dict[str, str]
    step: int | None = None
    detail: str = ""


class Look(Content, frozen=True):
    """One look at a running rollout: how many were seen, what they show, what follows."""

    metric: str
    n: int
    statistic: str
    bound: str
    verdict: str
    step: int | None = None
    detail: str = ""


class RolloutVerdict(Content, frozen=True):
    """How a rollout, or a step of it, was judged."""

    verdict: Literal["promote", "hold", "roll_back", "underpowered"]
    reason: str = ""


class AlertRule(Content, frozen=True):
    """A rule that would tell if the change does harm."""

    name: str
    condition: str
    rule_id: str = ""


class Rollback(Content, frozen=True):
    """The way back: where to, the command to type, and what it costs where prices are known."""

    to: str
    command: str
    cost_nano: int | None = None
    cost_basis: str = ""


class Cost(Content, frozen=True):
    """What something about the change costs or has cost."""

    what: Literal["rollout", "running", "evaluation"]
    cost_nano: int
    is_estimated: bool
    basis: str = ""


class Outcome(Content, frozen=True):
    """What came of the change."""

    state: Literal["succeeded", "failed", "rolled_back", "superseded"]
    detail: str = ""


class Note(Content, frozen=True):
    """What a person wants remembered."""

    text: str


FORMS: dict[FactKind, type[Content]] = {
    FactKind.VERSION: Version,
    FactKind.APPROVAL: Approved,
    FactKind.INTERVENTION: Intervention,
    FactKind.SCHEDULE: Schedule,
    FactKind.GATE: Gate,
    FactKind.EVIDENCE: Evidence,
    FactKind.DATA_CLASS: DataClass,
    FactKind.RISK: Risk,
    FactKind.PLAN: Plan,
    FactKind.WEIGHTS: Weights,
    FactKind.LOOK: Look,
    FactKind.VERDICT: RolloutVerdict,
    FactKind.ALERT_RULE: AlertRule,
    FactKind.ROLLBACK: Rollback,
    FactKind.COST: Cost,
    FactKind.OUTCOME: Outcome,
    FactKind.NOTE: Note,
}


def check_fact(kind: str, content: Mapping[str, Any] | Content) -> tuple[FactKind, dict[str, Any]]:
    """Return a fact's kind and its whole content; raise ``invalid_request`` for anything else."""
    if kind not in FORMS:
        known = ", ".join(FORMS)
        raise PilotageError(
            "invalid_request",
            f"There is no kind of fact {kind[:40]!r}.",
            hint=f"There are: {known}.",
            param="kind",
        )
    try:
        fact = msgspec.convert(msgspec.to_builtins(content), FORMS[FactKind(kind)])
    except (msgspec.ValidationError, TypeError) as wrong:
        raise PilotageError(
            "invalid_request", f"That is no fact of kind {kind!r}: {wrong}", param="content"
        ) from None
    return FactKind(kind), msgspec.to_builtins(fact)
