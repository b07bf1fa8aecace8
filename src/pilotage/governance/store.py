"""The tables of governance, and all SQL on them."""

from collections.abc import Sequence
from typing import Any

import msgspec
import sqlalchemy as sa

from pilotage.governance.types import (
    Approval,
    ApprovalState,
    Decision,
    DecisionKind,
    Fact,
    FactKind,
    Freeze,
    Override,
    ReleaseState,
    Repeat,
    ScheduledRelease,
    Vote,
)
from pilotage.kit.db import METADATA, Row, Tx
from pilotage.kit.outbox import REVISION


def _text(name: str) -> sa.Column[str]:
    return sa.Column(name, sa.Text, nullable=False)


def _time(name: str, *, is_needed: bool = True) -> sa.Column[int]:
    return sa.Column(name, sa.BigInteger, nullable=not is_needed)


def _project() -> sa.Column[str]:
    return sa.Column("project_id", sa.Text, sa.ForeignKey("project.id"), nullable=False)


APPROVAL = sa.Table(
    "approval",
    METADATA,
    sa.Column("id", sa.Text, primary_key=True),
    sa.Column("rev", sa.Integer, nullable=False),
    _project(),
    *map(_text, ("action", "subject_id", "subject", "subject_hash", "authors", "reason")),
    _text("evidence"),
    sa.Column("needed", sa.Integer, nullable=False),
    *map(_text, ("role", "requested_by")),
    *map(_time, ("requested_at_us", "expires_at_us")),
    *map(_text, ("state", "votes")),
    _time("used_at_us", is_needed=False),
    sa.Column("used_seq", sa.BigInteger, index=True),
    _text("decision_id"),
    sa.Index("ix_approval_subject", "project_id", "action", "subject_id", "id"),
    sa.Index("ix_approval_state", "project_id", "state", "id"),
)
FREEZE = sa.Table(
    "freeze",
    METADATA,
    sa.Column("id", sa.Text, primary_key=True),
    sa.Column("rev", sa.Integer, nullable=False),
    _project(),
    *map(_text, ("name", "reason")),
    *map(_time, ("starts_at_us", "ends_at_us")),
    *map(_text, ("names", "repeat")),
    _time("until_us", is_needed=False),
    *map(_text, ("time_zone", "override_role", "created_by")),
    _time("created_at_us"),
    _time("lifted_at_us", is_needed=False),
    sa.UniqueConstraint("project_id", "name"),
)
OVERRIDE = sa.Table(
    "freeze_override",
    METADATA,
    sa.Column("id", sa.Text, primary_key=True),
    _project(),
    sa.Column("freeze_id", sa.Text, sa.ForeignKey("freeze.id"), nullable=False),
    *map(_text, ("subject", "by", "role", "reason")),
    *map(_time, ("at_us", "expires_at_us")),
    _time("used_at_us", is_needed=False),
    sa.Column("used_seq", sa.BigInteger, index=True),
    _text("decision_id"),
    sa.Index("ix_freeze_override_by", "freeze_id", "by", "subject"),
)
RELEASE = sa.Table(
    "scheduled_release",
    METADATA,
    sa.Column("id", sa.Text, primary_key=True),
    sa.Column("rev", sa.Integer, nullable=False),
    _project(),
    *map(_text, ("action", "subject_id", "subject", "arguments")),
    _time("at_us"),
    _text("requested_by"),
    _time("requested_at_us"),
    *map(_text, ("reason", "state")),
    _time("ended_at_us", is_needed=False),
    *map(_text, ("outcome", "decision_id")),
    sa.Index("ix_scheduled_release_due", "state", "at_us"),
    sa.Index("ix_scheduled_release_project", "project_id", "id"),
)
DECISION = sa.Table(
    "decision",
    METADATA,
    sa.Column("id", sa.Text, primary_key=True),
    sa.Column("rev", sa.Integer, nullable=False),
    sa.Column("seq", sa.BigInteger, nullable=False, unique=True),
    _project(),
    *map(_text, ("kind", "subject_id", "subject", "before", "after", "evidence", "revisions")),
    *map(_text, ("reason", "by")),
    _time("at_us"),
    sa.Index("ix_decision_project", "project_id", "seq"),
    sa.Index("ix_decision_subject", "subject_id", "seq"),
)
FACT = sa.Table(
    "decision_fact",
    METADATA,
    sa.Column("decision_id", sa.Text, sa.ForeignKey("decision.id"), primary_key=True),
    sa.Column("number", sa.Integer, primary_key=True),
    sa.Column("seq", sa.BigInteger, nullable=False, unique=True),
    _project(),
    *map(_text, ("kind", "content", "by")),
    _time("at_us"),
    sa.Index("ix_decision_fact_kind", "project_id", "kind", "seq"),
)
_OPEN = (ApprovalState.PENDING, ApprovalState.APPROVED)
_IN_JSON: dict[str, Any] = {
    "arguments": dict[str, Any],
    "content": dict[str, Any],
    "before": Any,
    "after": Any,
    "revisions": tuple[int, ...],
    "evidence": tuple[str, ...],
    "authors": tuple[str, ...],
    "names": tuple[str, ...],
    "votes": tuple[Vote, ...],
}


