"""Revisions: one append-only table that is history, outbox and source of the audit log at once.

Every change of an object appends the whole new state of it in the transaction of the change, under
one global sequence. Whoever must act on changes (publisher, audit log, webhooks) follows that
sequence with a cursor of its own; "what was true at T" is the last revision at or before T.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec
import sqlalchemy as sa

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
    sqlite_autoincrement=True,
)
CURSOR = sa.Table(
    "outbox_cursor",
    METADATA,
    sa.Column("consumer", sa.Text, primary_key=True),
    sa.Column("seq", sa.BigInteger, nullable=False),
)
_ONE_ORDER = 7_310_583  # the Postgres advisory lock that makes commit order the order of seq


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

    Return its sequence number.
    """
    if tx.dialect == "postgresql":
        await tx.conn.execute(sa.text("SELECT pg_advisory_xact_lock(:key)"), {"key": _ONE_ORDER})
    result = await tx.conn.execute(
        sa.insert(REVISION).values(
            at_us=tx.now_us,
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


async def read_revisions(tx: Tx, after_seq: int, limit: int) -> Sequence[Revision]:
    """Return the next revisions behind a cursor, in order."""
    statement = (
        tx.select(REVISION).where(REVISION.c.seq > after_seq).order_by(REVISION.c.seq).limit(limit)
    )
    return [_revision(row) for row in await tx.all(statement)]


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


def _revision(row: Row | Mapping[str, Any]) -> Revision:
    return Revision(**{name: row[name] for name in Revision.__dataclass_fields__})


def _text(value: object) -> str:
    return msgspec.json.encode(value, order="sorted").decode()
