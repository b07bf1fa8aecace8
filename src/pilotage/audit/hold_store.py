"""The table of legal holds, and all SQL on it."""

from collections.abc import Sequence

import sqlalchemy as sa

from pilotage.audit.types import Hold
from pilotage.kit.db import METADATA, Tx

AUDIT_HOLD = sa.Table(
    "audit_hold",
    METADATA,
    sa.Column("id", sa.Text, primary_key=True),
    sa.Column("rev", sa.Integer, nullable=False),
    sa.Column("name", sa.Text, nullable=False, unique=True),
    sa.Column("reason", sa.Text, nullable=False),
    sa.Column("created_at_us", sa.BigInteger, nullable=False),
    sa.Column("created_by", sa.Text, nullable=False),
    sa.Column("released_at_us", sa.BigInteger),
    sa.Column("released_by", sa.Text, nullable=False),
)


async def insert_hold(tx: Tx, hold: Hold) -> None:
    """Add a hold."""
    values = {name: getattr(hold, name) for name in hold.__dataclass_fields__}
    await tx.insert(AUDIT_HOLD, **values)


async def find_hold(tx: Tx, name_or_id: str) -> Hold | None:
    """Return a hold by name or id."""
    columns = AUDIT_HOLD.c
    matches = (columns.name == name_or_id) | (columns.id == name_or_id)
    row = await tx.find(tx.select(AUDIT_HOLD).where(matches))
    return Hold(**row) if row else None


async def list_holds(tx: Tx, after: str, limit: int) -> Sequence[Hold]:
    """Return holds by name."""
    statement = tx.select(AUDIT_HOLD).where(AUDIT_HOLD.c.name > after)
    rows = await tx.all(statement.order_by(AUDIT_HOLD.c.name).limit(limit))
    return [Hold(**row) for row in rows]


async def find_in_force(tx: Tx) -> Hold | None:
    """Return the oldest hold that is not released."""
    statement = tx.select(AUDIT_HOLD).where(AUDIT_HOLD.c.released_at_us.is_(None))
    row = await tx.find(statement.order_by(AUDIT_HOLD.c.id).limit(1))
    return Hold(**row) if row else None


async def mark_released(tx: Tx, hold: Hold) -> bool:
    """Release a hold; False if it has changed meanwhile."""
    guarded = tx.update(AUDIT_HOLD).where(
        AUDIT_HOLD.c.id == hold.id,
        AUDIT_HOLD.c.rev == hold.rev,
        AUDIT_HOLD.c.released_at_us.is_(None),
    )
    changed = guarded.values(
        rev=hold.rev + 1, released_at_us=tx.now_us, released_by=tx.actor.principal_id
    )
    return await tx.change(changed) == 1