# approvals


async def insert_approval(tx: Tx, approval: Approval) -> None:
    """Add a request."""
    await tx.insert(APPROVAL, **_values(approval))


async def find_approval(tx: Tx, approval_id: str) -> Approval | None:
    """Return a request by id."""
    row = await tx.find(tx.select(APPROVAL).where(APPROVAL.c.id == approval_id))
    return _approval(row) if row else None


async def list_approvals(
    tx: Tx, after: str, limit: int, *, state: ApprovalState | None = None, subject: str = ""
) -> Sequence[Approval]:
    """Return requests by id (which is by age); ``subject`` is its name or its id."""
    column = APPROVAL.c
    statement = tx.select(APPROVAL).where(column.id > after)
    if state is ApprovalState.EXPIRED:
        statement = statement.where(column.state.in_(_OPEN), column.expires_at_us <= tx.now_us)
    elif state is not None:
        statement = statement.where(column.state == state)
        if state in _OPEN:
            statement = statement.where(column.expires_at_us > tx.now_us)
    if subject:
        statement = statement.where((column.subject_id == subject) | (column.subject == subject))
    return [_approval(row) for row in await tx.all(statement.order_by(column.id).limit(limit))]


async def list_approvals_of(tx: Tx, action: str, subject_id: str, limit: int) -> Sequence[Approval]:
    """Return the newest requests of one action on one subject, the newest first."""
    asked = tx.select(APPROVAL).where(
        APPROVAL.c.action == action, APPROVAL.c.subject_id == subject_id
    )
    rows = await tx.all(asked.order_by(APPROVAL.c.id.desc()).limit(limit))
    return [_approval(row) for row in rows]


async def list_approvals_used_in(tx: Tx, seqs: Sequence[int]) -> Sequence[Approval]:
    """Return the approvals that were used in some revisions and belong to no decision yet."""
    used = tx.select(APPROVAL).where(APPROVAL.c.used_seq.in_(seqs), APPROVAL.c.decision_id == "")
    return [_approval(row) for row in await tx.all(used.order_by(APPROVAL.c.id))]


async def get_approvals(tx: Tx, ids: Sequence[str]) -> dict[str, Approval]:
    """Return requests by their ids."""
    rows = await tx.all(tx.select(APPROVAL).where(APPROVAL.c.id.in_(ids)))
    return {row["id"]: _approval(row) for row in rows}


async def change_approval(tx: Tx, approval: Approval, **values: object) -> bool:
    """Change a request; False if it has changed meanwhile."""
    return await _change(tx, APPROVAL, approval.id, approval.rev, values)


# calendar


async def insert_freeze(tx: Tx, freeze: Freeze) -> None:
    """Add a freeze."""
    await tx.insert(FREEZE, **_values(freeze))


async def find_freeze(tx: Tx, name_or_id: str) -> Freeze | None:
    """Return a freeze by name or id, lifted ones too."""
    named = (FREEZE.c.name == name_or_id) | (FREEZE.c.id == name_or_id)
    row = await tx.find(tx.select(FREEZE).where(named))
    return _freeze(row) if row else None


async def list_freezes(tx: Tx, after: str, limit: int) -> Sequence[Freeze]:
    """Return freezes that were not lifted, by name."""
    living = tx.select(FREEZE).where(FREEZE.c.lifted_at_us.is_(None), FREEZE.c.name > after)
    return [_freeze(row) for row in await tx.all(living.order_by(FREEZE.c.name).limit(limit))]


