"""Revisions: one append-only table that is history, outbox and source of the audit log at once.

Every change of an object appends the whole new state of it in the transaction of the change, under
one global sequence. Whoever must act on changes (publisher, audit log, webhooks) follows that
sequence with a cursor of its own; "what was true at T" is the last revision at or before T. So time
never runs backwards along the sequence: a clock that is a little behind is lifted to the last
change, one that was set back further changes nothing.
"""

import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import msgspec
import sqlalchemy as sa

from pilotage.core.errors import PilotageError
from pilotage.kit.clock import rfc3339
from pilotage.kit.db import METADATA, Row, Tx

REVISION = sa.Table(
    "revision",
    METADATA,
    sa.Column(
        "seq",
        sa.BigInteger().with_variant(sa.Integer, "sqlite"),
        primary_key=True,
        autoincrement=True,
    ),
    sa.Column("at_us", sa.BigInteger, nullable=False),
    sa.Column("project_id", sa.Text),
    sa.Column("event", sa.Text, nullable=False),
    sa.Column("object_id", sa.Text, nullable=False),
    sa.Column("rev", sa.Integer, nullable=False),
    sa.Column("actor", sa.Text, nullable=False),
    sa.Column("reason", sa.Text, nullable=False),
    sa.Column("before", sa.Text),
    sa.Column("after", sa.Text, nullable=False),
    sa.UniqueConstraint("object_id", "rev"),
    sa.Index("ix_revision_past", "project_id", "event", "at_us", "object_id", "seq"),
    sqlite_autoincrement=True,
)
CURSOR = sa.Table(
    "outbox_cursor",
    METADATA,
    sa.Column("consumer", sa.Text, primary_key=True),
    sa.Column("seq", sa.BigInteger, nullable=False),
)
MOST_BEHIND_US = 2_000_000  # clocks of servers that share a database differ, and are corrected
LONGEST_LEAP_US = 24 * 3_600_000_000
_AT_ONCE = 500
Item = TypeVar("Item")
_LOG = logging.getLogger("pilotage.outbox")
_ONE_ORDER = 7_310_583  # the lock that makes commit order the order of seq


@dataclass(frozen=True, slots=True, kw_only=True)
class Revision:
    """One change: event, object, its revision number, who, why, and the state before and after."""

    seq: int
    at_us: int
    project_id: str | None
    event: str
    object_id: str
    rev: int
    actor: str
    reason: str
    before: str | None
    after: str


async def append_revision(
    tx: Tx,
    event: str,
    object_id: str,
    rev: int,
    after: object,
    before: object = None,
) -> int:
    """Record a change (``after`` and ``before`` are anything msgspec encodes).

    Return its sequence number. All changes of a transaction have one time, which is not before that
    of the change before it; raise ``clock_set_back`` where only an untrue time would do that.
    """
    if not tx.stamps:
        tx.stamps.append(await _find_time(tx))
    result = await tx.conn.execute(
        sa.insert(REVISION).values(
            at_us=tx.stamps[0],
            project_id=tx.actor.project_id,
            event=event,
            object_id=object_id,
            rev=rev,
            actor=tx.actor.principal_id,
            reason=tx.actor.reason,
            before=None if before is None else _text(before),
            after=_text(after),
        )
    )
    key = result.inserted_primary_key
    seq = int(key[0]) if key else 0
    tx.written.append(seq)
    return seq


async def hold_revisions(tx: Tx) -> None:
    """Let nobody else append a revision before this writing transaction ends."""
    await tx.lock(_ONE_ORDER)


async def read_revisions(tx: Tx, after_seq: int, limit: int) -> Sequence[Revision]:
    """Return the next revisions behind a cursor, in order."""
    statement = (
        tx.select(REVISION).where(REVISION.c.seq > after_seq).order_by(REVISION.c.seq).limit(limit)
    )
    return [_revision(row) for row in await tx.all(statement)]


