"""The table of the audit log, and all SQL on it."""

from collections.abc import Sequence

import sqlalchemy as sa

from pilotage.audit.types import AuditEntry
from pilotage.kit.db import METADATA, Row, Tx
from pilotage.kit.outbox import CURSOR

AUDIT_ENTRY = sa.Table(
    "audit_entry",
    METADATA,
    sa.Column("position", sa.BigInteger, primary_key=True, autoincrement=False),
    sa.Column("revision_seq", sa.BigInteger, nullable=False, unique=True),
    sa.Column("at_us", sa.BigInteger, nullable=False),
    sa.Column("project_id", sa.Text),
    sa.Column("event", sa.Text, nullable=False),
    sa.Column("object_id", sa.Text, nullable=False, index=True),
    sa.Column("rev", sa.Integer, nullable=False),
    sa.Column("actor", sa.Text, nullable=False, index=True),
    sa.Column("reason", sa.Text, nullable=False),
    sa.Column("before", sa.Text),
    sa.Column("after", sa.Text, nullable=False),
    sa.Column("previous_hash", sa.Text, nullable=False),
    sa.Column("hash", sa.Text, nullable=False),
)


async def insert_entries(tx: Tx, entries: Sequence[AuditEntry]) -> None:
    """Append entries."""
    await tx.insert_many(
        AUDIT_ENTRY,
        [
            {name: getattr(entry, name) for name in AuditEntry.__dataclass_fields__}
            for entry in entries
        ],
    )


async def find_last(tx: Tx) -> AuditEntry | None:
    """Return the newest entry."""
    row = await tx.find(tx.select(AUDIT_ENTRY).order_by(AUDIT_ENTRY.c.position.desc()).limit(1))
    return _entry(row) if row else None


async def find_extent(tx: Tx, consumer: str) -> tuple[int, int]:
    """Return the highest position and the log's place in the revisions, both of one moment."""
    place = tx.select(CURSOR, CURSOR.c.seq).where(CURSOR.c.consumer == consumer)
    row = await tx.find(
        tx.select(
            AUDIT_ENTRY,
            sa.func.max(AUDIT_ENTRY.c.position).label("position"),
            place.scalar_subquery().label("seq"),
        )
    )
    return (int(row["position"] or 0), int(row["seq"] or 0)) if row else (0, 0)


async def list_entries(
    tx: Tx,
    after: int,
    limit: int,
    event_prefix: str = "",
    object_id: str | None = None,
    actor: str | None = None,
    *,
    is_newest: bool = False,
) -> Sequence[AuditEntry]:
    """Return the first entries behind a position, or the newest of them, in order."""
    statement = tx.select(AUDIT_ENTRY).where(AUDIT_ENTRY.c.position > after)
    if event_prefix:
        statement = statement.where(AUDIT_ENTRY.c.event.startswith(event_prefix, autoescape=True))
    if object_id is not None:
        statement = statement.where(AUDIT_ENTRY.c.object_id == object_id)
    if actor is not None:
        statement = statement.where(AUDIT_ENTRY.c.actor == actor)
    place = AUDIT_ENTRY.c.position
    rows = await tx.all(statement.order_by(place.desc() if is_newest else place).limit(limit))
    return [_entry(row) for row in (reversed(rows) if is_newest else rows)]


def _entry(row: Row) -> AuditEntry:
    return AuditEntry(**row)