async def change_freeze(tx: Tx, freeze: Freeze, **values: object) -> bool:
    """Change a freeze; False if it has changed meanwhile."""
    return await _change(tx, FREEZE, freeze.id, freeze.rev, values)


async def insert_override(tx: Tx, override: Override) -> None:
    """Add an override."""
    await tx.insert(OVERRIDE, **_values(override))


async def find_override(tx: Tx, freeze_id: str, by: str, subject: str) -> Override | None:
    """Return somebody's newest unused override of a freeze for a subject."""
    unused = tx.select(OVERRIDE).where(
        OVERRIDE.c.freeze_id == freeze_id,
        OVERRIDE.c.by == by,
        OVERRIDE.c.subject == subject,
        OVERRIDE.c.used_at_us.is_(None),
    )
    row = await tx.find(unused.order_by(OVERRIDE.c.id.desc()).limit(1))
    return Override(**row) if row else None


async def list_overrides_used_in(tx: Tx, seqs: Sequence[int]) -> Sequence[Override]:
    """Return the overrides that were used in some revisions and belong to no decision yet."""
    used = tx.select(OVERRIDE).where(OVERRIDE.c.used_seq.in_(seqs), OVERRIDE.c.decision_id == "")
    return [Override(**row) for row in await tx.all(used.order_by(OVERRIDE.c.id))]


async def mark_override_used(tx: Tx, override: Override, seq: int) -> bool:
    """Use an override in a revision; False if it was used meanwhile."""
    guarded = tx.update(OVERRIDE).where(
        OVERRIDE.c.id == override.id, OVERRIDE.c.used_at_us.is_(None)
    )
    return await tx.change(guarded.values(used_at_us=tx.now_us, used_seq=seq)) == 1


async def link_override(tx: Tx, override: Override, decision_id: str) -> None:
    """Say which decision used an override."""
    mine = tx.update(OVERRIDE).where(OVERRIDE.c.id == override.id)
    await tx.change(mine.values(decision_id=decision_id))


async def insert_release(tx: Tx, release: ScheduledRelease) -> None:
    """Add a scheduled release."""
    await tx.insert(RELEASE, **_values(release))


async def find_release(tx: Tx, release_id: str) -> ScheduledRelease | None:
    """Return a scheduled release by id."""
    row = await tx.find(tx.select(RELEASE).where(RELEASE.c.id == release_id))
    return _release(row) if row else None


async def list_releases(
    tx: Tx, after: str, limit: int, state: ReleaseState | None = None
) -> Sequence[ScheduledRelease]:
    """Return scheduled releases by id, which is by when they were asked for."""
    statement = tx.select(RELEASE).where(RELEASE.c.id > after)
    if state is not None:
        statement = statement.where(RELEASE.c.state == state)
    return [_release(row) for row in await tx.all(statement.order_by(RELEASE.c.id).limit(limit))]


async def list_due_releases(tx: Tx, now_us: int, limit: int) -> Sequence[ScheduledRelease]:
    """Return the planned releases whose time has come, the earliest first."""
    due = tx.select(RELEASE).where(
        RELEASE.c.state == ReleaseState.PLANNED, RELEASE.c.at_us <= now_us
    )
    rows = await tx.all(due.order_by(RELEASE.c.at_us, RELEASE.c.id).limit(limit))
    return [_release(row) for row in rows]


async def change_release(tx: Tx, release: ScheduledRelease, **values: object) -> bool:
    """Change a scheduled release; False if it has changed meanwhile."""
    return await _change(tx, RELEASE, release.id, release.rev, values)


# decisions


async def insert_decision(tx: Tx, decision: Decision) -> None:
    """Add a decision record."""
    await tx.insert(DECISION, **_values(decision))


async def find_decision(tx: Tx, decision_id: str) -> Decision | None:
    """Return a decision record by id."""
    row = await tx.find(tx.select(DECISION).where(DECISION.c.id == decision_id))
    return _decision(row) if row else None