async def list_last(tx: Tx, events: Sequence[str], until_us: int) -> Sequence[Revision]:
    """Return the last revision of each event of each object at or before a time, in order."""
    last = (
        tx.select(REVISION, sa.func.max(REVISION.c.seq))
        .where(REVISION.c.event.in_(events), REVISION.c.at_us <= until_us)
        .group_by(REVISION.c.event, REVISION.c.object_id)
    )
    statement = tx.select(REVISION).where(REVISION.c.seq.in_(last.scalar_subquery()))
    return [_revision(row) for row in await tx.all(statement.order_by(REVISION.c.seq))]


async def list_made_at(tx: Tx, event: str, times: Iterable[int]) -> Sequence[Revision]:
    """Return the revisions of an event that were made at some exact times, in order."""
    found: list[Revision] = []
    for some in _in_chunks(sorted(set(times))):
        statement = tx.select(REVISION).where(REVISION.c.event == event, REVISION.c.at_us.in_(some))
        rows = await tx.all(statement.order_by(REVISION.c.seq))
        found += [_revision(row) for row in rows]
    return found


async def list_first(tx: Tx, object_ids: Iterable[str]) -> Sequence[Revision]:
    """Return the revisions by which some objects began."""
    found: list[Revision] = []
    for some in _in_chunks(sorted(set(object_ids))):
        statement = tx.select(REVISION).where(REVISION.c.object_id.in_(some), REVISION.c.rev == 1)
        found += [_revision(row) for row in await tx.all(statement)]
    return found


async def has_revision(tx: Tx, object_id: str, rev: int) -> bool:
    """Say whether an object has had a revision."""
    one = tx.select(REVISION, REVISION.c.seq).where(
        REVISION.c.object_id == object_id, REVISION.c.rev == rev
    )
    return await tx.find(one) is not None


async def get_last_seq(tx: Tx) -> int:
    """Return the newest sequence number, 0 before the first change."""
    row = await tx.find(tx.select(REVISION, sa.func.max(REVISION.c.seq).label("last")))
    return int(row["last"] or 0) if row else 0


async def get_cursor(tx: Tx, consumer: str) -> int:
    """Return how far a consumer has come."""
    row = await tx.find(tx.select(CURSOR).where(CURSOR.c.consumer == consumer))
    return int(row["seq"]) if row else 0


async def advance_cursor(tx: Tx, consumer: str, old_seq: int, new_seq: int) -> bool:
    """Move a consumer's cursor in its own transaction; False if somebody else moved it first."""
    if (
        old_seq == 0
        and await tx.find(tx.select(CURSOR).where(CURSOR.c.consumer == consumer)) is None
    ):
        await tx.insert(CURSOR, consumer=consumer, seq=new_seq)
        return True
    guarded = tx.update(CURSOR).where(CURSOR.c.consumer == consumer, CURSOR.c.seq == old_seq)
    return await tx.change(guarded.values(seq=new_seq)) == 1


def _in_chunks(items: Sequence[Item]) -> Iterator[Sequence[Item]]:
    """Yield some at a time: databases bound how many values a statement has."""
    for start in range(0, len(items), _AT_ONCE):
        yield items[start : start + _AT_ONCE]


async def _find_time(tx: Tx) -> int:
    """Return the time of a transaction's changes, which are the next in order from here on."""
    await hold_revisions(tx)
    newest = sa.select(REVISION.c.at_us).order_by(REVISION.c.seq.desc()).limit(1)
    found = await tx.conn.scalar(newest)
    if found is None:
        return tx.now_us
    last_us = int(found)
    now_us = tx.read_clock() if tx.read_clock else tx.now_us  # it may have waited for its turn
    if now_us < last_us - MOST_BEHIND_US:
        raise PilotageError(
            "clock_set_back",
            f"It is {rfc3339(now_us)} by this machine's clock, but the last change was made at "
            f"{rfc3339(last_us)}.",
            hint="Set the clock right: nothing is changed in an order that would not be true.",
        )
    if tx.now_us > last_us + LONGEST_LEAP_US:
        _LOG.info("the last change was made at %s, a day ago or more", rfc3339(last_us))
    return max(tx.now_us, last_us)


def _revision(row: Row | Mapping[str, Any]) -> Revision:
    return Revision(**{name: row[name] for name in Revision.__dataclass_fields__})


def _text(value: object) -> str:
    return msgspec.json.encode(value, order="sorted").decode()