async def list_decisions(  # noqa: PLR0913 - every part narrows the list
    tx: Tx,
    after: int,
    limit: int,
    *,
    kinds: Sequence[str] = (),
    subject: str = "",
    by: str = "",
    since_us: int | None = None,
    until_us: int | None = None,
    is_newest: bool = False,
) -> Sequence[Decision]:
    """Return decisions behind a revision in the order in which they were made.

    ``is_newest`` asks for the last of them instead of the first. ``subject`` is a name or an id.
    """
    column = DECISION.c
    statement = tx.select(DECISION).where(column.seq > after)
    if kinds:
        statement = statement.where(column.kind.in_(kinds))
    if subject:
        statement = statement.where((column.subject_id == subject) | (column.subject == subject))
    if by:
        statement = statement.where(column.by == by)
    if since_us is not None:
        statement = statement.where(column.at_us >= since_us)
    if until_us is not None:
        statement = statement.where(column.at_us < until_us)
    order = column.seq.desc() if is_newest else column.seq
    rows = await tx.all(statement.order_by(order).limit(limit))
    return [_decision(row) for row in (reversed(rows) if is_newest else rows)]


async def list_decisions_of(tx: Tx, seqs: Sequence[int]) -> Sequence[Decision]:
    """Return the decisions that some revisions recorded, in order."""
    theirs = tx.select(DECISION).where(DECISION.c.seq.in_(seqs))
    return [_decision(row) for row in await tx.all(theirs.order_by(DECISION.c.seq))]


async def count_up(tx: Tx, decision_id: str) -> int | None:
    """Add one to a decision's ``rev`` and return it; None if there is no such decision.

    Whoever adds a fact at the same time waits for this transaction: facts never collide.
    """
    mine = tx.update(DECISION).where(DECISION.c.id == decision_id)
    if not await tx.change(mine.values(rev=DECISION.c.rev + 1)):
        return None
    row = await tx.find(tx.select(DECISION, DECISION.c.rev).where(DECISION.c.id == decision_id))
    return int(row["rev"]) if row else None


async def insert_fact(tx: Tx, fact: Fact) -> None:
    """Append a fact."""
    await tx.insert(FACT, **_values(fact))


async def list_facts(tx: Tx, decision_id: str) -> Sequence[Fact]:
    """Return the facts of a decision in order."""
    mine = tx.select(FACT).where(FACT.c.decision_id == decision_id)
    return [_fact(row) for row in await tx.all(mine.order_by(FACT.c.number))]


async def list_facts_of_kind(tx: Tx, kind: FactKind, after: int, limit: int) -> Sequence[Fact]:
    """Return the facts of one kind behind a revision, in the order in which they were added."""
    wanted = tx.select(FACT).where(FACT.c.kind == kind, FACT.c.seq > after)
    return [_fact(row) for row in await tx.all(wanted.order_by(FACT.c.seq).limit(limit))]


async def list_revisions_of(tx: Tx, object_ids: Sequence[str]) -> Sequence[int]:
    """Return the numbers of every revision of some objects, in order."""
    theirs = tx.select(REVISION, REVISION.c.seq).where(REVISION.c.object_id.in_(object_ids))
    return [int(row["seq"]) for row in await tx.all(theirs.order_by(REVISION.c.seq))]


async def _change(
    tx: Tx, table: sa.Table, object_id: str, rev: int, values: dict[str, object]
) -> bool:
    guarded = tx.update(table).where(table.c.id == object_id, table.c.rev == rev)
    return await tx.change(guarded.values(rev=rev + 1, **_encode(values))) == 1


def _approval(row: Row) -> Approval:
    return Approval(**_decode(row) | {"state": ApprovalState(row["state"])})


def _freeze(row: Row) -> Freeze:
    return Freeze(**_decode(row) | {"repeat": Repeat(row["repeat"])})


def _release(row: Row) -> ScheduledRelease:
    return ScheduledRelease(**_decode(row) | {"state": ReleaseState(row["state"])})


def _decision(row: Row) -> Decision:
    return Decision(**_decode(row) | {"kind": DecisionKind(row["kind"])})


def _fact(row: Row) -> Fact:
    return Fact(**_decode(row) | {"kind": FactKind(row["kind"])})


def _values(item: Any) -> dict[str, object]:  # noqa: ANN401 - any dataclass of the slice
    return _encode({name: getattr(item, name) for name in item.__dataclass_fields__})


def _encode(values: dict[str, object]) -> dict[str, object]:
    return {
        name: msgspec.json.encode(value, order="sorted").decode() if name in _IN_JSON else value
        for name, value in values.items()
    }


def _decode(row: Row) -> dict[str, Any]:
    return {
        name: msgspec.json.decode(value, type=_IN_JSON[name]) if name in _IN_JSON else value
        for name, value in row.items()
    }
